"""A deep backlog: what millions of waiting messages cost in memory, how soon a restart is ready, how fast they drain.

    python durability/backlog.py [--messages 10000000] [--size 100] [--ring-bytes 67108864] [--auto-ack] [--runs 1]

In: the built broker with a ring small enough that most of the backlog is moved into runs (--ring-bytes 0: the default
ring; --auto-ack: the backlog is drained by a consumer without a prefetch that acknowledges nothing). The page cache is
dropped behind the kill where that is permitted. Out: one line per figure, and medians of several runs; exit status 1 if
a message is missing or a bound is broken.
"""

import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import wire as w
from broker_process import Broker

QUEUE, TAG, MIB = "deep", "t", 1 << 20
ANONYMOUS_MAX, PER_MESSAGE_MAX, READY_MAX_S, DRAIN_SHARE_MIN = 400 * MIB, 30, 5.0, 0.5


def anonymous(broker):
    """Memory of the process that is no file's."""
    with open(f"/proc/{broker.process.pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


def counters(broker, *names):
    """The sums of counters over all shards."""
    host, port = broker.http
    with urllib.request.urlopen(f"http://{host}:{port}/metrics") as page:
        rows = [line.decode().rsplit(" ", 1) for line in page if not line.startswith(b"#")]
    return {name: sum(float(value) for key, value in rows if key.split("{")[0] == f"waystation_{name}") for name in names}


def connection(broker):
    """A bare connection that waits long for its answers."""
    return w.Wire(broker.amqp, timeout=600).connect()


def fill(broker, queue, messages, size):
    """Publishes and returns the rate when all of it is in the queue."""
    wire = connection(broker)
    wire.declare(queue, durable=True)
    chunk = w.content(1, "", queue, b"x" * size) * 1000
    begun = time.monotonic()
    for _ in range(messages // 1000):
        wire.send(chunk)
    wire.send(w.queue_declare(1, queue, durable=True, passive=True))
    fields = wire.expect(1, "queue.declare-ok")
    fields.short()
    waiting = fields.u32()
    wire.close()
    assert waiting == messages, f"{waiting} of {messages} wait"
    return messages / (time.monotonic() - begun)


def drain(broker, queue, messages, size, auto_ack=False):
    """Consumes and acknowledges all of it; returns the rate and the most memory on the way."""
    wire = connection(broker)
    wire.send(w.consume(1, queue, tag=TAG, no_ack=True) if auto_ack else w.qos(1, 5000) + w.consume(1, queue, tag=TAG))
    wire.expect(1, "basic.consume-ok")
    begun, most, buffer = time.monotonic(), 0, memoryview(bytearray(MIB))
    deliver = w.method(1, "basic.deliver", w.short(TAG) + bytes(9) + w.short("") + w.short(queue))
    each = len(deliver + w.header(1, size) + w.frame(w.BODY, 1, bytes(size)))
    read, settled, looked = len(wire.buffer) - wire.at, 0, 0
    while read < messages * each:
        count = wire.socket.recv_into(buffer)
        assert count, "the broker ended the connection"
        read += count
        whole = read // each
        if not auto_ack and (whole - settled >= 1000 or whole == messages):
            wire.send(w.ack(1, whole, multiple=True))
            settled = whole
        if whole - looked >= 200_000:
            looked, most = whole, max(most, anonymous(broker))
    rate = messages / (time.monotonic() - begun)
    wire.close()
    left = connection(broker)
    waiting = left.declare(queue, durable=True)[1]
    assert waiting == 0, f"{waiting} of {messages} still wait"
    left.close()
    return rate, most


def drop_caches():
    """Empties the page cache where that is permitted; says what became of it."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return "kept"
    return "dropped"


class Report:
    """Lines of figures, and whether each is within its bound."""

    def __init__(self):
        self.is_good = True
        self.figures = {}

    def note(self, name, figure):
        self.figures.setdefault(name, []).append(figure)

    def medians(self):
        """Of all runs so far."""
        named = (f"{name} {statistics.median(found):,.2f}" for name, found in self.figures.items())
        print(f"medians: {', '.join(named)}", flush=True)

    def say(self, text, good=True):
        self.is_good &= good
        print(text if good else f"{text}  MISSED", flush=True)


def run(broker, options, report):
    """All of it on one broker."""
    messages, size = options.messages, options.size
    fill(broker, "shallow", 200_000, size)
    quick, _ = drain(broker, "shallow", 200_000, size)
    report.say(f"drain of 200000 messages just published: {quick:,.0f}/s")
    before = anonymous(broker)
    rate = fill(broker, QUEUE, messages, size)
    now = anonymous(broker)
    report.say(f"{messages:,} messages of {size} bytes published: {rate:,.0f}/s")
    report.say(f"anonymous memory {now // MIB} MiB", now < ANONYMOUS_MAX)
    report.say(f"{(now - before) / messages:.1f} bytes of memory per message", now - before < PER_MESSAGE_MAX * messages)
    report.note("published/s", rate)
    report.note("MiB of memory", now / MIB)
    report.note("bytes of memory per message", (now - before) / messages)
    found = counters(broker, "log_ring_bytes", "log_run_bytes", "log_evacuated_bytes_total")
    report.say(" ".join(f"{name}={value / MIB:.0f}MiB" for name, value in found.items()))
    broker.kill()
    cache = drop_caches()
    begun = time.monotonic()
    broker.start(timeout=120)
    took = time.monotonic() - begun
    report.say(f"ready {took:.2f} s after kill -9 (page cache {cache}), anonymous memory {anonymous(broker) // MIB} MiB", took < READY_MAX_S)
    rate, most = drain(broker, QUEUE, messages, size, options.auto_ack)
    report.note("s until ready", took)
    report.note("share of the other drain", rate / quick)
    report.say(f"drain of the backlog: {rate:,.0f}/s, {rate / quick:.2f} of the other", rate >= DRAIN_SHARE_MIN * quick)
    report.say(f"most anonymous memory meanwhile {most // MIB} MiB", most < ANONYMOUS_MAX)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000_000, help="a multiple of 1000")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--ring-bytes", type=int, default=64 * MIB, help="ring_bytes_max; 0 for the default")
    parser.add_argument("--auto-ack", action="store_true")
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    report = Report()
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="waystation-backlog-", dir=pathlib.Path.cwd()) as place:
            config = pathlib.Path(place, "waystation.toml")
            config.write_text(f"ring_bytes_max = {options.ring_bytes}\nsegment_bytes = {16 * MIB}\n" if options.ring_bytes else "")
            with Broker(pathlib.Path(place, "data"), arguments=("--config", str(config))) as broker:
                run(broker, options, report)
    if options.runs > 1:
        report.medians()
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
