"""What the broker tells of partitions and consumer groups at /metrics.

In: records, commits and consumers of streams. Out: lines of figures.
"""

import os
import urllib.request

import pytest
from confluent_kafka import TopicPartition

import clients
import raw
from conftest import numbers, until
from records import batch


@pytest.fixture
def figures(server):
    """What is told now: {name with labels: value}."""
    if server.broker is None:
        pytest.skip("the figures are this broker's own")

    def now():
        host, port = server.broker.http
        with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    return now


def test_partitions_and_lags(wire, topic, group, figures, server):
    name = topic(2)
    assert wire.produce(name, batch(numbers(5)), partition=1) == (raw.NONE, 0)
    assert raw.patiently(lambda: (wire.commit(group, -1, "", name, 2, partition=1),)) == (raw.NONE,)
    place = f'vhost="/",topic="{name}",partition="1"'
    found = figures()
    assert found[f"waystation_partition_log_start{{{place}}}"] == "0.0"
    assert found[f"waystation_partition_log_end{{{place}}}"] == "5.0"
    assert float(found[f"waystation_partition_bytes{{{place}}}"]) > 61
    assert found[f'waystation_group_lag{{group="{group}",{place}}}'] == "3.0"
    assert f'waystation_group_lag{{group="{group}",vhost="/",topic="{name}",partition="0"}}' not in found
    server.delete([name])
    until(lambda: not any(name in label for label in figures()), what="the topic's figures to go")


def test_compaction_gives_bytes_back(server, topic, figures):
    """Batches of which one record in a hundred is the last of its key: of 400 kB little more than what is live stays."""
    name = topic(cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio="0.01", max_compaction_lag_ms=500)
    line = f'waystation_partition_bytes{{vhost="/",topic="{name}",partition="0"}}'

    def key(turn, at):
        return b"own-%d" % turn if at == 50 else b"key-%d" % at

    for turn in range(20):
        values = [{"key": key(turn, at), "value": b"%d-%d " % (turn, at) + os.urandom(200)} for at in range(100)]
        clients.send(server, name, values, linger_ms=1000, compression_type=("none", "lz4")[turn % 2])
    clients.send(server, name, [{"key": b"behind", "value": b"the last batch is left alone"}])
    live = 100 * 230 + 19 * 400
    until(lambda: float(figures()[line]) < 1.1 * live, timeout=40, what="the bytes of what is over")
    found = figures()
    rewritten = [found[label] for label in found if label.startswith("waystation_compaction_rewritten_batches")]
    assert sum(map(float, rewritten)) >= 19
    reader = clients.consumer(server, "reader-of-" + name)
    reader.assign([TopicPartition(name, 0, 0)])
    found = [(message.offset(), message.key(), message.value().split(b" ")[0]) for message in clients.take(reader, 119)]
    assert clients.take(reader, 1)[0].offset() == 2000
    reader.close()
    last = [(100 * turn + 50, b"own-%d" % turn, b"%d-50" % turn) for turn in range(19)]
    assert found == last + [(1900 + at, key(19, at), b"19-%d" % at) for at in range(100)]


def test_consumers_of_streams(amqp, names, figures):
    name = names.topic()
    amqp.queue_declare(name, durable=True, arguments={"x-queue-type": "stream"})
    amqp.basic_qos(prefetch_count=10)
    tags = [amqp.basic_consume(name, lambda *_: None) for _ in range(2)]
    assert amqp.queue_declare(name, passive=True).method.consumer_count == 2
    line = f'waystation_partition_consumers{{vhost="/",topic="{name}",partition="0"}}'
    assert figures()[line] == "2.0"
    amqp.basic_cancel(tags[0])
    until(lambda: figures()[line] == "1.0", what="one consumer")
    amqp.basic_cancel(tags[1])
    amqp.queue_delete(name)


def test_every_figure_says_what_it_is(server, figures):
    figures()
    host, port = server.broker.http
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        helps = [line.split(" ", 3)[2:] for line in answer.read().decode().splitlines() if line.startswith("# HELP ")]
    assert len(helps) > 40
    for name, text in helps:
        assert text != name.removeprefix("waystation_").replace("_", " "), f"{name} has no sentence in meanings.rs"
