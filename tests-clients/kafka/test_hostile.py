"""Bytes that no client sends: garbage, sizes that lie, frames cut short, keys and versions that do not exist.

What must hold: the answer is Kafka's or the connection ends; other connections notice nothing; memory stays bounded.
"""

import random
import struct

import pytest

import raw
from conftest import numbers, until
from records import batch, values

MIB = 1 << 20


@pytest.fixture
def witness(wires, topic):
    """A second connection, whose work goes on before and after."""
    wire, name = wires(), topic()
    assert wire.produce(name, batch([b"before"])) == (raw.NONE, 0)
    yield wire
    assert wire.produce(name, batch([b"after"])) == (raw.NONE, 1)
    assert values(wire.read_all(name)) == [(0, b"before"), (1, b"after")]


@pytest.fixture
def resident(server):
    """The server's memory in bytes; 0 where it is not ours to look at."""
    return lambda: server.broker.resident_bytes() if server.broker else 0


# As the table in README.md says; Produce is offered from 0 on, because older clients stop compressing when it is not.
OURS = {
    0: (0, 13), 1: (4, 16), 2: (1, 10), 3: (0, 13), 8: (2, 9), 9: (1, 9), 10: (0, 5), 11: (0, 9), 12: (0, 4), 13: (0, 5),
    14: (0, 5), 15: (0, 6), 16: (0, 5), 17: (0, 1), 18: (0, 4), 19: (2, 7), 20: (1, 6), 21: (0, 2), 22: (0, 5), 23: (2, 4),
    32: (1, 4), 33: (0, 2), 35: (1, 4), 36: (0, 2), 37: (0, 3), 42: (0, 2), 44: (0, 1), 47: (0, 0), 60: (0, 1), 61: (0, 0),
}


def test_versions_that_are_offered(server, wire):
    """Every key that the clients of this suite need, ranges that make sense, and the old minimum of Produce."""
    offered = wire.api_versions()
    if server.broker:
        assert offered == OURS
    assert all(0 <= low <= high for low, high in offered.values())
    assert set(offered) >= {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 23, 32, 33, 37, 42, 44, 47, 60}
    assert offered[raw.PRODUCE][0] == 0, "older clients stop compressing when the minimum is higher"
    assert offered[raw.FETCH][0] <= 4 and offered[raw.FETCH][1] >= 12
    assert offered[raw.PRODUCE][1] >= 9


def test_versions_too_new_are_answered(wire):
    """A client newer than the server learns what there is and asks again on the same connection."""
    wire.send(wire.frame(raw.API_VERSIONS, 99, b"\x00\x09anything\x061.2.3\x00"))
    _, fields = wire.read()
    assert fields.i16() == raw.UNSUPPORTED_VERSION
    ranges = fields.array(lambda: (fields.i16(), fields.i16(), fields.i16()))
    assert raw.API_VERSIONS in [key for key, _, _ in ranges]
    assert raw.PRODUCE in wire.api_versions()


@pytest.mark.parametrize("key, version", [(999, 0), (-1, 0), (7, 0), (raw.FETCH, 99), (raw.METADATA, -1), (raw.JOIN, 50)])
def test_keys_and_versions_that_do_not_exist(wire, witness, key, version):
    wire.send(wire.frame(key, version, b"\0" * 20))
    assert wire.is_closed()


@pytest.mark.parametrize("first", [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"AMQP\x00\x00\x09\x01",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
    b"\xff" * 64,
    struct.pack(">i", -5) + b"\0" * 20,
    struct.pack(">i", -(1 << 31)),
    struct.pack(">i", 0x7FFFFFFF) + b"\0" * 20,
], ids=["http", "amqp", "tls", "ones", "minus five", "least", "most"])
def test_what_is_no_frame(wire, witness, first):
    wire.send(first)
    assert wire.is_closed()


def test_empty_and_tiny_frames(wires, witness):
    for size in range(0, 10):
        wire = wires()
        wire.send(struct.pack(">i", size) + b"\0" * size)
        wire.socket.shutdown(1)
        assert wire.is_closed()


def test_random_bytes(wires, witness):
    prng = random.Random(7)
    for _ in range(60):
        wire = wires()
        body = prng.randbytes(prng.randrange(300))
        try:
            wire.send(struct.pack(">i", len(body)) + body if prng.random() < 0.7 else body)
            wire.socket.shutdown(1)
        except (raw.Gone, OSError):
            pass
        assert wire.is_closed()
        wire.close()


def test_random_bodies_of_every_request(wires, witness):
    """Headers as they should be, bodies not: answered, or the connection ends; never anybody else's trouble."""
    prng = random.Random(11)
    offered = witness.api_versions()
    for key, (low, high) in offered.items():
        for version in {low, high, prng.randrange(low, high + 1)}:
            wire = wires()
            body = prng.choice([prng.randbytes(prng.randrange(80)), b"\xff" * 40, b"\x7f" * 40, b"\0" * 40])
            try:
                wire.send(wire.frame(key, version, body))
                wire.socket.shutdown(1)
            except (raw.Gone, OSError):
                pass
            assert wire.is_closed(15), f"key {key} version {version} {body!r}"
            wire.close()


def test_requests_cut_anywhere(wires, witness):
    """A sound request that ends too soon, its length said as sent: refused, never guessed at."""
    whole = witness.frame(raw.FETCH, 4, raw.fetch_body("some-topic", 0))[4:]
    for cut in range(8, len(whole), 3):
        wire = wires()
        wire.send(struct.pack(">i", cut) + whole[:cut])
        wire.socket.shutdown(1)
        assert wire.is_closed()
        wire.close()


def test_half_a_request_waits_without_harm(wires, witness):
    wire = wires()
    request = wire.frame(raw.API_VERSIONS, 0, b"")
    for at in range(len(request)):  # Byte by byte.
        wire.send(request[at : at + 1])
    assert wire.read()[1].i16() == raw.NONE
    wire.send(request[:7])
    assert witness.api_versions()
    wire.send(request[7:])
    assert wire.read()[1].i16() == raw.NONE


def test_counts_that_lie(wires, witness, resident):
    """Two thousand million elements are claimed; none is there, and no memory is taken for them."""
    before, huge = resident(), struct.pack(">i", 0x7FFFFFFF)
    bodies = [
        (raw.METADATA, 1, huge),
        (raw.PRODUCE, 7, raw.text(None) + struct.pack(">hi", -1, 1000) + huge),
        (raw.PRODUCE, 7, raw.text(None) + struct.pack(">hi", -1, 1000) + raw.array([raw.text("t") + huge])),
        (raw.PRODUCE, 7, raw.text(None) + struct.pack(">hi", -1, 1000) + raw.array([raw.text("t") + raw.array([b"\0\0\0\0" + huge])])),
        (raw.FETCH, 4, struct.pack(">iiiib", -1, 0, 0, MIB, 0) + huge),
        (raw.LIST_OFFSETS, 1, struct.pack(">i", -1) + huge),
        (raw.OFFSET_COMMIT, 5, raw.text("g") + struct.pack(">i", -1) + raw.text("") + huge),
        (raw.OFFSET_FETCH, 3, raw.text("g") + huge),
        (raw.JOIN, 5, raw.text("g") + struct.pack(">ii", 6000, 6000) + raw.text("") + raw.text(None) + raw.text("consumer") + huge),
        (raw.CREATE_TOPICS, 4, huge),
        (raw.DELETE_GROUPS, 0, huge),
    ]
    for key, version, body in bodies:
        for _ in range(5):
            wire = wires()
            wire.send(wire.frame(key, version, body))
            wire.socket.shutdown(1)
            assert wire.is_closed()
            wire.close()
    assert resident() - before < 64 * MIB


def test_large_frames_that_never_come(wires, witness, resident):
    """Fifty connections announce what is allowed and send nothing of it: what is not there costs nothing."""
    before = resident()
    for _ in range(50):
        wires().send(struct.pack(">i", MIB // 2) + b"\0" * 100)
    assert witness.api_versions()
    assert resident() - before < 50 * MIB


def test_many_requests_at_once_are_answered_in_order(wire, topic, witness):
    name = topic()
    frames = []
    for at in range(200):
        if at % 3 == 0:
            frames.append(wire.frame(raw.PRODUCE, 7, raw.produce_body(name, batch([b"%d" % at]))))
        elif at % 3 == 1:
            frames.append(wire.frame(raw.API_VERSIONS, 0, b""))
        else:
            frames.append(wire.frame(raw.FETCH, 4, raw.fetch_body(name, 0)))
    first = wire.correlation - len(frames) + 1
    wire.send(b"".join(frames))
    assert [wire.read()[0] for _ in frames] == list(range(first, first + len(frames)))
    assert values(wire.read_all(name)) == [(offset, b"%d" % (3 * offset)) for offset in range(67)]


def test_a_reader_that_never_reads(wires, witness, topic, resident):
    """It asks for a lot and takes nothing: it is held back, not the server filled up."""
    name, filler = topic(), wires()
    for _ in range(8):
        assert filler.produce(name, batch([b"x" * 900_000]))[0] == raw.NONE
    before, greedy = resident(), wires()
    greedy.socket.settimeout(0.5)
    asked = greedy.frame(raw.FETCH, 4, raw.fetch_body(name, 0, max_bytes=50 * MIB, partition_bytes=50 * MIB))
    try:
        for _ in range(300):
            greedy.send(asked)
    except (TimeoutError, raw.Gone):
        pass
    assert witness.api_versions()
    assert resident() - before < 128 * MIB


def test_connections_that_vanish_while_waiting(wires, witness, topic, group):
    """Fetches and joins that wait when their connection goes leave nothing that answers later."""
    name = topic()
    for _ in range(20):
        wire = wires()
        wire.send(wire.frame(raw.FETCH, 4, raw.fetch_body(name, 0, max_wait=2000)))
        wire.close()
        wire = wires()
        wire.join(group)
        wire.close()
    assert witness.produce(name, batch(numbers(3)))[0] == raw.NONE
    until(lambda: values(witness.fetch(name, 0)[2]) == list(enumerate(numbers(3))), what="the records")
