"""RabbitMQ's tutorials 2 to 7 with pika: the behaviour each of them shows, asserted.

Tutorial 1 is test_hello.py. Each program of a tutorial is one connection here, as it is there.
"""

import functools
import threading
import time

import pika
import pytest

from conftest import bodies, fill, nothing_comes, take, until

PERSISTENT = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)


class Worker(threading.Thread):
    """A worker of tutorial 2: prefetch 1, manual ack, as slow as each task says."""

    def __init__(self, connect, queue, pace):
        super().__init__(daemon=True)
        self.connection, self.pace, self.done = connect(), pace, []
        channel = self.connection.channel()
        channel.queue_declare(queue=queue, durable=True)
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue=queue, on_message_callback=self.work)
        self.channel = channel

    def work(self, channel, method, _, body):
        time.sleep(self.pace)
        self.done.append(int(body))
        channel.basic_ack(delivery_tag=method.delivery_tag)

    def run(self):
        self.channel.start_consuming()

    def stop(self):
        self.connection.add_callback_threadsafe(self.channel.stop_consuming)
        self.join()


def test_work_queue_is_dispatched_fairly(connect, names):
    queue, sender = names.queue(), connect().channel()
    sender.queue_declare(queue=queue, durable=True)
    workers = [Worker(connect, queue, 0.1), Worker(connect, queue, 0.002)]
    for worker in workers:
        worker.start()
    for number in range(60):
        sender.basic_publish(exchange="", routing_key=queue, body=str(number), properties=PERSISTENT)
    until(lambda: sum(len(worker.done) for worker in workers) == 60)
    for worker in workers:
        worker.stop()
    slow, fast = (worker.done for worker in workers)
    assert sorted(slow + fast) == list(range(60))
    assert slow == sorted(slow) and fast == sorted(fast)
    assert 1 <= len(slow) < 15, "the slow worker gets only what it can do"


def test_work_queue_without_prefetch_is_dealt_round_robin(connect, names):
    queue, sender = names.queue(), connect().channel()
    sender.queue_declare(queue=queue, durable=True)
    got = [[], []]
    channels = [connect().channel() for _ in got]
    for channel, mine in zip(channels, got):
        channel.basic_consume(queue, lambda _c, _m, _p, body, mine=mine: mine.append(int(body)))
    for number in range(40):
        sender.basic_publish("", queue, str(number))

    def all_came():
        for channel in channels:
            nothing_comes(channel, 0.02)
        return sum(map(len, got)) == 40

    until(all_came)
    assert sorted(got[0] + got[1]) == list(range(40))
    assert all(len(mine) >= 10 for mine in got), "both consumers are served"


def test_work_of_a_dead_worker_is_done_by_another(connect, names):
    queue, sender = names.queue(), connect().channel()
    sender.queue_declare(queue=queue, durable=True)
    fill(sender, queue, 3)
    dying = connect().channel()
    assert bodies(take(dying, queue, 3)) == [0, 1, 2]
    dying.connection.close()
    again = take(sender, queue, 3)
    assert bodies(again) == [0, 1, 2]
    assert [method.redelivered for method, _, _ in again] == [True] * 3


def test_publish_subscribe_reaches_every_listener(connect, names):
    logs, sender = names.exchange(), connect().channel()
    sender.exchange_declare(exchange=logs, exchange_type="fanout")
    sender.basic_publish(exchange=logs, routing_key="", body="nobody listens")
    listeners = [connect().channel() for _ in range(3)]
    queues = []
    for listener in listeners:
        listener.exchange_declare(exchange=logs, exchange_type="fanout")
        queues.append(listener.queue_declare(queue="", exclusive=True).method.queue)
        listener.queue_bind(exchange=logs, queue=queues[-1])
    assert len(set(queues)) == 3 and all(queue.startswith("amq.gen-") for queue in queues)
    for text in ("info: one", "info: two"):
        sender.basic_publish(exchange=logs, routing_key="", body=text)
    for listener, queue in zip(listeners, queues):
        assert [body for _, _, body in take(listener, queue, 2, auto_ack=True)] == [b"info: one", b"info: two"]


def test_routing_by_severity(connect, names):
    logs, sender = names.exchange(), connect().channel()
    sender.exchange_declare(exchange=logs, exchange_type="direct")
    wanted = {"disk": ["error"], "screen": ["info", "warning", "error"]}
    listeners = {}
    for who, severities in wanted.items():
        channel = connect().channel()
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        for severity in severities:
            channel.queue_bind(exchange=logs, queue=queue, routing_key=severity)
        listeners[who] = (channel, queue)
    for severity in ("debug", "info", "error", "warning"):
        sender.basic_publish(exchange=logs, routing_key=severity, body=severity)
    assert [body for _, _, body in take(*listeners["screen"], 3)] == [b"info", b"error", b"warning"]
    assert [body for _, _, body in take(*listeners["disk"], 1)] == [b"error"]


TOPICS = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox", "lazy.brown.fox", "lazy.pink.rabbit",
          "quick.brown.fox", "orange", "quick.orange.new.rabbit", "lazy.orange.new.rabbit", "lazy", "", ".", "..", "a..b"]


@pytest.mark.parametrize("pattern, matched", [
    ("*.orange.*", ["quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox"]),
    ("*.*.rabbit", ["quick.orange.rabbit", "lazy.pink.rabbit"]),
    ("lazy.#", ["lazy.orange.elephant", "lazy.brown.fox", "lazy.pink.rabbit", "lazy.orange.new.rabbit", "lazy"]),
    ("#", TOPICS),
    ("*", ["orange", "lazy"]),
    ("#.rabbit", ["quick.orange.rabbit", "lazy.pink.rabbit", "quick.orange.new.rabbit", "lazy.orange.new.rabbit"]),
    ("#.orange.#", ["quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox", "orange", "quick.orange.new.rabbit", "lazy.orange.new.rabbit"]),
    ("*.#.fox", ["quick.orange.fox", "lazy.brown.fox", "quick.brown.fox"]),
    ("*.*", ["."]),
    ("a.*.b", ["a..b"]),
    ("quick.orange.fox", ["quick.orange.fox"]),
    ("nothing.#", []),
])
def test_topics(connect, names, pattern, matched):
    logs, channel = names.exchange(), connect().channel()
    channel.exchange_declare(exchange=logs, exchange_type="topic")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange=logs, queue=queue, routing_key=pattern)
    channel.queue_bind(exchange=logs, queue=queue, routing_key="the.end")
    for key in TOPICS:
        channel.basic_publish(exchange=logs, routing_key=key, body=key)
    channel.basic_publish(exchange=logs, routing_key="the.end", body="the.end")
    found = take(channel, queue, len(matched) + 1)
    assert [body.decode() for _, _, body in found] == matched + ["the.end"]


class FibonacciServer(threading.Thread):
    """The server of tutorial 6."""

    def __init__(self, connect, queue):
        super().__init__(daemon=True)
        self.connection = connect()
        self.channel = self.connection.channel()
        self.channel.queue_declare(queue=queue)
        self.channel.basic_qos(prefetch_count=1)
        self.channel.basic_consume(queue=queue, on_message_callback=self.answer)

    @staticmethod
    @functools.cache
    def fib(number):
        return number if number < 2 else FibonacciServer.fib(number - 1) + FibonacciServer.fib(number - 2)

    def answer(self, channel, method, properties, body):
        answer = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, str(self.fib(int(body))), answer)
        channel.basic_ack(delivery_tag=method.delivery_tag)

    def run(self):
        self.channel.start_consuming()

    def stop(self):
        self.connection.add_callback_threadsafe(self.channel.stop_consuming)
        self.join()


def call(channel, queue, reply_to, answers, number):
    """One remote call: publishes and waits for the answer with its correlation id."""
    properties = pika.BasicProperties(reply_to=reply_to, correlation_id=f"call-{number}")
    channel.basic_publish("", queue, str(number), properties)

    def answered():
        nothing_comes(channel, 0.02)
        return f"call-{number}" in answers

    until(answered)
    return answers[f"call-{number}"]


@pytest.mark.parametrize("direct", [False, True], ids=["callback queue", "direct reply-to"])
def test_remote_procedure_call(connect, names, direct):
    queue = names.queue()
    fibonacci = FibonacciServer(connect, queue)
    fibonacci.start()
    answers, channel = {}, connect().channel()
    reply_to = "amq.rabbitmq.reply-to" if direct else channel.queue_declare("", exclusive=True).method.queue

    def answered(_channel, _method, properties, body):
        answers[properties.correlation_id] = int(body)

    channel.basic_consume(queue=reply_to, on_message_callback=answered, auto_ack=True)
    assert [call(channel, queue, reply_to, answers, number) for number in (1, 10, 30)] == [1, 55, 832040]
    fibonacci.stop()


def test_confirms_singly(connect, names):
    queue, channel = names.queue(), connect().channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for number in range(200):
        channel.basic_publish("", queue, str(number), PERSISTENT)
        assert number % 50 or channel.queue_declare(queue, passive=True).method.message_count == number + 1
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", queue + "-nowhere", "x", PERSISTENT, mandatory=True)
    channel.basic_publish("", queue, "last", PERSISTENT, mandatory=True)
    assert channel.queue_declare(queue, passive=True).method.message_count == 201


class AsyncPublisher:
    """Tutorial 7's third strategy: publishes ahead of the confirms and counts them, with SelectConnection."""

    def __init__(self, url, queue, total, window):
        self.queue, self.total, self.window = queue, total, window
        self.sent, self.open, self.order, self.unroutable, self.events = 0, set(), [], [], []
        self.connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self.opened),
            on_close_callback=lambda connection, _: connection.ioloop.stop(),
        )

    def opened(self, channel):
        self.channel = channel
        channel.add_on_return_callback(self.returned)
        channel.queue_declare(self.queue, durable=True, callback=lambda _: channel.confirm_delivery(self.confirmed, lambda _: self.publish()))

    def publish(self):
        while self.sent < self.total and len(self.open) < self.window:
            self.sent += 1
            self.open.add(self.sent)
            key = self.queue if self.sent % 10 else "no-such-queue-anywhere"
            self.channel.basic_publish("", key, str(self.sent), PERSISTENT, mandatory=True)

    def returned(self, _channel, method, _properties, body):
        assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
        self.events.append(("return", int(body)))

    def confirmed(self, frame):
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        tag = frame.method.delivery_tag
        done = {one for one in self.open if one <= tag} if frame.method.multiple else {tag}
        assert done <= self.open, "a confirm comes once"
        self.open -= done
        self.events += [("confirm", one) for one in sorted(done)]
        self.publish()
        if self.sent == self.total and not self.open:
            self.connection.close()

    def run(self):
        guard = self.connection.ioloop.call_later(30, self.connection.close)
        self.connection.ioloop.start()
        self.connection.ioloop.remove_timeout(guard)


@pytest.mark.parametrize("window", [100, 1000])
def test_confirms_in_batches_and_asynchronously(server, connect, names, window):
    queue, channel = names.queue(), connect().channel()
    publisher = AsyncPublisher(server.url, queue, 5000, window)
    publisher.run()
    assert publisher.sent == 5000 and not publisher.open
    confirmed = [one for what, one in publisher.events if what == "confirm"]
    assert sorted(confirmed) == list(range(1, 5001))
    place = {event: at for at, event in enumerate(publisher.events)}
    for one in range(10, 5001, 10):
        assert place["return", one] < place["confirm", one], "the return comes before the confirm"
    found = take(channel, queue, 4500, timeout=20)
    assert bodies(found) == [one for one in range(1, 5001) if one % 10]
