"""One log, two protocols: what AMQP publishes to a stream Kafka reads, and the other way, as docs/mapping.md says.

In: a server that speaks both. Out: keys, headers, times, nulls and bodies, compared.
"""

import datetime
import random
import time

import cramjam
import pika
import pytest
from confluent_kafka import Consumer, TopicPartition

import clients
import raw
from conftest import numbers, until
from records import batch, record

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
STREAM = {"x-queue-type": "stream"}


@pytest.fixture
def stream(amqp, names):
    """Declares streams by AMQP."""
    amqp.confirm_delivery()

    def one(**arguments):
        name = names.topic()
        amqp.queue_declare(name, durable=True, arguments={**STREAM, **arguments})
        return name

    return one


class Reader:
    """An AMQP consumer of a stream on a channel of its own: what came, settled as it comes."""

    def __init__(self, channel, queue, offset=None, prefetch=100, settle=True):
        self.channel, self.found, self.tags, self.settle = channel.connection.channel(), [], [], settle
        self.channel.basic_qos(prefetch_count=prefetch)
        arguments = {} if offset is None else {"x-stream-offset": offset}
        self.tag = self.channel.basic_consume(queue, self.on_message, arguments=arguments)

    def on_message(self, channel, method, properties, body):
        self.found.append((method, properties, body))
        if self.settle:
            channel.basic_ack(method.delivery_tag)

    def wait(self, seconds):
        """Reads for a while; the bodies that came in all."""
        self.channel.connection.process_data_events(time_limit=seconds)
        return [body for _, _, body in self.found]

    def take(self, count, timeout=20):
        """The first `count` messages: [(method, properties, body)]."""
        end = time.monotonic() + timeout
        while len(self.found) < count:
            self.wait(0.05)
            assert time.monotonic() < end, f"{len(self.found)} of {count} messages came"
        return self.found[:count]

    def bodies(self, count):
        return [body for _, _, body in self.take(count)]

    def close(self):
        self.channel.close()


def read(server, name, group, count):
    """As a Kafka consumer sees it: [(key, value, headers, timestamp)]."""
    found = clients.read_all(server, name, group, count, check_crcs=True)
    return [(one.key(), one.value(), one.headers() or [], one.timestamp()[1]) for one in found]


def test_a_stream_is_a_topic(server, amqp, stream, group):
    """Bodies, in order, with offsets from 0."""
    name = stream()
    assert server.partitions(name) == 1
    for value in numbers(50):
        amqp.basic_publish("", name, value)
    found = clients.read_all(server, name, group, 50)
    assert [(one.offset(), one.value()) for one in found] == list(enumerate(numbers(50)))
    assert clients.send(server, name, [b"by kafka"]) == [(0, 50)]
    amqp.basic_publish("", name, b"by amqp")
    assert clients.read_all(server, name, group + "-2", 52)[-1].offset() == 51


def test_what_amqp_says_reaches_kafka(server, amqp, stream, group):
    name = stream()
    amqp.basic_publish("", name, b"plain")
    properties = pika.BasicProperties(
        content_type="text/plain", timestamp=1_700_000_000, delivery_mode=2, message_id="id-1", correlation_id="c",
        headers={"x-key": b"the key", "text": "t\u00fcr", "bytes": b"\xff\x00", "nothing": None, "many": ["a", b"b"]},
    )
    amqp.basic_publish("", name, b"full", properties)
    amqp.basic_publish("", name, b"", pika.BasicProperties(timestamp=1_700_000_001, headers={"x-key": b"k", "x-null": True}))
    amqp.basic_publish("", name, b"", pika.BasicProperties(timestamp=1_700_000_002))
    plain, full, tombstone, empty = read(server, name, group, 4)
    assert plain[:3] == (None, b"plain", [("amqp.timestamp", None)]) and abs(plain[3] - time.time() * 1000) < 60_000
    assert (full[0], full[1], full[3]) == (b"the key", b"full", 1_700_000_000_000)
    headers = full[2]
    for wanted in (("content-type", b"text/plain"), ("amqp.message-id", b"id-1"), ("amqp.correlation-id", b"c"),
                   ("amqp.delivery-mode", b"2"), ("text", "t\u00fcr".encode()), ("bytes", b"\xff\x00"), ("nothing", None)):
        assert wanted in headers, wanted
    assert [value for key, value in headers if key == "many"] == [b"a", b"b"]
    assert tombstone[:2] == (b"k", None) and tombstone[3] == 1_700_000_001_000
    assert empty == (None, b"", [], 1_700_000_002_000)


def test_exchange_and_routing_key_are_told(server, amqp, stream, names, group):
    name, exchange = stream(), names.group()
    amqp.exchange_declare(exchange, "topic", auto_delete=True)
    amqp.queue_bind(name, exchange, "a.#")
    amqp.basic_publish(exchange, "a.b", b"routed", pika.BasicProperties(timestamp=1_700_000_000))
    (found,) = read(server, name, group, 1)
    assert set(found[2]) == {("amqp.exchange", exchange.encode()), ("amqp.routing-key", b"a.b")}


@pytest.mark.parametrize("codec", CODECS)
def test_what_kafka_sends_reaches_amqp(server, amqp, topic, codec):
    """Key, headers, time, null and body, from batches compressed in every way."""
    name = topic(retention_ms=-1)
    sent = [
        {"value": b"v", "key": b"k", "timestamp": 1_700_000_000_000, "headers": [("text", b"t\xc3\xbcr"), ("bytes", b"\xff\x00"), ("null", None)]},
        {"value": None, "key": b"tombstone", "timestamp": 1_700_000_001_000},
        {"value": b"", "timestamp": 1_700_000_002_345},
        {"value": b"x" * 50_000, "key": b"", "timestamp": 1_700_000_003_000, "headers": [("twice", b"1"), ("twice", b"2")]},
    ]
    sent += [{"value": b"value %d" % n, "timestamp": 1_700_000_010_000 + 1000 * n} for n in range(300)]
    clients.send(server, name, sent, compression_type=codec, linger_ms=50)
    found = Reader(amqp, name, "first").take(len(sent))
    assert [body for _, _, body in found] == [one["value"] or b"" for one in sent]
    (one, first), (_, null), (_, bare), (_, large) = [(method, properties) for method, properties, _ in found[:4]]
    assert (one.exchange, one.routing_key) == ("", name)
    assert own(first.headers) == {"x-key": b"k", "text": "t\u00fcr", "bytes": b"\xff\x00", "null": None}
    assert seconds(first) == 1_700_000_000
    assert own(null.headers) == {"x-key": b"tombstone", "x-null": True}
    assert "x-key" not in own(bare.headers) and "x-null" not in own(bare.headers)
    assert seconds(bare) == 1_700_000_002 and bare.headers["timestamp_in_ms"] == 1_700_000_002_345
    assert own(large.headers) == {"x-key": b"", "twice": ["1", "2"]}
    assert [seconds(properties) for _, properties, _ in found[4:]] == [1_700_000_010 + n for n in range(300)]


def own(headers):
    """Headers without what the broker says of the delivery itself."""
    return {name: value for name, value in (headers or {}).items() if name != "x-stream-offset"}


def seconds(properties):
    at = properties.timestamp
    return int(at.timestamp()) if isinstance(at, datetime.datetime) else at


def test_where_a_reader_begins(server, amqp, topic):
    """first, last, next, an offset, a timestamp, an interval; each record in a batch of its own."""
    name, now = topic(), int(time.time())
    times = [now - 7200 + 60 * n for n in range(10)] + [now - 600 + 60 * n for n in range(10)]
    for n, at in enumerate(times):
        clients.send(server, name, [{"value": b"%d" % n, "timestamp": at * 1000}])
    begins = {
        "first": 0, None: None, 0: 0, 7: 7, 19: 19, "1h": 10, "3h": 0,
        datetime.datetime.fromtimestamp(times[13], datetime.UTC): 13,
        datetime.datetime.fromtimestamp(times[5] + 1, datetime.UTC): 6,
        datetime.datetime.fromtimestamp(0, datetime.UTC): 0,
    }
    for offset, begin in begins.items():
        if begin is None:
            continue
        reader = Reader(amqp, name, offset)
        assert reader.bodies(20 - begin) == numbers(20 - begin, first=begin), offset
        reader.close()
    last = Reader(amqp, name, "last")
    assert last.bodies(1) == [b"19"]
    following, unsaid, beyond = Reader(amqp, name, "next"), Reader(amqp, name), Reader(amqp, name, 21)
    assert following.wait(0.3) == unsaid.wait(0) == beyond.wait(0) == []
    clients.send(server, name, [b"20"])
    assert following.bodies(1) == unsaid.bodies(1) == [b"20"]
    clients.send(server, name, [b"21"])
    assert last.bodies(3) == [b"19", b"20", b"21"] and beyond.bodies(1) == [b"21"]


def test_deliveries_say_their_offset(server, amqp, topic):
    """As RabbitMQ's streams do, so that a reader can go on where it was."""
    name = topic()
    clients.send(server, name, numbers(30), linger_ms=20)
    found = Reader(amqp, name, 10).take(20)
    assert [properties.headers["x-stream-offset"] for _, properties, _ in found] == list(range(10, 30))


def test_prefetch_is_kept(server, amqp, topic):
    name = topic()
    clients.send(server, name, numbers(100), linger_ms=20)
    reader = Reader(amqp, name, "first", prefetch=7, settle=False)
    assert reader.bodies(7) == numbers(7)
    assert len(reader.wait(0.3)) == 7
    reader.channel.basic_ack(reader.found[4][0].delivery_tag, multiple=True)
    assert reader.bodies(12) == numbers(12)
    assert len(reader.wait(0.3)) == 12


def test_reading_takes_nothing_away(server, amqp, topic, group):
    """Two AMQP readers and a Kafka group each get everything; what is not settled does not come again."""
    name = topic()
    clients.send(server, name, numbers(40))
    one, two = Reader(amqp, name, "first"), Reader(amqp, name, "first", settle=False)
    assert one.bodies(40) == two.bodies(40) == numbers(40)
    two.close()
    assert [found.value() for found in clients.read_all(server, name, group, 40)] == numbers(40)
    assert Reader(amqp, name, "first").bodies(40) == numbers(40)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_beginning_within_a_batch(server, amqp, topic, codec):
    name = topic()
    clients.send(server, name, numbers(1000), linger_ms=100, compression_type=codec)
    for offset in (1, 499, 999):
        reader = Reader(amqp, name, offset, prefetch=2000)
        assert reader.bodies(1000 - offset) == numbers(1000 - offset, first=offset)
        reader.close()


def test_bare_snappy_is_opened(server, amqp, topic):
    """Some of Kafka's clients write snappy without the frame of Java's library."""
    name, wire = topic(), server.wire()
    compressed = bytes(cramjam.snappy.compress_raw(record(0, b"one") + record(1, b"two", b"k")))
    assert wire.produce(name, batch([b"one", b"two"], attributes=CODECS.index("snappy"), records=compressed)) == (raw.NONE, 0)
    one, two = Reader(amqp, name, "first").take(2)
    assert (one[2], two[2]) == (b"one", b"two") and own(two[1].headers)["x-key"] == b"k"


# What each makes of zeros differs: snappy shrinks them to a twentieth and LZ4 to a 250th, so their batches are larger.
BURSTS = {"gzip": (256, 1_000_000), "snappy": (128, 9_000_000), "lz4": (256, 2_000_000), "zstd": (256, 1_000_000)}


@pytest.mark.parametrize("codec", BURSTS)
def test_what_would_burst_is_not_opened(server, amqp, topic, codec):
    """A small batch that would become far more than is opened: stored as it came, passed over by AMQP readers, and memory stays."""
    opened, most = BURSTS[codec]
    name, wire = topic(max_message_bytes=16 << 20), server.wire()
    bomb = batch([bytes(opened << 20)], codec)
    assert len(bomb) < most
    before = server.broker.resident_bytes() if server.broker else 0
    assert wire.produce(name, bomb) == (raw.NONE, 0)
    clients.send(server, name, [b"behind it"])
    assert Reader(amqp, name, "first").bodies(1) == [b"behind it"]
    assert not server.broker or server.broker.resident_bytes() - before < 128 << 20


def test_several_partitions_are_a_super_stream(server, amqp, topic, group):
    """An exchange of the topic's name, routing keys 0, 1, 2, and a stream for each partition."""
    name = topic(3)
    amqp.confirm_delivery()
    clients.send(server, name, [{"value": b"kafka %d" % at, "partition": at} for at in range(3)])
    for at in range(3):
        amqp.basic_publish(name, str(at), b"amqp %d" % at, mandatory=True)
    for at in range(3):
        amqp.queue_declare(f"{name}-{at}", passive=True)
        assert Reader(amqp, f"{name}-{at}", "first").bodies(2) == [b"kafka %d" % at, b"amqp %d" % at]
    found = clients.read_all(server, name, group, 6)
    assert sorted((one.partition(), one.offset(), one.value()) for one in found) == sorted(
        row for at in range(3) for row in ((at, 0, b"kafka %d" % at), (at, 1, b"amqp %d" % at))
    )


def test_kafka_records_come_home(server, amqp, topic, group):
    """Kafka to AMQP, published again as it came, to Kafka: key, value, headers and time are the same."""
    prng, first, second = random.Random(3), topic(retention_ms=-1, message_timestamp_after_max_ms=(1 << 63) - 1), topic(retention_ms=-1)
    sent = [random_record(prng) for _ in range(200)]
    clients.send(server, first, sent, linger_ms=20, compression_type="lz4")
    amqp.confirm_delivery()
    for _, properties, body in Reader(amqp, first, "first").take(200):
        properties.headers = own(properties.headers) or None
        amqp.basic_publish("", second, body, properties)
    expected = [(one["key"], one["value"], one["headers"], one["timestamp"]) for one in sent]
    assert read(server, second, group, 200) == expected


def random_record(prng):
    def some(*kinds):
        return prng.choice(kinds)()

    def blob():
        return prng.randbytes(prng.randrange(40))

    def word():
        return "".join(prng.choices("abc\u00e4\u4e2d-._ ", k=prng.randrange(1, 12)))

    names = [word() for _ in range(3)] + ["content-type", "amqp.priority", "x-key", "timestamp_in_ms", "amqp.properties", "x" * 300]
    headers = [(prng.choice(names), some(blob, lambda: word().encode(), lambda: None)) for _ in range(prng.randrange(5))]
    return {
        "key": some(blob, lambda: None, lambda: b""),
        "value": some(blob, lambda: None, lambda: b"", lambda: prng.randbytes(3000)),
        "headers": headers,
        "timestamp": prng.choice([1, 999, 1_700_000_000_000, 1_700_000_000_123, 4_102_444_800_000]),
    }


def test_amqp_messages_come_home(server, amqp, stream, topic, group):
    """AMQP to Kafka, produced again as it came, to AMQP: properties, headers and body are the same."""
    first, second = stream(), topic(retention_ms=-1)
    sent = [
        pika.BasicProperties(),
        pika.BasicProperties(headers={"number": 7, "flag": True, "table": {"a": [1, "x"]}, "list": [1, 2], "large": 1 << 40}),
        pika.BasicProperties(content_type="a/b", content_encoding="gzip", priority=9, delivery_mode=2, correlation_id="c",
                             reply_to="r", expiration="60000", message_id="m", timestamp=1_700_000_000, type="t", app_id="a"),
        pika.BasicProperties(headers={"x-key": b"key", "text": "text", "many": ["a", "b"]}, timestamp=1_700_000_001),
        pika.BasicProperties(headers={"x-key": 17, "long": "y" * 1000}),
    ]
    for at, properties in enumerate(sent):
        amqp.basic_publish("", first, b"body %d" % at, properties)
    records = [{"key": key, "value": value, "headers": headers, "timestamp": at} for key, value, headers, at in read(server, first, group, len(sent))]
    clients.send(server, second, records)
    found = Reader(amqp, second, "first").take(len(sent))
    assert [body for _, _, body in found] == [b"body %d" % at for at in range(len(sent))]
    for wanted, (_, properties, _) in zip(sent, found, strict=True):
        properties.headers = own(properties.headers) or None
        assert properties == wanted


def test_streams_and_topics_go_together(server, amqp, stream, topic, names):
    """Deleted by one protocol, gone for the other; a name that is taken is taken for both."""
    name = stream()
    amqp.queue_delete(name)
    until(lambda: server.partitions(name) == 0, what="the end of the topic")
    other = topic()
    server.delete([other])
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        until(lambda: amqp.queue_declare(other, passive=True) is None, what="the end of the queue")
    assert refused.value.reply_code == 404


def test_a_classic_queue_is_no_topic(server, amqp, names):
    name = names.group()
    amqp.queue_declare(name, durable=True)
    try:
        assert name not in server.admin.list_topics(timeout=10).topics
        with pytest.raises(Exception) as refused:
            server.create(name)
        assert "exists" in str(refused.value).lower() or "TOPIC_ALREADY_EXISTS" in str(refused.value)
    finally:
        amqp.queue_delete(name)


@pytest.mark.parametrize("misuse, code", [
    (lambda channel, name: channel.basic_get(name), 540),
    (lambda channel, name: channel.queue_purge(name), 540),
    (lambda channel, name: channel.basic_consume(name, print), 406),
    (lambda channel, name: channel.queue_declare(name, durable=True), 406),
    (lambda channel, name: channel.queue_declare(name + "x", durable=False, arguments=STREAM), 406),
    (lambda channel, name: channel.queue_declare(name + "x", durable=True, exclusive=True, arguments=STREAM), 406),
    (lambda channel, name: Reader(channel, name, "sometime"), 406),
])
def test_what_streams_refuse(amqp, stream, misuse, code):
    """As RabbitMQ does: no get, no purge, no consumer without prefetch, no other kind under the name."""
    name = stream()
    with pytest.raises((pika.exceptions.ChannelClosedByBroker, pika.exceptions.ConnectionClosedByBroker)) as refused:
        misuse(amqp, name)
        amqp.connection.process_data_events(time_limit=1)
    assert refused.value.reply_code == code


def test_retention_of_streams_is_the_topics(server, stream):
    from test_admin import configs

    found = configs(server, stream(**{"x-max-length-bytes": 5_000_000, "x-max-age": "2h"}))
    assert (found["retention.bytes"].value, found["retention.ms"].value) == ("5000000", "7200000")
    assert configs(server, stream())["retention.ms"].value == "-1"


def test_waiting_readers_of_both_sides(server, amqp, stream, group):
    """Whoever waits at the end gets what the other protocol writes at once."""
    name = stream()
    reader = Reader(amqp, name, "next")
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group, "fetch.wait.max.ms": 3000})
    consumer.assign([TopicPartition(name, 0, 0)])
    consumer.poll(0.5)
    amqp.basic_publish("", name, b"one")
    begun = time.monotonic()
    assert clients.take(consumer, 1)[0].value() == b"one" and time.monotonic() - begun < 2
    clients.send(server, name, [b"two"])
    begun = time.monotonic()
    assert reader.bodies(2) == [b"one", b"two"] and time.monotonic() - begun < 2
    consumer.close()


def test_filters_of_streams(server, amqp, stream, topic):
    """A consumer that names values gets messages with those only, whichever protocol wrote them, and in their places."""
    name = stream()
    amqp.confirm_delivery()
    for at, value in enumerate(["a", "b", None, "a", 7, "c"]):
        headers = {} if value is None else {"x-stream-filter-value": value}
        amqp.basic_publish("", name, b"%d" % at, pika.BasicProperties(headers=headers))
    records = [{"value": b"6", "headers": [("x-stream-filter-value", b"a")]}, {"value": b"7", "headers": []}]
    clients.send(server, name, [{"key": None, "timestamp": 1_700_000_000_000, **one} for one in records])
    for wanted, others, expected in [
        ("a", None, "0 3 6"), (["b", "c"], None, "1 5"), (["a"], True, "0 2 3 4 6 7"), ("none", None, ""), (None, True, "0 1 2 3 4 5 6 7"),
    ]:
        arguments = {"x-stream-offset": "first"}
        if wanted is not None:
            arguments["x-stream-filter"] = wanted
        if others is not None:
            arguments["x-stream-match-unfiltered"] = others
        amqp.basic_qos(prefetch_count=2)
        found = []
        for method, properties, body in amqp.consume(name, arguments=arguments, inactivity_timeout=1):
            if method is None:
                break
            amqp.basic_ack(method.delivery_tag)
            assert properties.headers["x-stream-offset"] == int(body)
            found.append(body.decode())
        amqp.cancel()
        assert " ".join(found) == expected, (wanted, others)


def test_filters_that_are_none(server, amqp, stream):
    name = stream()
    amqp.basic_qos(prefetch_count=2)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
        amqp.basic_consume(name, lambda *_: None, arguments={"x-stream-filter": 7})
    assert refused.value.reply_code == 406 and "x-stream-filter" in refused.value.reply_text
