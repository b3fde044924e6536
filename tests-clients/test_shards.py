"""Any number of shards and groups: the same answers, and after kill -9 the same messages.

In: brokers of our own with 1, 2 and 7 shards and 1 and 5 groups. Queues, exchanges and clients outnumber the shards, so
that what one shard's client asks for lies with others.
"""

import os

import pytest

import wire as w
from broker_process import Broker
from conftest import until
from wire import Wire

pytestmark = pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="starts brokers itself")

CLIENTS, QUEUES, EACH = 14, 20, 200


@pytest.fixture(params=[(shards, groups) for shards in (1, 2, 7) for groups in (1, 5)], ids=lambda one: f"{one[0]} shards, {one[1]} groups")
def broker(request, tmp_path):
    shards, groups = request.param
    with Broker(tmp_path / "data", arguments=("--shards", str(shards), "--groups", str(groups))) as one:
        yield one
        assert one.alive(), one.tail()
        assert one.stop() == 0
    made = (tmp_path / "data" / "node").read_text().splitlines()
    assert {f"shards = {shards}", f"groups = {groups}"} <= set(made)
    assert len(list((tmp_path / "data").glob("shard-*"))) == shards


def queue(number):
    return f"q-{number % QUEUES}"


def setup(wire):
    """All queues, each also bound to one fanout exchange and, by its number, to one topic exchange."""
    for number in range(QUEUES):
        wire.declare(queue(number), durable=True)
        for exchange, key in (("amq.fanout", ""), ("amq.topic", f"to.{number}.#")):
            wire.send(w.method(1, "queue.bind", b"\0\0" + w.short(queue(number)) + w.short(exchange) + w.short(key) + b"\0" + w.table()))
            wire.expect(1, "queue.bind-ok")


def confirmed(wire, count):
    """Reads until that many publishes are confirmed."""
    done = set()
    while len(done) < count:
        fields = wire.expect(1, "basic.ack")
        tag, multiple = fields.u64(), fields.u8()
        done |= set(range(1, tag + 1)) if multiple else {tag}
    assert done == set(range(1, count + 1))


def body(client, number):
    return f"{client}:{number}".encode()


def publish(broker):
    """Every client publishes to the default exchange in turn over all queues, by topic, and once to all queues."""
    wires = [Wire(broker.amqp, timeout=30).connect() for _ in range(CLIENTS)]
    for client, wire in enumerate(wires):
        wire.send(w.method(1, "confirm.select", b"\0"))
        wire.expect(1, "confirm.select-ok")
        parts = []
        for number in range(EACH):
            exchange, key = ("amq.topic", f"to.{number % QUEUES}.x") if number % 2 else ("", queue(number))
            parts.append(w.content(1, exchange, key, body(client, number)))
        wire.send(b"".join(parts) + w.content(1, "amq.fanout", "", body(client, EACH)))
    for wire in wires:
        confirmed(wire, EACH + 1)
        wire.close()


def expected(number):
    """What each client sent to that queue, in order."""
    return {client: [str(at) for at in range(EACH + 1) if at == EACH or at % QUEUES == number] for client in range(CLIENTS)}


def taken(wire, name, count, settle):
    """Consumes the queue: [(redelivered, body)]; a few are left unsettled with `settle` false."""
    wire.send(w.qos(1, 0) + w.consume(1, name, tag=name))
    wire.expect(1, "basic.consume-ok")
    found, tag = [], 0
    while len(found) < count:
        _, _, payload = wire.read_frame()
        fields = w.Fields(payload[4:])
        assert fields.short() == name
        tag, again = fields.u64(), bool(fields.u8())
        wire.read_frame()
        found.append((again, wire.read_frame()[2].decode()))
    if settle:
        wire.send(w.ack(1, tag, multiple=True))
        assert wire.declare(name, passive=True)[1] == 0
    return found


def check(found, number, again):
    """Each client's messages once and in its order, all of them fresh or all redelivered."""
    by_client = {}
    for redelivered, text in found:
        client, at = text.split(":")
        by_client.setdefault(int(client), []).append(at)
        assert redelivered == again, f"{text} of {queue(number)}"
    assert by_client == expected(number), queue(number)


def test_confirmed_messages_are_there_once_and_in_order_after_kill_9(broker):
    setup(Wire(broker.amqp).connect())
    publish(broker)
    each = sum(map(len, expected(0).values()))
    # The first half is handed out before the kill; some of that is settled for certain.
    for number in range(QUEUES // 2):
        wire = Wire(broker.amqp, timeout=30).connect()
        check(taken(wire, queue(number), each, settle=number % 3 == 0), number, again=False)
    broker.kill()
    broker.start()
    for number in range(QUEUES):
        wire = Wire(broker.amqp, timeout=30).connect()
        handed_out, settled = number < QUEUES // 2, number < QUEUES // 2 and number % 3 == 0
        assert wire.declare(queue(number), durable=True)[1] == (0 if settled else each)
        if not settled:
            check(taken(wire, queue(number), each, settle=True), number, again=handed_out)
        wire.close()


def test_what_others_hold_comes_back_and_topology_is_seen_by_all(broker):
    """Clients on all shards: one declares, another asks at once; what one holds goes to another when it ends."""
    first, others = Wire(broker.amqp).connect(), [Wire(broker.amqp).connect() for _ in range(CLIENTS)]
    for number, other in enumerate(others):
        name = f"seen-{number}"
        first.declare(name, durable=number % 2 == 0)
        assert other.declare(name, durable=number % 2 == 0, passive=True) == (name, 0, 0)
        first.send(w.content(1, "", name, b"held"))
        until(lambda: other.declare(name, passive=True)[1] == 1)
        assert taken(first, name, 1, settle=False) == [(False, "held")]
        assert other.declare(name, passive=True) == (name, 0, 1)
    first.close()
    for number, other in enumerate(others):
        assert taken(other, f"seen-{number}", 1, settle=True) == [(True, "held")]
        other.close()
