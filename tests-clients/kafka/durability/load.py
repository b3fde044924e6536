"""The clients of the crash test: idempotent producers and members of one group, which live through every crash.

In: an address and a ledger. Out: what they saw, written into the ledger as it happens.
"""

import random
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

TOPIC, GROUP, PARTITIONS = "crash", "crash-group", 4
RECONNECT = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20}


class Client(threading.Thread):
    """A thread that works until it is told to end, between two crashes it may be held."""

    def __init__(self, ledger):
        super().__init__(daemon=True)
        self.ledger, self.ended, self.error = ledger, threading.Event(), None

    def run(self):
        try:
            self.work()
        except Exception as error:  # Reported by the round.
            self.error = error

    def end(self):
        self.ended.set()


class LoadProducer(Client):
    """acks=all, idempotent; keeps some thousand records under way, over all partitions, in batches of every size."""

    def __init__(self, bootstrap, ledger, ident, codec):
        super().__init__(ledger)
        self.who, self.number, self.open, self.prng = ident, -1, 0, random.Random(ident)
        self.held = threading.Event()
        settings = {"enable.idempotence": True, "compression.type": codec, "linger.ms": 2, "log_level": 2}
        self.producer = Producer({"bootstrap.servers": bootstrap, **settings, **RECONNECT})

    def work(self):
        while not self.ended.is_set():
            room = 0 if self.held.is_set() else min(2000 - self.open, self.prng.randrange(1, 120))
            for _ in range(room):
                self.send()
            self.producer.poll(0)
            time.sleep(0.02)  # Enough to be caught in the act; what is stored is read again in every round.
        if self.producer.flush(60):
            self.ledger.complain(f"producer {self.who}: records without an answer a minute after the last crash")

    def send(self):
        self.number += 1
        record = (self.who, self.number)
        self.ledger.on_send(*record)
        size = 60_000 if self.number % 997 == 996 else self.prng.choice((0, 10, 100, 1000))
        value = b"%d %d " % record + b"x" * size
        self.open += 1
        self.producer.produce(TOPIC, value, partition=self.prng.randrange(PARTITIONS), on_delivery=lambda e, m: self.on_answer(record, e, m))

    def on_answer(self, record, error, message):
        self.open -= 1
        if error:
            self.ledger.complain(f"{record} was refused: {error}")
        else:
            self.ledger.on_ack((message.partition(), message.offset()), record)


class Member(Client):
    """A member of the group: takes, remembers, commits some of what it took and waits for the answer."""

    def __init__(self, bootstrap, ledger, ident):
        super().__init__(ledger)
        self.prng, self.at, self.uncommitted = random.Random(ident), {}, 0
        settings = {"group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False, "log_level": 2,
                    "session.timeout.ms": 6000, "heartbeat.interval.ms": 300, "check.crcs": True}
        self.consumer = Consumer({"bootstrap.servers": bootstrap, **settings, **RECONNECT})
        self.consumer.subscribe([TOPIC], on_assign=self.on_change, on_revoke=self.on_change, on_lost=self.on_change)

    def on_change(self, *_):
        self.at.clear()  # Wherever it goes on, it is not bound by what it read before.
        self.uncommitted = 0

    def work(self):
        while not self.ended.is_set():
            for message in self.consumer.consume(500, 0.05):
                if not message.error():
                    self.take(message)
            if self.uncommitted > self.prng.randrange(50, 3000):
                self.commit()
        self.commit()
        self.consumer.close()

    def take(self, message):
        place = (message.partition(), message.offset())
        self.ledger.on_taken(place, record_of(message), self.at.get(place[0]))
        self.at[place[0]] = place[1]
        self.uncommitted += 1

    def commit(self):
        if not self.at:
            return
        wanted = [TopicPartition(TOPIC, partition, offset + 1) for partition, offset in self.at.items()]
        try:
            for place in self.consumer.commit(offsets=wanted, asynchronous=False):
                if not place.error:
                    self.ledger.on_committed(place.partition, place.offset)
            self.uncommitted = 0
        except KafkaException:
            pass  # The broker is away, or the group moved on: nothing was promised.


def record_of(message):
    producer, number, _ = message.value().split(b" ", 2)
    return int(producer), int(number)


def read_logs(bootstrap):
    """Everything there is, from the first offset to the end of now: {partition: [(offset, record)]}."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "auditor", "check.crcs": True, "log_level": 2})
    places = [TopicPartition(TOPIC, at, 0) for at in range(PARTITIONS)]
    ends, found = {}, {at: [] for at in range(PARTITIONS)}
    for place in places:
        low, ends[place.partition] = consumer.get_watermark_offsets(place, timeout=20)
        assert low == 0, f"partition {place.partition} begins at {low}"
    consumer.assign(places)
    limit = time.monotonic() + 60
    while any(ends[at] and (not found[at] or found[at][-1][0] < ends[at] - 1) for at in ends):
        for message in consumer.consume(10_000, 0.2):
            if message.error():
                assert message.error().code() != KafkaError._AUTO_OFFSET_RESET, message.error()
            elif message.offset() < ends[message.partition()]:
                found[message.partition()].append((message.offset(), record_of(message)))
        assert time.monotonic() < limit, "the logs cannot be read to their ends"
    consumer.close()
    return found


def read_committed(bootstrap):
    """The group's offsets: {partition: offset}."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": GROUP, "log_level": 2})
    places, end = [TopicPartition(TOPIC, at) for at in range(PARTITIONS)], time.monotonic() + 20
    while True:
        try:
            found = consumer.committed(places, timeout=20)
            break
        except KafkaException as error:  # The coordinator may not be ready yet, which is not the same as no offset.
            assert error.args[0].retriable() or error.args[0].code() == KafkaError.NOT_COORDINATOR, error
            assert time.monotonic() < end, error
            time.sleep(0.1)
    consumer.close()
    assert not [place.error for place in found if place.error]
    return {place.partition: place.offset for place in found}
