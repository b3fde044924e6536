"""The Kafka server under test and the connections to it.

In: WAYSTATION_KAFKA_URL (host:port) names any running Kafka server; without it the built broker is started on free
ports. With WAYSTATION_AMQP_URL beside it, the tests that cross protocols run against that server too.
Out: fixtures that hand out names, topics and connections, and remove what a test left behind.
Never: shares a topic or a group between two tests.
"""

import os
import pathlib
import sys
import time
import uuid

import pika
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from broker_process import Broker
from raw import Wire

LISTEN = ("kafka://127.0.0.1:0", "amqp://127.0.0.1:0", "http://127.0.0.1:0")


class Server:
    """Where the server is."""

    def __init__(self, address, amqp_url=None, broker=None):
        self.address, self.amqp_url, self.broker = address, amqp_url, broker
        self.bootstrap = f"{address[0]}:{address[1]}"
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})

    @classmethod
    def of(cls, broker):
        """A broker of our own."""
        amqp = broker.amqp and f"amqp://guest:guest@{broker.amqp[0]}:{broker.amqp[1]}/%2F"
        return cls(broker.kafka, amqp, broker)

    def wire(self):
        """A bare connection."""
        return Wire(self.address)

    def create(self, name, partitions=1, **configs):
        """Creates a topic and waits until clients see it."""
        configs = {key.replace("_", "."): str(value) for key, value in configs.items()}
        self.admin.create_topics([NewTopic(name, partitions, 1, config=configs)])[name].result(15)
        until(lambda: self.is_ready(name, partitions), what=f"{partitions} partitions of {name}")
        return name

    def is_ready(self, name, partitions):
        """Whether the metadata knows so many partitions and each answers."""
        if self.partitions(name) != partitions:
            return False
        asked = self.admin.list_offsets({place: OffsetSpec.latest() for place in places(name, partitions)})
        try:
            return all(one.result(10).offset >= 0 for one in asked.values())
        except KafkaException:
            return False

    def partitions(self, name):
        """How many partitions the metadata says; 0 when there is no such topic."""
        found = self.admin.list_topics(timeout=10).topics.get(name)
        return len(found.partitions) if found and not found.error else 0

    def delete(self, names):
        """Deletes topics that may not be there."""
        for future in self.admin.delete_topics(names).values() if names else ():
            try:
                future.result(15)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    url = os.environ.get("WAYSTATION_KAFKA_URL")
    if url:
        host, port = url.rsplit(":", 1)
        yield Server((host, int(port)), os.environ.get("WAYSTATION_AMQP_URL"))
        return
    several = ("--shards", "3", "--groups", "4")  # More than this machine may give by itself: partitions lie apart then.
    with Broker(tmp_path_factory.mktemp("data"), listen=LISTEN, arguments=several) as broker:
        yield Server.of(broker)
        assert broker.alive(), f"the broker died during the tests:\n{broker.tail()}"
        assert broker.stop() == 0


@pytest.fixture
def own_broker(tmp_path):
    """Starts brokers on one data directory, for tests that kill them."""
    if "WAYSTATION_KAFKA_URL" in os.environ:
        pytest.skip("starts the broker itself")
    started = []

    def one(port=0):
        listen = (f"kafka://127.0.0.1:{port}", *LISTEN[1:])
        started.append(Broker(tmp_path / "data", listen=listen).start())
        return started[-1]

    yield one
    for broker in started:
        if broker.alive():
            broker.kill()


class Names:
    """Names nobody else uses."""

    def __init__(self, stem):
        self.stem, self.topics = stem, []

    def topic(self):
        self.topics.append(self.group())
        return self.topics[-1]

    def group(self):
        return f"{self.stem}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def names(request, server):
    given = Names(request.node.name.split("[")[0][:60])
    yield given
    server.delete([topic for topic in given.topics if server.partitions(topic)])


@pytest.fixture
def topic(server, names):
    """Creates topics: topic(partitions=1, **configurations with _ for .)."""
    return lambda partitions=1, **configs: server.create(names.topic(), partitions, **configs)


@pytest.fixture
def group(names):
    """The name of a group that nobody else uses."""
    return names.group()


@pytest.fixture
def wires(server):
    """Opens bare connections that end with the test."""
    opened = []

    def one():
        opened.append(server.wire())
        return opened[-1]

    yield one
    for wire in opened:
        wire.close()


@pytest.fixture
def wire(wires):
    return wires()


@pytest.fixture
def amqp(server):
    """A channel of a pika connection to the same server."""
    if not server.amqp_url:
        pytest.skip("the server under test speaks Kafka only")
    connection = pika.BlockingConnection(pika.URLParameters(server.amqp_url))
    yield connection.channel()
    if connection.is_open:
        connection.close()


def until(condition, timeout=15.0, what="the condition"):
    """Asks again until it holds; fails the test when it does not in time."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"{what} did not come about within {timeout} s"
        time.sleep(0.02)


def numbers(count, first=0):
    """Values that tests send."""
    return [str(number).encode() for number in range(first, first + count)]


def places(topic, count, offset=None):
    """Partitions of a topic as confluent-kafka names them."""
    return [TopicPartition(topic, at) if offset is None else TopicPartition(topic, at, offset) for at in range(count)]
