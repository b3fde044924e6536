"""confluent-kafka (librdkafka) in its default settings: idempotent producers, compression, offsets, times, commits."""

import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec

import clients
from conftest import numbers, until


def content(message):
    return message.key(), message.value(), message.headers() or [], message.timestamp()[1]


def test_hello(server, names, group):
    """Nothing is created beforehand; the settings are those of the library's first page."""
    topic, reports = names.topic(), []
    producer = Producer({"bootstrap.servers": server.bootstrap})
    producer.produce(topic, b"Hello, World!", on_delivery=lambda *report: reports.append(report))
    producer.flush(20)
    assert reports[0][0] is None and reports[0][1].offset() == 0
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    (message,) = clients.take(consumer, 1)
    assert (message.topic(), message.partition(), message.offset(), message.value()) == (topic, 0, 0, b"Hello, World!")
    consumer.close()
    assert clients.committed(server, group, topic) == 1


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_whole(server, topic, group, codec, idempotent):
    name = topic(retention_ms=-1)
    sent = [
        (b"k", b"v", [], 1_700_000_000_000),
        (None, b"", [("h", b"1"), ("h", b"2"), ("empty", b""), ("null", None)], 1_700_000_000_001),
        (b"", b"x" * 100_000, [("bytes", bytes(range(256)))], 1_700_000_000_002),
        (b"tombstone", None, [], 1_700_000_000_003),
    ]
    sent += [(b"key", b"value %d" % number * (number % 7), [], 1_700_000_001_000 + number) for number in range(2000)]
    fields = [dict(zip(("key", "value", "headers", "timestamp"), one, strict=True)) for one in sent]
    made = clients.send(server, name, fields, compression_type=codec, enable_idempotence=idempotent, linger_ms=5)
    assert made == [(0, offset) for offset in range(len(sent))]
    found = clients.read_all(server, name, group, len(sent), check_crcs=True)
    assert [content(one) for one in found] == sent
    assert [one.offset() for one in found] == list(range(len(sent)))


def test_many_records_over_many_partitions(server, topic, group):
    name = topic(12)
    made = clients.send(server, name, [{"value": b"%d" % n, "key": b"%d" % (n % 100)} for n in range(20_000)], enable_idempotence=True)
    found = clients.read_all(server, name, group, 20_000)
    assert sorted((one.partition(), one.offset()) for one in found) == sorted(made)
    by_key, last = {}, {}
    for one in found:
        by_key.setdefault(one.key(), []).append(int(one.value()))
        assert one.offset() == last.get(one.partition(), -1) + 1, "a gap or a step back"
        last[one.partition()] = one.offset()
    assert all(found == list(range(int(key), 20_000, 100)) for key, found in by_key.items())


def test_commits_sync_and_async(server, topic, group):
    name = topic()
    clients.send(server, name, numbers(10))
    answers = []
    consumer = clients.consumer(server, group, name, on_commit=lambda *answer: answers.append(answer))
    taken = clients.take(consumer, 4)
    done = consumer.commit(message=taken[-1], asynchronous=False)
    assert [(place.offset, place.error) for place in done] == [(4, None)]
    taken = clients.take(consumer, 3)
    consumer.commit(message=taken[-1], asynchronous=True)
    until(lambda: consumer.poll(0.05) is None and answers, what="the answer of the commit")
    assert all(error is None for error, _ in answers) and answers[-1][1][0].offset == 7
    assert clients.committed(server, group, name) == 7
    consumer.commit(offsets=[TopicPartition(name, 0, 2, "a note")], asynchronous=False)
    (place,) = consumer.committed([TopicPartition(name, 0)], timeout=10)
    assert (place.offset, place.metadata) == (2, "a note")
    consumer.close()
    again = clients.consumer(server, group, name)
    assert [one.value() for one in clients.take(again, 8)] == numbers(8, first=2)
    again.close()


def test_offsets_that_were_never_committed(server, topic, group):
    assert clients.committed(server, group, topic()) == -1001


def test_seeking(server, topic, group):
    name = topic()
    clients.send(server, name, numbers(50))
    consumer = clients.consumer(server, group)
    consumer.assign([TopicPartition(name, 0, 30)])
    assert clients.take(consumer, 1)[0].value() == b"30"
    for offset in (5, 49, 0):
        consumer.seek(TopicPartition(name, 0, offset))
        assert clients.take(consumer, 1)[0].value() == b"%d" % offset
    assert consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=10) == (0, 50)
    consumer.pause([TopicPartition(name, 0)])
    consumer.resume([TopicPartition(name, 0)])
    assert clients.take(consumer, 1)[0].value() == b"1"
    consumer.close()


def test_offsets_by_time(server, topic, group):
    """Every list offset there is: earliest, latest, by time, the record with the highest time."""
    name, base = topic(2, retention_ms=-1), 1_700_000_000_000
    times = [0, 100, 200, 900, 300, 400]  # The highest is not the last.
    for at in times:
        clients.send(server, name, [{"value": b"%d" % at, "timestamp": base + at, "partition": 0}])
    consumer = clients.consumer(server, group)
    expected = {-1: 0, 0: 0, 1: 1, 100: 1, 150: 2, 201: 3, 500: 3, 900: 3, 901: -1}
    for at, offset in expected.items():
        asked = [TopicPartition(name, 0, base + at), TopicPartition(name, 1, base + at)]
        first, empty = consumer.offsets_for_times(asked, timeout=10)
        assert first.offset == offset, at
        assert empty.offset == -1
    consumer.close()
    place = TopicPartition(name, 0)
    for spec, offset in ((OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 6), (OffsetSpec.max_timestamp(), 3),
                         (OffsetSpec.for_timestamp(base + 250), 3)):
        assert server.admin.list_offsets({place: spec})[place].result(10).offset == offset, spec


def test_out_of_range(server, topic, group):
    name = topic()
    clients.send(server, name, numbers(3))
    consumer = clients.consumer(server, group, auto_offset_reset="error")
    consumer.assign([TopicPartition(name, 0, 77)])
    message = until(lambda: consumer.poll(0.2), what="an error")
    assert message.error().code() == KafkaError._AUTO_OFFSET_RESET
    consumer.close()


def test_end_of_partition_and_long_poll(server, topic, group):
    """A consumer at the end waits at the server, and what is produced reaches it at once, not at the next round."""
    name = topic()
    consumer = clients.consumer(server, group, enable_partition_eof=True, fetch_wait_max_ms=3000)
    consumer.assign([TopicPartition(name, 0, 0)])
    assert until(lambda: consumer.poll(0.2), what="the end").error().code() == KafkaError._PARTITION_EOF
    producer = clients.producer(server)
    producer.produce(name, b"warm")
    producer.flush(10)
    clients.take(consumer, 1)
    time.sleep(0.3)
    begun = time.monotonic()
    producer.produce(name, b"now")
    producer.flush(10)
    assert clients.take(consumer, 1)[0].value() == b"now"
    assert time.monotonic() - begun < 2, "the record waited for the end of the poll"
    consumer.close()


def test_too_large_records(server, topic):
    name, reports = topic(max_message_bytes=5000), []
    producer = clients.producer(server)
    producer.produce(name, b"x" * 6000, on_delivery=lambda error, _: reports.append(error))
    producer.flush(15)
    assert reports[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    with pytest.raises(KafkaException):
        producer.produce(name, b"x" * 3_000_000)
    other = clients.producer(server, enable_idempotence=False)
    other.produce(name, b"x" * 100, on_delivery=lambda error, message: reports.append((error, message.offset())))
    other.flush(15)
    assert reports[1] == (None, 0)


def test_a_record_of_almost_a_mebibyte(server, topic, group):
    """As large as both the default of clients and of topics allow."""
    name, body = topic(), bytes(range(256)) * 3900
    assert clients.send(server, name, [body, b"small"]) == [(0, 0), (0, 1)]
    assert [one.value() for one in clients.read_all(server, name, group, 2)] == [body, b"small"]


def test_acks_none_and_one(server, topic, group):
    name = topic()
    for acks in (0, 1):
        clients.send(server, name, numbers(100), acks=acks, enable_idempotence=False)
        until(lambda: server_end(server, name) == 100 * (acks + 1), what=f"the records of acks={acks}")
    assert [one.value() for one in clients.read_all(server, name, group, 200)] == numbers(100) * 2


def server_end(server, name):
    place = TopicPartition(name, 0)
    return server.admin.list_offsets({place: OffsetSpec.latest()})[place].result(10).offset


def test_producers_at_once(server, topic, group):
    """Eight producers to one partition: each one's records stay in order, none is lost or doubled."""
    name = topic()

    def work(ident):
        clients.send(server, name, [b"%d %d" % (ident, number) for number in range(1000)], enable_idempotence=True)

    threads = [threading.Thread(target=work, args=(ident,)) for ident in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    found = [tuple(map(int, one.value().split())) for one in clients.read_all(server, name, group, 8000)]
    for ident in range(8):
        assert [number for owner, number in found if owner == ident] == list(range(1000))


def test_incremental_fetch_sessions(server, topic, group):
    """A reader of many partitions of which few change gets every record of them."""
    name = topic(30)
    consumer = clients.consumer(server, group, name)
    clients.settled([consumer], name, 30)
    for turn in range(5):
        clients.send(server, name, [{"value": b"%d" % turn, "partition": turn * 5 + 1}])
        message = clients.take(consumer, 1)[0]
        assert (message.value(), message.partition(), message.offset()) == (b"%d" % turn, turn * 5 + 1, 0)
    consumer.close()
