"""A disk that gets full: publishers are held back in time, everything else goes on, and they go on by themselves.

In: a broker of our own on a small file system in memory, which root may mount; where it may not be mounted these tests
fail, unless WAYSTATION_TEST_WITHOUT_MOUNT says that they are to be skipped. Out: no message that was confirmed is
missing, before and after kill -9.
"""

import os
import pathlib
import subprocess
import struct
import threading
import time
import urllib.request

import confluent_kafka
import confluent_kafka.admin
import pika
import pytest

import raw
import records
from broker_process import Broker
from conftest import ready, until
from wire import Gone, Wire

MIB = 1 << 20
CONFIG = f"segment_bytes = {4 * MIB}\nring_bytes_max = {16 * MIB}\nfree_bytes_min = {32 * MIB}\nshards = 1\n"
LISTEN = ("amqp://127.0.0.1:0", "kafka://127.0.0.1:0", "http://127.0.0.1:0")
BODY = bytes(16 << 10)


@pytest.fixture
def disk(tmp_path):
    """192 MiB that are a file system of their own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m", "tmpfs", str(place)], capture_output=True, text=True)
    if mount.returncode:
        told = f"a file system cannot be mounted here: {mount.stderr.strip()}"
        if os.environ.get("WAYSTATION_TEST_WITHOUT_MOUNT"):
            pytest.skip(told)
        pytest.fail(f"{told}; with WAYSTATION_TEST_WITHOUT_MOUNT=1 these tests are skipped")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def broker(disk, tmp_path):
    config = pathlib.Path(tmp_path, "waystation.toml")
    config.write_text(CONFIG)
    with Broker(disk / "data", listen=LISTEN, arguments=("--config", str(config))) as one:
        yield one
        assert one.alive(), f"the broker died:\n{one.tail()}"


def connect(broker):
    host, port = broker.amqp
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, heartbeat=0, blocked_connection_timeout=None))


def free(disk):
    """Bytes free."""
    status = os.statvfs(disk)
    return status.f_bavail * status.f_frsize


class Publisher(threading.Thread):
    """Publishes numbers with confirms until told to end; knows what was confirmed and whether it is blocked."""

    def __init__(self, broker, queue, first=0):
        super().__init__(daemon=True)
        self.broker, self.queue, self.next = broker, queue, first
        self.blocked, self.unblocked, self.ends = threading.Event(), threading.Event(), False

    def run(self):
        threading.Thread(target=self.watch, daemon=True).start()
        channel = connect(self.broker).channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(delivery_mode=2)
        try:
            while not self.ends:
                channel.basic_publish("", self.queue, b"%d " % self.next + BODY, properties)
                self.next += 1
        except pika.exceptions.AMQPError:
            pass  # The broker was killed.

    def watch(self):
        """A bare connection: client libraries do not tell of what comes before they are asked, or meanwhile."""
        wire = Wire(self.broker.amqp).start().login(capabilities={"connection.blocked": True}).enter()
        wire.socket.settimeout(None)
        events = {"connection.blocked": self.blocked, "connection.unblocked": self.unblocked}
        try:
            while True:
                _, name, _ = wire.read_method()
                events[name].set()
        except Gone:
            pass  # The broker was killed.


def filled(broker, queue, first=0):
    """Publishes until the broker holds the publisher back."""
    one = Publisher(broker, queue, first)
    one.start()
    assert one.blocked.wait(60), "the publisher was never blocked"
    before = -1
    while before != one.next:
        before = one.next
        time.sleep(0.5)
    return one


def consume(channel, queue, count):
    """Takes and acknowledges so many; their numbers."""
    found = []
    for method, _, body in channel.consume(queue, inactivity_timeout=20):
        assert method, f"{len(found)} of {count} messages came"
        found.append(int(body.split(b" ", 1)[0]))
        if len(found) % 50 == 0 or len(found) == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        if len(found) == count:
            channel.cancel()
            return found


def test_amqp_publishers_wait_while_the_disk_is_nearly_full_and_go_on_when_it_is_not(broker, disk):
    control = connect(broker).channel()
    control.queue_declare("full", durable=True)
    publisher = filled(broker, "full")
    confirmed = publisher.next
    # Well before the disk is full: a fast client writes some of the reserve before it is heard of.
    assert 8 * MIB < free(disk) < 40 * MIB
    assert ready(control, "full") >= confirmed > 1000
    first = consume(control, "full", confirmed - 100)
    assert first == list(range(confirmed - 100)), "consuming goes on, in order and without a gap"
    assert publisher.unblocked.wait(30), f"the space did not come back: {free(disk) // MIB} MiB are free\n{broker.tail()}"
    until(lambda: publisher.next > confirmed + 100, 30, "publishing that goes on by itself")
    publisher.ends = True
    publisher.join(30)
    total = publisher.next
    rest = consume(control, "full", total - len(first))
    assert first + rest == list(range(total))


def test_what_was_confirmed_is_there_after_kill_9_on_a_full_disk_and_a_purge_makes_room(broker, disk):
    control = connect(broker).channel()
    control.queue_declare("full", durable=True)
    control.queue_declare("other", durable=True)
    publisher = filled(broker, "full")
    confirmed = publisher.next
    broker.kill()
    publisher.join(10)
    broker.start()
    control = connect(broker).channel()
    assert ready(control, "full") >= confirmed
    again = Publisher(broker, "other")
    again.start()
    assert again.blocked.wait(10), f"{again.next} published, {free(disk) // MIB} MiB are free\n{broker.tail()}"
    assert consume(control, "full", 300) == list(range(300))
    control.queue_purge("full")
    assert again.unblocked.wait(30), f"a purge made no room: {free(disk) // MIB} MiB are free\n{broker.tail()}"
    until(lambda: again.next > 100, 30, "publishing that goes on by itself")
    again.ends = True
    again.join(30)
    assert consume(control, "other", again.next) == list(range(again.next))


def test_a_queue_can_be_deleted_while_the_disk_is_nearly_full_and_that_makes_room(broker, disk):
    control = connect(broker).channel()
    control.queue_declare("full", durable=True)
    control.queue_declare("other", durable=True)
    publisher = filled(broker, "full")
    begun = time.monotonic()
    assert control.queue_delete("full").method.message_count >= publisher.next
    assert time.monotonic() - begun < 5
    assert publisher.unblocked.wait(30), f"a deleted queue made no room: {free(disk) // MIB} MiB are free\n{broker.tail()}"
    publisher.ends = True
    again = Publisher(broker, "other")
    again.start()
    until(lambda: again.next > 100, 30, "publishing that goes on")
    again.ends = True
    again.join(30)


def figure(broker, name):
    """A counter's sum over all shards."""
    with urllib.request.urlopen(f"http://{broker.http[0]}:{broker.http[1]}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == f"waystation_{name}")


def delete_topics(wire, *topics):
    """DeleteTopics v1: the errors."""
    fields = wire.ask(20, 1, raw.array(map(raw.text, topics)) + struct.pack(">i", 10_000))
    fields.i32()
    return fields.array(lambda: (fields.text(), fields.i16()))


def at_once(ask):
    """What was answered, and that it did not take long."""
    begun = time.monotonic()
    answer = ask()
    assert time.monotonic() - begun < 2, "an answer that had to be waited for"
    return answer


@pytest.mark.timeout(150)
def test_a_kafka_connection_that_produced_is_answered_while_the_disk_is_nearly_full(broker, disk):
    """Refused at once and on the same connection, which goes on to be read: for what it asks, and for what makes room."""
    host, port = broker.kafka
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": f"{host}:{port}", "log_level": 2})
    topics = [confluent_kafka.admin.NewTopic(name, 1, 1) for name in ("old", "new")]
    [future.result(15) for future in admin.create_topics(topics).values()]
    wire, batch = raw.Wire(broker.kafka), records.batch([BODY] * 4)
    taken, full_since = 0, None
    while full_since is None or time.monotonic() - full_since < 1.5:  # At first some room is found by moving old segments.
        error, base = at_once(lambda: wire.produce("old", batch))
        if error:
            assert error == raw.STORAGE_ERROR
            full_since = full_since or time.monotonic()
            time.sleep(0.02)
            continue
        assert base == taken
        taken, full_since = taken + 4, None
        # A bare connection is much faster than what the broker looks at the disk for.
        time.sleep(0.002 if free(disk) < 48 * MIB else 0)
    assert 8 * MIB < free(disk) < 40 * MIB and taken > 1000
    assert at_once(lambda: wire.produce("old", batch))[0] == raw.STORAGE_ERROR
    assert at_once(lambda: wire.produce("new", batch))[0] == raw.STORAGE_ERROR
    assert at_once(lambda: wire.fetch("old", 0))[:2] == (raw.NONE, taken)
    assert at_once(lambda: wire.offset("old", -1)) == (raw.NONE, -1, taken)
    assert at_once(lambda: wire.heartbeat("group", 1, "nobody")) == raw.UNKNOWN_MEMBER
    assert raw.PRODUCE in at_once(wire.api_versions)
    assert at_once(wire.init_producer)[1] == 0
    assert figure(broker, "publishing_held_back") == 1
    moved = figure(broker, "log_evacuated_segments_total") + figure(broker, "log_adopted_segments_total")
    assert moved > 0, "what stands in old segments is moved or adopted under the alarm too"
    broker.kill()
    broker.start()
    wire = raw.Wire(broker.kafka)
    until(lambda: wire.produce("old", batch)[0] == raw.STORAGE_ERROR, 10, "the alarm after a start")
    error, _, end = wire.offset("old", -1)
    assert error == raw.NONE and end >= taken, "what was confirmed is there"
    offset = 0
    while offset < end:
        error, _, found = wire.fetch("old", offset, max_bytes=4 * MIB, partition_bytes=4 * MIB)
        assert error == raw.NONE and found and len(found) % len(batch) == 0, (error, offset, len(found))
        for at in range(0, len(found), len(batch)):  # Byte for byte, but for what the log sets.
            assert struct.unpack_from(">q", found, at) == (offset,)
            assert found[at + 8 : at + 12] == batch[8:12] and found[at + 16 : at + len(batch)] == batch[16:]
            offset += 4
    assert offset == end
    assert at_once(lambda: delete_topics(wire, "old")) == [("old", raw.NONE)]
    until(lambda: wire.produce("new", batch)[0] == raw.NONE, 30, "room by the deleted topic")
    # Nothing that was refused is stored by now: the first that was taken is the first.
    assert records.values(wire.read_all("new"))[0] == (0, BODY) and wire.offset("new", -1)[2] == 4


@pytest.mark.timeout(150)
def test_kafka_producers_retry_while_the_disk_is_nearly_full_and_a_deleted_topic_makes_room(broker, disk):
    host, port = broker.kafka
    settings = {"bootstrap.servers": f"{host}:{port}", "log_level": 2}
    done, failed = [], []

    def report(error, message):
        (failed if error else done).append(error or message.offset())

    admin = confluent_kafka.admin.AdminClient(settings)
    topics = [confluent_kafka.admin.NewTopic(name, 1, 1) for name in ("old", "new")]
    [future.result(15) for future in admin.create_topics(topics).values()]
    producer = confluent_kafka.Producer({**settings, "acks": "all", "linger.ms": 5, "queue.buffering.max.kbytes": 4096})

    def produce(topic, is_enough):
        while not is_enough():
            try:
                producer.produce(topic, BODY, on_delivery=report)
                producer.poll(0)
            except BufferError:
                producer.poll(0.05)  # What is refused waits in the client and is sent again.

    def is_stuck():
        nonlocal seen, since
        if len(done) != seen:
            seen, since = len(done), time.monotonic()
        return time.monotonic() - since > 3

    seen, since = -1, time.monotonic()
    produce("old", is_stuck)
    assert not failed and len(done) > 1000 and 8 * MIB < free(disk) < 40 * MIB
    kept = len(done)
    reader = confluent_kafka.Consumer({**settings, "group.id": "reader", "enable.auto.commit": False})
    reader.assign([confluent_kafka.TopicPartition("old", 0, 0)])
    read, end = [], time.monotonic() + 30
    while len(read) < kept and time.monotonic() < end:
        read += [message.offset() for message in reader.consume(500, 0.2) if not message.error()]
    assert read[:kept] == list(range(kept)), "fetching goes on"
    reader.close()
    producer.purge(in_queue=True, in_flight=True)
    producer.flush(5)
    done.clear()
    failed.clear()
    producer.produce("new", BODY, on_delivery=report)
    producer.poll(0.5)
    assert not done and not failed, "the disk is not full any more"
    admin.delete_topics(["old"])["old"].result(15)
    assert producer.flush(40) == 0, f"a deleted topic made no room: {free(disk) // MIB} MiB are free\n{broker.tail()}"
    assert not failed and done == [0]
