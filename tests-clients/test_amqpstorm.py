"""AMQPStorm: a blocking client with threads of its own, which checks every reply strictly."""

import amqpstorm
import pytest

from conftest import until


@pytest.fixture
def storm(server):
    host, port = server.address
    with amqpstorm.Connection(host, server.user, server.password, port=port) as connection:
        yield connection


def test_hello(storm, names):
    with storm.channel() as channel:
        queue = names.queue()
        assert channel.queue.declare(queue)["queue"] == queue
        amqpstorm.Message.create(channel, "Hello World!", {"content_type": "text/plain", "headers": {"k": "v"}}).publish(queue)
        message = until(lambda: channel.basic.get(queue))
        assert (message.body, message.content_type, message.properties["headers"]) == ("Hello World!", "text/plain", {"k": "v"})
        message.ack()


def test_worker_with_confirms(storm, names):
    with storm.channel() as channel:
        queue = names.queue()
        channel.queue.declare(queue, durable=True)
        channel.confirm_deliveries()
        for number in range(100):
            assert channel.basic.publish(str(number), queue, properties={"delivery_mode": 2})
        channel.basic.qos(10)
        seen = []

        def work(message):
            seen.append(int(message.body))
            message.ack()
            if len(seen) == 100:
                channel.stop_consuming()

        channel.basic.consume(work, queue)
        channel.start_consuming()
        assert seen == list(range(100))


def test_unroutable_and_unknown(storm, names):
    with storm.channel() as channel:
        channel.confirm_deliveries()
        with pytest.raises(amqpstorm.AMQPMessageError):
            channel.basic.publish("x", "nowhere-" + names.queue(), mandatory=True)
    channel = storm.channel()
    with pytest.raises(amqpstorm.AMQPChannelError) as refused:
        channel.queue.declare("nothing-" + names.queue(), passive=True)
    assert refused.value.error_code == 404
