"""Exchanges, queues and bindings with pika: what exists, for how long, and where messages go."""

import itertools

import pika
import pytest

from conftest import fill, nothing_comes, ready, take, until
from wire import Gone


def refused(code, ask, *arguments, **options):
    """Asks, expects the channel to be closed with that code, and gives back the text."""
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
        ask(*arguments, **options)
    assert closed.value.reply_code == code
    return closed.value.reply_text


def exists(connection, queue):
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
        channel.close()
        return True
    except pika.exceptions.ChannelClosedByBroker as closed:
        assert closed.reply_code == 404
        return False


def waiting(channel, queue):
    """Everything in the queue, taken."""
    return [body for _, _, body in iter(lambda: channel.basic_get(queue, auto_ack=True), (None, None, None))]


# Queues

def test_declare_tells_name_messages_and_consumers(channel, names):
    queue = names.queue()
    first = channel.queue_declare(queue).method
    assert (first.queue, first.message_count, first.consumer_count) == (queue, 0, 0)
    fill(channel, queue, 3)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, lambda *_: None)
    nothing_comes(channel, 0.1)
    again = channel.queue_declare(queue).method
    assert (again.queue, again.message_count, again.consumer_count) == (queue, 2, 1)


def test_server_named_queues(channel):
    first, second = (channel.queue_declare("").method.queue for _ in range(2))
    assert first != second and first.startswith("amq.gen-") and second.startswith("amq.gen-")
    for queue in (first, second):
        channel.queue_delete(queue)


def test_empty_name_means_the_last_declared_queue(wires):
    import wire as w

    wire = wires()
    name, _, _ = wire.declare("", exclusive=True)
    wire.send(w.method(1, "queue.bind", b"\0\0" + w.short("") + w.short("amq.direct") + w.short("key-" + name) + b"\0" + w.table()))
    wire.expect(1, "queue.bind-ok")
    wire.send(w.content(1, "amq.direct", "key-" + name, b"x"))
    wire.send(w.method(1, "basic.get", b"\0\0" + w.short("") + b"\1"))
    wire.expect(1, "basic.get-ok")


def test_passive_declare(connect, names):
    connection, queue = connect(), names.queue()
    text = refused(404, connection.channel().queue_declare, queue, passive=True)
    assert text == f"NOT_FOUND - no queue '{queue}' in vhost '/'"
    connection.channel().queue_declare(queue, durable=True)
    assert connection.channel().queue_declare(queue, passive=True).method.queue == queue, "passive asks about nothing else"
    exchange = names.exchange()
    text = refused(404, connection.channel().exchange_declare, exchange, passive=True)
    assert text == f"NOT_FOUND - no exchange '{exchange}' in vhost '/'"


def test_exclusive_queues_are_locked_to_and_end_with_their_connection(connect, names):
    owner, other, queue = connect(), connect(), names.queue()
    channel = owner.channel()
    channel.queue_declare(queue, exclusive=True)
    fill(channel, queue, 1)
    fill(owner.channel(), queue, 1)
    asks = [
        lambda one: one.queue_declare(queue, passive=True), lambda one: one.queue_declare(queue, exclusive=True),
        lambda one: one.queue_declare(queue), lambda one: one.queue_delete(queue), lambda one: one.queue_purge(queue),
        lambda one: one.basic_get(queue), lambda one: one.basic_consume(queue, lambda *_: None),
        lambda one: one.queue_bind(queue, "amq.fanout"),
    ]
    for ask in asks:
        assert "RESOURCE_LOCKED" in refused(405, ask, other.channel())
    assert ready(channel, queue) == 2
    owner.close()
    until(lambda: not exists(other, queue))
    other.channel().queue_declare(queue)


def test_exclusive_queue_ends_when_the_socket_drops(server, connect, names):
    wire, queue = server.wire(), names.queue()
    wire.declare(queue, exclusive=True)
    wire.close()
    connection = connect()
    until(lambda: not exists_or_locked(connection, queue), what="the end of the exclusive queue")


def exists_or_locked(connection, queue):
    try:
        connection.channel().queue_declare(queue, passive=True)
        return True
    except pika.exceptions.ChannelClosedByBroker as closed:
        return closed.reply_code == 405


def test_auto_delete_queues_end_with_their_last_consumer(connect, names):
    connection, queue = connect(), names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, auto_delete=True)
    assert exists(connection, queue), "it does not end before it was used"
    first, second = (channel.basic_consume(queue, lambda *_: None) for _ in range(2))
    channel.basic_cancel(first)
    assert exists(connection, queue)
    channel.basic_cancel(second)
    until(lambda: not exists(connection, queue))


@pytest.mark.parametrize("durable", [True, False])
def test_auto_delete_queue_ends_with_the_channel_of_its_consumer(connect, names, durable):
    connection, queue = connect(), names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, auto_delete=True, durable=durable)
    channel.basic_consume(queue, lambda *_: None)
    channel.close()
    until(lambda: not exists(connection, queue))


def test_a_new_namesake_is_a_new_queue(connect, names):
    connection, queue = connect(), names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.queue_bind(queue, "amq.direct", queue)
    fill(channel, queue, 3)
    held = channel.basic_get(queue)
    channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    channel.basic_publish("amq.direct", queue, b"unbound")
    assert ready(channel, queue) == 0
    fill(channel, queue, 1, first=7)
    channel.basic_nack(held[0].delivery_tag, requeue=True)
    assert waiting(channel, queue) == [b"7"]


def test_purge_takes_what_is_ready_only(connect, names):
    queue, channel = names.queue(), connect().channel()
    channel.queue_declare(queue, durable=True)
    fill(channel, queue, 10)
    held = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]
    assert channel.queue_purge(queue).method.message_count == 7
    assert channel.queue_purge(queue).method.message_count == 0
    channel.basic_nack(held[-1], multiple=True, requeue=True)
    until(lambda: ready(channel, queue) == 3)
    assert waiting(channel, queue) == [b"0", b"1", b"2"]


def test_delete_counts_and_its_conditions(connect, names):
    connection, queue = connect(), names.queue()
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    fill(channel, queue, 4)
    assert "PRECONDITION_FAILED" in refused(406, connection.channel().queue_delete, queue, if_empty=True)
    consumer = connection.channel()
    consumer.basic_qos(prefetch_count=1)
    tag = consumer.basic_consume(queue, lambda *_: None)
    assert "PRECONDITION_FAILED" in refused(406, connection.channel().queue_delete, queue, if_unused=True)
    consumer.basic_cancel(tag)
    consumer.close()
    until(lambda: ready(channel, queue) == 4)
    assert channel.queue_delete(queue, if_unused=True).method.message_count == 4
    assert channel.queue_delete(queue).method.message_count == 0, "deleting what is not there is no error"


def test_exclusive_consumers_are_alone(connect, names):
    connection, queue = connect(), names.queue()
    channel = connection.channel()
    channel.queue_declare(queue)
    tag = channel.basic_consume(queue, lambda *_: None, exclusive=True)
    text = refused(403, connection.channel().basic_consume, queue, lambda *_: None)
    assert text == f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    channel.basic_cancel(tag)
    channel.basic_consume(queue, lambda *_: None)
    assert "ACCESS_REFUSED" in refused(403, connection.channel().basic_consume, queue, lambda *_: None, exclusive=True)


def test_consumers_are_told_when_their_queue_is_deleted(connect, names):
    queue, channel = names.queue(), connect().channel()
    channel.queue_declare(queue)
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tag = channel.basic_consume(queue, lambda *_: None)
    connect().channel().queue_delete(queue)
    until(lambda: nothing_comes(channel, 0.02) or cancelled)
    assert cancelled == [tag]
    channel.queue_declare(queue)


# Exchanges

@pytest.mark.parametrize("name, kind", [("amq.direct", "direct"), ("amq.fanout", "fanout"), ("amq.topic", "topic"),
                                        ("amq.headers", "headers"), ("amq.match", "headers")])
def test_exchanges_that_are_there_from_the_start(channel, name, kind):
    channel.exchange_declare(name, passive=True)
    channel.exchange_declare(name, kind, durable=True)


def test_default_exchange_reaches_every_queue_by_name(channel, names):
    queue = names.queue()
    channel.queue_declare(queue)
    channel.basic_publish("", queue, b"x")
    assert waiting(channel, queue) == [b"x"]


def test_one_message_per_queue_whatever_matches(channel, names):
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "topic")
    channel.queue_declare(queue)
    for key in ("#", "a.*", "*.b", "a.b"):
        channel.queue_bind(queue, exchange, key)
    channel.basic_publish(exchange, "a.b", b"once")
    channel.basic_publish(exchange, "a.c", b"twice")
    assert waiting(channel, queue) == [b"once", b"twice"]


def test_bindings_are_idempotent_and_unbinding_needs_the_same_arguments(channel, names):
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "direct")
    channel.queue_declare(queue)
    for _ in range(2):
        channel.queue_bind(queue, exchange, "k")
    channel.queue_unbind(queue, exchange, "other")
    channel.queue_unbind(queue, exchange, "k", arguments={"x": 1})
    channel.basic_publish(exchange, "k", b"bound")
    channel.queue_unbind(queue, exchange, "k")
    channel.basic_publish(exchange, "k", b"unbound")
    assert waiting(channel, queue) == [b"bound"]


HEADERS = [
    ({"x-match": "all", "a": 1, "b": "two"}, {"a": 1, "b": "two"}, True),
    ({"x-match": "all", "a": 1, "b": "two"}, {"a": 1, "b": "two", "c": 3}, True),
    ({"x-match": "all", "a": 1, "b": "two"}, {"a": 1}, False),
    ({"x-match": "all", "a": 1}, {"a": 2}, False),
    ({"x-match": "any", "a": 1, "b": "two"}, {"a": 1}, True),
    ({"x-match": "any", "a": 1, "b": "two"}, {"a": 2, "b": "three"}, False),
    ({"x-match": "any", "a": 1}, None, False),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"x-match": "all"}, {"a": 1}, True),
    ({"x-match": "all", "x-ignored": 1, "a": 1}, {"a": 1}, True),
    ({"x-match": "all", "a": None}, {"a": "anything"}, True),
    ({"x-match": "all", "a": None}, {"b": 1}, False),
]


@pytest.mark.parametrize("binding, headers, matches", HEADERS)
def test_headers_exchange(channel, names, binding, headers, matches):
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "", arguments=binding)
    channel.basic_publish(exchange, "ignored", b"x", pika.BasicProperties(headers=headers))
    assert waiting(channel, queue) == ([b"x"] if matches else [])


def test_headers_exchange_with_a_wrong_match_is_refused(channel, names):
    exchange, queue = names.exchange(), names.queue()
    channel.exchange_declare(exchange, "headers")
    channel.queue_declare(queue)
    refused(406, channel.queue_bind, queue, exchange, "", arguments={"x-match": "some"})


def test_exchange_to_exchange_bindings(channel, names):
    top, middle, queue = names.exchange(), names.exchange(), names.queue()
    channel.exchange_declare(top, "topic")
    channel.exchange_declare(middle, "fanout")
    channel.queue_declare(queue)
    channel.queue_bind(queue, middle, "")
    channel.queue_bind(queue, top, "#.b")
    channel.exchange_bind(destination=middle, source=top, routing_key="a.#")
    for key in ("a.x", "a.b", "c.b", "c"):
        channel.basic_publish(top, key, key.encode())
    assert waiting(channel, queue) == [b"a.x", b"a.b", b"c.b"]
    channel.exchange_unbind(destination=middle, source=top, routing_key="a.#")
    channel.basic_publish(top, "a.x", b"unbound")
    assert waiting(channel, queue) == []


def test_exchange_cycles_end(channel, names):
    ring = [names.exchange() for _ in range(3)]
    queue = names.queue()
    channel.queue_declare(queue)
    for exchange in ring:
        channel.exchange_declare(exchange, "fanout")
    for source, destination in zip(ring, ring[1:] + ring[:1]):
        channel.exchange_bind(destination=destination, source=source)
    channel.queue_bind(queue, ring[1], "")
    for exchange in ring:
        channel.basic_publish(exchange, "", exchange.encode())
    assert waiting(channel, queue) == [exchange.encode() for exchange in ring]


def test_alternate_exchange(channel, names):
    main, spare, queue = names.exchange(), names.exchange(), names.queue()
    channel.exchange_declare(spare, "fanout")
    channel.exchange_declare(main, "direct", arguments={"alternate-exchange": spare})
    channel.queue_declare(queue)
    channel.queue_bind(queue, spare, "")
    bound = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(bound, main, "k")
    channel.basic_publish(main, "k", b"routed")
    channel.basic_publish(main, "other", b"spared")
    assert waiting(channel, bound) == [b"routed"] and waiting(channel, queue) == [b"spared"]
    channel.confirm_delivery()
    channel.basic_publish(main, "other", b"spared too", mandatory=True)
    assert waiting(channel, queue) == [b"spared too"]


def test_auto_delete_exchanges_end_with_their_last_binding(connect, names):
    connection, exchange = connect(), names.exchange()
    channel = connection.channel()
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange)
    channel.exchange_declare(exchange, passive=True)
    channel.queue_unbind(queue, exchange)
    refused(404, channel.exchange_declare, exchange, passive=True)


def test_deleting_exchanges(connect, names):
    connection, exchange = connect(), names.exchange()
    channel = connection.channel()
    channel.exchange_declare(exchange, "fanout")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange)
    assert "PRECONDITION_FAILED" in refused(406, connection.channel().exchange_delete, exchange, if_unused=True)
    channel.exchange_delete(exchange)
    channel.exchange_delete(exchange)
    refused(404, connection.channel().exchange_declare, exchange, passive=True)
    refused(404, connection.channel().queue_bind, queue, exchange)


def test_internal_exchanges_take_no_publishes(connect, names):
    connection, front, inner, queue = connect(), names.exchange(), names.exchange(), names.queue()
    channel = connection.channel()
    channel.exchange_declare(inner, "fanout", internal=True)
    channel.exchange_declare(front, "fanout")
    channel.exchange_bind(destination=inner, source=front)
    channel.queue_declare(queue)
    channel.queue_bind(queue, inner)
    channel.basic_publish(front, "", b"through")
    assert waiting(channel, queue) == [b"through"]
    publisher = connection.channel()
    publisher.confirm_delivery()
    assert "ACCESS_REFUSED" in refused(403, publisher.basic_publish, inner, "", b"x")


def test_bindings_of_a_deleted_queue_go_with_it(connect, names):
    exchange, queue, channel = names.exchange(), names.queue(), connect().channel()
    channel.exchange_declare(exchange, "direct")
    channel.queue_declare(queue)
    channel.queue_bind(queue, exchange, "k")
    channel.queue_delete(queue)
    channel.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(exchange, "k", b"x", mandatory=True)


def test_fanout_to_many_queues_keeps_the_order_in_each(connect, names):
    exchange, channel = names.exchange(), connect().channel()
    channel.exchange_declare(exchange, "fanout")
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(20)]
    for queue in queues:
        channel.queue_bind(queue, exchange)
    for number in range(100):
        channel.basic_publish(exchange, "", str(number))
    for queue in queues:
        assert [int(body) for _, _, body in take(channel, queue, 100, auto_ack=True)] == list(range(100))


def test_thousands_of_reply_queues(server, names):
    """Many short-lived clients with a reply queue each: declared, bound, used, gone."""
    import wire as w

    wire = server.wire()
    found = set()
    for channel in itertools.chain([1], range(2, 51)):
        if channel > 1:
            wire.open(channel)
        for _ in range(40):
            wire.send(w.queue_declare(channel, "", exclusive=True))
        for _ in range(40):
            found.add(wire.expect(channel, "queue.declare-ok").short())
    assert len(found) == 2000
    wire.close()
    try:
        wire.fill()
    except (Gone, OSError):
        pass
    again = server.wire()
    some = sorted(found)[:20]

    def gone():
        for queue in some:
            again.send(w.queue_declare(1, queue, passive=True))
            closed = again.expect_closed()
            again.open(1)
            if closed.code != 404:
                return False
        return True

    until(gone, timeout=20, what="the end of the reply queues")
    again.close()
