"""What leaves a log by itself: by age, by size, by key. And what must not.

Each test goes on producing while it waits: a log whose newest part nobody closes need not be cleaned.
"""

import time

from confluent_kafka import TopicPartition

import clients
from conftest import until


def begin(server, name):
    """The first offset of the log."""
    error, _, offset = server.wire().offset(name, -2)
    assert error == 0
    return offset


def records(server, name):
    """Everything that is in the log: [(offset, key, value)]."""
    reader = clients.consumer(server, "reader-of-" + name, enable_partition_eof=True)
    reader.assign([TopicPartition(name, 0, begin(server, name))])
    found, end = [], time.monotonic() + 20
    while time.monotonic() < end:
        for message in reader.consume(5000, 0.2):
            if message.error():
                reader.close()
                return found
            found.append((message.offset(), message.key(), message.value()))
    raise AssertionError("no end of the log")


def test_by_age(server, topic):
    """What is older than retention.ms goes, what is younger stays, offsets go on."""
    name, now = topic(retention_ms=3_600_000, segment_ms=200), int(time.time() * 1000)
    old = [{"value": b"old", "timestamp": now - 7_200_000}] * 50
    assert clients.send(server, name, old)[-1] == (0, 49)
    sent = [0]

    def is_cleaned():
        clients.send(server, name, [b"young"])
        sent[0] += 1
        return begin(server, name) >= 50

    until(is_cleaned, timeout=30, what="the end of the old records")
    found = records(server, name)
    assert [(offset, value) for offset, _, value in found] == [(50 + at, b"young") for at in range(sent[0])]


def test_by_size(server, topic):
    """The beginning goes once the log is larger than retention.bytes, and at least so much of its end stays."""
    name, block = topic(retention_bytes=3_000_000, segment_bytes=1_048_576), b"x" * 100_000
    sent = [0]

    def is_cleaned():
        clients.send(server, name, [block] * 10)
        sent[0] += 10
        return begin(server, name) > 0

    until(is_cleaned, timeout=30, what="the end of the first records")
    first = begin(server, name)
    assert first <= sent[0] - 30, "too much went"
    assert [offset for offset, _, _ in records(server, name)] == list(range(first, sent[0]))


def test_by_key(server, topic):
    """Compaction keeps the last value of each key where it was, order and offsets; a deleted key never returns."""
    name = topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01", delete_retention_ms=100,
                 max_compaction_lag_ms=500)
    values = [{"key": b"key-%d" % (n % 10), "value": b"%d" % n} for n in range(200)]
    clients.send(server, name, values[:120], compression_type="lz4")
    clients.send(server, name, values[120:])
    clients.send(server, name, [{"key": b"key-0", "value": None}])
    last = {b"key-%d" % (n % 10): (n, b"%d" % n) for n in range(200)}
    turn = [0]

    def is_compacted():
        turn[0] += 1
        clients.send(server, name, [{"key": b"filler-%d" % turn[0], "value": b"x"}])
        found = [row for row in records(server, name) if not row[1].startswith(b"filler")]
        assert [offset for offset, _, _ in found] == sorted({offset for offset, _, _ in found}), "order or a repeat"
        for key in set(last) - {b"key-0"}:
            assert [row for row in found if row[1] == key][-1] == (last[key][0], key, last[key][1]), "the last value of a key"
        deleted = [value for _, key, value in found if key == b"key-0"]
        assert not deleted or deleted[-1] is None, "a deleted key came back"
        return len(found) <= 10

    until(is_compacted, timeout=40, what="one value for each key")
    assert server.wire().offset(name, -1)[2] == 201 + turn[0], "offsets are never given again"


def test_a_lagging_value_is_not_compacted(server, topic):
    """min.compaction.lag.ms: a reader that is not further behind than this sees every value."""
    name = topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01", min_compaction_lag_ms=3_600_000)
    clients.send(server, name, [{"key": b"k", "value": b"%d" % n} for n in range(20)])
    time.sleep(1)
    clients.send(server, name, [{"key": b"k", "value": b"20"}])
    time.sleep(1)  # Nothing may happen; in the tests above it happens within this.
    assert [offset for offset, _, _ in records(server, name)] == list(range(21))


def test_the_end_of_a_compacted_log_is_reached(server, topic):
    """Where the last record deletes its key, whoever reads gets to the end for all that, however old it is."""
    name = topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01", delete_retention_ms=100,
                 max_compaction_lag_ms=500)
    clients.send(server, name, [{"key": b"k", "value": b"v"}])
    clients.send(server, name, [{"key": b"k", "value": None}])
    end = time.monotonic() + 4  # In test_by_key it is compacted within this.
    while time.monotonic() < end:
        assert records(server, name)[-1:] in ([(1, b"k", None)], []), "a deleted key came back"
        time.sleep(0.5)
    clients.send(server, name, [{"key": b"l", "value": b"v"}])
    assert records(server, name)[-1] == (2, b"l", b"v")
