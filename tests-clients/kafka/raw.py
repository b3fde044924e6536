"""A bare Kafka connection: frames, the few requests that the tests need, and their answers.

In: an address. Out: bytes sent exactly as given, answers read field by field.
Never: retries, hides an end of the connection, or asks for versions first.
Versions are fixed and not flexible, one per request; they are those that clients of several years use.
"""

import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH = 0, 1, 2, 3, 8, 9
FIND_COORDINATOR, JOIN, HEARTBEAT, LEAVE, SYNC, API_VERSIONS, CREATE_TOPICS = 10, 11, 12, 13, 14, 18, 19
SASL_HANDSHAKE, SASL_AUTHENTICATE, INIT_PRODUCER, DELETE_GROUPS = 17, 36, 22, 42

NONE, OUT_OF_RANGE, CORRUPT, UNKNOWN_PARTITION, TOO_LARGE = 0, 1, 2, 3, 10
INVALID_TOPIC, INVALID_ACKS, STALE_GENERATION, INCONSISTENT_PROTOCOL, INVALID_GROUP = 17, 21, 22, 23, 24
UNKNOWN_MEMBER, INVALID_SESSION_TIMEOUT, REBALANCING, UNSUPPORTED_VERSION, INVALID_TIMESTAMP = 25, 26, 27, 35, 32
OUT_OF_SEQUENCE, STALE_PRODUCER, UNKNOWN_PRODUCER, NOT_EMPTY, SESSION_UNKNOWN, SESSION_EPOCH = 45, 47, 59, 68, 70, 71
STORAGE_ERROR, UNSUPPORTED_CODEC, MEMBER_ID_REQUIRED, FENCED_INSTANCE, INVALID_RECORD = 56, 76, 79, 82, 87


# The coordinator is not there yet: what clients ask again for by themselves.
NOT_YET = (14, 15, 16)


class Gone(Exception):
    """The server closed the connection."""


def patiently(ask, timeout=15):
    """Asks again while the coordinator is not ready; the answer, whose first field is its error."""
    end = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer[0] not in NOT_YET or time.monotonic() > end:
            return answer
        time.sleep(0.05)


def text(value):
    return struct.pack(">h", -1) if value is None else struct.pack(">h", len(value.encode())) + value.encode()


def data(value):
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def array(items):
    items = list(items)
    return struct.pack(">i", len(items)) + b"".join(items)


class Fields:
    """What is left of an answer."""

    def __init__(self, left):
        self.left = left

    def take(self, count):
        assert len(self.left) >= count, f"an answer ends too soon: {count} bytes wanted, {len(self.left)} left"
        found, self.left = self.left[:count], self.left[count:]
        return found

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(">" + form)))[0]

    def i8(self):
        return self.number("b")

    def i16(self):
        return self.number("h")

    def i32(self):
        return self.number("i")

    def i64(self):
        return self.number("q")

    def text(self):
        size = self.i16()
        return None if size < 0 else self.take(size).decode()

    def data(self):
        size = self.i32()
        return None if size < 0 else self.take(size)

    def array(self, one):
        return [one() for _ in range(self.i32())]


class Wire:
    """One connection."""

    def __init__(self, address, timeout=15):
        self.socket = socket.create_connection(address, timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0
        self.unread = b""

    def frame(self, key, version, body, client="raw"):
        """The bytes of a request with the next correlation id."""
        self.correlation += 1
        payload = struct.pack(">hhi", key, version, self.correlation) + text(client) + body
        return struct.pack(">i", len(payload)) + payload

    def send(self, raw):
        """Bytes as they are."""
        try:
            self.socket.sendall(raw)
        except (ConnectionError, BrokenPipeError) as error:
            raise Gone(str(error)) from error

    def _need(self, count):
        while len(self.unread) < count:
            try:
                more = self.socket.recv(1 << 20)
            except ConnectionError as error:
                raise Gone(str(error)) from error
            if not more:
                raise Gone("end of the connection")
            self.unread += more

    def read(self):
        """The next answer: its correlation id and what follows."""
        self._need(4)
        (size,) = struct.unpack_from(">i", self.unread)
        assert 4 <= size < 1 << 28, f"an answer of {size} bytes"
        self._need(4 + size)
        payload, self.unread = self.unread[4 : 4 + size], self.unread[4 + size :]
        return struct.unpack_from(">i", payload)[0], Fields(payload[4:])

    def ask(self, key, version, body):
        """Sends a request and reads its answer."""
        self.send(self.frame(key, version, body))
        correlation, fields = self.read()
        assert correlation == self.correlation
        return fields

    def is_closed(self, within=10):
        """Whether the server ends the connection, whatever it says before."""
        self.socket.settimeout(within)
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True

    def close(self):
        self.socket.close()

    def api_versions(self):
        """What the server offers: {key: (min, max)}."""
        fields = self.ask(API_VERSIONS, 0, b"")
        assert fields.i16() == NONE
        return {key: (low, high) for key, low, high in fields.array(lambda: (fields.i16(), fields.i16(), fields.i16()))}

    def produce(self, topic, records, partition=0, acks=-1, timeout=10_000):
        """Produce v8: error and base offset."""
        self.send(self.frame(PRODUCE, 8, produce_body(topic, records, partition, acks, timeout)))
        _, fields = self.read()
        return produced(fields)

    def fetch(self, topic, offset, partition=0, max_wait=0, min_bytes=1, max_bytes=1 << 20, partition_bytes=1 << 20):
        """Fetch v4: error, high watermark, records."""
        self.send(self.frame(FETCH, 4, fetch_body(topic, offset, partition, max_wait, min_bytes, max_bytes, partition_bytes)))
        _, fields = self.read()
        return fetched(fields)

    def read_all(self, topic, partition=0):
        """The records field of the whole log: asks on while there is more, since an answer may hold less."""
        found, offset = b"", 0
        while True:
            error, end, records = self.fetch(topic, offset, partition, max_wait=500)
            assert error == NONE and (records or offset == end), (error, offset, end)
            if not records:
                return found
            found, offset = found + records, next_offset(records)

    def offset(self, topic, timestamp, partition=0):
        """ListOffsets v1: error, timestamp, offset."""
        body = struct.pack(">i", -1) + array([text(topic) + array([struct.pack(">iq", partition, timestamp)])])
        fields = self.ask(LIST_OFFSETS, 1, body)
        assert fields.i32() == 1 and fields.text() == topic and fields.i32() == 1 and fields.i32() == partition
        return fields.i16(), fields.i64(), fields.i64()

    def init_producer(self):
        """InitProducerId v0: producer id and epoch."""

        def ask():
            fields = self.ask(INIT_PRODUCER, 0, text(None) + struct.pack(">i", 60_000))
            fields.i32()
            return fields.i16(), fields.i64(), fields.i16()

        error, producer, epoch = patiently(ask)
        assert error == NONE
        return producer, epoch

    def join(self, group, member="", session=10_000, rebalance=10_000, kind="consumer", protocols=(("range", b""),), instance=None):
        """JoinGroup v5, sent; the answer is read with `joined`."""
        body = text(group) + struct.pack(">ii", session, rebalance) + text(member) + text(instance) + text(kind)
        self.send(self.frame(JOIN, 5, body + array(text(name) + data(metadata) for name, metadata in protocols)))

    def joined(self):
        """The answer of a join: error, generation, protocol, leader, member id, members."""
        _, fields = self.read()
        fields.i32()
        error, generation, protocol, leader, member = fields.i16(), fields.i32(), fields.text(), fields.text(), fields.text()
        members = fields.array(lambda: (fields.text(), fields.text(), fields.data()))
        return error, generation, protocol, leader, member, members

    def enter(self, group, **options):
        """Joins as a member that nobody knows yet, with the id it is given: as `joined`."""

        def ask():
            self.join(group, **options)
            return self.joined()

        answer = patiently(ask)
        if answer[0] == MEMBER_ID_REQUIRED:
            self.join(group, **{**options, "member": answer[4]})
            answer = self.joined()
        return answer

    def sync(self, group, generation, member, assignments=(), instance=None):
        """SyncGroup v3: error and assignment."""
        body = text(group) + struct.pack(">i", generation) + text(member) + text(instance)
        fields = self.ask(SYNC, 3, body + array(text(name) + data(given) for name, given in assignments))
        fields.i32()
        return fields.i16(), fields.data()

    def heartbeat(self, group, generation, member, instance=None):
        """Heartbeat v3: the error."""
        fields = self.ask(HEARTBEAT, 3, text(group) + struct.pack(">i", generation) + text(member) + text(instance))
        fields.i32()
        return fields.i16()

    def leave(self, group, member):
        """LeaveGroup v1: the error."""
        fields = self.ask(LEAVE, 1, text(group) + text(member))
        fields.i32()
        return fields.i16()

    def commit(self, group, generation, member, topic, offset, partition=0, metadata=""):
        """OffsetCommit v5: the error."""
        place = struct.pack(">iq", partition, offset) + text(metadata)
        body = text(group) + struct.pack(">i", generation) + text(member) + array([text(topic) + array([place])])
        fields = self.ask(OFFSET_COMMIT, 5, body)
        fields.i32()
        assert fields.i32() == 1 and fields.text() == topic and fields.i32() == 1 and fields.i32() == partition
        return fields.i16()

    def committed(self, group, topic, partition=0):
        """OffsetFetch v3: error, offset, metadata."""
        fields = self.ask(OFFSET_FETCH, 3, text(group) + array([text(topic) + array([struct.pack(">i", partition)])]))
        fields.i32()
        assert fields.i32() == 1 and fields.text() == topic and fields.i32() == 1 and fields.i32() == partition
        offset, metadata, error = fields.i64(), fields.text(), fields.i16()
        return error or fields.i16(), offset, metadata

    def coordinator(self, group):
        """FindCoordinator v0: error, host, port."""
        fields = self.ask(FIND_COORDINATOR, 0, text(group))
        error, _ = fields.i16(), fields.i32()
        return error, fields.text(), fields.i32()


def next_offset(records):
    """The offset behind the last whole batch."""
    at, after = 0, 0
    while at + 61 <= len(records):
        base, length = struct.unpack_from(">qi", records, at)
        (deltas,) = struct.unpack_from(">i", records, at + 23)
        at, after = at + 12 + length, base + deltas + 1
    return after


def produce_body(topic, records, partition=0, acks=-1, timeout=10_000):
    places = array([text(topic) + array([struct.pack(">i", partition) + data(records)])])
    return text(None) + struct.pack(">hi", acks, timeout) + places


def produced(fields):
    assert fields.i32() == 1
    fields.text()
    assert fields.i32() == 1
    fields.i32()
    return fields.i16(), fields.i64()


def fetch_body(topic, offset, partition=0, max_wait=0, min_bytes=1, max_bytes=1 << 20, partition_bytes=1 << 20):
    cursor = struct.pack(">iqi", partition, offset, partition_bytes)
    return struct.pack(">iiiib", -1, max_wait, min_bytes, max_bytes, 0) + array([text(topic) + array([cursor])])


def fetched(fields):
    fields.i32()
    assert fields.i32() == 1
    fields.text()
    assert fields.i32() == 1
    fields.i32()
    error, end = fields.i16(), fields.i64()
    fields.i64()
    fields.array(lambda: (fields.i64(), fields.i64()))
    return error, end, fields.data() or b""
