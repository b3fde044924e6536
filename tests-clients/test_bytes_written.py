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


def bench(broker, protocol, *arguments, messages=100_000, size=1024):
    """Starts a load, by default of 100 MB in messages of 1 KiB."""
    host, port = broker.amqp if protocol == "amqp" else broker.kafka
    url = f"amqp://guest:guest@{host}:{port}" if protocol == "amqp" else f"kafka://{host}:{port}"
    command = [binary(), "bench", protocol, "--url", url, "--messages", str(messages), "--size", str(size), "--quiet", *arguments]
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


@pytest.mark.parametrize("consumers", [1, 0])
def test_large_messages_are_written_twice_at_most(broker, consumers):
    ends_well(bench(broker, "amqp", "--consumers", str(consumers), "--window", "10", messages=80, size=2 * MIB))
    # Segments for large flushes are larger, so that there may be few.
    until(lambda: consumers or figure(broker, "log_evacuated_segments") >= 5, 60)
    assert 1 <= written_per_byte(broker) <= TWICE


@pytest.mark.parametrize("consumers", [5, 0])
def test_copies_for_several_queues_are_written_once_and_moved_once_at_most(broker, consumers):
    """What a message costs does not grow with the queues it goes to, even where it waits in all of them."""
    ends_well(bench(broker, "amqp", "--fanout", "5", "--consumers", str(consumers)))
    until(lambda: consumers or figure(broker, "log_evacuated_segments") >= 15, 60)
    assert 1 <= written_per_byte(broker) <= (TWICE if consumers == 0 else ONCE)


def test_where_one_in_ten_waits_not_much_more_is_written_than_that(broker):
    """Both at a rate, so that what waits lies scattered among what does not."""
    waits = bench(broker, "kafka", "--mode", "produce", "--rate", "3000", "--batch", "16384", messages=15_000)
    ends_well(bench(broker, "amqp", "--rate", "1700", messages=8_500, size=16 * 1024))
    ends_well(waits)
    until(lambda: figure(broker, "log_evacuated_segments") >= 20, 60)
    assert figure(broker, "log_run_written_bytes") > 5 * MIB, "what waits was moved"
    # A flush ends on a page of 4 KiB: a quarter more where each has one message.
    assert 1 <= written_per_byte(broker) <= 1.5


# What stands around a body of an AMQP message: its row, and its part of what stands around rows.
ROW = 64


@pytest.mark.parametrize("consumers", [1, 0])
def test_tiny_messages_cost_their_rows(broker, consumers):
    """Of 16 bytes most of what is written is not the body: written once or twice are rows, each of them."""
    count = 500_000
    ends_well(bench(broker, "amqp", "--consumers", str(consumers), messages=count, size=16))
    until(lambda: consumers or figure(broker, "log_evacuated_segments") >= 4, 60)
    each = figure(broker, "log_written_bytes") / count
    assert 16 + ROW / 2 < each <= (16 + ROW) * (TWICE if consumers == 0 else ONCE)
