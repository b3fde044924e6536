"""What the broker tells of partitions and consumer groups at /metrics.

In: records, commits and consumers of streams. Out: lines of figures.
"""

import urllib.request

import pytest

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
