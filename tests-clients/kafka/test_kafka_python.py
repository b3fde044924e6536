"""kafka-python as its users use it: producers and consumers in their default settings, groups, offsets."""

import collections
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

from conftest import numbers, until

MEMBER = pathlib.Path(__file__).resolve().parent / "programs" / "member.py"


@pytest.fixture
def producer(server):
    """Makes producers that end with the test."""
    made = []

    def one(**settings):
        made.append(KafkaProducer(bootstrap_servers=[server.bootstrap], **settings))
        return made[-1]

    yield one
    for producer in made:
        producer.close(timeout=10)


@pytest.fixture
def consumer(server):
    """Makes consumers that end with the test."""
    made = []

    def one(*topics, **settings):
        made.append(KafkaConsumer(*topics, bootstrap_servers=[server.bootstrap], **settings))
        return made[-1]

    yield one
    for consumer in made:
        consumer.close(autocommit=False)


def take(consumer, count, timeout=20):
    """The next `count` records."""
    found, end = [], time.monotonic() + timeout
    while len(found) < count:
        for records in consumer.poll(timeout_ms=200, max_records=count - len(found)).values():
            found += records
        assert time.monotonic() < end, f"{len(found)} of {count} records came"
    return found


def values(records):
    return [record.value for record in records]


def test_send_creates_the_topic_and_earliest_reads_it(producer, consumer, names):
    topic = names.topic()
    made = producer().send(topic, b"Hello, World!").get(15)
    assert (made.topic, made.partition, made.offset) == (topic, 0, 0)
    (record,) = take(consumer(topic, auto_offset_reset="earliest"), 1)
    assert (record.value, record.key, list(record.headers), record.offset) == (b"Hello, World!", None, [], 0)
    assert abs(record.timestamp - time.time() * 1000) < 60_000


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_whole(producer, consumer, topic, codec):
    name, sender = topic(retention_ms=-1), producer(compression_type=codec, linger_ms=20)
    sent = [
        (b"k", b"v", [], 1_700_000_000_000),
        (None, b"", [("h", b"1"), ("h", b"2"), ("empty", b"")], 1_700_000_000_001),
        (b"", b"x" * 100_000, [("non-text", bytes(range(256)))], 1_700_000_000_002),
        (b"tombstone", None, [], 1_700_000_000_003),
    ]
    sent += [(b"key", b"value %d" % number, [], 1_700_000_001_000 + number) for number in range(500)]
    for key, value, headers, timestamp in sent:
        future = sender.send(name, value, key=key, headers=headers, timestamp_ms=timestamp)
    sender.flush(timeout=15)
    assert future.get(1).offset == len(sent) - 1
    found = take(consumer(name, auto_offset_reset="earliest"), len(sent))
    assert [(one.key, one.value, list(one.headers), one.timestamp) for one in found] == sent
    assert [one.offset for one in found] == list(range(len(sent)))


def test_a_group_goes_on_where_it_was(producer, consumer, topic, group):
    name, sender = topic(), producer()
    for value in numbers(10):
        sender.send(name, value)
    sender.flush(timeout=15)
    first = consumer(name, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    assert values(take(first, 6)) == numbers(6)
    first.commit()
    first.close(autocommit=False)
    second = consumer(name, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    assert values(take(second, 4)) == numbers(4, first=6)
    done = threading.Event()
    second.commit_async(callback=lambda *_: done.set())
    until(lambda: second.poll(timeout_ms=50) or done.is_set(), what="the answer of a commit")
    assert second.committed(TopicPartition(name, 0)) == 10


def test_automatic_commits(producer, consumer, topic, group):
    name = topic()
    producer().send(name, b"x").get(15)
    first = consumer(name, group_id=group, auto_offset_reset="earliest")
    assert values(take(first, 1)) == [b"x"]
    first.close()
    assert consumer(group_id=group).committed(TopicPartition(name, 0)) == 1


def test_seeking_and_offsets_by_time(producer, consumer, topic):
    name, place, sender = topic(retention_ms=-1), None, producer()
    place = TopicPartition(name, 0)
    for number in range(10):  # Each in a batch of its own, times in hundreds.
        sender.send(name, b"%d" % number, timestamp_ms=1_700_000_000_000 + 100 * number).get(15)
    reader = consumer(enable_auto_commit=False)
    reader.assign([place])
    assert reader.beginning_offsets([place]) == {place: 0}
    assert reader.end_offsets([place]) == {place: 10}
    for time_ms, expected in ((0, 0), (1_700_000_000_000, 0), (1_700_000_000_001, 1), (1_700_000_000_850, 9)):
        found = reader.offsets_for_times({place: time_ms})[place]
        assert (found.offset, found.timestamp) == (expected, 1_700_000_000_000 + 100 * expected)
    assert reader.offsets_for_times({place: 1_700_000_000_901}) == {place: None}
    reader.seek(place, 7)
    assert values(take(reader, 3)) == [b"7", b"8", b"9"]
    reader.seek_to_beginning(place)
    assert values(take(reader, 1)) == [b"0"]
    reader.seek_to_end(place)
    assert reader.position(place) == 10
    assert not reader.poll(timeout_ms=200)
    sender.send(name, b"10").get(15)
    assert values(take(reader, 1)) == [b"10"]


def test_time_within_a_batch(producer, consumer, topic):
    """The answer is the record, not the beginning of its batch, compressed or not."""
    for codec in (None, "gzip"):
        name, sender = topic(retention_ms=-1), producer(linger_ms=200, compression_type=codec)
        for number in range(20):
            sender.send(name, b"%d" % number, timestamp_ms=1_700_000_000_000 + number)
        sender.flush(timeout=15)
        place = TopicPartition(name, 0)
        found = consumer().offsets_for_times({place: 1_700_000_000_013})[place]
        assert (found.offset, found.timestamp) == (13, 1_700_000_000_013)


def test_out_of_range_resets_or_is_said(producer, consumer, topic):
    name, sender = topic(), producer()
    for value in numbers(5):
        sender.send(name, value)
    sender.flush(timeout=15)
    place = TopicPartition(name, 0)
    strict = consumer(auto_offset_reset="none", enable_auto_commit=False)
    strict.assign([place])
    strict.seek(place, 1000)
    with pytest.raises(OffsetOutOfRangeError):
        end = time.monotonic() + 15
        while time.monotonic() < end:
            strict.poll(timeout_ms=200)
    lenient = consumer(auto_offset_reset="earliest", enable_auto_commit=False)
    lenient.assign([place])
    lenient.seek(place, 1000)
    assert values(take(lenient, 5)) == numbers(5)


def test_a_record_that_is_too_large(producer, topic):
    """Neither the topic's bound nor the producer's own is passed, and the producer goes on."""
    name, sender = topic(max_message_bytes=10_000), producer(enable_idempotence=False)
    with pytest.raises(MessageSizeTooLargeError):
        sender.send(name, b"x" * 20_000).get(15)
    with pytest.raises(MessageSizeTooLargeError):
        sender.send(name, b"x" * 2_000_000).get(15)
    assert sender.send(name, b"small").get(15).offset == 0


def test_acks_of_every_kind(producer, consumer, topic):
    name = topic()
    for acks in (0, 1, "all"):
        sender = producer(acks=acks, enable_idempotence=acks == "all")
        for value in numbers(50):
            sender.send(name, value)
        sender.flush(timeout=15)
        place = TopicPartition(name, 0)
        reader = consumer()
        until(lambda: reader.end_offsets([place])[place] % 50 == 0, what=f"the records of acks={acks}")
    assert values(take(consumer(name, auto_offset_reset="earliest"), 150)) == numbers(50) * 3


def test_keys_choose_partitions_and_keep_their_order(producer, consumer, topic):
    name, sender = topic(6), producer()
    for number in range(300):
        sender.send(name, b"%d" % number, key=b"key-%d" % (number % 10))
    sender.flush(timeout=15)
    by_key, where = collections.defaultdict(list), {}
    for record in take(consumer(name, auto_offset_reset="earliest"), 300):
        by_key[record.key].append(int(record.value))
        assert where.setdefault(record.key, record.partition) == record.partition
    assert all(found == list(range(int(key[4:]), 300, 10)) for key, found in by_key.items())
    assert len(set(where.values())) > 1


class Member:
    """A consumer process, and what it said."""

    def __init__(self, server, topic, group):
        command = [sys.executable, "-u", MEMBER, server.bootstrap, topic, group]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.records, self.assigned, self.lock = [], None, threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            words = line.split()
            with self.lock:
                if not words:
                    continue
                if words[0] == "assigned":
                    self.assigned = [int(word) for word in words[1:]]
                elif words[0] == "record":
                    self.records.append(tuple(int(word) for word in words[1:]))

    def kill(self):
        self.process.kill()
        self.process.wait()


def shared(members, partitions):
    """Whether everybody has some and each partition is with one."""
    owned = [list(one.assigned or ()) for one in members]
    return all(owned) and sorted(sum(owned, [])) == list(range(partitions))


def test_members_share_partitions_and_take_over(server, producer, topic, group):
    """Three processes share six partitions; one is killed; nothing is lost and every partition stays in order."""
    name, sender = topic(6), producer()
    members = [Member(server, name, group) for _ in range(3)]
    try:
        until(lambda: shared(members, 6), timeout=30, what=f"partitions for everybody: {members}")
        for number in range(300):
            sender.send(name, b"%d" % number, partition=number % 6)
        sender.flush(timeout=15)
        until(lambda: sum(len(one.records) for one in members) >= 300, what="the first records")
        members[1].kill()
        for number in range(300, 600):
            sender.send(name, b"%d" % number, partition=number % 6)
        sender.flush(timeout=15)
        left = [members[0], members[2]]
        until(lambda: shared(left, 6), timeout=30, what=f"the take-over: {members}")
        everything = lambda: {value for one in members for _, _, value in list(one.records)}
        until(lambda: everything() >= set(range(600)), timeout=30, what="every record")
    finally:
        for one in members:
            one.kill()
    assert everything() == set(range(600))
    for one in members:
        for partition in range(6):
            offsets = [offset for place, offset, _ in one.records if place == partition]
            assert offsets == sorted(set(offsets)), f"partition {partition} out of order: {offsets}"
    seen = collections.Counter((place, offset) for one in members for place, offset, _ in one.records)
    assert max(seen.values()) <= 2, "a record came a third time"
    for place, offset in seen:
        assert next(v for one in members for p, o, v in one.records if (p, o) == (place, offset)) == offset * 6 + place


def test_commit_with_metadata(consumer, topic, group):
    name = topic()
    place = TopicPartition(name, 0)
    one = consumer(group_id=group)
    one.assign([place])
    one.commit({place: OffsetAndMetadata(7, "a note", -1)})
    found = one.committed(place, metadata=True)
    assert (found.offset, found.metadata) == (7, "a note")
    assert one.committed(TopicPartition(name, 5)) is None


def test_topics_are_listed(producer, consumer, topic):
    name = topic(3)
    assert name in consumer().topics()
    assert consumer().partitions_for_topic(name) == {0, 1, 2}
