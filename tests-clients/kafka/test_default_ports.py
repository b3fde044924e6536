"""The first minute of a Kafka user: the broker without flags, and kafka-python's first programs as they are written.

The default ports are used here, so nothing else may hold them: then these tests say so and fail.
Never: creates or configures anything beforehand.
"""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from broker_process import Broker

PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"

pytestmark = pytest.mark.skipif("WAYSTATION_KAFKA_URL" in os.environ, reason="starts the broker itself")


@pytest.fixture(scope="module")
def default_broker(tmp_path_factory):
    """`waystation serve` with no flags, in an empty directory."""
    for port in (5672, 9092, 15672):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} is taken; these tests need the default ports"
    with Broker(None, listen=(), cwd=tmp_path_factory.mktemp("cwd")) as broker:
        yield broker
        assert broker.stop() == 0


class Program:
    """A program that prints what it receives."""

    def __init__(self, name):
        self.process = subprocess.Popen([sys.executable, "-u", PROGRAMS / name], stdout=subprocess.PIPE, text=True)
        self.lines = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        self.lines.extend(self.process.stdout)

    def received(self, text):
        return sum(text in line for line in list(self.lines))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def send():
    done = subprocess.run([sys.executable, PROGRAMS / "send.py"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, " [x] Sent 'Hello, World!'\n", "")


def test_ready_line_names_the_default_address(default_broker):
    assert default_broker.kafka == ("127.0.0.1", 9092)


def test_hello_world(default_broker):
    """A group reads from the beginning; a consumer without one reads what is sent once it listens."""
    for _ in range(3):
        send()
    with Program("receive_group.py") as member, Program("receive.py") as listener:
        end, sent = time.monotonic() + 30, 3
        while member.received("value=b'Hello, World!'") < sent or not listener.received("value=b'Hello, World!'"):
            assert time.monotonic() < end, f"of {sent}: {member.lines} {listener.lines}"
            time.sleep(0.2)
            if not listener.received("Hello"):  # It may not have listened yet when the last one was sent.
                send()
                sent += 1
        assert member.received("topic='test', partition=0") == sent
        assert 1 <= listener.received("Hello, World!") <= sent - 3


def test_a_consumer_may_come_before_its_topic(default_broker):
    from kafka import KafkaConsumer, KafkaProducer

    consumer = KafkaConsumer("not-there-yet", bootstrap_servers=["localhost:9092"], auto_offset_reset="earliest")
    consumer.poll(timeout_ms=300)
    producer = KafkaProducer(bootstrap_servers=["localhost:9092"])
    producer.send("not-there-yet", b"x").get(10)
    end = time.monotonic() + 20
    while not (found := consumer.poll(timeout_ms=500)):
        assert time.monotonic() < end
    assert [record.value for records in found.values() for record in records] == [b"x"]
    producer.close()
    consumer.close()
