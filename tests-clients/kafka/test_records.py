"""Produce and Fetch word by word: batches broken in every way, sequences, sessions, waiting, bounds.

In: bare requests. Out: Kafka's error codes, and what is and is not in the log afterwards.
"""

import struct
import time

import cramjam
import pytest

import raw
from conftest import numbers, until
from records import CODECS, COMPRESS, batch, batches, old_message, record, sealed, values


@pytest.fixture
def log(wire, topic):
    """A topic whose log must stay as it was: yields (connection, name), then looks."""
    name = topic()
    assert wire.produce(name, batch([b"first"])) == (raw.NONE, 0)
    yield wire, name
    assert wire.produce(name, batch([b"last"])) == (raw.NONE, 1), "something was stored"
    assert values(wire.read_all(name)) == [(0, b"first"), (1, b"last")]


# What bytes that are no sound batch are refused with; Kafka itself says "unknown" to some of them.
REFUSED = (raw.CORRUPT, raw.INVALID_RECORD, -1)


def changed(data, at, byte=None):
    """The bytes with one of them changed."""
    return data[:at] + bytes([data[at] ^ 0x10 if byte is None else byte]) + data[at + 1 :]


def test_a_checksum_that_does_not_fit(log):
    wire, name = log
    sound = batch([b"x" * 100])
    for at in (17, 21, 23, 30, 60, len(sound) - 1):  # The checksum itself, attributes, times, count, the value.
        assert wire.produce(name, changed(sound, at))[0] == raw.CORRUPT, at


def test_lengths_that_lie(log):
    wire, name = log
    sound = batch([b"x" * 100])
    for length in (-1, 0, 10, len(sound) - 13, len(sound) - 11, 0x7FFFFFFF):
        error = wire.produce(name, sound[:8] + struct.pack(">i", length) + sound[12:])[0]
        assert error in REFUSED, (length, error)
    for cut in (1, 11, 17, 60, len(sound) - 1):
        assert wire.produce(name, sound[:cut])[0] in REFUSED, cut


def test_formats_before_batches(server, log):
    wire, name = log
    for magic in (0, 1):
        error = wire.produce(name, old_message(b"old", magic))[0]
        assert error == raw.INVALID_RECORD if server.broker else error in (raw.INVALID_RECORD, 43), magic
    for magic in (3, 127):
        error = wire.produce(name, changed(batch([b"x"]), 16, magic))[0]
        assert error == raw.CORRUPT if server.broker else error in (raw.CORRUPT, raw.INVALID_RECORD, 43), magic


def test_compression_that_does_not_exist(server, log):
    wire, name = log
    for codec in (5, 6, 7):
        error = wire.produce(name, batch([b"x"], attributes=codec))[0]
        assert error == raw.UNSUPPORTED_CODEC if server.broker else error in (raw.UNSUPPORTED_CODEC, *REFUSED), codec


@pytest.mark.parametrize("claims", [
    {"count": 3},
    {"count": 1},
    {"count": 0x7FFFFFFF},
    {"deltas": 0},
    {"deltas": 7},
    {"deltas": -1},
    {"attributes": 1 << 5},
    {"records": record(0, b"a")},
    {"records": record(0, b"a") + b"\xff" * 12},
])
def test_headers_that_do_not_fit_their_records(log, claims):
    """Counts, offsets and control bits that only a broker may set; the checksum is sound."""
    wire, name = log
    assert wire.produce(name, batch([b"a", b"b"], **claims))[0] in (raw.INVALID_TIMESTAMP, *REFUSED)


def test_batches_without_records(log):
    wire, name = log
    assert wire.produce(name, sealed(0, -1, (0, 0), (-1, -1, -1), 0, b""))[0] in (raw.INVALID_RECORD, raw.CORRUPT)
    assert wire.produce(name, b"")[0] in (raw.INVALID_RECORD, raw.CORRUPT)


def test_too_large(wire, topic):
    name = topic(max_message_bytes=1000)
    assert wire.produce(name, batch([b"x" * 1001]))[0] == raw.TOO_LARGE
    assert wire.produce(name, batch([b"x" * 500] * 2))[0] == raw.TOO_LARGE
    assert wire.produce(name, batch([b"x" * 800])) == (raw.NONE, 0)
    default = topic()
    assert wire.produce(default, batch([b"x" * (1 << 20)]))[0] == raw.TOO_LARGE
    assert wire.produce(default, batch([b"x" * 1_048_000])) == (raw.NONE, 0)


def test_where_nothing_is(wire, topic, names):
    name = topic(2)
    assert wire.produce(name, batch([b"x"]), partition=2)[0] == raw.UNKNOWN_PARTITION
    assert wire.produce(name, batch([b"x"]), partition=-1)[0] == raw.UNKNOWN_PARTITION
    assert wire.fetch(name, 0, partition=2)[0] == raw.UNKNOWN_PARTITION
    assert wire.offset(name, -1, partition=2)[0] == raw.UNKNOWN_PARTITION
    unknown = names.group()
    assert wire.produce(unknown, batch([b"x"]))[0] == raw.UNKNOWN_PARTITION
    assert wire.fetch(unknown, 0)[0] == raw.UNKNOWN_PARTITION
    assert wire.offset(unknown, -1)[0] == raw.UNKNOWN_PARTITION


def test_acknowledgements_that_do_not_exist(log):
    wire, name = log
    for acks in (2, -2, 77):
        assert wire.produce(name, batch([b"x"]), acks=acks)[0] == raw.INVALID_ACKS


def test_without_acknowledgement(wires, topic):
    """Nothing is answered; what is refused ends the connection, so that the client looks again."""
    name, wire = topic(), wires()
    wire.send(wire.frame(raw.PRODUCE, 7, raw.produce_body(name, batch([b"x"]), acks=0)))
    assert wire.api_versions(), "the next answer is the next request's"
    until(lambda: wire.fetch(name, 0)[1] == 1, what="the record")
    refused = wires()
    refused.send(refused.frame(raw.PRODUCE, 7, raw.produce_body(name, changed(batch([b"x"]), 60), acks=0)))
    assert refused.is_closed()


def test_what_is_fetched_is_what_was_sent(wire, topic):
    """Batches come back byte for byte, but for their offset and epoch, compressed or not."""
    name, sent = topic(), []
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):  # Readers that know no zstd find that out by themselves.
        sent.append(batch([b"value %d" % number for number in range(10)], codec, keys=[b"k"] * 10))
        assert wire.produce(name, sent[-1]) == (raw.NONE, 10 * (len(sent) - 1))
    error, end, records = wire.fetch(name, 0)
    assert (error, end) == (raw.NONE, 50)
    for at, one in enumerate(sent):
        place, records = records[: len(one)], records[len(one) :]
        assert struct.unpack_from(">q", place)[0] == 10 * at
        assert place[8:12] + place[16:] == one[8:12] + one[16:]
    assert records == b""
    assert [base for base, *_ in batches(wire.fetch(name, 27)[2])] == [20, 30, 40], "whole batches, the first holds the offset"


def test_raw_snappy(server, wire, topic):
    """Some clients write snappy without Java's frame: stored as it came; the suite of both protocols opens it."""
    name = topic()
    records = bytes(cramjam.snappy.compress_raw(record(0, b"one") + record(1, b"two")))
    sent = batch([b"one", b"two"], records=records, attributes=CODECS["snappy"])
    error = wire.produce(name, sent)[0]
    assert error == raw.NONE if server.broker else error in (raw.NONE, raw.CORRUPT, raw.INVALID_RECORD)
    if error == raw.NONE:
        (found,) = batches(wire.fetch(name, 0)[2])
        assert (found[0], found[3], found[4]) == (0, 2, records)


def test_out_of_range(wire, topic):
    name = topic()
    assert wire.fetch(name, 0)[:2] == (raw.NONE, 0)
    assert wire.fetch(name, 1)[0] == raw.OUT_OF_RANGE
    wire.produce(name, batch(numbers(3)))
    assert wire.fetch(name, 3)[:2] == (raw.NONE, 3)
    for offset in (4, -1, 1 << 62):
        assert wire.fetch(name, offset)[0] == raw.OUT_OF_RANGE


def test_at_least_one_batch(wire, topic):
    """Whatever the bounds: a reader always gets on."""
    name = topic()
    for number in range(5):
        wire.produce(name, batch([b"%d" % number * 1000]))
    assert [base for base, *_ in batches(wire.fetch(name, 0, max_bytes=1)[2])] == [0]
    assert [base for base, *_ in batches(wire.fetch(name, 3, partition_bytes=1)[2])] == [3]
    assert [base for base, *_ in batches(wire.fetch(name, 0, partition_bytes=2500)[2])] == [0, 1]


def test_waiting(wires, topic):
    """Up to max_wait without enough bytes; at once when they come; not at all for an error."""
    name, wire, other = topic(), wires(), wires()
    begun = time.monotonic()
    assert wire.fetch(name, 0, max_wait=500)[:2] == (raw.NONE, 0)
    assert 0.4 < time.monotonic() - begun < 3
    begun = time.monotonic()
    assert wire.fetch(name, 9, max_wait=5000)[0] == raw.OUT_OF_RANGE
    assert wire.fetch(name, 0, max_wait=5000, min_bytes=0)[0] == raw.NONE
    assert time.monotonic() - begun < 2
    wire.send(wire.frame(raw.FETCH, 4, raw.fetch_body(name, 0, max_wait=10_000, min_bytes=400)))
    small = batch([b"x" * 100])
    assert other.produce(name, small) == (raw.NONE, 0)
    wire.socket.settimeout(0.4)
    with pytest.raises(TimeoutError):
        wire.read()
    wire.socket.settimeout(10)
    begun = time.monotonic()
    for _ in range(3):
        assert other.produce(name, small)[0] == raw.NONE
    _, end, records = raw.fetched(wire.read()[1])
    assert time.monotonic() - begun < 5 and len(records) >= 400 and end >= 3


def session_fetch(wire, session, epoch, cursors=(), forgotten=()):
    """Fetch v7: top error, session id, {(topic, partition): (error, end, records)}."""
    body = struct.pack(">iiiibii", -1, 0, 0, 1 << 20, 0, session, epoch)
    body += raw.array(raw.text(name) + raw.array([struct.pack(">iqqi", 0, offset, -1, 1 << 20)]) for name, offset in cursors)
    body += raw.array(raw.text(name) + raw.array([struct.pack(">i", 0)]) for name in forgotten)
    fields = wire.ask(raw.FETCH, 7, body)
    fields.i32()
    error, ident, found = fields.i16(), fields.i32(), {}

    def partition(name):
        at, error, end, _, _ = fields.i32(), fields.i16(), fields.i64(), fields.i64(), fields.i64()
        fields.array(lambda: (fields.i64(), fields.i64()))
        found[name, at] = (error, end, fields.data() or b"")

    def topic():
        name = fields.text()
        fields.array(lambda: partition(name))

    fields.array(topic)
    return error, ident, found


def test_sessions(wire, topic):
    """Only what changed is told again; a wrong number or epoch is refused; 0 means without."""
    one, two = topic(), topic()
    error, session, found = session_fetch(wire, 0, 0, [(one, 0), (two, 0)])
    assert error == raw.NONE and set(found) == {(one, 0), (two, 0)}
    if session == 0:
        pytest.skip("the server keeps no sessions, which it may")
    assert session_fetch(wire, session, 1) == (raw.NONE, session, {})
    wire.produce(two, batch([b"new"]))
    error, _, found = session_fetch(wire, session, 2)
    assert error == raw.NONE and set(found) == {(two, 0)} and values(found[two, 0][2]) == [(0, b"new")]
    error, _, found = session_fetch(wire, session, 3, [(two, 1)])
    assert error == raw.NONE and set(found) <= {(two, 0)} and not any(records for _, _, records in found.values())
    wire.produce(one, batch([b"unseen"]))
    assert session_fetch(wire, session, 4, forgotten=[one]) == (raw.NONE, session, {})
    assert session_fetch(wire, session, 77)[0] == raw.SESSION_EPOCH
    assert session_fetch(wire, session + 12345, 1)[0] == raw.SESSION_UNKNOWN
    error, other, found = session_fetch(wire, 0, -1, [(one, 0)])
    assert (error, other) == (raw.NONE, 0) and values(found[one, 0][2]) == [(0, b"unseen")]


def test_several_sessions_of_one_connection(wire, topic):
    """Each has its own partitions and numbers, and ends by itself."""
    one, two = topic(), topic()
    first, second = (session_fetch(wire, 0, 0, [(name, 0)])[1] for name in (one, two))
    assert 0 not in (first, second) and first != second
    wire.produce(one, batch([b"new"]))
    assert session_fetch(wire, second, 1) == (raw.NONE, second, {})
    error, _, found = session_fetch(wire, first, 1)
    assert error == raw.NONE and set(found) == {(one, 0)}
    error, third, found = session_fetch(wire, first, 0, [(two, 0)])  # Ends the first and begins another.
    assert error == raw.NONE and third not in (0, first) and set(found) == {(two, 0)}
    assert session_fetch(wire, first, 2)[0] == raw.SESSION_UNKNOWN
    assert session_fetch(wire, second, 2) == (raw.NONE, second, {})
    assert session_fetch(wire, second, -1)[0] == raw.NONE
    assert session_fetch(wire, second, 3)[0] == raw.SESSION_UNKNOWN
    assert session_fetch(wire, third, 1) == (raw.NONE, third, {})


def test_sequences(wire, topic):
    """A repeat is answered and not stored, a gap is refused, each of the last five batches is remembered."""
    name, (pid, epoch) = topic(), wire.init_producer()
    sent = [batch(numbers(3), producer=(pid, epoch, 3 * at)) for at in range(6)]
    for at, one in enumerate(sent):
        assert wire.produce(name, one) == (raw.NONE, 3 * at)
    for at in range(1, 6):
        assert wire.produce(name, sent[at]) == (raw.NONE, 3 * at), "a repeat of the last five"
    assert wire.produce(name, sent[0])[0] in (46, raw.OUT_OF_SEQUENCE)  # DUPLICATE_SEQUENCE_NUMBER
    assert wire.produce(name, batch(numbers(3), producer=(pid, epoch, 21)))[0] == raw.OUT_OF_SEQUENCE
    assert wire.produce(name, batch(numbers(1), producer=(pid, epoch, 18))) == (raw.NONE, 18)
    assert wire.fetch(name, 0)[1] == 19


def test_epochs_of_producers(wire, topic):
    name, (pid, epoch) = topic(), wire.init_producer()
    assert wire.produce(name, batch(numbers(2), producer=(pid, epoch, 0))) == (raw.NONE, 0)
    assert wire.produce(name, batch(numbers(2), producer=(pid, epoch + 1, 5)))[0] == raw.OUT_OF_SEQUENCE
    assert wire.produce(name, batch(numbers(2), producer=(pid, epoch + 1, 0))) == (raw.NONE, 2)
    assert wire.produce(name, batch(numbers(2), producer=(pid, epoch, 2)))[0] == raw.STALE_PRODUCER
    assert wire.produce(name, batch(numbers(2), producer=(pid, epoch + 1, 2))) == (raw.NONE, 4)


def test_a_wrong_producer_harms_no_other(wire, topic):
    name, (one, epoch), (two, _) = topic(), wire.init_producer(), wire.init_producer()
    assert one != two
    assert wire.produce(name, batch(numbers(2), producer=(one, epoch, 0))) == (raw.NONE, 0)
    assert wire.produce(name, batch(numbers(2), producer=(one, epoch, 9)))[0] == raw.OUT_OF_SEQUENCE
    assert wire.produce(name, batch(numbers(2), producer=(two, epoch, 0))) == (raw.NONE, 2)
    assert wire.produce(name, batch(numbers(2), producer=(one, epoch, 2))) == (raw.NONE, 4)


def test_a_producer_nobody_knows_may_begin_anywhere(wire, topic):
    """It may have been forgotten; from its first batch on, its numbers follow each other."""
    name, (pid, epoch) = topic(), wire.init_producer()
    first = batch([b"x"], producer=(pid, epoch, 5))
    assert wire.produce(name, first) == (raw.NONE, 0)
    assert wire.produce(name, first) == (raw.NONE, 0)
    assert wire.produce(name, batch([b"y"], producer=(pid, epoch, 6))) == (raw.NONE, 1)
    for sequence in (0, 4, 9):
        assert wire.produce(name, batch([b"z"], producer=(pid, epoch, sequence)))[0] == raw.OUT_OF_SEQUENCE


def test_sequences_wrap(wire, topic):
    """Behind the largest number comes 0."""
    name, (pid, epoch) = topic(), wire.init_producer()
    assert wire.produce(name, batch(numbers(2), producer=(pid, epoch, (1 << 31) - 2))) == (raw.NONE, 0)
    assert wire.produce(name, batch(numbers(1), producer=(pid, epoch, 0))) == (raw.NONE, 2)


def test_offsets_by_time(wire, topic):
    name, base = topic(retention_ms=-1), 1_700_000_000_000
    assert wire.offset(name, -1) == (raw.NONE, -1, 0) and wire.offset(name, -2) == (raw.NONE, -1, 0)
    for at in (0, 100, 50, 200):
        assert wire.produce(name, batch([b"x"], timestamp=base + at))[0] == raw.NONE
    for asked, (time_ms, offset) in {0: (0, 0), 1: (100, 1), 100: (100, 1), 101: (200, 3), 200: (200, 3)}.items():
        assert wire.offset(name, base + asked) == (raw.NONE, base + time_ms, offset), asked
    assert wire.offset(name, base + 201)[::2] == (raw.NONE, -1)


def epoch_end(wire, name, epoch, partition=0, current=-1):
    """OffsetForLeaderEpoch v3: error, epoch, end."""
    place = struct.pack(">iii", partition, current, epoch)
    fields = wire.ask(23, 3, struct.pack(">i", -1) + raw.array([raw.text(name) + raw.array([place])]))
    fields.i32()
    assert fields.i32() == 1 and fields.text() == name and fields.i32() == 1
    error, told = fields.i16(), fields.i32()
    assert told == partition
    return error, fields.i32(), fields.i64()


def test_where_epochs_end(server, wire, topic):
    """A log that nobody else ever led has one epoch; a newer one is not known, which is no error, and none is asked of."""
    name = topic()
    for values_of_one in ([b"a", b"b"], [b"c"]):
        assert wire.produce(name, batch(values_of_one))[0] == raw.NONE
    assert epoch_end(wire, name, 0) == (raw.NONE, 0, 3)
    assert epoch_end(wire, name, 0, current=0) == (raw.NONE, 0, 3)
    assert epoch_end(wire, name, 7) == epoch_end(wire, name, -1) == (raw.NONE, -1, -1)
    assert epoch_end(wire, name, 0, current=7) == (75, -1, -1), "a reader that knows of a newer leader"
    assert epoch_end(wire, name, 0, partition=9)[0] == raw.UNKNOWN_PARTITION


def test_compacted_topics_need_keys(wire, topic):
    name = topic(cleanup_policy="compact")
    assert wire.produce(name, batch([b"without"]))[0] == raw.INVALID_RECORD
    assert wire.produce(name, batch([b"with"], keys=[b"key"])) == (raw.NONE, 0)
    assert wire.produce(name, batch([b"a", b"b"], keys=[b"key", None]))[0] == raw.INVALID_RECORD


def produce_fully(wire, name, records, version=8):
    """Error, the records it is for, and its text; the last two from version 8 on."""
    wire.send(wire.frame(raw.PRODUCE, version, raw.produce_body(name, records)))
    fields = wire.read()[1]
    error, _ = raw.produced(fields)
    fields.i64(), fields.i64()
    if version < 8:
        return error, [], None
    return error, fields.array(lambda: (fields.i32(), fields.text())), fields.text()


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_times_too_far_from_now(wire, topic, codec):
    """Records outside of what the topic allows are refused, each by its number; nothing of the batch is stored."""
    name, now = topic(message_timestamp_before_max_ms=600_000, message_timestamp_after_max_ms=300_000), int(time.time() * 1000)
    for at in (now, now - 500_000, now + 200_000, -1):
        assert produce_fully(wire, name, batch([b"x"], codec, timestamp=at))[0] == raw.NONE, at - now
    for at in (now - 700_000, now + 400_000, 0):
        error, records, text = produce_fully(wire, name, batch([b"x", b"y"], codec, timestamp=at))
        assert (error, [number for number, _ in records]) == (raw.INVALID_TIMESTAMP, [0, 1]), at - now
        assert text and all(why for _, why in records)
    mixed = record(0, b"a") + record(1, b"b", timestamp_delta=-700_000) + record(2, b"c", timestamp_delta=400_000)
    one = batch([b"a", b"b", b"c"], codec, timestamp=now, records=COMPRESS[codec](mixed))
    error, records, _ = produce_fully(wire, name, one)
    assert (error, [number for number, _ in records]) == (raw.INVALID_TIMESTAMP, [1, 2])
    assert produce_fully(wire, name, one, version=7)[0] == raw.INVALID_TIMESTAMP
    assert wire.fetch(name, 0)[1] == 4


def test_times_that_the_log_gives(wire, topic):
    """Any time of the writer's is replaced, but it must not claim that the log gave it."""
    name = topic(message_timestamp_type="LogAppendTime", message_timestamp_before_max_ms=1000, message_timestamp_after_max_ms=1000)
    assert produce_fully(wire, name, batch([b"x"], timestamp=5))[0] == raw.NONE
    error, records, _ = produce_fully(wire, name, batch([b"x"], attributes=8))
    assert (error, [number for number, _ in records]) == (raw.INVALID_TIMESTAMP, [0])


def test_times_by_default(wire, topic):
    """As old as they like, an hour into the future."""
    name, now = topic(retention_ms=-1), int(time.time() * 1000)
    assert wire.produce(name, batch([b"x"], timestamp=0)) == (raw.NONE, 0)
    assert wire.produce(name, batch([b"x"], timestamp=now + 3_500_000)) == (raw.NONE, 1)
    assert wire.produce(name, batch([b"x"], timestamp=now + 3_700_000))[0] == raw.INVALID_TIMESTAMP


@pytest.mark.parametrize("version", [5, 7, 8])
def test_records_are_refused_alike_in_all_versions(wire, topic, version):
    name = topic(cleanup_policy="compact")
    error, records, text = produce_fully(wire, name, batch([b"a", b"b", b"c"], keys=[b"k", None, None]), version)
    assert error == raw.INVALID_RECORD
    if version >= 8:
        assert [number for number, _ in records] == [1, 2] and text
    assert produce_fully(wire, name, batch([b"a", b"b"], keys=[b"k"] * 2, count=3), version)[0] == raw.INVALID_RECORD
    assert produce_fully(wire, name, old_message(b"old", 1), version)[0] == raw.INVALID_RECORD


@pytest.mark.parametrize("size", [2_000_000, 17_500_000, 60_000_000])
def test_batches_far_too_large(wire, topic, size):
    """Refused in the answer, whatever the size of the request; the connection goes on, and so does the log."""
    name = topic()
    huge = struct.pack(">qiib", 0, size - 12, 0, 2) + b"\0" * (size - 17)
    error, _, _ = produce_fully(wire, name, huge)
    assert error == raw.TOO_LARGE
    assert wire.produce(name, batch([b"small"])) == (raw.NONE, 0)
    beside = raw.text(None) + struct.pack(">hi", -1, 10_000) + raw.array(
        [raw.text(name) + raw.array([struct.pack(">i", 0) + raw.data(batch([b"beside"])), struct.pack(">i", 1) + raw.data(huge)])]
    )
    wire.send(wire.frame(raw.PRODUCE, 7, beside))
    fields = wire.read()[1]
    assert fields.i32() == 1 and fields.text() == name
    found = fields.array(lambda: (fields.i32(), fields.i16(), fields.i64(), fields.i64(), fields.i64()))
    assert found[0][:3] == (0, raw.NONE, 1) and found[1][1] in (raw.TOO_LARGE, raw.UNKNOWN_PARTITION)
    assert values(wire.fetch(name, 0)[2]) == [(0, b"small"), (1, b"beside")]
