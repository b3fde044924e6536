"""Arbitrary bytes on the port: never stop the server, never grow its memory, never disturb a client that behaves.

In: seeded random streams, mutations of real sessions, lengths claimed and not sent. The seed is printed on failure.
A witness publishes and consumes with confirms all the while; its slowest round trip is bounded.
"""

import os
import random
import socket
import struct
import threading
import time

import pytest

import wire as w
from conftest import until
from wire import Gone, Wire

SEED = int(os.environ.get("WAYSTATION_SEED", random.SystemRandom().randrange(1 << 32)))


class Witness(threading.Thread):
    """Publishes one message after the other and waits for its confirm and its delivery."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.wire, self.error, self.rounds, self.slowest = server.wire(), None, 0, 0.0
        self.stopping = threading.Event()
        self.queue = self.wire.declare("", exclusive=True)[0]
        self.wire.send(w.method(1, "confirm.select", b"\0") + w.consume(1, self.queue))
        self.wire.expect(1, "basic.consume-ok")

    def run(self):
        try:
            while not self.stopping.is_set():
                begun = time.monotonic()
                self.wire.send(w.content(1, "", self.queue, b"steady"))
                seen = set()
                while seen != {"basic.ack", "basic.deliver"}:
                    _, name, fields = self.wire.read_method()
                    assert name in ("basic.ack", "basic.deliver") and name not in seen, name
                    seen.add(name)
                    if name == "basic.deliver":
                        fields.short()
                        self.wire.send(w.ack(1, fields.u64()))
                self.slowest = max(self.slowest, time.monotonic() - begun)
                self.rounds += 1
                time.sleep(0.001)
        except Exception as error:  # The test reports it.
            self.error = error

    def verdict(self):
        until(lambda: self.rounds > 20 or self.error, timeout=15, what="the witness's own work")
        self.stopping.set()
        self.join(15)
        self.wire.close()
        assert self.error is None, f"the witness was disturbed: {self.error!r} (seed {SEED})"
        assert self.slowest < 5, f"the witness waited {self.slowest:.1f} s (seed {SEED})"


@pytest.fixture
def witness(server):
    one = Witness(server)
    one.start()
    yield one
    one.verdict()
    assert server.broker is None or server.broker.alive(), server.broker.tail()


def session():
    """A real session as a list of pieces, to be mutated."""
    login = w.table({"product": "hostile", "capabilities": {"authentication_failure_close": True}})
    login += w.short("PLAIN") + w.long(b"\0guest\0guest") + w.short("en_US")
    return [
        w.PROTOCOL_HEADER,
        w.method(0, "connection.start-ok", login),
        w.method(0, "connection.tune-ok", struct.pack(">HIH", 2047, 131072, 60)),
        w.method(0, "connection.open", w.short("/") + b"\0\0"),
        w.method(1, "channel.open", b"\0"),
        w.queue_declare(1, "", exclusive=True, arguments=w.table({"x-a": [1, {"b": "c"}], "x-b": {"c": {"d": True}}})),
        w.method(1, "confirm.select", b"\0"),
        w.method(1, "queue.bind", b"\0\0" + w.short("") + w.short("amq.topic") + w.short("a.*.#") + b"\0" + w.table({"k": 1})),
        w.qos(1, 10),
        w.consume(1, "", "tag"),
        w.content(1, "amq.topic", "a.b.c", os.urandom(300)),
        w.content(1, "", "", b""),
        w.ack(1, 1),
        w.method(1, "basic.get", b"\0\0" + w.short("") + b"\0"),
        w.method(1, "basic.nack", struct.pack(">QB", 0, 3)),
        w.method(1, "basic.recover", b"\1"),
        w.method(1, "basic.cancel", w.short("tag") + b"\0"),
        w.method(1, "channel.close", struct.pack(">H", 200) + w.short("") + b"\0\0\0\0"),
    ]


def mutated(prng):
    """A session with one to four faults in it."""
    pieces = session()
    keep = prng.randrange(1, len(pieces) + 1)
    pieces = pieces[:keep]
    for _ in range(prng.randrange(1, 5)):
        at = prng.randrange(len(pieces))
        piece = bytearray(pieces[at])
        where = prng.randrange(len(piece)) if piece else 0
        fault = prng.randrange(7)
        if fault == 0 and piece:
            piece[where] ^= 1 << prng.randrange(8)
        elif fault == 1 and piece:
            piece[where] = prng.randrange(256)
        elif fault == 2:
            del piece[where : where + prng.randrange(1, 9)]
        elif fault == 3:
            piece[where:where] = prng.randbytes(prng.randrange(1, 9))
        elif fault == 4 and len(piece) >= 7:
            piece[3:7] = prng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", prng.randbytes(4)])
        elif fault == 5:
            pieces[at:at] = [pieces[prng.randrange(len(pieces))]]
            continue
        else:
            pieces[at], pieces[-1] = pieces[-1], pieces[at]
            continue
        pieces[at] = bytes(piece)
    return b"".join(pieces)


def throw(address, data, prng):
    """Sends the bytes in a few cuts and goes, politely or not."""
    with socket.create_connection(address, 10) as one:
        one.settimeout(10)
        try:
            cut = prng.randrange(len(data) + 1)
            one.sendall(data[:cut])
            one.sendall(data[cut:])
            if prng.random() < 0.3:
                one.shutdown(socket.SHUT_WR)
                while one.recv(65536):
                    pass
            elif prng.random() < 0.5:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["noise", "mutated sessions"])
def test_arbitrary_bytes(server, witness, kind):
    prng = random.Random(SEED)
    count = 2000 if server.ours else 30  # RabbitMQ delays each refusal by a second or more.
    end = time.monotonic() + 60
    thrown = 0
    for _ in range(count):
        if kind == "noise":
            head = prng.choice([b"", w.PROTOCOL_HEADER, b"".join(session()[:5])])
            data = head + prng.randbytes(prng.choice([1, 7, 8, 64, 1000, 20000]))
        else:
            data = mutated(prng)
        throw(server.address, data, prng)
        thrown += 1
        if time.monotonic() > end:
            break
    assert thrown >= min(count, 500), f"only {thrown} streams within a minute"
    assert server.wire().declare("", exclusive=True)[0]


def resident(server):
    return server.broker.resident_bytes() if server.broker else 0


def test_memory_follows_what_arrived_and_not_what_was_claimed(server, witness):
    """A hundred connections claim 2 GiB and more in every place that has a length, and send one byte of it."""
    claims = []
    for _ in range(20):
        claims += [
            (False, struct.pack(">BHI", 1, 0, 1 << 31) + b"x"),
            (True, struct.pack(">BHI", 3, 1, 1 << 31) + b"x"),
            (True, w.queue_declare(1, "", arguments=struct.pack(">I", 0x7FFFFFFF))),
            (True, w.queue_declare(1, "", arguments=w.long(w.short("k") + b"S" + struct.pack(">I", 0x7FFFFFFF) + b"x"))),
            (True, w.method(1, "basic.publish", b"\0\0" + w.short("") + w.short("q") + b"\0") + w.header(1, 1 << 31) + w.frame(w.BODY, 1, b"x")),
        ]
    before, held = resident(server), []
    for login, claim in claims:
        wire = server.wire() if login else Wire(server.address).start()
        wire.send(claim)
        held.append(wire)
    time.sleep(0.5)
    assert resident(server) - before < 64 << 20, "the server believed a length"
    for wire in held:
        wire.close()


def test_messages_that_are_never_finished_are_bounded(server, witness):
    """Many channels each begin a large message and stop: what they hold is bounded per connection."""
    wire = server.wire()
    before = resident(server)
    wire.socket.settimeout(3)
    sent = 0
    try:
        for channel in range(1, 400):
            if channel > 1:
                wire.open(channel)
            begin = w.method(channel, "basic.publish", b"\0\0" + w.short("") + w.short("q") + b"\0") + w.header(channel, 8 << 20)
            wire.send(begin + w.frame(w.BODY, channel, bytes(131064)) * 4)
            sent += 4 * 131064
    except (OSError, Gone, w.Closed):
        pass  # Refused or held back: both are bounds.
    if server.ours:
        assert resident(server) - before < 160 << 20, f"{sent} bytes of unfinished messages are held"
    wire.close()


def test_a_client_that_does_not_read_holds_nobody_back(server, witness, names):
    """It publishes to itself with auto-ack and never reads: its own socket fills, the server's memory does not."""
    wire, queue = server.wire(), names.queue()
    wire.declare(queue)
    wire.send(w.consume(1, queue, no_ack=True))
    before = resident(server)
    wire.socket.settimeout(1)
    message, sent = w.content(1, "", queue, bytes(100_000), persistent=False) * 10, 0
    try:
        while sent < 300:
            wire.send(message)
            sent += 10
    except OSError:
        pass
    time.sleep(0.3)
    if server.ours:
        assert resident(server) - before < 256 << 20
    wire.close()


def test_thousands_of_connections_that_come_and_go(server, witness):
    for round_ in range(10):
        held = [socket.create_connection(server.address, 10) for _ in range(100)]
        for at, one in enumerate(held):
            if at % 3 == 0:
                one.sendall(w.PROTOCOL_HEADER[: at % 9])
        for one in held:
            one.close()
    assert until(lambda: server.wire().declare("", exclusive=True)[0])
