"""Reads one of many partitions from its beginning after a restart, from a disk whose cache was dropped.

Fills the partitions in turn with batches of the size asked for until the log is far larger than the ring, waits until
old segments have left it, restarts, drops the page cache where that is permitted, and fetches one partition to its
end, one request at a time. Told apart: what had left the ring, which lies sorted or in large pieces, and all of it, with
what the ring still has between other partitions' batches. Beside it: how fast the disk reads 1 MiB at a time in order,
and pieces as large as a batch anywhere, past the page cache, one read at a time.

In: the built broker, a folder on the disk to be measured. Out: a line for each run, another partition each time, and
medians. Never: believes a batch that it did not write.

    python3 tests-clients/kafka/cold.py --batch 262144 --runs 5
"""

import argparse
import mmap
import os
import pathlib
import random
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from broker_process import Broker  # noqa: E402

TOPIC = b"cold"
UNDER_WAY = 10


def crc32c(data):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def varint(number):
    number, out = number << 1 ^ number >> 63, b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def batch(size):
    """A batch of about `size` bytes in records of 1 KiB."""
    records, count = b"", max(1, size // 1036)
    for delta in range(count):
        value = random.randbytes(1024)
        body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(body)) + body
    now = int(time.time() * 1000)
    covered = struct.pack(">hiqqqhii", 0, count - 1, now, now, -1, -1, -1, count) + records
    return struct.pack(">qiibI", 0, len(covered) + 9, 0, 2, crc32c(covered)) + covered, count


class Link:
    """One connection: requests out, answers in their order."""

    def __init__(self, address):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(8 << 20)

    def send(self, key, version, body):
        self.socket.sendall(struct.pack(">ihhih", len(body) + 10, key, version, 0, -1) + body)

    def receive(self):
        head = self.exactly(memoryview(self.buffer)[:4])
        return self.exactly(memoryview(self.buffer)[: struct.unpack(">i", head)[0]])

    def exactly(self, view):
        have = 0
        while have < len(view):
            got = self.socket.recv_into(view[have:])
            if not got:
                raise EOFError("the broker closed the connection")
            have += got
        return view


def text(value):
    return struct.pack(">h", len(value)) + value


def create(link, partitions):
    body = struct.pack(">i", 1) + text(TOPIC) + struct.pack(">ihiiib", partitions, 1, 0, 0, 30000, 0)
    link.send(19, 4, body)
    link.receive()


def fill(link, partitions, rounds, data):
    def taken():
        code = struct.unpack_from(">h", link.receive(), 4 + 4 + 2 + len(TOPIC) + 4 + 4)[0]
        assert code == 0, f"error {code}"

    head = text(TOPIC) + struct.pack(">i", 1)
    waiting = 0
    for at in range(rounds * partitions):
        body = struct.pack(">hhii", -1, -1, 30000, 1) + head + struct.pack(">ii", at % partitions, len(data)) + data
        link.send(0, 7, body)
        waiting += 1
        if waiting == UNDER_WAY:
            taken()
            waiting -= 1
    for _ in range(waiting):
        taken()


def fetch(link, partition, offset, end, expected):
    """Reads the partition from `offset` to `end` or a little beyond; returns where it got to and its bytes."""
    total, expected = 0, expected[21:]
    while offset < end:
        body = struct.pack(">iiiibiii", -1, 500, 1, 4 << 20, 0, 0, -1, 1) + text(TOPIC)
        body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, 1 << 20) + struct.pack(">i", 0) + text(b"")
        link.send(1, 11, body)
        answer = link.receive()
        at = 4 + 4 + 2 + 4 + 4 + 2 + len(TOPIC) + 4 + 4
        code, aborted = struct.unpack_from(">h24xi", answer, at)
        assert code == 0 and aborted <= 0, f"error {code}"
        size = struct.unpack_from(">i", answer, at + 34)[0]
        records, at = answer[at + 38 : at + 38 + size], 0
        while at + 61 <= size:
            length = struct.unpack_from(">i", records, at + 8)[0] + 12
            if at + length > size:
                break
            # As bytes: a memoryview is compared item by item, which takes longer than reading it.
            assert bytes(records[at + 21 : at + length]) == expected, "a batch is not what was written"
            offset += struct.unpack_from(">i", records, at + 57)[0]
            at, total = at + length, total + length
    return offset, total


def evacuated(http):
    figures = urllib.request.urlopen(f"http://{http[0]}:{http[1]}/metrics").read().decode()
    lines = [line for line in figures.splitlines() if line.startswith("waystation_log_evacuated_bytes_total")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


def drop_caches():
    """Whether the page cache could be emptied."""
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")
    except OSError:
        return False
    return True


def raw(folder, size, piece, in_order):
    """MB/s of direct reads of that size in a file that is there for it."""
    path, block = folder / "raw", mmap.mmap(-1, piece)
    block.write(random.randbytes(min(piece, 1 << 20)) * (piece // min(piece, 1 << 20)))
    places = list(range(0, size, piece))
    with open(path, "wb") as file:
        for _ in places:
            file.write(block)
        os.fsync(file.fileno())
    if not in_order:
        random.shuffle(places)
    descriptor, start = os.open(path, os.O_RDONLY | os.O_DIRECT), time.monotonic()
    for place in places:
        os.preadv(descriptor, [block], place)
    took = time.monotonic() - start
    os.close(descriptor)
    path.unlink()
    return len(places) * piece / took / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--batch", type=int, default=262144)
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=pathlib.Path, help="on the disk to be measured; default: here")
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="waystation-cold-", dir=arguments.folder or pathlib.Path.cwd()))
    data, count = batch(arguments.batch)
    rounds = max(1, int(arguments.gigabytes * 1e9 / len(data) / arguments.partitions))
    broker = Broker(folder / "data", listen=("kafka://127.0.0.1:0", "http://127.0.0.1:0"))
    try:
        broker.start()
        link = Link(broker.kafka)
        create(link, arguments.partitions)
        fill(link, arguments.partitions, rounds, data)
        moved, quiet = 0, 0
        while quiet < 3:
            time.sleep(1)
            now = evacuated(broker.http)
            moved, quiet = now, quiet + 1 if now == moved else 0
        written, found = rounds * arguments.partitions * len(data), []
        print(
            f"{arguments.partitions} partitions, batches of {len(data)} bytes, {moved / 1e9:.1f} of {written / 1e9:.1f} "
            f"GB out of the ring",
            flush=True,
        )
        for run in range(arguments.runs):
            broker.stop()
            broker.start()
            dropped, link, partition = drop_caches(), Link(broker.kafka), (2 * run + 1) * arguments.partitions // 10
            begun = time.monotonic()
            end = int(rounds * count * moved / written * 0.99)
            offset, old = fetch(link, partition % arguments.partitions, 0, end, data)
            old_took = time.monotonic() - begun
            _, young = fetch(link, partition % arguments.partitions, offset, rounds * count, data)
            took = time.monotonic() - begun
            order = raw(folder, 1 << 29, 1 << 20, True)
            pieces = raw(folder, 1 << 29, arguments.batch // 4096 * 4096, False)
            found.append((old / old_took / 1e6, order, old / old_took / 1e6 / order))
            print(
                f"page cache {'dropped' if dropped else 'kept'}: {old / 1e6:.0f} MB of what had left the ring at "
                f"{found[-1][0]:.0f} MB/s, all {(old + young) / 1e6:.0f} MB at {(old + young) / took / 1e6:.0f} MB/s; the "
                f"disk reads 1 MiB in order at {order:.0f} MB/s and pieces as large as a batch anywhere at {pieces:.0f}",
                flush=True,
            )
        rate, order, share = (statistics.median(column) for column in zip(*found))
        print(f"medians: {rate:.0f} MB/s, the disk {order:.0f} MB/s, share {share:.2f}")
    finally:
        broker.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
