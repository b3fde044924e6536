"""The Java console producer and consumer of Apache Kafka 4, and its administration tools, as they are typed."""

import os
import subprocess
import tempfile

import pytest

import clients
import java


@pytest.fixture(scope="module")
def tool(server):
    """Runs a tool of Kafka's; gives what it prints."""
    place = os.environ.get("WAYSTATION_KAFKA_MAVEN", os.path.join(tempfile.gettempdir(), "waystation-kafka-java"))
    try:
        java.command(place, "TopicCommand")
    except (java.Missing, subprocess.TimeoutExpired) as reason:
        pytest.skip(f"Java's clients cannot be had here: {reason}")

    def run(name, *arguments, given=""):
        line = java.command(place, name) + ["--bootstrap-server", server.bootstrap, *arguments]
        done = subprocess.run(line, input=given, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_console_producer_and_consumer(tool, names):
    """Default settings: idempotent, all replicas; the topic is created by being produced to."""
    topic, lines = names.topic(), [f"line {number}" for number in range(200)]
    tool("ConsoleProducer", "--topic", topic, given="\n".join(lines) + "\n")
    read = ("--topic", topic, "--from-beginning", "--max-messages", "200", "--timeout-ms", "30000")
    assert tool("consumer.ConsoleConsumer", *read).splitlines() == lines


def test_keys_headers_compression_and_a_group(tool, server, topic, group):
    name = topic(2)
    typed = ("--property", "parse.key=true", "--property", "parse.headers=true")
    lines = [f"h1:v{number}\tkey{number}\tvalue{number}" for number in range(50)]
    tool("ConsoleProducer", "--topic", name, "--compression-codec", "zstd", *typed, given="\n".join(lines) + "\n")
    shown = ("--property", "print.key=true", "--property", "print.headers=true")
    read = ("--topic", name, "--group", group, "--from-beginning", "--max-messages", "50", "--timeout-ms", "30000")
    assert sorted(tool("consumer.ConsoleConsumer", *read, *shown).splitlines()) == sorted(lines)
    assert sum(clients.committed(server, group, name, partition) for partition in (0, 1)) == 50


def test_topics_and_groups(tool, server, names, group):
    name = names.topic()
    tool("TopicCommand", "--create", "--topic", name, "--partitions", "3")
    described = tool("TopicCommand", "--describe", "--topic", name)
    assert f"Topic: {name}" in described and "PartitionCount: 3" in described and "Partition: 2" in described
    clients.send(server, name, [{"value": b"x", "partition": 1}])
    clients.read_all(server, name, group, 1, enable_auto_commit=True)
    shown = tool("consumer.group.ConsumerGroupCommand", "--describe", "--group", group).split("\n")
    (row,) = [line.split() for line in shown if line.split()[1:3] == [name, "1"]]
    assert row[3:6] == ["1", "1", "0"], "current, end, lag"
    assert f"{name}:1:1" in tool("GetOffsetShell", "--topic", name)
    tool("TopicCommand", "--delete", "--topic", name)
