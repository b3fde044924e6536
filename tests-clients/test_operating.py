"""What whoever runs a broker relies on: an orderly end under load, users, bounds, logs for machines.

In: brokers of our own, each with the configuration of its test.
"""

import json
import os
import struct
import subprocess

import pytest

import wire as w
from broker_process import Broker, binary
from conftest import until
from wire import Closed, Gone, Wire

pytestmark = pytest.mark.skipif("WAYSTATION_AMQP_URL" in os.environ, reason="starts brokers itself")


def configured(tmp_path, text, **more):
    """A broker with that configuration file."""
    config = tmp_path / "waystation.toml"
    config.write_text(text)
    return Broker(tmp_path / "data", arguments=("--config", str(config)), **more)


def test_sigterm_under_load_confirms_what_it_took_and_says_why_it_goes(tmp_path):
    """The client is told 320 and may end in order; everything confirmed is there at the next start, in order and once."""
    shape = ("--shards", "2", "--groups", "5")
    with Broker(tmp_path / "data", arguments=shape) as broker:
        wire = Wire(broker.amqp).connect()
        wire.declare("load", durable=True)
        wire.send(w.method(1, "confirm.select", b"\0"))
        wire.expect(1, "confirm.select-ok")
        holder = Wire(broker.amqp).connect()
        holder.declare("held", durable=True)
        holder.send(w.consume(1, "held") + w.content(1, "", "held", b"held"))
        holder.expect(1, "basic.deliver")
        confirmed, sent, terminated = 0, 0, False
        with pytest.raises(Closed) as closed:
            while True:
                for _ in range(100):
                    wire.send(w.content(1, "", "load", struct.pack(">Q", sent)))
                    sent += 1
                fields = wire.expect(1, "basic.ack")
                confirmed = max(confirmed, fields.u64())
                if confirmed > 500 and not terminated:
                    broker.process.terminate()
                    terminated = True
                while (found := acked(wire)) is not None:
                    confirmed = max(confirmed, found)
        assert (closed.value.level, closed.value.code) == ("connection", 320), closed.value
        assert "CONNECTION_FORCED" in closed.value.text
        goodbye = holder.expect_closed()
        assert (goodbye.level, goodbye.code) == ("connection", 320)
        assert broker.process.wait(35) == 0
        assert "draining" in broker.tail() and "stopped" in broker.tail()
    with Broker(tmp_path / "data") as broker:
        wire = Wire(broker.amqp).connect()
        there = wire.declare("load", durable=True)[1]
        assert confirmed <= there <= sent and confirmed > 500
        wire.send(w.consume(1, "load", no_ack=True))
        for number in range(there):
            fields = wire.expect(1, "basic.deliver")
            fields.short(), fields.u64()
            assert not fields.u8(), "it was never handed out"
            wire.read_frame()
            assert wire.read_frame()[2] == struct.pack(">Q", number)
        wire.send(w.consume(1, "held", tag="h"))
        fields = wire.expect(1, "basic.deliver")
        fields.short(), fields.u64()
        assert fields.u8() == 1, "it was handed out before"
        wire.close()


def acked(wire):
    """The highest tag of a confirm that has arrived already, or None; a close raises."""
    if wire.at == len(wire.buffer):
        return None
    size = struct.unpack_from(">I", wire.buffer, wire.at + 3)[0] if len(wire.buffer) - wire.at >= 7 else 1 << 32
    if len(wire.buffer) - wire.at < size + 8:
        return None
    return wire.expect(1, "basic.ack").u64()


def test_configured_users_come_in_with_their_password_and_guest_does_not(tmp_path):
    made = subprocess.run([binary(), "hash-password"], input="tops3cret\n", capture_output=True, text=True, check=True)
    users = f'[[users]]\nname = "app"\npassword_hash = "{made.stdout.strip()}"\n'
    with configured(tmp_path, users) as broker:
        wire = Wire(broker.amqp).connect(user="app", password="tops3cret")
        assert wire.declare("", exclusive=True)[0]
        for user, password in (("app", "wrong"), ("app", ""), ("guest", "guest")):
            with pytest.raises(Closed) as refused:
                Wire(broker.amqp).connect(user=user, password=password)
            assert (refused.value.level, refused.value.code) == ("connection", 403)
        wire.close()
        assert "tops3cret" not in broker.tail() and "pbkdf2" not in broker.tail()


def test_no_more_connections_than_configured(tmp_path):
    with configured(tmp_path, "[limits]\nconnections_max = 3\n") as broker:
        held = [Wire(broker.amqp).connect() for _ in range(3)]
        with pytest.raises((Gone, OSError)):
            Wire(broker.amqp).connect()
        until(lambda: "limits.connections_max" in broker.tail(), what="the limit's name in the log")
        assert held[0].declare("", exclusive=True)[0], "those inside are not disturbed"
        held.pop().close()

        def comes_in():
            try:
                return Wire(broker.amqp).connect()
            except (Gone, OSError):
                return None

        until(comes_in, what="room for another").close()


def test_no_more_consumers_on_a_connection_than_configured(tmp_path):
    with configured(tmp_path, "[limits]\nconsumers_max = 2\n") as broker:
        wire, other = Wire(broker.amqp).connect(), Wire(broker.amqp).connect()
        wire.declare("q")
        for tag in ("a", "b", "c"):
            wire.send(w.consume(1, "q", tag=tag))
        refused = wire.expect_closed()
        assert (refused.level, refused.code) == ("connection", 530)
        assert "reached maximum (2) of consumers per connection" in refused.text
        other.send(w.consume(1, "q", tag="a"))
        other.expect(1, "basic.consume-ok")
        other.close()


def test_nobody_stays_without_a_handshake(tmp_path):
    with configured(tmp_path, "[limits]\nhandshake_ms = 300\n") as broker:
        silent, known = Wire(broker.amqp, timeout=5), Wire(broker.amqp).connect()
        with pytest.raises(Gone):
            while True:
                silent.fill()
        assert known.declare("", exclusive=True)[0]


def test_log_lines_for_machines_are_json_whatever_they_carry(tmp_path):
    with Broker(tmp_path / 'a "quoted" data', arguments=("--log-format", "json")) as broker:
        wire = Wire(broker.amqp).start()
        with pytest.raises(Closed):
            wire.login("no\nbody \"x\"", "wrong")
        assert broker.stop() == 0
    lines = [json.loads(line) for line in broker.log]
    assert lines and all({"timestamp", "level"} <= set(line) for line in lines), lines


def test_status_shows_queues_and_partitions(tmp_path):
    with Broker(tmp_path / "data", arguments=("--shards", "2", "--groups", "5")) as broker:
        wire = Wire(broker.amqp).connect()
        wire.declare("orders", durable=True)
        wire.declare("events", durable=True, arguments=w.table({"x-queue-type": "stream"}))
        wire.send(w.method(1, "confirm.select", b"\0") + w.content(1, "", "orders", b"o") + w.content(1, "", "events", b"e") * 3)
        url = f"http://{broker.http[0]}:{broker.http[1]}"

        def shown():
            table = subprocess.run([binary(), "status", "--url", url], capture_output=True, text=True, check=True).stdout
            rows = [line.split() for line in table.splitlines()]
            return ["/", "orders", "1", "0", "0", "1", "0", "0"] in rows and any(row[:5] == ["/", "events", "0", "0", "3"] for row in rows)

        until(shown, what="the queue and the partition in the table")
        told = subprocess.run([binary(), "status", "-o", "json", "--url", url], capture_output=True, text=True, check=True).stdout
        (partition,) = json.loads(told)["partitions"]
        assert (partition["topic"], partition["start"], partition["end"]) == ("events", 0, 3)
        wire.close()


def test_damage_in_the_middle_of_the_log_stops_the_start_and_is_named(tmp_path):
    """One bit of a confirmed message with others behind it; put right again, the node starts and has all of them."""
    with Broker(tmp_path / "data") as broker:
        wire = Wire(broker.amqp).connect()
        wire.declare("q", durable=True)
        wire.send(w.method(1, "confirm.select", b"\0"))
        for number in range(20):
            wire.send(w.content(1, "", "q", f"message {number:02}".encode() * 10))
            wire.expect(1, "basic.ack")
        broker.kill()
    (segment,) = (tmp_path / "data" / "shard-0").glob("segment-0.log")
    sound = segment.read_bytes()
    at = sound.index(b"message 05")
    with open(segment, "r+b") as file:
        file.seek(at)
        file.write(bytes([sound[at] ^ 1]))
    broken = Broker(tmp_path / "data").spawn()
    assert broken.process.wait(20) == 73
    until(lambda: "segment-0.log" in broken.tail() and "damage" in broken.tail(), what="the file in the message")
    assert not any("ready:" in line for line in broken.log)
    with open(segment, "r+b") as file:
        file.seek(at)
        file.write(sound[at : at + 1])
    with Broker(tmp_path / "data") as broker:
        assert Wire(broker.amqp).connect().declare("q", durable=True)[1] == 20
