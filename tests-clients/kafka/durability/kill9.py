"""kill -9 under Kafka's clients, again and again on one data directory, with an account of every record.

    python kafka/durability/kill9.py [--rounds 10] [--seed N]

In: the built broker. Out: one line per round, a summary, exit status 1 with complaints if the broker broke its word,
2 if nothing was tested. Producers and consumers live through every crash, as users' clients do.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

import load
from broker_process import Broker
from confluent_kafka.admin import AdminClient, NewTopic
from ledger import Ledger


# Whatever the machine has: on two cores a node has one shard unless told otherwise.
SHAPE = ("--shards", "2", "--groups", "5")


class Run:
    """The broker, its clients and their ledger."""

    def __init__(self, data, prng):
        self.prng, self.ledger = prng, Ledger()
        self.broker = Broker(data, listen=("kafka://127.0.0.1:0", "http://127.0.0.1:0"), arguments=SHAPE).start()
        # From now on the same port: clients come back to where they were.
        self.broker.command[self.broker.command.index("kafka://127.0.0.1:0")] = f"kafka://127.0.0.1:{self.broker.kafka[1]}"
        self.bootstrap = f"127.0.0.1:{self.broker.kafka[1]}"
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.create_topics([NewTopic(load.TOPIC, load.PARTITIONS, 1)])[load.TOPIC].result(20)
        self.producers = [load.LoadProducer(self.bootstrap, self.ledger, ident, codec) for ident, codec in enumerate(("none", "lz4", "none"))]
        self.members = [load.Member(self.bootstrap, self.ledger, ident) for ident in range(2)]
        self.tally = {"acked": [], "under way": [], "taken": [], "uncommitted": []}

    def start(self):
        for client in self.producers + self.members:
            client.start()

    def wait(self, what, count, patience=60.0):
        """Until so many more are there, or something is wrong."""
        end, before = time.monotonic() + patience, len(what)
        while len(what) < before + count:
            if self.trouble():
                return
            if time.monotonic() > end:
                self.ledger.complain(f"{len(what) - before} of {count} within {patience} s")
                return
            time.sleep(0.01)

    def trouble(self):
        for client in self.producers + self.members:
            if client.error:
                self.ledger.complain(f"{type(client).__name__}: {client.error!r}")
        return self.ledger.complaints

    def crash(self):
        self.broker.kill()
        for _ in range(self.prng.choice([0, 0, 1, 2])):  # And again while it recovers.
            self.broker.spawn()
            time.sleep(self.prng.random() * 0.05)
            self.broker.kill()
        self.broker.start()

    def round(self):
        """Load, crash, and a look at the logs while the load goes on."""
        acked, taken = len(self.ledger.acked), len(self.ledger.taken)
        self.wait(self.ledger.acked, self.prng.choice([1, 2000, 5000]))
        self.wait(self.ledger.taken, self.prng.choice([1, 1000]))
        time.sleep(self.prng.random() * 0.5)
        self.tally["under way"].append(sum(one.open for one in self.producers))
        self.tally["uncommitted"].append(sum(one.uncommitted for one in self.members))
        promised = dict(self.ledger.committed)
        self.crash()
        for partition, offset in load.read_committed(self.bootstrap).items():
            if offset < promised.get(partition, -1):
                self.ledger.on_found_committed(partition, offset)
        known = self.ledger.known()
        self.ledger.audit(load.read_logs(self.bootstrap), known)
        self.tally["acked"].append(len(self.ledger.acked) - acked)
        self.tally["taken"].append(len(self.ledger.taken) - taken)

    def finish(self):
        """Producers end, members take what is left, and everything is compared for the last time."""
        for one in self.producers:
            one.end()
        for one in self.producers:
            one.join(70)
        logs = load.read_logs(self.bootstrap)
        end = time.monotonic() + 60
        while self.ledger.left_over(logs) and not self.trouble() and time.monotonic() < end:
            time.sleep(0.05)
        for one in self.members:
            one.end()
        for one in self.members:
            one.join(30)
        self.trouble()
        known = self.ledger.known()
        self.ledger.audit(load.read_logs(self.bootstrap), known)
        left = self.ledger.left_over(logs)
        if left:
            self.ledger.complain(f"{len(left)} records never reached the group, the first at {left[0]}")
        for partition, offset in load.read_committed(self.bootstrap).items():
            self.ledger.on_found_committed(partition, offset)
        if not self.ledger.complaints and self.broker.stop() != 0:
            self.ledger.complain("the broker did not stop cleanly")
        return sum(map(len, logs.values()))


def vacuous(tally):
    """Why the run proves nothing, or None."""
    rounds = len(tally["acked"])
    for what, share in (("acked", 0.9), ("under way", 0.5), ("taken", 0.9), ("uncommitted", 0.3)):
        if sum(1 for count in tally[what] if count) < rounds * share:
            return f"too few crashes with records {what}: {tally[what]}"
    return None


def main():
    arguments = argparse.ArgumentParser(description="kill -9 under Kafka's clients")
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = arguments.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="waystation-kafka-kill9-") as data:
        run = Run(pathlib.Path(data, "data"), random.Random(given.seed))
        run.start()
        for number in range(1, given.rounds + 1):
            run.round()
            print(f"round {number:2}: " + ", ".join(f"{what} {counts[-1]}" for what, counts in run.tally.items()), flush=True)
            if run.trouble():
                break
        stored = 0 if run.ledger.complaints else run.finish()
        if run.broker.alive():
            run.broker.kill()
    if run.ledger.complaints:
        print("\n".join(["The broker broke its word:"] + run.ledger.complaints + [run.broker.tail()]), file=sys.stderr)
        print(f"replay the choices (not the timing) with --seed {given.seed}", file=sys.stderr)
        return 1
    reason = vacuous(run.tally)
    if reason:
        print(f"nothing was proved: {reason}", file=sys.stderr)
        return 2
    print(f"{given.rounds} rounds in {time.monotonic() - begun:.0f} s: {len(run.ledger.acked)} acknowledged of {stored} stored, "
          f"{len(run.ledger.taken)} taken by the group; nothing lost, doubled or out of order, no offset went back")
    return 0


if __name__ == "__main__":
    sys.exit(main())
