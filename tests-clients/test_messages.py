"""Messages and connections: sizes over many frames, properties bit for bit, returns, heartbeats, direct reply-to."""

import os
import struct
import time

import pika
import pytest

import wire as w
from conftest import nothing_comes, ready, take, until
from wire import Gone, Wire


@pytest.mark.parametrize("size", [0, 1, 131064, 131065, 262144, 1 << 20, 10 << 20])
def test_bodies_of_every_size(channel, names, size):
    queue, body = names.queue(), os.urandom(size)
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    method, _, found = channel.basic_get(queue)
    assert found == body
    channel.basic_nack(method.delivery_tag, requeue=True)
    (again,) = take(channel, queue, 1)
    assert again[0].redelivered and again[2] == body


@pytest.mark.parametrize("frame_max", [4096, 8192, 131072])
def test_frames_keep_to_the_size_agreed(server, names, frame_max):
    wire = Wire(server.address).start().login(server.user, server.password)
    if frame_max == 4096 and server.ours:
        pytest.skip("RabbitMQ 4 raised the least frame size to 8192, and so does this broker")
    wire.enter(frame_max=frame_max).open(1)
    queue, body = names.queue(), os.urandom(100_000)
    wire.declare(queue)
    wire.send(w.content(1, "", queue, body, frame_max=frame_max))
    wire.send(w.method(1, "basic.get", b"\0\0" + w.short(queue) + b"\1"))
    wire.expect(1, "basic.get-ok")
    found, largest = read_content(wire)
    assert found == body and largest <= frame_max
    wire.close()


def read_content(wire):
    """The body that follows a method, and the size of its largest frame."""
    kind, _, payload = wire.read_frame()
    assert kind == w.HEADER
    (size,) = struct.unpack_from(">Q", payload, 4)
    body, largest = b"", 0
    while len(body) < size:
        kind, _, payload = wire.read_frame()
        assert kind == w.BODY
        body += payload
        largest = max(largest, len(payload) + 8)
    return body, largest


def test_content_of_two_channels_may_interleave(wires, names):
    wire, queue = wires(), names.queue()
    wire.open(2)
    wire.declare(queue)
    parts = []
    for channel in (1, 2):
        start = w.method(channel, "basic.publish", b"\0\0" + w.short("") + w.short(queue) + b"\0")
        body = bytes([channel]) * 3000
        parts.append([start, w.header(channel, 3000)] + [w.frame(w.BODY, channel, body[at : at + 1000]) for at in range(0, 3000, 1000)])
    for pair in zip(*parts):
        wire.send(b"".join(pair))
    wire.send(w.queue_declare(2, queue, passive=True))
    wire.expect(2, "queue.declare-ok")
    found = []
    for _ in range(2):
        wire.send(w.method(1, "basic.get", b"\0\0" + w.short(queue) + b"\1"))
        wire.expect(1, "basic.get-ok")
        found.append(read_content(wire)[0])
    assert sorted(found) == [bytes([1]) * 3000, bytes([2]) * 3000]


def test_a_heartbeat_may_come_between_any_two_frames(wires, names):
    wire, queue = wires(), names.queue()
    wire.declare(queue)
    whole, beat = w.content(1, "", queue, b"body" * 100), w.frame(w.HEARTBEAT, 0, b"")
    publish_end = whole.index(w.END, 7) + 1
    header_end = publish_end + 8 + struct.unpack_from(">I", whole, publish_end + 3)[0]
    wire.send(beat + whole[:publish_end] + beat + whole[publish_end:header_end] + beat + whole[header_end:] + beat)
    until(lambda: wire.declare(queue, passive=True)[1] == 1)


def test_one_byte_at_a_time(wires, names):
    wire, queue = wires(), names.queue()
    for byte in w.queue_declare(1, queue) + w.content(1, "", queue, b"slow"):
        wire.send(bytes([byte]))
    wire.expect(1, "queue.declare-ok")
    until(lambda: wire.declare(queue, passive=True)[1] == 1)


def test_properties_come_back_bit_for_bit(wires, names):
    """Every property at once, with a table of every kind of field, compared as bytes."""
    wire, queue = wires(), names.queue()
    kinds = [b"t\1", b"b\xff", b"B\xff", b"s\xff\xfe", b"u\xff\xfe", b"I\xff\xff\xff\xfe", b"i\xff\xff\xff\xfe",
             b"l" + b"\xff" * 8, b"f" + struct.pack(">f", 1.5), b"d" + struct.pack(">d", -2.25), b"D\2\0\0\0\7",
             b"S" + w.long("text"), b"A" + w.long(b"t\0V"), b"T" + struct.pack(">Q", 1), b"F" + w.table({"k": 1}), b"V",
             b"x" + w.long(b"\0\1\2")]
    if wire.server_properties["product"] == "RabbitMQ":
        kinds = [kind for kind in kinds if kind[:1] not in b"Ds"]
    headers = w.long(b"".join(w.short(f"h{at}") + kind for at, kind in enumerate(kinds)))
    properties = b"".join([w.short("text/plain"), w.short("gzip"), headers, b"\2", b"\5", w.short("correlation"), w.short("reply"),
                           w.short("60000"), w.short("id"), struct.pack(">Q", 1234567890), w.short("type"), w.short("guest"),
                           w.short("app"), w.short("cluster")])
    wire.declare(queue, durable=True)
    sent = struct.pack(">HHQH", 60, 0, 1, 0xFFFC) + properties
    wire.send(w.method(1, "basic.publish", b"\0\0" + w.short("") + w.short(queue) + b"\0") + w.frame(w.HEADER, 1, sent) + w.frame(w.BODY, 1, b"x"))
    wire.send(w.method(1, "basic.get", b"\0\0" + w.short(queue) + b"\1"))
    wire.expect(1, "basic.get-ok")
    kind, _, found = wire.read_frame()
    assert (kind, found) == (w.HEADER, sent)


def test_mandatory_comes_back_whole_and_before_its_confirm(wires, names):
    wire = wires()
    wire.send(w.method(1, "confirm.select", b"\0"))
    wire.expect(1, "confirm.select-ok")
    body = os.urandom(200_000)
    wire.send(w.content(1, "amq.direct", "nowhere", body, mandatory=True))
    channel, name, fields = wire.read_method()
    assert (channel, name) == (1, "basic.return")
    assert (fields.u16(), fields.short(), fields.short(), fields.short()) == (312, "NO_ROUTE", "amq.direct", "nowhere")
    assert read_content(wire)[0] == body
    channel, name, fields = wire.read_method()
    assert (channel, name, fields.u64()) == (1, "basic.ack", 1)


def test_unroutable_without_mandatory_is_confirmed(wires):
    wire = wires()
    wire.send(w.method(1, "confirm.select", b"\0") + w.content(1, "amq.direct", "nowhere", b"x"))
    wire.expect(1, "confirm.select-ok")
    assert wire.expect(1, "basic.ack").u64() == 1


def test_confirms_cover_each_publish_once(wires, names):
    wire, queue = wires(), names.queue()
    wire.declare(queue, durable=True)
    wire.send(w.method(1, "confirm.select", b"\0"))
    wire.expect(1, "confirm.select-ok")
    wire.send(w.content(1, "", queue, b"x") * 3000)
    still = set(range(1, 3001))
    while still:
        fields = wire.expect(1, "basic.ack")
        tag, multiple = fields.u64(), fields.u8() & 1
        done = {one for one in still if one <= tag} if multiple else {tag}
        assert done and done <= still
        still -= done
    assert wire.declare(queue, passive=True)[1] == 3000


def test_confirms_of_channels_are_counted_apart(wires, names):
    wire, queue = wires(), names.queue()
    wire.open(2)
    wire.declare(queue)
    for channel in (1, 2):
        wire.send(w.content(channel, "", queue, b"before"))
        wire.send(w.method(channel, "confirm.select", b"\0"))
        wire.expect(channel, "confirm.select-ok")
        wire.send(w.content(channel, "", queue, b"x"))
        assert wire.expect(channel, "basic.ack").u64() == 1


def test_direct_reply_to_needs_no_queue(server, connect, names):
    client, server_side, queue = connect().channel(), connect().channel(), names.queue()
    server_side.queue_declare(queue)
    answers = []
    client.basic_consume("amq.rabbitmq.reply-to", lambda _c, _m, _p, body: answers.append(body), auto_ack=True)
    client.basic_publish("", queue, b"question", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    _, properties, body = until(lambda: (found := server_side.basic_get(queue, auto_ack=True))[0] and found)
    assert body == b"question" and properties.reply_to not in (None, "amq.rabbitmq.reply-to")
    for passive in (True, False):  # A server may ask whether its client is still there: declaring never makes one.
        assert server_side.queue_declare(properties.reply_to, passive=passive).method.consumer_count == 1
    server_side.basic_publish("", properties.reply_to, b"answer", mandatory=True)
    until(lambda: nothing_comes(client, 0.02) or answers)
    assert answers == [b"answer"]
    client.connection.close()
    server_side.confirm_delivery()

    def unroutable():
        try:
            server_side.basic_publish("", properties.reply_to, b"late", mandatory=True)
            return False
        except pika.exceptions.UnroutableError:
            return True

    until(unroutable)


def test_copies_go_to_the_keys_that_the_sender_names(channel, names):
    to, copy, blind = names.queue(), names.queue(), names.queue()
    for queue in (to, copy, blind):
        channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()

    def send(key, headers, mandatory=True):
        channel.basic_publish("", key, b"x", pika.BasicProperties(headers=headers), mandatory=mandatory)

    send(to, {"CC": [copy, to, "no-such-queue"], "BCC": [blind, copy]})
    for queue in (to, copy, blind):
        ((method, properties, _),) = take(channel, queue, 1)
        assert method.routing_key == to and properties.headers == {"CC": [copy, to, "no-such-queue"]}
        assert ready(channel, queue) == 0
    send("no-such-queue", {"CC": [copy]})
    send(to, {})
    assert [ready(channel, queue) for queue in (to, copy, blind)] == [1, 1, 0]
    with pytest.raises(pika.exceptions.UnroutableError) as returned:
        send("no-such-queue", {"BCC": ["none-either"], "other": 1})
    assert returned.value.messages[0].properties.headers == {"other": 1}
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        send(to, {"CC": copy})
    assert closed.value.reply_code == 406


def test_behind_a_refused_publish_nothing_is_done(wires, names):
    wire, queue = wires(), names.queue()
    wire.declare(queue)
    delete = w.method(1, "queue.delete", b"\0\0" + w.short(queue) + b"\0")
    wire.send(w.content(1, "no-such-exchange", "k", b"x") + w.content(1, "", queue, b"x") + delete)
    closed = wire.expect_closed()
    assert (closed.level, closed.code, closed.cause) == ("channel", 404, (60, 40))
    wire.open(1)
    assert wire.declare(queue) == (queue, 0, 0)
    wire.send(w.content(1, "", queue, b"x"))
    assert wire.declare(queue) == (queue, 1, 0)


def test_direct_reply_to_misused(connect, names):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        connect().channel().basic_consume("amq.rabbitmq.reply-to", lambda *_: None, auto_ack=False)
    assert closed.value.reply_code == 406
    channel = connect().channel()
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        channel.basic_publish("", "anything", b"x", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    assert closed.value.reply_code == 406


@pytest.mark.slow
def test_heartbeats_keep_an_idle_client(connect, names):
    connection = connect(heartbeat=2)
    channel = connection.channel()
    connection.process_data_events(time_limit=6)
    assert channel.queue_declare("", exclusive=True).method.queue


@pytest.mark.slow
def test_a_silent_client_is_dropped(server, names):
    """The server sends heartbeats itself, gives up on a silent peer after two intervals, and frees its queue."""
    wire, queue = Wire(server.address, timeout=15).start().login(server.user, server.password), names.queue()
    wire.enter(heartbeat=1).open(1)
    wire.declare(queue, exclusive=True)
    begun, beats = time.monotonic(), 0
    with pytest.raises((Gone, ConnectionError)):
        while True:
            found = wire.buffered_frame()
            if found is None:
                wire.fill()
            else:
                beats += found[0] == w.HEARTBEAT
    assert beats >= 1 and 1.5 <= time.monotonic() - begun <= 6
    until(lambda: server.wire().declare(queue, exclusive=True)[0] == queue)


def test_heartbeat_zero_is_never_dropped(server):
    wire = Wire(server.address).start().login(server.user, server.password).enter(heartbeat=0).open(1)
    wire.socket.settimeout(3)
    with pytest.raises(TimeoutError):
        wire.fill()
    wire.socket.settimeout(10)
    assert wire.declare("", exclusive=True)[0]
    wire.close()


def test_capabilities_are_announced(server):
    wire = Wire(server.address).start()
    assert wire.server_properties["capabilities"] == dict.fromkeys([
        "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
        "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to"], True)
    for key in ("product", "version", "platform", "cluster_name", "copyright", "information"):
        assert isinstance(wire.server_properties[key], str) and wire.server_properties[key], key
    assert {"PLAIN", "AMQPLAIN"} <= set(wire.mechanisms.split())
    wire.login(server.user, server.password)
    assert wire.offered == (2047, 131072, 60)
    wire.close()


def test_channel_flow_and_orderly_end(wires):
    wire = wires()
    wire.send(w.method(1, "channel.flow", b"\1"))
    assert wire.expect(1, "channel.flow-ok").u8() == 1
    wire.send(w.method(1, "channel.close", struct.pack(">H", 200) + w.short("bye") + b"\0\0\0\0"))
    wire.expect(1, "channel.close-ok")
    wire.open(1)
    wire.send(w.method(0, "connection.close", struct.pack(">H", 200) + w.short("bye") + b"\0\0\0\0"))
    wire.expect(0, "connection.close-ok")


def test_everything_sent_before_an_orderly_end_counts(server, connect, names):
    queue, channel = names.queue(), connect().channel()
    channel.queue_declare(queue, durable=True)
    wire = server.wire()
    wire.send(w.content(1, "", queue, b"x") * 500)
    wire.send(w.method(0, "connection.close", struct.pack(">H", 200) + w.short("bye") + b"\0\0\0\0"))
    wire.expect(0, "connection.close-ok")
    until(lambda: ready(channel, queue) == 500)


def test_nowait_declares_answer_nothing(wires, names):
    wire, queue, exchange = wires(), names.queue(), names.exchange()
    wire.send(w.method(1, "exchange.declare", b"\0\0" + w.short(exchange) + w.short("fanout") + b"\x10" + w.table()))
    wire.send(w.method(1, "queue.declare", b"\0\0" + w.short(queue) + b"\x10" + w.table()))
    wire.send(w.method(1, "queue.bind", b"\0\0" + w.short(queue) + w.short(exchange) + w.short("") + b"\1" + w.table()))
    wire.send(w.method(1, "confirm.select", b"\1"))
    wire.send(w.content(1, exchange, "", b"x"))
    channel, name, fields = wire.read_method()
    assert (channel, name, fields.u64()) == (1, "basic.ack", 1)
    assert wire.declare(queue, passive=True)[1] == 1
