"""What the tests of confluent-kafka share: producers, consumers, and taking a number of records.

In: the server and settings by their librdkafka names. Out: clients in their default settings but for those.
"""

import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from conftest import until


def producer(server, **settings):
    """A producer; names with _ for the dots."""
    return Producer({"bootstrap.servers": server.bootstrap, "log_level": 2, **dotted(settings)})


def consumer(server, group, *topics, **settings):
    """A consumer from the beginning that commits when told."""
    given = {"auto.offset.reset": "earliest", "enable.auto.commit": False, **dotted(settings)}
    made = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group, "log_level": 2, **given})
    if topics:
        made.subscribe(list(topics))
    return made


def dotted(settings):
    """librdkafka's names; the callbacks keep theirs."""
    return {name if name.startswith("on_") else name.replace("_", "."): value for name, value in settings.items()}


def send(server, topic, values, **settings):
    """Produces values and gives back (partition, offset) of each, in order."""
    one, reports = producer(server, **settings), []
    for at, value in enumerate(values):
        fields = value if isinstance(value, dict) else {"value": value}
        one.produce(topic, on_delivery=lambda error, message, at=at: reports.append((at, error, message)), **fields)
    assert one.flush(20) == 0, "records without an answer"
    assert not [error for _, error, _ in reports if error], [error for _, error, _ in reports if error][:3]
    return [(message.partition(), message.offset()) for _, _, message in sorted(reports, key=lambda report: report[0])]


def take(consumer, count, timeout=25):
    """The next `count` records."""
    found, end = [], time.monotonic() + timeout
    while len(found) < count:
        for message in consumer.consume(count - len(found), 0.2):
            error = message.error()
            if error and error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._PARTITION_EOF):
                continue  # The topic is only just being created.
            assert not error, error
            found.append(message)
        assert time.monotonic() < end, f"{len(found)} of {count} records came"
    return found


def assigned(consumer):
    """The partitions a consumer has; polls it, or nothing would change."""
    message = consumer.poll(0.02)
    assert message is None or message.error(), f"a record nobody expected: {message.value()}"
    return sorted((place.topic, place.partition) for place in consumer.assignment())


def settled(consumers, topic, partitions, timeout=30):
    """Polls until each partition is with one of the consumers and everybody has some."""
    wanted = [(topic, at) for at in range(partitions)]

    def is_settled():
        owned = [assigned(one) for one in consumers]
        return all(owned) and sorted(sum(owned, [])) == wanted and owned

    return until(is_settled, timeout, f"{partitions} partitions over {len(consumers)} consumers")


def read_all(server, topic, group, count, **settings):
    """Everything from the beginning; as a member of the group where it is to commit, else without joining it."""
    joins = "enable_auto_commit" in settings
    one = consumer(server, group, *[topic][: int(joins)], **settings)
    if not joins:
        one.assign([TopicPartition(topic, at, 0) for at in range(server.partitions(topic))])
    try:
        return take(one, count)
    finally:
        one.close()


def committed(server, group, topic, partition=0):
    """The committed offset of a group; below zero: none."""
    one = consumer(server, group)
    try:
        (place,) = one.committed([TopicPartition(topic, partition)], timeout=15)
        assert not place.error, place.error
        return place.offset
    finally:
        one.close()
