"""The server under test and the connections to it.

In: WAYSTATION_AMQP_URL names any running AMQP server; without it the built broker is started on free ports.
Out: fixtures that hand out connections, channels and names, and remove what a test left behind.
Never: shares a queue between two tests.
"""

import os
import time
import urllib.parse
import uuid

import pika
import pytest

from broker_process import Broker
from wire import Wire


class Server:
    """Where the server is, and what it calls itself."""

    def __init__(self, url, broker=None):
        parts = urllib.parse.urlparse(url)
        self.address = (parts.hostname, parts.port or 5672)
        self.user, self.password = parts.username or "guest", parts.password or "guest"
        self.url = f"amqp://{self.user}:{self.password}@{self.address[0]}:{self.address[1]}/%2F"
        self.broker = broker
        wire = Wire(self.address).start()
        self.product = wire.server_properties["product"]
        self.version = wire.server_properties["version"]
        wire.close()

    @property
    def ours(self):
        """Whether it is the broker of this tree, where the design differs from RabbitMQ's behaviour."""
        return self.product == "Waystation"

    def wire(self):
        """A bare connection with channel 1 open."""
        return Wire(self.address).connect(user=self.user, password=self.password)

    def pika(self, **parameters):
        """A pika connection."""
        given = pika.URLParameters(self.url)
        for name, value in parameters.items():
            setattr(given, name, value)
        return pika.BlockingConnection(given)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    url = os.environ.get("WAYSTATION_AMQP_URL")
    if url:
        yield Server(url)
        return
    # More shards than one and more groups than shards, whatever the machine has: what a client asks for lies elsewhere.
    with Broker(tmp_path_factory.mktemp("data"), arguments=("--shards", "2", "--groups", "5")) as broker:
        yield Server(f"amqp://guest:guest@{broker.amqp[0]}:{broker.amqp[1]}/%2F", broker)
        assert broker.alive(), f"the broker died during the tests:\n{broker.tail()}"
        assert broker.stop() == 0


@pytest.fixture
def connect(server):
    """Opens pika connections that end with the test."""
    opened = []

    def one(**parameters):
        opened.append(server.pika(**parameters))
        return opened[-1]

    yield one
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def channel(connect):
    """A channel of a connection of its own."""
    return connect().channel()


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


class Names:
    """Names nobody else uses; what was declared by them goes when the test ends."""

    def __init__(self, stem):
        self.stem, self.queues, self.exchanges = stem, [], []

    def _name(self):
        return f"{self.stem}-{uuid.uuid4().hex[:10]}"

    def queue(self):
        self.queues.append(self._name())
        return self.queues[-1]

    def exchange(self):
        self.exchanges.append(self._name())
        return self.exchanges[-1]


@pytest.fixture
def names(request, server):
    given = Names(request.node.name.split("[")[0][:60])
    yield given
    connection = server.pika()
    for delete, left in (("queue_delete", given.queues), ("exchange_delete", given.exchanges)):
        for name in left:
            channel = connection.channel()
            try:
                getattr(channel, delete)(name)
                channel.close()
            except pika.exceptions.AMQPChannelError:
                pass  # It went by itself, or its owner is only just closing: then it goes with the owner.
    connection.close()


def until(condition, timeout=10.0, what="the condition"):
    """Asks again until it holds; fails the test when it does not in time."""
    end = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"{what} did not come about within {timeout} s"
        time.sleep(0.02)


def ready(channel, queue):
    """How many messages wait in the queue."""
    return channel.queue_declare(queue, passive=True).method.message_count


def fill(channel, queue, count, first=0):
    """Publishes the numbers as bodies and waits until they are in the queue."""
    before = ready(channel, queue)
    for number in range(first, first + count):
        channel.basic_publish("", queue, str(number).encode())
    until(lambda: ready(channel, queue) == before + count, what=f"{count} messages in {queue}")


def take(channel, queue, count, timeout=10.0, **options):
    """Consumes `count` messages without settling them: [(method, properties, body)], and cancels."""
    found = []
    tag = channel.basic_consume(queue, lambda _, method, properties, body: found.append((method, properties, body)), **options)
    end = time.monotonic() + timeout
    while len(found) < count:
        channel.connection.process_data_events(time_limit=0.05)
        assert time.monotonic() < end, f"{len(found)} of {count} messages came from {queue}"
    channel.connection.process_data_events(time_limit=0)
    channel.basic_cancel(tag)
    return found


def nothing_comes(channel, seconds=0.3):
    """Lets the connection read for a while; what comes is seen by the callbacks."""
    channel.connection.process_data_events(time_limit=seconds)


def bodies(taken):
    """The bodies of `take`, as numbers."""
    return [int(body) for _, _, body in taken]
