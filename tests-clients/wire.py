"""A bare AMQP 0-9-1 client: frames in and out, and nothing that a misbehaving client would not do.

In: names and bytes. Out: frames as they go over the wire; what the server answers, as values.
Client libraries cannot be made to misbehave and cost too much per message for load; this one can and does not.
Never: corrects, retries or hides anything.
"""

import socket
import struct

END = b"\xce"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

METHODS = {
    "connection.start": (10, 10), "connection.start-ok": (10, 11), "connection.secure": (10, 20),
    "connection.tune": (10, 30), "connection.tune-ok": (10, 31), "connection.open": (10, 40),
    "connection.open-ok": (10, 41), "connection.close": (10, 50), "connection.close-ok": (10, 51),
    "connection.blocked": (10, 60), "connection.unblocked": (10, 61),
    "channel.open": (20, 10), "channel.open-ok": (20, 11), "channel.flow": (20, 20), "channel.flow-ok": (20, 21),
    "channel.close": (20, 40), "channel.close-ok": (20, 41),
    "exchange.declare": (40, 10), "exchange.declare-ok": (40, 11), "exchange.delete": (40, 20),
    "exchange.delete-ok": (40, 21), "exchange.bind": (40, 30), "exchange.bind-ok": (40, 31),
    "exchange.unbind": (40, 40), "exchange.unbind-ok": (40, 51),
    "queue.declare": (50, 10), "queue.declare-ok": (50, 11), "queue.bind": (50, 20), "queue.bind-ok": (50, 21),
    "queue.purge": (50, 30), "queue.purge-ok": (50, 31), "queue.delete": (50, 40), "queue.delete-ok": (50, 41),
    "queue.unbind": (50, 50), "queue.unbind-ok": (50, 51),
    "basic.qos": (60, 10), "basic.qos-ok": (60, 11), "basic.consume": (60, 20), "basic.consume-ok": (60, 21),
    "basic.cancel": (60, 30), "basic.cancel-ok": (60, 31), "basic.publish": (60, 40), "basic.return": (60, 50),
    "basic.deliver": (60, 60), "basic.get": (60, 70), "basic.get-ok": (60, 71), "basic.get-empty": (60, 72),
    "basic.ack": (60, 80), "basic.reject": (60, 90), "basic.recover-async": (60, 100), "basic.recover": (60, 110),
    "basic.recover-ok": (60, 111), "basic.nack": (60, 120),
    "confirm.select": (85, 10), "confirm.select-ok": (85, 11), "tx.select": (90, 10), "tx.select-ok": (90, 11),
}
NAMES = {ids: name for name, ids in METHODS.items()}


class Closed(Exception):
    """The server closed the channel or the connection, and said why."""

    def __init__(self, level, code, text, class_id, method_id):
        super().__init__(f"{level} closed: {code} {text} ({class_id}, {method_id})")
        self.level, self.code, self.text = level, code, text
        self.cause = (class_id, method_id)


class Gone(Exception):
    """The socket ended without a word."""


def short(text):
    """A short string; bytes go as they are."""
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">B", len(data)) + data


def long(text):
    """A long string; bytes go as they are."""
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">I", len(data)) + data


def value(item):
    """A tagged value of a table."""
    if isinstance(item, bool):
        return b"t" + struct.pack(">?", item)
    if isinstance(item, int):
        return b"l" + struct.pack(">q", item)
    if isinstance(item, dict):
        return b"F" + table(item)
    if isinstance(item, list):
        return b"A" + long(b"".join(value(one) for one in item))
    return b"S" + long(item)


def table(items=None):
    """A table with its length before it."""
    return long(b"".join(short(key) + value(item) for key, item in (items or {}).items()))


def frame(kind, channel, payload):
    """One whole frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + END


def method(channel, name, arguments=b""):
    """One method frame."""
    return frame(METHOD, channel, struct.pack(">HH", *METHODS[name]) + arguments)


def content(channel, exchange, key, body, persistent=True, mandatory=False, frame_max=131072):
    """The frames of one publish."""
    flags = 1 if mandatory else 0
    parts = [method(channel, "basic.publish", b"\0\0" + short(exchange) + short(key) + struct.pack(">B", flags))]
    parts.append(header(channel, len(body), persistent))
    for at in range(0, len(body), frame_max - 8):
        parts.append(frame(BODY, channel, body[at : at + frame_max - 8]))
    return b"".join(parts)


def header(channel, size, persistent=True, class_id=60):
    """The content header of a body of `size` bytes."""
    return frame(HEADER, channel, struct.pack(">HHQHB", class_id, 0, size, 0x1000, 2 if persistent else 1))


def queue_declare(channel, queue, passive=False, durable=False, exclusive=False, auto_delete=False, arguments=b"\0\0\0\0"):
    """queue.declare; `arguments` is an encoded table."""
    flags = passive | durable << 1 | exclusive << 2 | auto_delete << 3
    return method(channel, "queue.declare", b"\0\0" + short(queue) + struct.pack(">B", flags) + arguments)


def consume(channel, queue, tag="", no_ack=False, exclusive=False):
    """basic.consume."""
    flags = no_ack << 1 | exclusive << 2
    return method(channel, "basic.consume", b"\0\0" + short(queue) + short(tag) + struct.pack(">B", flags) + table())


def qos(channel, count, everywhere=False):
    """basic.qos."""
    return method(channel, "basic.qos", struct.pack(">IH?", 0, count, everywhere))


def ack(channel, tag, multiple=False):
    """basic.ack."""
    return method(channel, "basic.ack", struct.pack(">Q?", tag, multiple))


class Fields:
    """Reads the arguments of a method, in order."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def _take(self, form):
        (found,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def u8(self):
        return self._take(">B")

    def u16(self):
        return self._take(">H")

    def u32(self):
        return self._take(">I")

    def u64(self):
        return self._take(">Q")

    def bytes(self, size):
        self.at += size
        return self.data[self.at - size : self.at]

    def short(self):
        return self.bytes(self.u8()).decode()

    def long(self):
        return self.bytes(self.u32())

    def table(self):
        """The keys with their values; only what servers send in server-properties is decoded."""
        inner, found = Fields(self.long()), {}
        while inner.at < len(inner.data):
            key = inner.short()
            kind = inner.bytes(1)
            if kind == b"t":
                found[key] = bool(inner.u8())
            elif kind == b"S":
                found[key] = inner.long().decode()
            elif kind == b"F":
                found[key] = inner.table()
            else:
                raise ValueError(f"{key} has kind {kind}")
        return found


class Wire:
    """One connection."""

    def __init__(self, address, timeout=10.0):
        self.socket = socket.create_connection(address, timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer, self.at = bytearray(), 0
        self.server_properties = {}
        self.mechanisms = ""
        self.offered = None

    def send(self, data):
        self.socket.sendall(data)

    def close(self):
        """Drops the socket without a word."""
        self.socket.close()

    # Reading

    def fill(self):
        """Reads once from the socket."""
        if self.at:
            del self.buffer[: self.at]
            self.at = 0
        try:
            data = self.socket.recv(262144)
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise Gone(str(error)) from None
        if not data:
            raise Gone("end of stream")
        self.buffer += data

    def buffered_frame(self):
        """The next whole frame that has arrived: (kind, channel, payload), or None."""
        have = len(self.buffer) - self.at
        if have < 7:
            return None
        kind, channel, size = struct.unpack_from(">BHI", self.buffer, self.at)
        if have < size + 8:
            return None
        start = self.at + 7
        assert self.buffer[start + size] == 0xCE, "the server's frame ends in the wrong byte"
        self.at = start + size + 1
        return kind, channel, bytes(self.buffer[start : start + size])

    def read_frame(self):
        """The next frame, heartbeats left out."""
        while True:
            found = self.buffered_frame()
            if found is None:
                self.fill()
            elif found[0] != HEARTBEAT:
                return found

    def read_method(self):
        """The next method with its channel, content left out: (channel, name, fields)."""
        while True:
            kind, channel, payload = self.read_frame()
            if kind == METHOD:
                return channel, NAMES[struct.unpack_from(">HH", payload)], Fields(payload[4:])

    def expect(self, channel, name):
        """Reads until that method comes on that channel; a close raises `Closed`."""
        while True:
            on, found, fields = self.read_method()
            if found in ("connection.close", "channel.close"):
                self._closed(on, found, fields)
            if (on, found) == (channel, name):
                return fields

    def _closed(self, channel, name, fields):
        level = name.split(".")[0]
        error = Closed(level, fields.u16(), fields.short(), fields.u16(), fields.u16())
        try:
            self.send(method(channel, name + "-ok"))
        except OSError:
            pass
        raise error

    def expect_closed(self):
        """Reads until the server closes channel or connection and returns the `Closed`."""
        try:
            while True:
                self.expect(-1, "")
        except Closed as closed:
            return closed

    def expect_end(self):
        """Reads until the socket ends."""
        try:
            while True:
                self.read_frame()
        except Gone:
            return

    # The handshake

    def start(self):
        """Protocol header, connection.start."""
        self.send(PROTOCOL_HEADER)
        fields = self.expect(0, "connection.start")
        assert (fields.u8(), fields.u8()) == (0, 9)
        self.server_properties = fields.table()
        self.mechanisms = fields.long().decode()
        return self

    def login(self, user="guest", password="guest", mechanism="PLAIN", response=None, capabilities=None):
        """connection.start-ok, connection.tune."""
        known = {"authentication_failure_close": True, "consumer_cancel_notify": True, "basic.nack": True}
        properties = table({"product": "wire", "capabilities": known if capabilities is None else capabilities})
        if response is None:
            response = b"\0" + user.encode() + b"\0" + password.encode()
        self.send(method(0, "connection.start-ok", properties + short(mechanism) + long(response) + short("en_US")))
        fields = self.expect(0, "connection.tune")
        self.offered = (fields.u16(), fields.u32(), fields.u16())
        return self

    def enter(self, vhost="/", channel_max=None, frame_max=None, heartbeat=0):
        """connection.tune-ok and connection.open."""
        channels, size, _ = self.offered
        channels = channels if channel_max is None else channel_max
        size = size if frame_max is None else frame_max
        self.send(method(0, "connection.tune-ok", struct.pack(">HIH", channels, size, heartbeat)))
        self.send(method(0, "connection.open", short(vhost) + b"\0\0"))
        self.expect(0, "connection.open-ok")
        return self

    def open(self, channel=1):
        """channel.open."""
        self.send(method(channel, "channel.open", b"\0"))
        self.expect(channel, "channel.open-ok")
        return self

    def connect(self, channel=1, **login):
        """All of the handshake and one channel."""
        return self.start().login(**login).enter().open(channel)

    # What most tests need

    def declare(self, queue, channel=1, **properties):
        """queue.declare: (name, ready messages, consumers)."""
        self.send(queue_declare(channel, queue, **properties))
        fields = self.expect(channel, "queue.declare-ok")
        return fields.short(), fields.u32(), fields.u32()
