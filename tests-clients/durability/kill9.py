"""kill -9 under load, again and again on one data directory, with an account of every message.

    python durability/kill9.py [--rounds 20] [--seed N] [--shards N] [--groups N] [--url amqp://…]

In: the built broker (or, with --url, any running server, whose clients are dropped instead of the server killed). Unless
told otherwise its data directory is made with 1, then 2, then 7 shards, the last two with 5 groups: a third of the
rounds each.
Out: one line per round, a summary, exit status 1 with complaints if the broker broke its word, 2 if nothing was tested.
"""

import argparse
import pathlib
import random
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import load
from broker_process import Broker
from ledger import Ledger


class Running:
    """A server that can be made to crash: our own process."""

    def __init__(self, data, shards, groups):
        shape = ("--shards", str(shards), "--groups", str(groups))
        self.broker = Broker(data, listen=("amqp://127.0.0.1:0", "http://127.0.0.1:0"), arguments=shape)
        self.broker.start()

    def address(self):
        return self.broker.amqp

    def crash(self, clients, prng):
        self.broker.kill()
        for _ in range(prng.choice([0, 0, 1, 2])):  # And again while it recovers.
            self.broker.spawn()
            time.sleep(prng.random() * 0.05)
            self.broker.kill()
        self.broker.start()

    def log(self):
        return self.broker.tail()

    def end(self):
        status = self.broker.stop()
        assert status == 0, f"stopped with {status}"


class Elsewhere:
    """Somebody else's server: only the connections end."""

    def __init__(self, url):
        parts = urllib.parse.urlparse(url)
        self.where = (parts.hostname, parts.port or 5672)

    def address(self):
        return self.where

    def crash(self, clients, prng):
        for client in clients:
            client.drop()
        time.sleep(1)

    def log(self):
        return ""

    def end(self):
        pass


def run_round(server, ledger, prng, numbers, tally):
    """One round: load, crash, audit. Fills the tally with what the crash cut through."""
    address = server.address()
    targets = [load.QUEUES[0], load.QUEUES[1], load.EXCHANGE]
    publishers = [load.Publisher(address, ledger, ident, numbers[ident], target) for ident, target in enumerate(targets)]
    consumers = [load.Consumer(address, ledger, queue, prng.random()) for queue in load.QUEUES for _ in range(2)]
    clients = publishers + consumers
    before = len(ledger.confirmed)
    for client in clients:
        client.start()
    under_way(ledger, before + prng.choice([1, 1000, 3000]))
    time.sleep(prng.random())
    tally["unconfirmed"].append(sum(one.outstanding() for one in publishers))
    tally["unacked"].append(sum(one.outstanding() for one in consumers))
    server.crash(clients, prng)
    for client in clients:
        client.join(20)
        assert not client.is_alive(), "a client did not notice the end of its connection"
        if client.error:
            ledger.complain(f"{type(client).__name__}: {client.error!r}")
    tally["confirmed"].append(len(ledger.confirmed) - before)
    for one in publishers:
        numbers[one.publisher] = one.next
    doubtful = ledger.on_crash()
    found = load.audit(server.address(), ledger, settle=False)
    ledger.audit(found, doubtful)
    left = sum(map(len, found.values()))
    tally["survived"].append(left)
    if prng.random() < 0.5 or left > 20_000:
        load.audit(server.address(), ledger, settle=True)


def under_way(ledger, confirmed, patience=10.0):
    """Waits until that many are confirmed in all; a crash before the first confirm would test little."""
    end = time.monotonic() + patience
    while len(ledger.confirmed) < confirmed and time.monotonic() < end:
        time.sleep(0.01)


def vacuous(tally, ledger):
    """Why the run proves nothing, or None."""
    rounds = len(tally["confirmed"])
    wanted = {"unconfirmed": rounds * 0.5, "unacked": rounds * 0.5, "survived": rounds * 0.5, "confirmed": rounds * 0.9}
    for what, least in wanted.items():
        if sum(1 for count in tally[what] if count) < least:
            return f"too few crashes with {what} messages: {tally[what]}"
    if not ledger.again or not ledger.fresh or not ledger.gone:
        return f"{ledger.fresh} fresh and {ledger.again} repeated deliveries, {len(ledger.gone)} settled"
    return None


def main():
    arguments = argparse.ArgumentParser(description="kill -9 under load")
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments.add_argument("--shards", type=int)
    arguments.add_argument("--groups", type=int, default=1)
    arguments.add_argument("--url")
    given = arguments.parse_args()
    prng = random.Random(given.seed)
    shapes = [(given.shards, given.groups)] if given.shards or given.url else [(1, 1), (2, 5), (7, 5)]
    left = given.rounds
    for at, shape in enumerate(shapes):
        rounds = -(-left // (len(shapes) - at))
        left -= rounds
        status = run_shape(given, shape, rounds, prng) if rounds else 0
        if status:
            return status
    return 0


def run_shape(given, shape, rounds, prng):
    """Some rounds on one data directory."""
    ledger = Ledger()
    tally = {"unconfirmed": [], "unacked": [], "confirmed": [], "survived": []}
    with tempfile.TemporaryDirectory(prefix="waystation-kill9-") as data:
        server = Elsewhere(given.url) if given.url else Running(pathlib.Path(data, "data"), *shape)
        print("elsewhere" if given.url else f"{shape[0]} shards, {shape[1]} groups", flush=True)
        load.declare(server.address())
        numbers, begun = [0, 0, 0], time.monotonic()
        for number in range(1, rounds + 1):
            run_round(server, ledger, prng, numbers, tally)
            print(f"round {number:2}: " + ", ".join(f"{what} {counts[-1]}" for what, counts in tally.items()), flush=True)
            if ledger.complaints:
                break
        log = server.log()
        if not ledger.complaints:
            server.end()
    return verdict(given, ledger, tally, log, time.monotonic() - begun)


def verdict(given, ledger, tally, log, seconds):
    if ledger.complaints:
        print("\n".join(["The broker broke its word:"] + ledger.complaints + [log]), file=sys.stderr)
        print(f"replay the choices (not the timing) with --seed {given.seed}", file=sys.stderr)
        return 1
    reason = vacuous(tally, ledger)
    if reason:
        print(f"nothing was proved: {reason}", file=sys.stderr)
        return 2
    print(f"{len(tally['confirmed'])} rounds in {seconds:.0f} s: {sum(tally['confirmed'])} confirmed, {ledger.fresh} fresh and "
          f"{ledger.again} repeated deliveries, {len(ledger.gone)} settled or never taken, nothing lost, doubled or out of order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
