"""The same tutorials with aio-pika, whose channel speaks confirms by default and reconnects by itself."""

import asyncio
import functools

import aio_pika
import pytest

PERSISTENT = aio_pika.DeliveryMode.PERSISTENT


def run(test):
    """Runs a coroutine test to its end, with a bound on its time."""
    asyncio.run(asyncio.wait_for(test, 30))


async def connected(server, work):
    """Gives `work` a channel of a connection that ends with it."""
    connection = await aio_pika.connect_robust(server.url)
    async with connection:
        await work(await connection.channel(on_return_raises=True))


def test_hello(server, names):
    async def work(channel):
        queue = await channel.declare_queue(names.queue())
        await channel.default_exchange.publish(aio_pika.Message(b"Hello World!"), routing_key=queue.name)
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    assert message.body == b"Hello World!" and not message.redelivered
                    break

    run(connected(server, work))


def test_work_queue_with_prefetch_one(server, names):
    async def work(channel):
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(names.queue(), durable=True)
        done, held, most = [], 0, 0
        finished = asyncio.Event()

        async def task(message):
            nonlocal held, most
            held += 1
            most = max(most, held)
            await asyncio.sleep(0.002)
            done.append(int(message.body))
            held -= 1
            await message.ack()
            if len(done) == 50:
                finished.set()

        await queue.consume(task)
        for number in range(50):
            message = aio_pika.Message(str(number).encode(), delivery_mode=PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=queue.name)
        await finished.wait()
        assert done == list(range(50)) and most == 1

    run(connected(server, work))


@pytest.mark.parametrize("kind, key, bound, expected", [
    (aio_pika.ExchangeType.FANOUT, "whatever", [""], 1),
    (aio_pika.ExchangeType.DIRECT, "error", ["info", "error"], 1),
    (aio_pika.ExchangeType.DIRECT, "debug", ["info", "error"], 0),
    (aio_pika.ExchangeType.TOPIC, "kern.critical", ["kern.*", "*.critical"], 1),
    (aio_pika.ExchangeType.TOPIC, "kern.critical.more", ["kern.*"], 0),
])
def test_exchanges(server, names, kind, key, bound, expected):
    async def work(channel):
        exchange = await channel.declare_exchange(names.exchange(), kind)
        queue = await channel.declare_queue(exclusive=True)
        for binding in bound:
            await queue.bind(exchange, routing_key=binding)
        if expected:
            await exchange.publish(aio_pika.Message(b"x"), routing_key=key)
        else:
            with pytest.raises(aio_pika.exceptions.PublishError):
                await exchange.publish(aio_pika.Message(b"x"), routing_key=key)
        found = await queue.get(no_ack=True, fail=False)
        assert (found.body if found else None) == (b"x" if expected else None)
        assert await queue.get(no_ack=True, fail=False) is None, "two bindings that match give one message"

    run(connected(server, work))


async def answer(channel, message):
    """The server of tutorial 6: the square of what was asked."""
    async with message.process():
        reply = aio_pika.Message(str(int(message.body) ** 2).encode(), correlation_id=message.correlation_id)
        await channel.default_exchange.publish(reply, routing_key=message.reply_to)


def test_remote_procedure_calls(server, names):
    async def work(channel):
        questions = await channel.declare_queue(names.queue())
        await channel.set_qos(prefetch_count=1)
        await questions.consume(functools.partial(answer, channel))
        callback = await channel.declare_queue(exclusive=True)
        open_calls = {}

        async def answered(message):
            open_calls.pop(message.correlation_id).set_result(int(message.body))

        await callback.consume(answered, no_ack=True)

        async def call(number):
            open_calls[f"call-{number}"] = future = asyncio.get_running_loop().create_future()
            question = aio_pika.Message(str(number).encode(), correlation_id=f"call-{number}", reply_to=callback.name)
            await channel.default_exchange.publish(question, routing_key=questions.name)
            return await future

        assert await call(7) == 49
        assert await asyncio.gather(*map(call, range(100, 200))) == [number**2 for number in range(100, 200)]

    run(connected(server, work))


def test_confirms_of_many_at_once(server, names):
    async def work(channel):
        queue = await channel.declare_queue(names.queue(), durable=True)
        messages = [aio_pika.Message(str(number).encode(), delivery_mode=PERSISTENT) for number in range(1000)]
        confirmed = await asyncio.gather(*[channel.default_exchange.publish(one, routing_key=queue.name) for one in messages])
        assert len(confirmed) == 1000
        found = [int((await queue.get(no_ack=True)).body) for _ in range(1000)]
        assert found == list(range(1000))
        assert await queue.get(no_ack=True, fail=False) is None

    run(connected(server, work))


def test_properties_and_headers_come_back_as_sent(server, names):
    async def work(channel):
        queue = await channel.declare_queue(names.queue())
        headers = {"text": "ü", "number": 2**40, "negative": -5, "yes": True, "none": None, "raw": bytearray(b"\x00\xff"),
                   "list": [1, "two", [3]], "table": {"inner": {"deep": 1}}, "float": 1.5}
        sent = aio_pika.Message(b"body", headers=headers, content_type="text/plain", content_encoding="utf-8", priority=3,
                                correlation_id="c", reply_to="r", message_id="m", type="t", app_id="a", expiration=60)
        await channel.default_exchange.publish(sent, routing_key=queue.name)
        got = await queue.get(no_ack=True)
        for name in ("body", "content_type", "content_encoding", "priority", "correlation_id", "reply_to", "message_id", "type", "app_id", "expiration"):
            assert getattr(got, name) == getattr(sent, name), name
        for key, expected in headers.items():
            assert got.headers[key] == expected, key

    run(connected(server, work))
