"""Flow control: what one client does not take, or sends too much of, costs the others nothing and memory little.

In: a broker of our own, whose memory can be read. Every bound is a number of bytes or a count, never a time.
"""

import os
import threading

import pytest

import wire as w
from broker_process import Broker
from conftest import Server
from test_hostile import Witness

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A broker with a single shard: whoever could be starved is on the same thread."""
    url = os.environ.get("WAYSTATION_AMQP_URL")
    if url:
        yield Server(url)
        return
    with Broker(tmp_path_factory.mktemp("data"), arguments=("--shards", "1")) as broker:
        yield Server(f"amqp://guest:guest@{broker.amqp[0]}:{broker.amqp[1]}/%2F", broker)
        assert broker.alive(), broker.tail()
        assert broker.stop() == 0


@pytest.fixture
def witness(server):
    one = Witness(server)
    one.start()
    yield one
    one.verdict()


def patient(server, timeout):
    """A bare connection that waits longer for its answers."""
    wire = server.wire()
    wire.socket.settimeout(timeout)
    return wire


def count(wire, queue):
    """Ready messages, counted behind everything this channel has sent."""
    wire.send(w.queue_declare(1, queue, durable=True, passive=True))
    fields = wire.expect(1, "queue.declare-ok")
    fields.short()
    return fields.u32()


def fill(server, queue, messages, body):
    """Publishes without confirms and returns when all of it is there."""
    wire = patient(server, 60)
    wire.declare(queue, durable=True)
    chunk = w.content(1, "", queue, body) * 1000
    for _ in range(messages // 1000):
        wire.send(chunk)
    assert count(wire, queue) == messages
    return wire


def test_a_consumer_that_does_not_read_costs_no_memory(server, names):
    """A million messages wait; automatic acknowledgement sets no bound of its own, and the client never reads."""
    if server.broker is None:
        pytest.skip("reads the memory of a broker of our own")
    queue, messages = names.queue(), 1_000_000
    control = fill(server, queue, messages, b"0123456789abcdef")
    before = server.broker.resident_bytes()
    deaf = server.wire()
    deaf.send(w.consume(1, queue, no_ack=True))
    left = messages
    while True:
        now = count(control, queue)
        if now == left and now < messages:
            break
        left = now
    assert left > messages // 2, f"{messages - left} messages were handed to a client that reads none"
    grown = server.broker.resident_bytes() - before
    assert grown < 24 * MIB, f"{grown >> 20} MiB for a client that does not read"
    deaf.close()


def test_an_auto_ack_consumer_that_reads_a_backlog_costs_no_memory(server, names):
    """A million messages are handed out as fast as the client reads; none is missing, and none is kept for it."""
    if server.broker is None:
        pytest.skip("reads the memory of a broker of our own")
    queue, messages, body = names.queue(), 1_000_000, b"0123456789abcdef"
    control = fill(server, queue, messages, body)
    before, most, read, looked = server.broker.resident_bytes(), 0, 0, 0
    taker, buffer = patient(server, 60), memoryview(bytearray(MIB))
    each = len(w.method(1, "basic.deliver", w.short("t") + bytes(9) + w.short("") + w.short(queue)) + w.header(1, len(body)) + w.frame(w.BODY, 1, body))
    taker.send(w.consume(1, queue, tag="t", no_ack=True))
    taker.expect(1, "basic.consume-ok")
    read = len(taker.buffer) - taker.at
    while read < messages * each:
        came = taker.socket.recv_into(buffer)
        assert came, "the broker ended the connection"
        read += came
        if read - looked > 4 * MIB:
            looked, most = read, max(most, server.broker.resident_bytes())
    assert read == messages * each and count(control, queue) == 0
    grown = most - before
    assert grown < 24 * MIB, f"{grown >> 20} MiB while a backlog is read"
    taker.close()


def test_a_deep_backlog_is_held_on_disk(server, names):
    """What waits costs memory by the entry, not by the message."""
    if server.broker is None:
        pytest.skip("reads the memory of a broker of our own")
    before = server.broker.resident_bytes()
    fill(server, names.queue(), 2_000_000, b"x" * 100).close()
    grown = server.broker.resident_bytes() - before
    assert grown < 160 * MIB, f"{grown >> 20} MiB for two million waiting messages of 100 bytes"


def test_huge_messages_do_not_starve_another_connection(server, names, witness):
    """While one connection sends 40 messages of 8 MiB, another has its round trips: more than one for each."""
    queue, messages, body = names.queue(), 40, b"h" * (8 * MIB)
    wire = patient(server, 120)
    wire.declare(queue, durable=True)
    begun = witness.rounds
    sender = threading.Thread(target=lambda: [wire.send(w.content(1, "", queue, body)) for _ in range(messages)])
    sender.start()
    sender.join(120)
    assert not sender.is_alive() and count(wire, queue) == messages
    assert witness.rounds - begun > messages, f"{witness.rounds - begun} round trips beside {messages} messages"
