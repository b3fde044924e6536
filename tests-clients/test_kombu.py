"""kombu over py-amqp: the client of Celery, and the AMQPLAIN mechanism, which only py-amqp still speaks."""

import socket

import amqp
import kombu
import pytest

from conftest import until


def test_simple_queue(server, names):
    with kombu.Connection(server.url) as connection:
        queue = connection.SimpleQueue(names.queue())
        for number in range(10):
            queue.put({"number": number})
        until(lambda: queue.qsize() == 10)
        for number in range(10):
            message = queue.get(timeout=5)
            assert message.payload == {"number": number}
            message.ack()
        queue.close()


def test_producer_with_confirms_and_a_consumer_that_requeues(server, names):
    with kombu.Connection(server.url, transport_options={"confirm_publish": True}) as connection:
        exchange = kombu.Exchange(names.exchange(), "topic", durable=True)
        queue = kombu.Queue(names.queue(), exchange, routing_key="task.#", durable=True)
        producer = connection.Producer()
        producer.publish({"task": 1}, exchange=exchange, routing_key="task.add", declare=[queue], serializer="json")
        seen = []

        def work(body, message):
            seen.append((body["task"], message.delivery_info["redelivered"]))
            message.requeue() if len(seen) == 1 else message.ack()

        with connection.Consumer(queue, callbacks=[work]):
            while len(seen) < 2:
                connection.drain_events(timeout=5)
        assert seen == [(1, False), (1, True)]


@pytest.mark.parametrize("method", ["PLAIN", "AMQPLAIN"])
def test_login_methods(server, method):
    host = f"{server.address[0]}:{server.address[1]}"
    with amqp.Connection(host, userid=server.user, password=server.password, login_method=method) as connection:
        assert connection.connected
        assert connection.channel().queue_declare("", exclusive=True).queue
    with pytest.raises(amqp.AccessRefused):
        amqp.Connection(host, userid=server.user, password="wrong", login_method=method).connect()


def test_drain_times_out_quietly(server, names):
    with kombu.Connection(server.url) as connection:
        with connection.Consumer(kombu.Queue(names.queue(), durable=False, auto_delete=True), callbacks=[print]):
            with pytest.raises(socket.timeout):
                connection.drain_events(timeout=0.2)
