"""Every misuse has its exact reply code, its class of error (channel or connection), and harms nobody else.

In: bare frames. Where this broker answers differently from RabbitMQ by design, the case names both answers and why.
After a channel error the same connection goes on; after any error another connection was never disturbed.
"""

import struct
from dataclasses import dataclass
from typing import Callable, Optional

import pytest

import wire as w
from conftest import until
from wire import Closed, Gone, Wire


def declare_exchange(name, kind="direct", passive=False, durable=False, arguments=b"\0\0\0\0"):
    flags = passive | durable << 1
    return w.method(1, "exchange.declare", b"\0\0" + w.short(name) + w.short(kind) + struct.pack(">B", flags) + arguments)


def bind(queue, exchange, key="k", arguments=b"\0\0\0\0"):
    return w.method(1, "queue.bind", b"\0\0" + w.short(queue) + w.short(exchange) + w.short(key) + b"\0" + arguments)


def unbind(queue, exchange):
    return w.method(1, "queue.unbind", b"\0\0" + w.short(queue) + w.short(exchange) + w.short("k") + w.table())


def bind_exchange(destination, source):
    return w.method(1, "exchange.bind", b"\0\0" + w.short(destination) + w.short(source) + w.short("k") + b"\0" + w.table())


def get(queue):
    return w.method(1, "basic.get", b"\0\0" + w.short(queue) + b"\0")


def delete_exchange(name):
    return w.method(1, "exchange.delete", b"\0\0" + w.short(name) + b"\0")


def deep(levels):
    """Arguments nested that deep."""
    nested = b""
    for _ in range(levels):
        nested = w.short("t") + b"F" + w.long(nested)
    return w.long(nested)


def publish_start(exchange="", key="nobody", flags=0):
    return w.method(1, "basic.publish", b"\0\0" + w.short(exchange) + w.short(key) + struct.pack(">B", flags))


def headers(table):
    """A content header of a message without a body that has these headers."""
    return w.frame(w.HEADER, 1, struct.pack(">HHQH", 60, 0, 0, 0x2000) + table)


def with_queue(act):
    """First declares queue Q (memory, plain), then acts."""
    return lambda: w.queue_declare(1, "Q") + act()


def raw_method(channel, class_id, method_id, arguments=b""):
    return w.frame(w.METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


@dataclass
class Misuse:
    """What is done, and how it is answered. In the bytes, Q is a queue's name and X one nobody has."""

    name: str
    act: Callable[[], bytes]
    level: str
    code: int
    says: str = ""
    cause: Optional[tuple] = None
    rabbitmq: Optional[tuple] = None
    why: str = ""


CHANNEL, CONNECTION = "channel", "connection"
SYNTAX = "the specification says syntax error (502) for fields that cannot be read"

CASES = [
    # 404: what is not there
    Misuse("consume unknown queue", lambda: w.consume(1, "X"), CHANNEL, 404, "NOT_FOUND - no queue 'X' in vhost '/'", (60, 20)),
    Misuse("get unknown queue", lambda: get("X"), CHANNEL, 404, "NOT_FOUND - no queue 'X' in vhost '/'", (60, 70)),
    Misuse("passive unknown queue", lambda: w.queue_declare(1, "X", passive=True), CHANNEL, 404, "NOT_FOUND - no queue 'X' in vhost '/'", (50, 10)),
    Misuse("purge unknown queue", lambda: w.method(1, "queue.purge", b"\0\0" + w.short("X") + b"\0"), CHANNEL, 404, "no queue 'X'", (50, 30)),
    Misuse("passive unknown exchange", lambda: declare_exchange("X", passive=True), CHANNEL, 404, "NOT_FOUND - no exchange 'X' in vhost '/'", (40, 10)),
    Misuse("publish to unknown exchange", lambda: w.content(1, "X", "k", b"body"), CHANNEL, 404, "NOT_FOUND - no exchange 'X' in vhost '/'", (60, 40)),
    Misuse("bind unknown queue", lambda: bind("X", "amq.direct"), CHANNEL, 404, "no queue 'X'", (50, 20)),
    Misuse("bind to unknown exchange", with_queue(lambda: bind("Q", "X")), CHANNEL, 404, "no exchange 'X'", (50, 20)),
    Misuse("bind exchange to unknown", lambda: bind_exchange("amq.fanout", "X"), CHANNEL, 404, "no exchange 'X'", (40, 30)),
    Misuse("empty name before any declare", lambda: get(""), CHANNEL, 404, "NOT_FOUND", (60, 70)),
    # 406: what does not fit
    Misuse("redeclare queue durable", with_queue(lambda: w.queue_declare(1, "Q", durable=True)), CHANNEL, 406,
           "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'Q' in vhost '/': received 'true' but current is 'false'", (50, 10)),
    Misuse("redeclare queue auto-delete", with_queue(lambda: w.queue_declare(1, "Q", auto_delete=True)), CHANNEL, 406,
           "inequivalent arg 'auto_delete' for queue 'Q' in vhost '/': received 'true' but current is 'false'", (50, 10)),
    Misuse("redeclare queue argument", lambda: w.queue_declare(1, "Q", arguments=w.table({"x-queue-mode": "lazy"})) + w.queue_declare(1, "Q", arguments=w.table({"x-queue-mode": "default"})),
           CHANNEL, 406, "inequivalent arg 'x-queue-mode' for queue 'Q' in vhost '/': received 'default' but current is 'lazy'", (50, 10)),
    Misuse("redeclare queue without its argument", lambda: w.queue_declare(1, "Q", arguments=w.table({"x-queue-mode": "lazy"})) + w.queue_declare(1, "Q"),
           CHANNEL, 406, "inequivalent arg 'x-queue-mode' for queue 'Q' in vhost '/'", (50, 10)),
    Misuse("redeclare queue exclusive", with_queue(lambda: w.queue_declare(1, "Q", exclusive=True)), CHANNEL, 405,
           "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'Q' in vhost '/'", (50, 10)),
    Misuse("redeclare exchange type", lambda: declare_exchange("amq.direct", "fanout", durable=True), CHANNEL, 406,
           "inequivalent arg 'type' for exchange 'amq.direct' in vhost '/': received 'fanout' but current is 'direct'", (40, 10)),
    Misuse("redeclare exchange durable", lambda: declare_exchange("amq.direct", "direct"), CHANNEL, 406,
           "inequivalent arg 'durable' for exchange 'amq.direct' in vhost '/': received 'false' but current is 'true'", (40, 10)),
    Misuse("bad queue argument", lambda: w.queue_declare(1, "Q", arguments=w.table({"x-queue-mode": "strange"})), CHANNEL, 406, "'x-queue-mode'", (50, 10)),
    Misuse("queue argument of what is not here yet", lambda: w.queue_declare(1, "Q", arguments=w.table({"x-message-ttl": 60000})), CHANNEL, 406,
           "'x-message-ttl'", (50, 10), rabbitmq=("accepted", 0), why="to ignore it would keep messages that should go"),
    Misuse("ack of nothing", lambda: w.ack(1, 7), CHANNEL, 406, "PRECONDITION_FAILED - unknown delivery tag 7", (60, 80)),
    Misuse("multiple ack of nothing", lambda: w.ack(1, 7, True), CHANNEL, 406, "unknown delivery tag 7", (60, 80)),
    Misuse("nack of nothing", lambda: w.method(1, "basic.nack", struct.pack(">QB", 9, 0)), CHANNEL, 406, "unknown delivery tag 9", (60, 120)),
    Misuse("reject of nothing", lambda: w.method(1, "basic.reject", struct.pack(">QB", 9, 0)), CHANNEL, 406, "unknown delivery tag 9", (60, 90)),
    Misuse("expiration that is no number", lambda: publish_start() + w.frame(w.HEADER, 1, struct.pack(">HHQH", 60, 0, 0, 0x0100) + w.short("soon")),
           CHANNEL, 406, "PRECONDITION_FAILED - invalid expiration 'soon'", (60, 40)),
    Misuse("user-id of somebody else", lambda: publish_start() + w.frame(w.HEADER, 1, struct.pack(">HHQH", 60, 0, 0, 0x0010) + w.short("mallory")),
           CHANNEL, 406, "user_id property set to 'mallory' but authenticated user was 'guest'", (60, 40)),
    # 403: what is not allowed to anybody
    Misuse("declare reserved queue", lambda: w.queue_declare(1, "amq.mine"), CHANNEL, 403, "reserved prefix 'amq.", (50, 10)),
    Misuse("declare reserved exchange", lambda: declare_exchange("amq.mine"), CHANNEL, 403, "reserved prefix 'amq.", (40, 10)),
    Misuse("delete predeclared exchange", lambda: delete_exchange("amq.direct"), CHANNEL, 403, "ACCESS_REFUSED", (40, 20)),
    Misuse("declare default exchange", lambda: declare_exchange(""), CHANNEL, 403, "the default exchange", (40, 10)),
    Misuse("delete default exchange", lambda: delete_exchange(""), CHANNEL, 403, "the default exchange", (40, 20)),
    Misuse("bind to default exchange", with_queue(lambda: bind("Q", "")), CHANNEL, 403, "the default exchange", (50, 20)),
    Misuse("unbind from default exchange", with_queue(lambda: unbind("Q", "")), CHANNEL, 403, "the default exchange", (50, 50)),
    Misuse("bind exchange to default", lambda: bind_exchange("amq.fanout", ""), CHANNEL, 403, "the default exchange", (40, 30)),
    # 503, 530: what has no meaning here
    Misuse("unknown exchange type", lambda: declare_exchange("X", "magic"), CHANNEL, 406, "PRECONDITION_FAILED - unknown exchange type 'magic'", (40, 10),
           rabbitmq=(CONNECTION, 503), why="RabbitMQ 4 closes the channel with 406, older releases the connection"),
    Misuse("consumer tag in use", with_queue(lambda: w.consume(1, "Q", "tag") + w.consume(1, "Q", "tag")), CONNECTION, 530,
           "NOT_ALLOWED - attempt to reuse consumer tag 'tag'", (60, 20)),
    # 504: channels
    Misuse("method on a channel not open", lambda: w.queue_declare(9, "Q"), CONNECTION, 504, "CHANNEL_ERROR - expected 'channel.open'"),
    Misuse("content on a channel not open", lambda: w.header(9, 5), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("channel opened twice", lambda: w.method(1, "channel.open", b"\0"), CONNECTION, 504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10)),
    # 501, 502, 505: what cannot be read
    Misuse("wrong frame end", lambda: w.queue_declare(1, "Q")[:-1] + b"\0", CONNECTION, 501, "FRAME_ERROR"),
    Misuse("oversized frame", lambda: struct.pack(">BHI", 3, 1, 200_000), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("frame of 4 GiB", lambda: struct.pack(">BHI", 1, 1, 0xFFFFFFFF), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("unknown frame type", lambda: w.frame(7, 1, b"what"), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("heartbeat on a channel", lambda: w.frame(8, 1, b""), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("method frame too short", lambda: w.frame(1, 1, b"\0\x3c"), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=(CONNECTION, 501), why=SYNTAX),
    Misuse("arguments cut short", lambda: raw_method(1, 50, 10, b"\0\0\x20abc"), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=(CONNECTION, 501), why=SYNTAX),
    Misuse("table longer than its frame", lambda: w.queue_declare(1, "Q", arguments=struct.pack(">I", 1 << 31)), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=(CONNECTION, 501), why=SYNTAX),
    Misuse("table with an unknown kind", lambda: w.queue_declare(1, "Q", arguments=w.long(w.short("k") + b"?x")), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=("gone", 0), why="RabbitMQ drops the connection without a word"),
    Misuse("table nested too deep", lambda: w.queue_declare(1, "Q", arguments=deep(200)), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=("accepted", 0), why="RabbitMQ sets no bound to nesting"),
    Misuse("name is not UTF-8", lambda: w.queue_declare(1, b"\xff\xfe"), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("routing key is not UTF-8", lambda: publish_start(key=b"\xff\xfe") + w.header(1, 0), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("consumer tag is not UTF-8", with_queue(lambda: w.consume(1, "Q", tag=b"\xff\xfe")), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("headers nested too deep", lambda: publish_start() + headers(deep(200)), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=("accepted", 0), why="RabbitMQ sets no bound to nesting"),
    Misuse("headers longer than their frame", lambda: publish_start() + headers(struct.pack(">I", 1 << 30)), CONNECTION, 502, "SYNTAX_ERROR",
           rabbitmq=(CONNECTION, 501), why=SYNTAX),
    Misuse("body of 2^63 bytes", lambda: publish_start() + w.header(1, 1 << 63), CONNECTION, 501, "FRAME_ERROR"),
    Misuse("body without header", lambda: w.frame(3, 1, b"body"), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("header without publish", lambda: w.header(1, 5), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("method instead of header", lambda: publish_start() + w.queue_declare(1, "Q"), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("method instead of body", lambda: publish_start() + w.header(1, 5) + w.queue_declare(1, "Q"), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("header of another class", lambda: publish_start() + w.header(1, 5, class_id=50), CONNECTION, 505, "UNEXPECTED_FRAME"),
    Misuse("more body than announced", lambda: publish_start() + w.header(1, 3) + w.frame(3, 1, b"four"), CONNECTION, 501, "FRAME_ERROR",
           rabbitmq=("accepted", 0), why="RabbitMQ takes the surplus for part of the body"),
    # 540: what does not exist
    Misuse("unknown class", lambda: raw_method(1, 77, 1), CONNECTION, 540, "NOT_IMPLEMENTED",
           rabbitmq=("gone", 0), why="RabbitMQ drops the connection without a word"),
    Misuse("unknown method", lambda: raw_method(1, 60, 7), CONNECTION, 540, "NOT_IMPLEMENTED",
           rabbitmq=("gone", 0), why="RabbitMQ drops the connection without a word"),
    Misuse("immediate publish", lambda: publish_start(flags=2) + w.header(1, 1) + w.frame(3, 1, b"x"), CONNECTION, 540, "NOT_IMPLEMENTED"),
    Misuse("transactions", lambda: w.method(1, "tx.select"), CONNECTION, 540, "NOT_IMPLEMENTED",
           rabbitmq=("accepted", 0), why="transactions are not here yet"),
    Misuse("recover without requeue", lambda: w.method(1, "basic.recover", b"\0"), CONNECTION, 540, "NOT_IMPLEMENTED"),
    Misuse("prefetch in bytes", lambda: w.method(1, "basic.qos", struct.pack(">IHB", 4096, 1, 0)), CONNECTION, 540, "NOT_IMPLEMENTED"),
    # 503: connection methods where they do not belong
    Misuse("connection method on a channel", lambda: w.method(1, "connection.open", w.short("/") + b"\0\0"), CONNECTION, 503, "COMMAND_INVALID"),
    Misuse("second connection.open", lambda: w.method(0, "connection.open", w.short("/") + b"\0\0"), CONNECTION, 504, "CHANNEL_ERROR"),
    Misuse("channel method on channel zero", lambda: w.queue_declare(0, "Q"), CONNECTION, 504, "CHANNEL_ERROR"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_misuse(server, wires, case):
    witness, wire = wires(), wires()
    try:
        wire.send(case.act())
        level, code, closed = answer(wire)
        expected = (case.level, case.code) if server.ours or case.rabbitmq is None else case.rabbitmq
        assert (level, code) == expected, closed
        if closed and expected == (case.level, case.code):
            assert case.says in closed.text, closed.text
            if case.cause:
                assert closed.cause == case.cause
        if level == CHANNEL:
            wire.open(1)
            assert wire.declare("", exclusive=True)[0], "the connection goes on"
        elif level == CONNECTION:
            wire.expect_end()
    finally:
        witness.send(w.method(1, "queue.delete", b"\0\0" + w.short("Q") + b"\0"))
        witness.expect(1, "queue.delete-ok")
    assert witness.declare("", exclusive=True)[0], "nobody else is disturbed"


def answer(wire):
    """What the server says to it: (level, code, the close), or that it was accepted."""
    wire.socket.settimeout(1.5)
    try:
        closed = wire.expect_closed()
        return closed.level, closed.code, closed
    except TimeoutError:
        return "accepted", 0, None
    except Gone:
        return "gone", 0, None
    finally:
        wire.socket.settimeout(10)


def test_a_delivery_can_be_settled_once(wires, names):
    wire, queue = wires(), names.queue()
    wire.declare(queue)
    wire.send(w.content(1, "", queue, b"x"))
    until(lambda: wire.declare(queue, passive=True)[1] == 1)
    wire.send(get(queue))
    wire.expect(1, "basic.get-ok")
    wire.send(w.ack(1, 1) + w.ack(1, 1))
    closed = wire.expect_closed()
    assert (closed.level, closed.code) == (CHANNEL, 406) and "unknown delivery tag 1" in closed.text


def test_an_auto_acked_delivery_cannot_be_settled(wires, names):
    wire, queue = wires(), names.queue()
    wire.declare(queue)
    wire.send(w.consume(1, queue, no_ack=True) + w.content(1, "", queue, b"x"))
    wire.expect(1, "basic.deliver")
    wire.send(w.ack(1, 1))
    closed = wire.expect_closed()
    assert (closed.level, closed.code) == (CHANNEL, 406)


def test_oversized_message_is_refused_and_the_connection_goes_on(server, wires, names):
    """RabbitMQ reads it whole before it says so; this broker says so at the header and skips the body."""
    limit = 16 << 20 if server.ours else 128 << 20
    wire, queue = wires(), names.queue()
    wire.declare(queue)
    wire.send(w.content(1, "", queue, bytes(limit + 1)))
    closed = wire.expect_closed()
    assert (closed.level, closed.code) == (CHANNEL, 406)
    assert f"message size {limit + 1} is larger than configured max size {limit}" in closed.text
    wire.open(1)
    assert wire.declare(queue)[1] == 0
    wire.send(w.content(1, "", queue, b"next"))
    until(lambda: wire.declare(queue, passive=True)[1] == 1)


def test_content_after_a_channel_error_is_discarded_until_it_is_closed(wires, names):
    wire, queue = wires(), names.queue()
    wire.declare(queue)
    wire.send(get("X-" + queue) + w.content(1, "", queue, b"lost") * 50 + w.queue_declare(1, queue))
    closed = wire.expect_closed()
    assert (closed.level, closed.code) == (CHANNEL, 404)
    wire.open(1)
    assert wire.declare(queue)[1] == 0


# Before the connection is open

@pytest.mark.parametrize("header", [b"AMQP\x01\x01\x08\x00", b"AMQP\x00\x01\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x00\x09\x02", b"\0" * 8],
                         ids=["0-8", "1.0", "http", "0-9-2", "zeros"])
def test_wrong_protocol_header_gets_the_right_one(server, header):
    if header == b"AMQP\x01\x01\x08\x00" and not server.ours:
        pytest.skip("RabbitMQ still speaks AMQP 0-8")
    if header.startswith(b"AMQP\x00\x01") and not server.ours:
        pytest.skip("RabbitMQ takes AMQP 1.0 on this port when its plugin is on")
    wire = Wire(server.address)
    wire.send(header)
    with pytest.raises(Gone):
        while True:
            wire.fill()
    assert bytes(wire.buffer) == w.PROTOCOL_HEADER


@pytest.mark.parametrize("told", [True, False], ids=["client understands", "client does not"])
def test_wrong_password(server, told):
    wire = Wire(server.address).start()
    capabilities = {"authentication_failure_close": True} if told else {}
    with pytest.raises(Closed if told else Gone) as refused:
        wire.login("guest", "wrong", capabilities=capabilities)
    if told:
        assert (refused.value.level, refused.value.code) == (CONNECTION, 403)
        assert refused.value.text.startswith("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN")
        wire.expect_end()


def test_unknown_user_is_answered_like_a_wrong_password(server):
    texts = []
    for user, password in (("guest", "wrong"), ("nobody", "wrong")):
        with pytest.raises(Closed) as refused:
            Wire(server.address).start().login(user, password)
        texts.append((refused.value.code, refused.value.text))
    assert texts[0] == texts[1]


def test_unknown_mechanism(server):
    with pytest.raises((Closed, Gone)) as refused:
        Wire(server.address).start().login(mechanism="MAGIC", response=b"x")
    if isinstance(refused.value, Closed):
        assert (refused.value.level, refused.value.code) == (CONNECTION, 503 if server.ours else 530)


def test_unknown_vhost(server):
    wire = Wire(server.address).start().login(server.user, server.password)
    with pytest.raises(Closed) as refused:
        wire.enter(vhost="nope")
    assert (refused.value.level, refused.value.code) == (CONNECTION, 530)
    assert "NOT_ALLOWED - vhost nope not found" in refused.value.text


@pytest.mark.parametrize("channels, size", [(60000, 131072), (2047, 1 << 30), (0, 131072), (2047, 0), (2047, 100)],
                         ids=["more channels", "larger frames", "no channel limit", "no frame limit", "tiny frames"])
def test_tune_beyond_the_offer(server, channels, size):
    wire = Wire(server.address).start().login(server.user, server.password)
    with pytest.raises((Closed, Gone)) as refused:
        wire.enter(channel_max=channels, frame_max=size)
    if isinstance(refused.value, Closed):
        assert (refused.value.level, refused.value.code) == (CONNECTION, 530)


def test_more_channels_than_agreed(server):
    wire = Wire(server.address).start().login(server.user, server.password).enter(channel_max=2).open(1).open(2)
    with pytest.raises(Closed) as refused:
        wire.open(3)
    assert (refused.value.level, refused.value.code) == (CONNECTION, 530)


@pytest.mark.parametrize("early", [lambda: w.method(1, "channel.open", b"\0"), lambda: w.queue_declare(1, "Q"), lambda: w.content(1, "", "q", b"x")],
                         ids=["channel.open", "queue.declare", "publish"])
def test_nothing_is_done_before_login(server, early):
    wire = Wire(server.address).start()
    wire.send(early())
    with pytest.raises((Closed, Gone)):
        wire.expect(1, "channel.open-ok")
