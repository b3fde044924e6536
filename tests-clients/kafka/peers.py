"""Measures this broker and Apache Kafka in turn, with the same tool and settings, and the disk between them.

In: the built broker (WAYSTATION_BINARY or the release build), the jars of Apache Kafka's server
(WAYSTATION_KAFKA_JARS, a folder with kafka_2.13 and what it needs; or made with Maven), a folder on the disk to be
measured. Out: a table of medians, as docs/benchmarks.md has it. Never: runs two servers at once.

    python3 tests-clients/kafka/peers.py --runs 5 --seconds 5
    python3 tests-clients/kafka/peers.py --held 60      # this broker only: long runs, far beyond the ring
    python3 tests-clients/kafka/peers.py --tail         # this broker only: what fetching costs beside producing
"""

import argparse
import json
import mmap
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from broker_process import Broker, binary  # noqa: E402

VERSION = "4.0.0"
SCENARIOS = {
    "256k": ["--size", "1024", "--batch", "262144", "--mode", "produce", "--pipeline", "20"],
    "256k-4": ["--size", "1024", "--batch", "262144", "--mode", "produce", "--producers", "4", "--partitions", "4"],
    "256k-both": ["--size", "1024", "--batch", "262144", "--mode", "both", "--pipeline", "20"],
    "100b-16k": ["--size", "100", "--batch", "16384", "--mode", "both"],
    "16b-16k": ["--size", "16", "--batch", "16384", "--mode", "both"],
}
PACED = ["--size", "1024", "--batch", "262144", "--rate", "200000"]
HELD = ["--size", "1024", "--batch", "262144", "--mode", "produce", "--pipeline", "20", "--retention-bytes", str(4 << 30)]
RING = 1 << 30
FIGURES = (
    "megabytes_per_second",
    "messages_per_second",
    "server_cpu_us_per_mb",
    "server_cpu_us_per_message",
    "confirm_us_p50",
    "confirm_us_p99",
)
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>waystation</groupId><artifactId>kafka-server</artifactId><version>1</version>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>
"""


def jars(place):
    """A folder with the server's jars; made with Maven in `place` when WAYSTATION_KAFKA_JARS names none."""
    given = os.environ.get("WAYSTATION_KAFKA_JARS")
    if given:
        return given
    place.mkdir(parents=True, exist_ok=True)
    if not list((place / "jars").glob("kafka_2.13-*.jar")):
        (place / "pom.xml").write_text(POM)
        subprocess.run(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={place / 'jars'}"], cwd=place, check=True)
    return place / "jars"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Waystation:
    """This broker on a fresh data directory."""

    def __init__(self, folder):
        self.broker = Broker(folder / "waystation", listen=("kafka://127.0.0.1:0", "http://127.0.0.1:0"))

    def __enter__(self):
        self.broker.start()
        return f"{self.broker.kafka[0]}:{self.broker.kafka[1]}"

    def __exit__(self, *_):
        self.broker.stop()


class Kafka:
    """Apache Kafka as one node on a fresh data directory; `synced`: every batch is synced before it is answered."""

    def __init__(self, folder, classpath, synced):
        self.folder, self.classpath, self.synced = folder / "kafka", classpath, synced

    def java(self, *arguments):
        heap = ["-Xms1g", "-Xmx1g", "-XX:+UseG1GC"]
        return ["java", *heap, "-cp", f"{self.classpath}/*", *arguments]

    def __enter__(self):
        self.folder.mkdir()
        port, controller = free_port(), free_port()
        settings = {
            "process.roles": "broker,controller", "node.id": 1, "log.dirs": self.folder / "data",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}", "offsets.topic.replication.factor": 1,
        }
        if self.synced:
            settings["log.flush.interval.messages"] = 1
        file = self.folder / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        form = self.java("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", str(file))
        subprocess.run(form, check=True, **quiet)
        self.process = subprocess.Popen(self.java("kafka.Kafka", str(file)), **quiet)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    time.sleep(3)  # It listens before it serves; nothing is measured in this time.
                    return f"127.0.0.1:{port}"
            time.sleep(0.2)
        raise TimeoutError("Apache Kafka did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)


def disk(folder, seconds):
    """MB/s of 1 MiB writes, each synced, into a file that was written before."""
    size, block = 512 << 20, 1 << 20
    buffer = mmap.mmap(-1, block)
    buffer.write(os.urandom(block))
    path = folder / "disk"
    with open(path, "wb") as file:
        for _ in range(size // block):
            file.write(buffer)
        os.fsync(file.fileno())
    descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    done, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        os.pwrite(descriptor, buffer, done % size)
        done += block
    took = time.monotonic() - start
    os.close(descriptor)
    path.unlink()
    return done / took / 1e6


def bench(url, options, seconds):
    command = [binary(), "bench", "kafka", "--url", f"kafka://{url}", "--quiet", "-o", "json"]
    command += ["--warmup", "1", "--duration", str(seconds), *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measured(root, options, seconds):
    """One run of this broker on a fresh data directory."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="waystation-peers-", dir=root))
    try:
        with Waystation(folder) as url:
            return bench(url, options, seconds)
    finally:
        shutil.rmtree(folder)


def held(root, seconds, runs):
    """Produces for long, beyond the ring: old segments leave it, and what is beyond the retention goes."""
    rates, disks = [], []
    for _ in range(runs):
        before = disk(root, 2)
        report = measured(root, HELD, seconds)
        raw = (before + disk(root, 2)) / 2
        rate, records = report["megabytes_per_second"], report["confirmed_in_all"]
        assert records * 1024 > 2 * RING, f"{records} records do not go far beyond the ring"
        rates.append(rate)
        disks.append(raw)
        print(
            f"held {seconds:.0f} s: {rate:.0f} MB/s, {rate / raw:.0%} of the disk's {raw:.0f} MB/s in synced writes of "
            f"1 MiB; {records * 1024 / RING:.1f} times the ring; {report['server_cpu_us_per_mb']:.0f} us of CPU per MB; "
            f"confirm p50 {report['confirm_us_p50'] / 1000:.1f} ms, p99 {report['confirm_us_p99'] / 1000:.1f} ms",
            flush=True,
        )
    rate, raw = statistics.median(rates), statistics.median(disks)
    print(f"medians: {rate:.0f} MB/s of {raw:.0f}, {rate / raw:.0%}")


def tail(root, seconds, runs):
    """The same paced records with and without a consumer that keeps up: the difference is what fetching costs."""
    costs = {"produce": [], "both": []}
    for _ in range(runs):
        for mode, found in costs.items():
            report = measured(root, [*PACED, "--mode", mode], seconds)
            assert mode == "produce" or report["backlog"] < 200_000, "the consumer does not keep up"
            found.append(report["server_cpu_us_per_mb"])
    alone, both = (statistics.median(found) for found in costs.values())
    fetching = f"{1000 / (both - alone):.1f} GB per CPU-second" if both > alone else "nothing to be seen"
    print(f"producing {alone:.0f} us of CPU per MB, producing and fetching {both:.0f}: fetching from the tail {fetching}")
    for mode, found in costs.items():
        print(f"  {mode}: {' '.join(f'{cost:.0f}' for cost in found)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one; repeatable")
    parser.add_argument("--only", choices=["waystation"], help="without Apache Kafka")
    parser.add_argument("--folder", type=pathlib.Path, help="on the disk to be measured; default: here")
    parser.add_argument("--held", type=float, metavar="SECONDS", help="only one long run of this broker per run")
    parser.add_argument("--tail", action="store_true", help="only what fetching from the tail costs")
    arguments = parser.parse_args()
    root = arguments.folder or pathlib.Path.cwd()
    if arguments.held:
        return held(root, arguments.held, arguments.runs)
    if arguments.tail:
        return tail(root, arguments.seconds, arguments.runs)
    peers = ["waystation"]
    if not arguments.only:
        classpath = jars(root / "target" / "kafka-server")
        peers += ["kafka synced", "kafka"]
    figures, disks = {}, {}
    for run in range(arguments.runs):
        for scenario in arguments.scenario or SCENARIOS:
            disks.setdefault(scenario, []).append(disk(root, 1))
            for peer in peers:
                folder = pathlib.Path(tempfile.mkdtemp(prefix="waystation-peers-", dir=root))
                try:
                    server = Waystation(folder) if peer == "waystation" else Kafka(folder, classpath, "synced" in peer)
                    with server as url:
                        report = bench(url, SCENARIOS[scenario], arguments.seconds)
                    flaws = [report[flaw] for flaw in ("lost", "duplicated", "misordered", "corrupt")]
                    assert not any(flaws), f"{peer}, {scenario}: {report}"
                    figures.setdefault((scenario, peer), []).append(report)
                    rate, cpu = report["megabytes_per_second"], report["server_cpu_us_per_mb"]
                    print(f"run {run + 1} {scenario} {peer}: {rate:.0f} MB/s, {cpu:.0f} us per MB", file=sys.stderr)
                finally:
                    shutil.rmtree(folder)
    for scenario, found in disks.items():
        span = f"({min(found):.0f} to {max(found):.0f})"
        print(f"disk before {scenario}: {statistics.median(found):.0f} MB/s in synced writes of 1 MiB {span}")
    print()
    print("| scenario | server | MB/s | records/s | CPU us per MB | records per CPU second | confirm p50 us | p99 us |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (scenario, peer), reports in figures.items():
        # A figure that could not be taken in some run is absent there.
        known = {key: [report[key] for report in reports if key in report] for key in FIGURES}
        median = {key: statistics.median(values) if values else float("nan") for key, values in known.items()}
        per_second = 1e6 / median["server_cpu_us_per_message"]
        print(
            f"| {scenario} | {peer} | {median['megabytes_per_second']:.0f} | {median['messages_per_second']:.0f} "
            f"| {median['server_cpu_us_per_mb']:.0f} | {per_second:.0f} | {median['confirm_us_p50']:.0f} | {median['confirm_us_p99']:.0f} |"
        )


if __name__ == "__main__":
    main()
