"""What many clients, queues and bindings cost: the last as little as the first. Nothing that they need is scanned.

In: a broker of our own, whose processor time and memory can be read. Every bound is a ratio or a number of bytes.
"""

import os
import resource
import struct

import pytest

import wire as w
from broker_process import Broker
from wire import Wire

pytestmark = pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="reads figures of a broker of our own")

LOGIN = w.table({"capabilities": {}}) + w.short("PLAIN") + w.long(b"\0guest\0guest") + w.short("en_US")
CLIENT = b"".join([
    w.PROTOCOL_HEADER,
    w.method(0, "connection.start-ok", LOGIN),
    w.method(0, "connection.tune-ok", struct.pack(">HIH", 2047, 131072, 0)),
    w.method(0, "connection.open", w.short("/") + b"\0\0"),
    w.method(1, "channel.open", b"\0"),
])


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "data") as one:
        yield one
        assert one.alive(), one.tail()
        assert one.stop() == 0


def processor_seconds(broker):
    """What the broker has used of the processor, all threads."""
    with open(f"/proc/{broker.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def clients(broker, count, more=b"", answer="channel.open-ok"):
    """That many connections with a channel; all of each one's handshake is sent at once."""
    opened = []
    for _ in range(count):
        opened.append(Wire(broker.amqp, timeout=50))
        opened[-1].send(CLIENT + more)
    for one in opened:
        one.expect(1, answer)
    return opened


def test_ten_thousand_clients_with_a_reply_queue_each_stay_linear(broker):
    """The last thousand to come cost what the first cost, and so do the last thousand to go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 10_500:
        pytest.skip(f"a process may open {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 10_500), hard))
    broker.kill()  # Begins again with as many files allowed.
    broker.start()
    reply_queue = w.queue_declare(1, "", exclusive=True)
    coming, opened = [], []
    for _ in range(10):
        before = processor_seconds(broker)
        opened += clients(broker, 1000, reply_queue, "queue.declare-ok")
        coming.append(processor_seconds(broker) - before)
    going, witness = [], broker_wire(broker)
    for left in range(9000, -1, -1000):
        before = processor_seconds(broker)
        for one in opened[left:]:
            one.send(w.method(0, "connection.close", struct.pack(">H", 200) + w.short("") + b"\0\0\0\0"))
        for one in opened[left:]:
            one.expect(0, "connection.close-ok")
            one.close()
        del opened[left:]
        witness.declare("", exclusive=True)
        going.append(processor_seconds(broker) - before)
    witness.close()
    print(f"coming {coming}, going {going}")
    assert min(coming[-3:]) < 3 * max(coming[:3]), f"seconds for each thousand that came: {coming}"
    assert min(going[:3]) < 3 * max(going[-3:]), f"seconds for each thousand that went: {going}"


def broker_wire(broker):
    """A bare connection with a channel, which waits long for its answers."""
    return Wire(broker.amqp, timeout=50).connect()


def routing_seconds(broker, wire, messages, round_):
    """What it costs to route messages of as many keys, each of which one binding matches."""
    parts = [w.content(1, "amq.topic", f"device.{number % 100}.{round_}.{number}", b"") for number in range(messages)]
    before = processor_seconds(broker)
    wire.send(b"".join(parts))
    wire.declare("sink", passive=True, durable=True)
    return processor_seconds(broker) - before


@pytest.mark.timeout(120)
def test_a_topic_with_five_thousand_bindings_routes_as_fast_as_one_with_a_hundred(broker):
    """Keys are all different, so that nothing is remembered from one message to the next."""
    wire = broker_wire(broker)
    wire.declare("sink", durable=True)

    def bind(numbers):
        binds = [w.method(1, "queue.bind", b"\0\0" + w.short("sink") + w.short("amq.topic") + w.short(f"device.{one}.#") + b"\1" + w.table())
                 for one in numbers]
        wire.send(b"".join(binds))
        wire.declare("sink", passive=True, durable=True)

    bind(range(100))
    routing_seconds(broker, wire, 20_000, "warm")
    few = min(routing_seconds(broker, wire, 20_000, f"few-{number}") for number in range(3))
    bind(range(100, 5_000))
    many = min(routing_seconds(broker, wire, 20_000, f"many-{number}") for number in range(3))
    print(f"few {few}, many {many}")
    assert many < 4 * few + 0.02, f"{few:.3f} s with a hundred bindings, {many:.3f} s with five thousand"
    assert wire.declare("sink", passive=True, durable=True)[1] == 7 * 20_000, "each was routed once"
    wire.close()


def test_an_idle_connection_costs_less_than_ten_thousand_bytes(broker):
    """A thousand connections with a channel each, which say nothing."""
    warm = clients(broker, 100)
    before = broker.resident_bytes()
    idle = clients(broker, 1000)
    grown = broker.resident_bytes() - before
    print(f"{grown / 1000} bytes each")
    assert grown < 1000 * 10_000, f"{grown / 1000:.0f} bytes for each idle connection"
    for one in warm + idle:
        one.close()
