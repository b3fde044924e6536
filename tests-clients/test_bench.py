"""The load generator against a broker of our own: open and closed loop, its report, and that it says when a word is broken.

In: the built program. Its own tests show each flaw against a server that misbehaves; here it meets a real one.
"""

import json
import os
import subprocess

import pytest

from broker_process import Broker, binary

LISTEN = ("amqp://127.0.0.1:0", "kafka://127.0.0.1:0", "http://127.0.0.1:0")

pytestmark = pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="reads figures of a broker of our own")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("data"), listen=LISTEN) as one:
        yield one
        assert one.alive(), one.tail()


def bench(broker, *arguments, protocol="amqp"):
    """Runs it; its report as a dictionary, and what it said meanwhile."""
    user, (host, port) = ("guest:guest@", broker.amqp) if protocol == "amqp" else ("", broker.kafka)
    command = [binary(), "bench", protocol, "--url", f"{protocol}://{user}{host}:{port}", "-o", "json", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout), ended.stderr.splitlines()


def flawless(report):
    ended = report["published_in_all"] == report["confirmed_in_all"] == report["delivered_in_all"]
    return ended and all(report[flaw] == 0 for flaw in ("lost", "duplicated", "misordered", "corrupt", "misrouted", "refused"))


def ascend(report, what):
    """Its percentiles are there and in order."""
    values = [report[f"{what}_us_{part}"] for part in ("p50", "p90", "p99", "p99.9", "max")]
    return values == sorted(values) and values[0] > 0


def test_a_closed_loop_reports_throughput_latency_processor_time_and_flaws(broker):
    metrics = f"http://{broker.http[0]}:{broker.http[1]}/metrics"
    shape = ("--publishers", "2", "--consumers", "3", "--queues", "2", "--size", "200", "--window", "50", "--prefetch", "20")
    report, progress = bench(broker, "--messages", "20000", "--metrics-url", metrics, *shape)
    assert flawless(report), report
    assert report["published_in_all"] == 20_000
    assert report["messages_per_second"] > 0 and report["server_cpu_us_per_message"] > 0
    assert report["syncs"] > 0 and report["entries_per_sync"] > 0 and report["bytes_written_per_byte_published"] >= 1
    assert str(broker.process.pid) in report["server_pids"]
    assert ascend(report, "confirm") and ascend(report, "delivery")
    for word in ("2 publishers", "3 consumers", "2 queues", "200 B persistent", "window 50", "prefetch 20", "confirms", "acks"):
        assert word in report["settings"], report["settings"]
    assert not progress or all("published" in line for line in progress)


def test_an_open_loop_keeps_its_rate_and_tells_its_progress(broker):
    report, progress = bench(broker, "--rate", "500", "--duration", "2", "--warmup", "0", "--size", "16")
    assert flawless(report), report
    assert 900 <= report["published"] <= 1010 and "rate 500/s" in report["settings"] and "window unbounded" in report["settings"]
    assert progress and all("published" in line and "confirmed" in line and "delivered" in line for line in progress)
    quiet, nothing = bench(broker, "--rate", "500", "--duration", "1", "--warmup", "0", "--quiet")
    assert flawless(quiet) and nothing == []


def test_kafka_written_and_read_is_reported_and_checked(broker):
    metrics = f"http://{broker.http[0]}:{broker.http[1]}/metrics"
    shape = ("--mode", "both", "--producers", "2", "--consumers", "2", "--topics", "1", "--partitions", "3", "--size", "200")
    report, progress = bench(broker, "--duration", "2", "--warmup", "0", "--metrics-url", metrics, *shape, protocol="kafka")
    assert flawless(report), report
    assert report["published"] > 1000 and 1.9 < report["seconds"] < 10
    rate = report["published"] / report["seconds"]
    assert 0.8 * rate < report["messages_per_second"] < 1.2 * rate
    assert 0.8 * rate * 200 / 1e6 < report["megabytes_per_second"] < 1.2 * rate * 200 / 1e6
    assert report["server_cpu_us_per_message"] > 0 and str(broker.process.pid) in report["server_pids"]
    assert report["syncs"] > 0 and report["entries_per_sync"] > 0 and report["bytes_written_per_byte_published"] >= 1
    assert ascend(report, "confirm") and ascend(report, "delivery")
    for word in ("2 producers", "2 consumers", "3 partitions", "200 B", "acks all"):
        assert word in report["settings"], report["settings"]
    assert progress and all("published" in line and "confirmed" in line and "delivered" in line for line in progress)
