"""Administration with confluent-kafka and kafka-python: topics, partitions, configurations, groups, offsets, cluster."""

import json
import struct

import pytest
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka import TopicCollection
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from kafka import KafkaAdminClient
from kafka import TopicPartition as PythonPartition
from kafka.admin import NewTopic as PythonTopic

import clients
import raw
from conftest import numbers, until


@pytest.fixture
def python(server):
    """kafka-python's administrator."""
    with KafkaAdminClient(bootstrap_servers=[server.bootstrap]) as client:
        yield client


def refusal(future):
    """The code with which something was refused."""
    with pytest.raises(KafkaException) as refused:
        future.result(15)
    return refused.value.args[0].code()


def configs(server, name):
    """What a topic's configurations are: {name: entry}."""
    resource = ConfigResource(ResourceType.TOPIC, name)
    return server.admin.describe_configs([resource])[resource].result(10)


def test_topics_are_created_listed_described_and_deleted(server, names):
    name = names.topic()
    made = server.admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "3600000"})])[name].result(10)
    assert made is None
    until(lambda: server.partitions(name) == 3, what="the topic")
    described = server.admin.describe_topics(TopicCollection([name]))[name].result(10)
    assert (described.name, len(described.partitions), described.is_internal) == (name, 3, False)
    assert str(described.topic_id) != "AAAAAAAAAAAAAAAAAAAAAA"
    for at, partition in enumerate(described.partitions):
        assert partition.id == at and partition.leader and len(partition.replicas) == len(partition.isr) == 1
    server.admin.delete_topics([name])[name].result(10)
    until(lambda: server.partitions(name) == 0, what="its end")
    assert refusal(server.admin.describe_topics(TopicCollection([name]))[name]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_a_topic_made_again_is_another_one(server, names):
    """Nothing of the first is found in the second: records, identity, configuration."""
    name, ids = names.topic(), []
    for turn in range(2):
        server.create(name, 1, **({"retention_ms": 1_000_000} if not turn else {}))
        ids.append(str(server.admin.describe_topics(TopicCollection([name]))[name].result(10).topic_id))
        assert clients.send(server, name, [b"turn %d" % turn]) == [(0, 0)]
        assert configs(server, name)["retention.ms"].value == ("604800000" if turn else "1000000")
        server.delete([name])
        until(lambda: server.partitions(name) == 0, what="its end")
    assert ids[0] != ids[1]


def test_what_cannot_be_created(server, topic):
    """Each refusal in Kafka's own code, and nothing is left behind."""
    name = topic()
    refused = {
        NewTopic(name, 1, 1): KafkaError.TOPIC_ALREADY_EXISTS,
        NewTopic("no spaces", 1, 1): KafkaError.TOPIC_EXCEPTION,
        NewTopic("..", 1, 1): KafkaError.TOPIC_EXCEPTION,
        NewTopic("x" * 250, 1, 1): KafkaError.TOPIC_EXCEPTION,
        NewTopic(name + "-r", 1, 5): KafkaError.INVALID_REPLICATION_FACTOR,
        NewTopic(name + "-c", 1, 1, config={"retention.ms": "soon"}): KafkaError.INVALID_CONFIG,
        NewTopic(name + "-u", 1, 1, config={"retention.mss": "1"}): KafkaError.INVALID_CONFIG,
    }
    for wanted, code in refused.items():
        assert refusal(server.admin.create_topics([wanted])[wanted.topic]) == code, wanted
    listed = server.admin.list_topics(timeout=10).topics
    assert not [wanted.topic for wanted in refused if wanted.topic != name and wanted.topic in listed]


def test_a_name_that_cannot_be_is_said_to_be_so_without_creating(wire):
    """Not that it is unknown: a consumer would ask for it for ever."""
    fields = wire.ask(raw.METADATA, 4, raw.array([raw.text("no spaces")]) + b"\0")
    fields.i32()
    fields.array(lambda: (fields.i32(), fields.text(), fields.i32(), fields.text()))
    fields.text(), fields.i32()
    assert fields.i32() == 1 and (fields.i16(), fields.text()) == (raw.INVALID_TOPIC, "no spaces")


def test_values_are_taken_as_languages_write_them(server, names):
    name = server.create(names.topic(), preallocate=True, retention_ms=" 5000 ")
    found = configs(server, name)
    assert (found["preallocate"].value, found["retention.ms"].value) == ("true", "5000")


def test_a_trial_creates_nothing(server, names):
    name = names.topic()
    server.admin.create_topics([NewTopic(name, 3, 1)], validate_only=True)[name].result(10)
    assert name not in server.admin.list_topics(timeout=10).topics
    bad = NewTopic(name, 3, 7)
    assert refusal(server.admin.create_topics([bad], validate_only=True)[name]) == KafkaError.INVALID_REPLICATION_FACTOR


def test_deleting_what_is_not_there(server, names):
    name = names.group()
    assert refusal(server.admin.delete_topics([name])[name]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_partitions_are_added(server, topic):
    name = topic(2)
    clients.send(server, name, [{"value": b"x", "partition": 0}])
    server.admin.create_partitions([NewPartitions(name, 5)])[name].result(10)
    until(lambda: server.partitions(name) == 5, what="five partitions")
    assert clients.send(server, name, [{"value": b"y", "partition": 4}, {"value": b"z", "partition": 0}]) == [(4, 0), (0, 1)]
    for fewer in (5, 3):
        assert refusal(server.admin.create_partitions([NewPartitions(name, fewer)])[name]) == KafkaError.INVALID_PARTITIONS
    assert refusal(server.admin.create_partitions([NewPartitions(name + "-not", 3)])[name + "-not"]) == (
        KafkaError.UNKNOWN_TOPIC_OR_PART
    )


def test_one_partition_becomes_several(server, topic, group):
    """What was in the only partition stays where it was."""
    name = topic(1)
    clients.send(server, name, numbers(5))
    server.admin.create_partitions([NewPartitions(name, 3)])[name].result(10)
    until(lambda: server.partitions(name) == 3, what="three partitions")
    clients.send(server, name, [{"value": b"later", "partition": 2}])
    found = clients.read_all(server, name, group, 6)
    assert [one.value() for one in found if one.partition() == 0] == numbers(5)


def test_configurations_are_described(server, topic):
    found = configs(server, topic(max_message_bytes=12345, cleanup_policy="compact"))
    expected = {
        "max.message.bytes": ("12345", False),
        "cleanup.policy": ("compact", False),
        "retention.ms": ("604800000", True),
        "retention.bytes": ("-1", True),
        "min.insync.replicas": ("1", True),
        "compression.type": ("producer", True),
        "message.timestamp.type": ("CreateTime", True),
        "segment.bytes": ("1073741824", True),
        "min.compaction.lag.ms": ("0", True),
        "delete.retention.ms": ("86400000", True),
    }
    assert {name: (found[name].value, found[name].is_default) for name in expected} == expected
    assert not any(entry.is_sensitive for entry in found.values())


def alter(server, name, *changes):
    entries = [ConfigEntry(key, value, incremental_operation=getattr(AlterConfigOpType, kind)) for key, value, kind in changes]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    return server.admin.incremental_alter_configs([resource])[resource]


def test_configurations_are_altered_one_by_one(server, topic):
    name = topic(retention_ms=1000)

    def are(**wanted):
        found = configs(server, name)
        return all(found[key.replace("_", ".")].value == value for key, value in wanted.items())

    alter(server, name, ("max.message.bytes", "5000", "SET")).result(10)
    until(lambda: are(retention_ms="1000", max_message_bytes="5000"), what="the change")
    alter(server, name, ("cleanup.policy", "compact", "APPEND"), ("retention.ms", None, "DELETE")).result(10)
    until(lambda: are(retention_ms="604800000", cleanup_policy="delete,compact"), what="the second change")
    alter(server, name, ("cleanup.policy", "delete", "SUBTRACT")).result(10)
    until(lambda: are(max_message_bytes="5000", cleanup_policy="compact"), what="the third change")
    for bad in (("retention.ms", "soon", "SET"), ("no.such.setting", "1", "SET"), ("retention.ms", "1", "APPEND")):
        assert refusal(alter(server, name, bad)) in (KafkaError.INVALID_CONFIG, KafkaError.INVALID_REQUEST), bad
    assert refusal(alter(server, name + "-not", ("retention.ms", "1", "SET"))) == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert are(max_message_bytes="5000", cleanup_policy="compact", retention_ms="604800000")


def replace_configs(wire, name, *changes, kind=2, trial=False):
    """AlterConfigs v1, which names everything that is to differ from the defaults: the error."""
    entries = raw.array(raw.text(key) + raw.text(value) for key, value in changes)
    resources = raw.array([struct.pack(">b", kind) + raw.text(name) + entries])
    fields = wire.ask(33, 1, resources + struct.pack(">b", trial))
    fields.i32()
    ((error, _, told_kind, told_name),) = fields.array(lambda: (fields.i16(), fields.text(), fields.i8(), fields.text()))
    assert (told_kind, told_name) == (kind, name)
    return error


def test_configurations_are_replaced_as_a_whole(server, wire, topic):
    """What an older AlterConfigs does not name goes back to its default; what it cannot do changes nothing."""
    name = topic(retention_ms=1000, max_message_bytes=5000)

    def are():
        found = configs(server, name)
        names = ("retention.ms", "max.message.bytes", "cleanup.policy")
        return [(found[key].value, found[key].is_default) for key in names]

    before = [("1000", False), ("5000", False), ("delete", True)]
    assert are() == before
    compacts = ("cleanup.policy", "compact")
    assert replace_configs(wire, name, compacts, trial=True) == raw.NONE
    for bad in (("retention.ms", "soon"), ("no.such.setting", "1")):
        assert replace_configs(wire, name, compacts, bad) == 40, bad
    assert replace_configs(wire, name + "-not", compacts) == raw.UNKNOWN_PARTITION
    assert are() == before
    assert replace_configs(wire, name, ("max.message.bytes", "6000"), compacts) == raw.NONE
    until(lambda: are() == [("604800000", True), ("6000", False), ("compact", False)], what="the replacement")
    assert replace_configs(wire, name) == raw.NONE
    until(lambda: are() == [("604800000", True), ("1048588", True), ("delete", True)], what="the defaults")


def test_an_altered_bound_is_obeyed_at_once(server, topic):
    name, reports = topic(), []
    alter(server, name, ("max.message.bytes", "2000", "SET")).result(10)
    until(lambda: configs(server, name)["max.message.bytes"].value == "2000", what="the change")
    producer = clients.producer(server, enable_idempotence=False)
    producer.produce(name, b"x" * 3000, on_delivery=lambda error, _: reports.append(error.code()))
    producer.flush(10)
    assert reports == [KafkaError.MSG_SIZE_TOO_LARGE]
    alter(server, name, ("max.message.bytes", "4000", "SET")).result(10)
    until(lambda: configs(server, name)["max.message.bytes"].value == "4000", what="the change back")
    assert clients.send(server, name, [b"x" * 3000]) == [(0, 0)]


def test_the_time_of_appending(server, topic, group):
    """With message.timestamp.type=LogAppendTime the client's timestamp is replaced, compressed or not."""
    name = topic(message_timestamp_type="LogAppendTime")
    for codec in ("none", "lz4"):
        clients.send(server, name, [{"value": b"x", "timestamp": 1000}, {"value": b"y", "timestamp": 2000}], compression_type=codec)
    for message in clients.read_all(server, name, group, 4, check_crcs=True):
        kind, at = message.timestamp()
        assert kind == 2 and at > 1_700_000_000_000


def test_records_are_deleted(server, topic, group):
    name, place = topic(), None
    clients.send(server, name, numbers(20), linger_ms=0)
    place = TopicPartition(name, 0, 12)
    assert server.admin.delete_records([place])[place].result(15).low_watermark == 12
    reader = clients.consumer(server, group)
    assert reader.get_watermark_offsets(TopicPartition(name, 0), timeout=10, cached=False) == (12, 20)
    reader.assign([TopicPartition(name, 0, 0)])  # Out of range: the policy is the earliest.
    assert [one.value() for one in clients.take(reader, 8)] == numbers(8, first=12)
    reader.close()
    beyond = TopicPartition(name, 0, 99)
    assert refusal(server.admin.delete_records([beyond])[beyond]) == KafkaError.OFFSET_OUT_OF_RANGE
    everything = TopicPartition(name, 0, -1)
    assert server.admin.delete_records([everything])[everything].result(15).low_watermark == 20
    assert clients.send(server, name, [b"next"]) == [(0, 20)]


def test_groups_are_listed_and_described(server, topic, group):
    name = topic(2)
    member = clients.consumer(server, group, name, client_id="the-client")
    clients.settled([member], name, 2)
    listed = {one.group_id: one for one in server.admin.list_consumer_groups().result(10).valid}
    assert group in listed and listed[group].state == ConsumerGroupState.STABLE
    stable = server.admin.list_consumer_groups(states={ConsumerGroupState.STABLE}).result(10).valid
    empty = server.admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(10).valid
    assert group in [one.group_id for one in stable] and group not in [one.group_id for one in empty]
    described = server.admin.describe_consumer_groups([group])[group].result(10)
    (only,) = described.members
    assert (described.state, described.partition_assignor) == (ConsumerGroupState.STABLE, "range")
    assert (only.client_id, len(only.assignment.topic_partitions)) == ("the-client", 2) and "127.0.0.1" in only.host
    member.close()
    gone = lambda: server.admin.describe_consumer_groups([group])[group].result(10).state
    assert gone() in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)


def test_offsets_of_groups_are_listed_altered_and_deleted(server, python, topic, group):
    name = topic(2)
    wanted = [TopicPartition(name, 0, 5), TopicPartition(name, 1, 6)]
    request = ConsumerGroupTopicPartitions(group, wanted)
    altered = server.admin.alter_consumer_group_offsets([request])[group].result(10)
    assert [place.error for place in altered.topic_partitions] == [None, None]

    def offsets():
        found = server.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
        return {place.partition: place.offset for place in found.topic_partitions}

    assert offsets() == {0: 5, 1: 6}
    python.delete_group_offsets(group, [PythonPartition(name, 0)])
    assert offsets() == {1: 6}
    server.admin.delete_consumer_groups([group])[group].result(10)
    assert offsets() == {}
    assert refusal(server.admin.delete_consumer_groups([group])[group]) == KafkaError.GROUP_ID_NOT_FOUND


def test_deleting_a_topic_takes_its_committed_offsets(server, names, group):
    name = server.create(names.topic())
    request = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 5)])
    server.admin.alter_consumer_group_offsets([request])[group].result(10)
    server.delete([name])
    until(lambda: server.partitions(name) == 0, what="its end")
    server.create(name)
    until(lambda: clients.committed(server, group, name) < 0, what="the end of the offset")


def test_the_cluster_is_described(server, python):
    described = server.admin.describe_cluster().result(10)
    assert described.cluster_id and len(described.nodes) == 1
    (node,) = described.nodes
    assert (node.host, node.port) == server.address and described.controller.id == node.id
    assert python.describe_cluster()["cluster_id"] == described.cluster_id
    assert server.admin.list_topics(timeout=10).cluster_id == described.cluster_id


def test_configurations_of_the_broker(server):
    (node,) = server.admin.describe_cluster().result(10).nodes
    resource = ConfigResource(ResourceType.BROKER, str(node.id))
    found = server.admin.describe_configs([resource])[resource].result(10)
    assert found["auto.create.topics.enable"].value == "true" and found["num.partitions"].value == "1"


def test_kafka_pythons_administrator(server, python, names, group):
    """The same doors as another client opens them."""
    name = names.topic()
    python.create_topics([PythonTopic(name, 2, 1)])
    until(lambda: name in python.list_topics(), what="the topic")
    (described,) = python.describe_topics([name])
    assert described["name"] == name and len(described["partitions"]) == 2
    python.create_partitions({name: 3})
    until(lambda: len(python.describe_topics([name])[0]["partitions"]) == 3, what="the third partition")
    clients.send(server, name, [{"value": value, "partition": 0} for value in numbers(4)])
    place = PythonPartition(name, 0)
    python.delete_records({place: 3})
    reader = clients.consumer(server, group, name, enable_auto_commit=True)
    assert [message.offset() for message in clients.take(reader, 1)] == [3]
    assert group in [one["group_id"] for one in python.list_groups()]
    reader.close()
    assert python.list_group_offsets({group: None})[group][place].offset == 4
    assert python.delete_groups([group])
    python.delete_topics([name])
    until(lambda: name not in python.list_topics(), what="its end")


def log_size(python, name):
    """Bytes of a topic, over all that DescribeLogDirs tells of it."""
    found = python.describe_log_dirs()
    told = json.loads(json.dumps(found, default=lambda other: other.to_dict()))
    sizes = []

    def look(one, topic=None):
        if isinstance(one, list):
            [look(each, topic) for each in one]
        if isinstance(one, dict):
            topic = one.get("topic", one.get("name", topic))
            if "partition_size" in one and topic == name:
                sizes.append(one["partition_size"])
            [look(each, topic) for each in one.values()]

    look(told)
    assert sizes, f"{name} is not in {told}"
    return sum(sizes)


def test_sizes_and_producers(server, python, topic):
    name = topic()
    clients.send(server, name, [b"x" * 1000] * 10, enable_idempotence=True)
    assert 10_000 <= log_size(python, name) < 12_000
    (state,) = python.describe_producers([PythonPartition(name, 0)]).values()
    (producer,) = state.active_producers
    assert (producer.last_sequence, producer.producer_epoch) == (9, 0)
    clients.send(server, name, [b"y" * 1000] * 10, enable_idempotence=True)
    assert 20_000 <= log_size(python, name) < 24_000
