"""The clients of the crash test: publishers with confirms, consumers with acknowledgements, and the auditor.

In: an address and a ledger. Out: what they saw, written into the ledger as it happens.
They end when their connection does; an end they did not ask for is no error here.
"""

import random
import struct
import threading

import wire as w
from wire import Gone, Wire

QUEUES = ("crash-one", "crash-two")
EXCHANGE = "crash-both"
WINDOW = 1000


def declare(address):
    """The durable queues, empty, and a durable exchange bound to both."""
    wire = Wire(address).connect()
    for queue in QUEUES:
        wire.send(w.method(1, "queue.delete", b"\0\0" + w.short(queue) + b"\0"))
        wire.expect(1, "queue.delete-ok")
    wire.send(w.method(1, "exchange.declare", b"\0\0" + w.short(EXCHANGE) + w.short("fanout") + b"\2" + w.table()))
    wire.expect(1, "exchange.declare-ok")
    for queue in QUEUES:
        wire.declare(queue, durable=True)
        wire.send(w.method(1, "queue.bind", b"\0\0" + w.short(queue) + w.short(EXCHANGE) + w.short("") + b"\0" + w.table()))
        wire.expect(1, "queue.bind-ok")
    wire.send(w.method(0, "connection.close", struct.pack(">H", 200) + w.short("") + b"\0\0\0\0"))
    wire.expect(0, "connection.close-ok")
    wire.close()


def name_of(body):
    """The publisher and number that a body carries, checked against its padding."""
    publisher, number = struct.unpack_from(">IQ", body)
    assert body[12:] == bytes([number & 0xFF]) * (len(body) - 12), f"the body of {publisher}/{number} is not what was sent"
    return publisher, number


class Client(threading.Thread):
    """A thread with one connection; `work` runs until the connection ends."""

    def __init__(self, address, ledger):
        super().__init__(daemon=True)
        self.wire, self.ledger, self.error = Wire(address).connect(), ledger, None

    def run(self):
        try:
            self.work()
        except (Gone, OSError):
            pass
        except Exception as error:  # Reported by the round.
            self.error = error

    def drop(self):
        """Ends the connection without a word."""
        try:
            self.wire.socket.shutdown(2)
        except OSError:
            pass


class Publisher(Client):
    """Keeps up to WINDOW messages unconfirmed, to one queue or by the exchange to both."""

    def __init__(self, address, ledger, ident, first, target):
        super().__init__(address, ledger)
        self.publisher, self.next, self.target = ident, first, target
        self.queues = QUEUES if target == EXCHANGE else (target,)
        self.prng = random.Random(ident * 1_000_003 + first)
        self.open = {}
        self.tag = 0

    def outstanding(self):
        return len(self.open)

    def names(self, number):
        return [(queue, self.publisher, number) for queue in self.queues]

    def message(self, number):
        sizes = (12, 16, 100, 1024, 4096)
        size = 200_000 if number % 499 == 498 else self.prng.choice(sizes)
        body = struct.pack(">IQ", self.publisher, number) + bytes([number & 0xFF]) * (size - 12)
        exchange, key = (EXCHANGE, "") if self.target == EXCHANGE else ("", self.target)
        return w.content(1, exchange, key, body)

    def work(self):
        self.wire.send(w.method(1, "confirm.select", b"\0"))
        self.wire.expect(1, "confirm.select-ok")
        while True:
            room = min(WINDOW - len(self.open), self.prng.randrange(1, 100))
            numbers = range(self.next, self.next + room)
            self.next += room
            self.ledger.on_send([name for number in numbers for name in self.names(number)])
            for number in numbers:
                self.tag += 1
                self.open[self.tag] = number
            self.wire.send(b"".join(map(self.message, numbers)))
            self.confirms(wait=len(self.open) >= WINDOW)

    def confirms(self, wait):
        """Reads what has come; waits for at least one confirm when the window is full."""
        while True:
            found = self.wire.buffered_frame()
            if found is None:
                if not wait:
                    return
                self.wire.fill()
                continue
            kind, _, payload = found
            if kind == w.HEARTBEAT:
                continue
            class_method = struct.unpack_from(">HH", payload)
            assert class_method == w.METHODS["basic.ack"], f"{class_method} instead of a confirm: {payload[4:]}"
            tag, multiple = struct.unpack_from(">QB", payload, 4)
            done = [one for one in self.open if one <= tag] if multiple & 1 else [tag]
            self.ledger.on_confirm([name for one in done for name in self.names(self.open.pop(one))])
            wait = False


class Consumer(Client):
    """Takes with prefetch 300, acknowledges most, returns some, keeps some; now and then makes sure."""

    def __init__(self, address, ledger, queue, seed):
        super().__init__(address, ledger)
        self.queue, self.prng = queue, random.Random(seed)
        self.held = {}
        self.unsure = []
        self.asked = []

    def outstanding(self):
        return len(self.held)

    def work(self):
        self.wire.send(w.qos(1, 300) + w.consume(1, self.queue))
        self.wire.expect(1, "basic.consume-ok")
        while True:
            kind, _, payload = self.wire.read_frame()
            name = w.NAMES[struct.unpack_from(">HH", payload)]
            if name == "basic.deliver":
                self.take(w.Fields(payload[4:]))
            elif name == "queue.declare-ok":
                self.ledger.on_certain(self.asked.pop(0))
            else:
                raise AssertionError(f"{name}: {payload}")

    def take(self, fields):
        fields.short()
        tag, redelivered = fields.u64(), bool(fields.u8())
        message = (self.queue, *name_of(read_body(self.wire)))
        self.ledger.on_delivery(message, redelivered)
        self.held[tag] = message
        if len(self.held) >= 20 + self.prng.randrange(200):
            self.settle(tag)

    def settle(self, newest):
        chance = self.prng.random()
        if chance < 0.5:  # Everything so far, in one frame.
            self.acknowledge(list(self.held), w.ack(1, newest, True))
        elif chance < 0.85:  # All but every fifth, one by one.
            tags = [tag for tag in self.held if tag % 5]
            self.acknowledge(tags, b"".join(w.ack(1, tag) for tag in tags))
        else:  # Some go back, and come again.
            tags = self.prng.sample(list(self.held), min(5, len(self.held)))
            for tag in tags:
                del self.held[tag]
            self.wire.send(b"".join(w.method(1, "basic.nack", struct.pack(">QB", tag, 2)) for tag in tags))

    def acknowledge(self, tags, frames):
        messages = [self.held.pop(tag) for tag in tags]
        self.ledger.on_ack(messages)
        self.unsure += messages
        if self.prng.random() < 0.3:
            frames += w.queue_declare(1, self.queue, passive=True)
            self.asked.append(self.unsure)
            self.unsure = []
        self.wire.send(frames)


def read_body(wire):
    """The body of the content that follows."""
    _, _, payload = wire.read_frame()
    (size,) = struct.unpack_from(">Q", payload, 4)
    parts, have = [], 0
    while have < size:
        _, _, part = wire.read_frame()
        parts.append(part)
        have += len(part)
    return b"".join(parts)


def audit(address, ledger, settle):
    """Takes everything from every queue: {queue: messages in order}. With `settle` it is acknowledged for certain."""
    found = {}
    for queue in QUEUES:
        wire = Wire(address, timeout=30).connect()
        expected = wire.declare(queue, durable=True)[1]
        wire.send(w.consume(1, queue))
        messages = drain(wire, ledger, queue, expected)
        if settle and messages:
            wire.send(w.ack(1, 0, True))
            wire.declare(queue, passive=True)
            ledger.on_certain(messages)
        found[queue] = messages
        wire.send(w.method(0, "connection.close", struct.pack(">H", 200) + w.short("") + b"\0\0\0\0"))
        wire.expect(0, "connection.close-ok")
        wire.close()
    return found


def drain(wire, ledger, queue, expected):
    """Reads until as many have come as were announced and the queue says that none is ready."""
    messages, asked = [], False
    while True:
        _, name, fields = wire.read_method()
        if name == "basic.deliver":
            fields.short()
            fields.u64()
            redelivered = bool(fields.u8())
            message = (queue, *name_of(read_body(wire)))
            ledger.on_delivery(message, redelivered)
            messages.append(message)
        elif name == "queue.declare-ok":
            fields.short()
            if fields.u32() == 0 and len(messages) >= expected:
                return messages
            asked = False
        else:
            assert name == "basic.consume-ok", name
        if not asked and len(messages) >= expected:
            wire.send(w.queue_declare(1, queue, passive=True))
            asked = True
