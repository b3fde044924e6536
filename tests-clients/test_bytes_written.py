"""What a published byte costs the disk: once where consumers keep up, twice at most where old messages must be moved.

In: a broker of our own with a small ring, its own bench as the load, and its figures at /metrics.
Out: bytes written (log, checkpoints, runs) for each byte published. Never: judges a load that moved nothing.
"""

import pathlib
import subprocess
import urllib.request

import pytest

from broker_process import Broker, binary
from conftest import until

MIB = 1 << 20
CONFIG = f"segment_bytes = {4 * MIB}\nring_bytes_max = {16 * MIB}\nshards = 1\n"
LISTEN = ("amqp://127.0.0.1:0", "kafka://127.0.0.1:0", "http://127.0.0.1:0")
# Frames, entries and batches have headers, and a flush ends on a page: a tenth for messages of 1 KiB.
ONCE = 1.15
TWICE = 2.0


@pytest.fixture
def broker(tmp_path):
    config = pathlib.Path(tmp_path, "waystation.toml")
    config.write_text(CONFIG)
    with Broker(tmp_path / "data", listen=LISTEN, arguments=("--config", str(config))) as one:
        yield one
        assert one.alive(), f"the broker died:\n{one.tail()}"


def figure(broker, name):
    """The sum of a counter over all shards."""
    host, port = broker.http
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == f"waystation_{name}_total")


def bench(broker, protocol, *arguments):
    """Starts a load of 100 MB in messages of 1 KiB."""
    host, port = broker.amqp if protocol == "amqp" else broker.kafka
    url = f"amqp://guest:guest@{host}:{port}" if protocol == "amqp" else f"kafka://{host}:{port}"
    command = [binary(), "bench", protocol, "--url", url, "--messages", "100000", "--size", "1024", "--quiet", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ends_well(load):
    output, _ = load.communicate(timeout=120)
    assert load.returncode == 0, output


def written_per_byte(broker):
    return figure(broker, "log_written_bytes") / figure(broker, "messages_published_bytes")


def test_messages_that_are_consumed_at_once_are_written_once(broker):
    ends_well(bench(broker, "amqp"))
    assert figure(broker, "messages_settled") >= 90_000
    assert 1 <= written_per_byte(broker) <= ONCE


def test_messages_that_wait_are_written_twice_at_most(broker):
    ends_well(bench(broker, "amqp", "--consumers", "0"))
    until(lambda: figure(broker, "log_evacuated_segments") >= 15, 60)
    assert 1 <= written_per_byte(broker) <= TWICE


def test_a_mix_of_both_and_of_batches_is_written_twice_at_most(broker):
    loads = [
        bench(broker, "amqp", "--queues", "3", "--publishers", "3", "--consumers", "1"),
        bench(broker, "kafka", "--mode", "produce", "--partitions", "7", "--batch", "16384"),
        bench(broker, "kafka", "--mode", "produce", "--topics", "1", "--batch", "262144"),
    ]
    for load in loads[1:]:
        ends_well(load)
    loads[0].communicate(timeout=120)  # Two of its queues have no consumer: it says that their messages are missing.
    until(lambda: figure(broker, "log_evacuated_segments") >= 20, 60)
    assert 1 <= written_per_byte(broker) <= TWICE
