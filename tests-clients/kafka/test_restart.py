"""kill -9 and start again: what was acknowledged is there once and in order, and clients that lived through it go on."""

import threading
import time

import pytest
from confluent_kafka import TopicPartition

import clients
import raw
from conftest import Server, numbers, until
from records import batch, values


def again(own_broker, server):
    """Kills the broker and starts it on the same port and data."""
    port = server.address[1]
    server.broker.kill()
    return Server.of(own_broker(port))


def coordinated(server, group):
    """A bare connection, once the group has a coordinator."""
    wire = server.wire()
    until(lambda: wire.coordinator(group)[0] == raw.NONE, what="the coordinator")
    return wire


def commit(server, group, offset, metadata=""):
    """A commit from outside of a group, once its coordinator is ready."""
    wire = coordinated(server, group)
    assert raw.patiently(lambda: [wire.commit(group, -1, "", "kept", offset, metadata=metadata)]) == [raw.NONE]


def committed(server, group, topic):
    """The committed offset and its metadata, once the coordinator is ready."""
    wire = coordinated(server, group)
    error, *found = raw.patiently(lambda: wire.committed(group, topic))
    assert error == raw.NONE
    return tuple(found)


def test_everything_is_there_after_a_kill(own_broker):
    """Records, topics, configurations, committed offsets, what was deleted."""
    server = Server.of(own_broker())
    server.create("kept", 3, retention_ms=12345)
    server.create("gone")
    for codec in ("none", "zstd"):
        clients.send(server, "kept", [{"value": b"%d" % n, "partition": n % 3} for n in range(300)], compression_type=codec)
    commit(server, "the-group", 17, "note")
    server.admin.delete_records([TopicPartition("kept", 2, 50)])[TopicPartition("kept", 2, 50)].result(10)
    server.delete(["gone"])
    server = again(own_broker, server)
    from test_admin import configs

    assert server.partitions("gone") == 0 and server.partitions("kept") == 3
    assert configs(server, "kept")["retention.ms"].value == "12345"
    assert committed(server, "the-group", "kept") == (17, "note")
    assert server.wire().offset("kept", -2, partition=2) == (raw.NONE, -1, 50)
    found = clients.read_all(server, "kept", "reader", 550)
    for partition in range(3):
        mine = [(one.offset(), int(one.value())) for one in found if one.partition() == partition]
        expected = [(at, 3 * (at % 100) + partition) for at in range(200)]
        assert mine == [row for row in expected if partition != 2 or row[0] >= 50]
    assert clients.send(server, "kept", [{"value": b"x", "partition": 1}]) == [(1, 200)]


def test_sequences_are_remembered(own_broker):
    """A producer that never heard the answer sends its batch again after the restart: it is there once."""
    server = Server.of(own_broker())
    server.create("once")
    wire = server.wire()
    pid, epoch = wire.init_producer()
    sent = [batch(numbers(2), producer=(pid, epoch, 2 * at)) for at in range(4)]
    assert [wire.produce("once", one) for one in sent[:3]] == [(raw.NONE, 0), (raw.NONE, 2), (raw.NONE, 4)]
    server = again(own_broker, server)
    wire = server.wire()
    assert wire.produce("once", sent[2]) == (raw.NONE, 4)
    assert wire.produce("once", sent[1]) == (raw.NONE, 2)
    assert wire.produce("once", batch(numbers(2), producer=(pid, epoch, 8)))[0] == raw.OUT_OF_SEQUENCE
    assert wire.produce("once", sent[3]) == (raw.NONE, 6)
    assert [offset for offset, _ in values(wire.read_all("once"))] == list(range(8))
    assert wire.init_producer()[0] != pid


def test_stale_generations_stay_stale(own_broker):
    """A member of before the restart cannot commit with what it was before; whoever joins is of a later generation."""
    server = Server.of(own_broker())
    server.create("t")
    wire = coordinated(server, "group")
    error, generation, _, _, member, _ = wire.enter("group")
    assert error == raw.NONE and wire.sync("group", generation, member, [(member, b"")])[0] == raw.NONE
    assert wire.commit("group", generation, member, "t", 5) == raw.NONE
    server = again(own_broker, server)
    wire = server.wire()
    refused = (raw.UNKNOWN_MEMBER, raw.STALE_GENERATION)
    assert committed(server, "group", "t") == (5, "")
    assert wire.heartbeat("group", generation, member) in refused
    assert wire.commit("group", generation, member, "t", 1) in refused
    assert committed(server, "group", "t") == (5, "")
    error, later, _, _, again_member, _ = wire.enter("group")
    assert error == raw.NONE and (later != generation or again_member != member)
    assert wire.commit("group", generation, member, "t", 1) in refused


@pytest.mark.timeout(120)
def test_clients_live_through_it(own_broker):
    """An idempotent producer and a group of two work on while the broker is killed twice: all once, in order."""
    server = Server.of(own_broker())
    server.create("busy", 4)
    reports, ended = [], threading.Event()
    producer = clients.producer(server, enable_idempotence=True, retry_backoff_ms=50, reconnect_backoff_max_ms=200)

    def work():
        number = 0
        while not ended.is_set():
            for _ in range(20):
                producer.produce("busy", b"%d" % number, partition=number % 4, on_delivery=lambda error, m: reports.append((error, m)))
                number += 1
            producer.poll(0.01)
        producer.flush(30)

    thread = threading.Thread(target=work)
    quick = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 300, "reconnect_backoff_max_ms": 200}
    consumers = [clients.consumer(server, "group", "busy", auto_commit_interval_ms=100, enable_auto_commit=True, **quick) for _ in range(2)]
    clients.settled(consumers, "busy", 4)
    thread.start()
    found = []
    try:
        for _ in range(2):
            collect(consumers, found, len(found) + 500)
            server = again(own_broker, server)
        collect(consumers, found, len(found) + 500)
        ended.set()
        thread.join(40)
        assert not thread.is_alive() and not [error for error, _ in reports if error]
        collect(consumers, found, len(reports), unique=True)
    finally:
        ended.set()
        for one in consumers:
            one.close()
    once = {(message.partition(), message.offset()): int(message.value()) for message in found}
    assert sorted(once.values()) == list(range(len(reports))), "each record once"
    for partition in range(4):
        mine = [number for place, number in sorted(once.items()) if place[0] == partition]
        assert mine == sorted(mine), "in the order in which they were sent"


def collect(consumers, found, count, unique=False, timeout=60):
    """Reads with all of them until so many have come; errors in between are the broker's absence."""
    end = time.monotonic() + timeout
    while (len({(one.partition(), one.offset()) for one in found}) if unique else len(found)) < count:
        for one in consumers:
            found += [message for message in one.consume(200, 0.05) if not message.error()]
        assert time.monotonic() < end, f"{len(found)} of {count} records came"


def test_a_clean_stop_and_start(own_broker):
    server = Server.of(own_broker())
    server.create("t")
    clients.send(server, "t", numbers(100))
    port = server.address[1]
    assert server.broker.stop() == 0
    server = Server.of(own_broker(port))
    assert [one.value() for one in clients.read_all(server, "t", "g", 100)] == numbers(100)


def test_the_identity_of_a_topic_lasts(own_broker):
    from confluent_kafka import TopicCollection

    def identity(server):
        return str(server.admin.describe_topics(TopicCollection(["t"]))["t"].result(10).topic_id)

    server = Server.of(own_broker())
    server.create("t")
    before, cluster = identity(server), server.admin.list_topics(timeout=10).cluster_id
    server = again(own_broker, server)
    until(lambda: server.partitions("t") == 1, what="the topic")
    assert (identity(server), server.admin.list_topics(timeout=10).cluster_id) == (before, cluster)
