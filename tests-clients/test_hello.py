"""The first minute of a user: the broker as the README starts it, and pika's hello world as it is written.

The default ports are used here, so nothing else may hold them: then these tests say so and fail.
Never: sets, declares or configures anything beforehand.
"""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from broker_process import Broker
from conftest import until

PROGRAMS = pathlib.Path(__file__).resolve().parent / "programs"

pytestmark = pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="starts the broker itself")


@pytest.fixture(scope="module")
def default_broker(tmp_path_factory):
    """`waystation serve` with no flags, in an empty directory."""
    for port in (5672, 15672):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"port {port} is taken; these tests need the default ports"
    here = tmp_path_factory.mktemp("cwd")
    with Broker(None, listen=(), cwd=here) as broker:
        yield broker
        assert broker.stop() == 0


def read_until(process, text, timeout=15.0):
    """Reads lines of a program until one carries the text."""
    lines, found = [], threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line)
            if text in line:
                found.set()
                return

    threading.Thread(target=read, daemon=True).start()
    assert found.wait(timeout), f"no {text!r} in {lines}"


def test_ready_line_names_the_default_addresses(default_broker):
    assert default_broker.amqp == ("127.0.0.1", 5672)
    assert default_broker.http == ("127.0.0.1", 15672)
    assert pathlib.Path(default_broker.cwd, "waystation-data").is_dir()
    assert "waystation-data" in default_broker.data


def test_hello_world(default_broker):
    for _ in range(3):
        sent = subprocess.run([sys.executable, PROGRAMS / "send.py"], capture_output=True, text=True, timeout=20)
        assert (sent.returncode, sent.stdout, sent.stderr) == (0, " [x] Sent 'Hello World!'\n", "")
    receiver = subprocess.Popen([sys.executable, "-u", PROGRAMS / "receive.py"], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(3):
            read_until(receiver, "[x] Received b'Hello World!'")
        subprocess.run([sys.executable, PROGRAMS / "send.py"], check=True, timeout=20, stdout=subprocess.DEVNULL)
        read_until(receiver, "[x] Received b'Hello World!'")
    finally:
        receiver.kill()
        receiver.wait()


def http(broker, path):
    """Status and text of a GET."""
    try:
        with urllib.request.urlopen(f"http://{broker.http[0]}:{broker.http[1]}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_and_metrics(default_broker):
    assert http(default_broker, "/health/live")[0] == 200
    assert http(default_broker, "/health/ready")[0] == 200
    status, text = http(default_broker, "/metrics")
    assert status == 200
    samples = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert samples
    for line in samples:
        float(line.rsplit(" ", 1)[1])


def test_metrics_follow_a_queue(tmp_path):
    with Broker(tmp_path / "data") as broker:
        import pika

        connection = pika.BlockingConnection(pika.ConnectionParameters(*broker.amqp))
        channel = connection.channel()
        channel.queue_declare("watched", durable=True)
        channel.confirm_delivery()
        for _ in range(3):
            channel.basic_publish("", "watched", b"x", pika.BasicProperties(delivery_mode=2))

        def figures():
            samples = [line.rsplit(" ", 1) for line in http(broker, "/metrics")[1].splitlines()]
            return {name.split("{")[0]: float(value) for name, value in samples if 'queue="watched"' in name}

        def shows(**wanted):
            named = {f"waystation_queue_{name}": value for name, value in wanted.items()}
            until(lambda: named.items() <= figures().items(), what=f"{named} of 'watched'")

        shows(ready=3, unacked=0, enqueued_total=3, handed_out_total=0, settled_total=0)
        tag = channel.basic_get("watched")[0].delivery_tag
        shows(ready=2, unacked=1, enqueued_total=3, handed_out_total=1, settled_total=0)
        channel.basic_ack(tag)
        shows(ready=2, unacked=0, enqueued_total=3, handed_out_total=1, settled_total=1)
        helps = [line.split(" ", 3)[2:] for line in http(broker, "/metrics")[1].splitlines() if line.startswith("# HELP ")]
        mute = [name for name, text in helps if text == name.removeprefix("waystation_").replace("_", " ")]
        assert helps and not mute, "every figure says what it counts"
        connection.close()
        assert broker.stop() == 0


def test_port_taken_is_said(default_broker, tmp_path):
    second = Broker(tmp_path / "data", listen=("amqp://127.0.0.1:5672", "http://127.0.0.1:0")).spawn()
    assert second.process.wait(15) != 0
    until(lambda: "5672" in second.tail(), what="the port in the message")


def test_locked_data_directory_is_said(tmp_path):
    with Broker(tmp_path / "data"):
        second = Broker(tmp_path / "data").spawn()
        assert second.process.wait(15) != 0
        until(lambda: "lock" in second.tail().lower() or "in use" in second.tail().lower(), what="the reason")


def test_unknown_setting_is_said_with_the_nearest_known_one(tmp_path):
    config = tmp_path / "waystation.toml"
    config.write_text('data_dirr = "x"\n')
    broker = Broker(tmp_path / "data", arguments=("--config", str(config))).spawn()
    assert broker.process.wait(15) != 0
    until(lambda: "data_dirr" in broker.tail() and "data_dir" in broker.tail().replace("data_dirr", ""), what="both names")


def test_guest_is_not_offered_to_the_world(tmp_path):
    broker = Broker(tmp_path / "data", listen=("amqp://0.0.0.0:0", "http://127.0.0.1:0")).spawn()
    assert broker.process.wait(15) != 0
    until(lambda: "0.0.0.0" in broker.tail(), what="the address in the message")


def test_sigterm_stops_cleanly_and_keeps_everything(tmp_path):
    import pika

    with Broker(tmp_path / "data") as broker:
        connection = pika.BlockingConnection(pika.ConnectionParameters(*broker.amqp))
        channel = connection.channel()
        channel.queue_declare("kept", durable=True)
        channel.confirm_delivery()
        for number in range(20):
            channel.basic_publish("", "kept", str(number).encode(), pika.BasicProperties(delivery_mode=2))
        assert broker.stop() == 0
    with Broker(tmp_path / "data") as broker:
        connection = pika.BlockingConnection(pika.ConnectionParameters(*broker.amqp))
        channel = connection.channel()
        found = [channel.basic_get("kept", auto_ack=True) for _ in range(21)]
        assert [int(body) for method, _, body in found[:20]] == list(range(20))
        assert [method.redelivered for method, _, _ in found[:20]] == [False] * 20
        assert found[20] == (None, None, None)
        connection.close()


def test_memory_queues_and_bindings_end_with_the_process(tmp_path):
    import pika

    with Broker(tmp_path / "data") as broker:
        channel = pika.BlockingConnection(pika.ConnectionParameters(*broker.amqp)).channel()
        channel.queue_declare("fleeting", durable=False)
        channel.queue_declare("lasting", durable=True)
        channel.exchange_declare("hall", "topic", durable=True)
        channel.exchange_declare("tent", "topic", durable=False)
        channel.queue_bind("lasting", "hall", "a.*")
        channel.queue_bind("fleeting", "hall", "a.*")
        broker.kill()
    with Broker(tmp_path / "data") as broker:
        connection = pika.BlockingConnection(pika.ConnectionParameters(*broker.amqp))
        for gone in (lambda one: one.queue_declare("fleeting", passive=True), lambda one: one.exchange_declare("tent", passive=True)):
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
                gone(connection.channel())
            assert refused.value.reply_code == 404
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("hall", "a.b", b"found", mandatory=True)
        assert channel.basic_get("lasting", auto_ack=True)[2] == b"found"
        connection.close()
