"""Consumer groups with confluent-kafka: the ways of sharing, who comes and goes, static members.

Session timeouts are the shortest that Kafka allows (six seconds), so that a killed member is missed soon.
"""

import time

import pytest
from confluent_kafka import TopicPartition

import clients
from conftest import numbers, until

QUICK = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 300}


@pytest.fixture
def member(server):
    """Makes members of groups that end with the test."""
    made = []

    def one(group, *topics, **settings):
        made.append(clients.consumer(server, group, *topics, **{**QUICK, **settings}))
        return made[-1]

    yield one
    for consumer in made:
        consumer.close()


def owned(consumer):
    return sorted((place.topic, place.partition) for place in consumer.assignment())


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "cooperative-sticky"])
def test_members_come_and_go(server, member, topic, group, assignor):
    """One, then two, then three members share six partitions; one leaves; every record comes once and in order."""
    name = topic(6)
    settings = {"partition_assignment_strategy": assignor}
    members = [member(group, name, **settings)]
    assert [len(one) for one in clients.settled(members, name, 6)] == [6]
    members.append(member(group, name, **settings))
    assert [len(one) for one in clients.settled(members, name, 6)] == [3, 3]
    members.append(member(group, name, **settings))
    assert [len(one) for one in clients.settled(members, name, 6)] == [2, 2, 2]
    clients.send(server, name, [{"value": b"%d" % n, "partition": n % 6} for n in range(60)])
    first = [message for one in members for message in clients.take(one, 20)]
    for one in members:
        one.commit(asynchronous=False)
    members.pop(1).close()
    assert [len(one) for one in clients.settled(members, name, 6)] == [3, 3]
    clients.send(server, name, [{"value": b"%d" % n, "partition": n % 6} for n in range(60, 120)])
    second = [message for one in members for message in clients.take(one, 30)]
    assert sorted(int(message.value()) for message in first + second) == list(range(120))
    for partition in range(6):
        offsets = [message.offset() for message in first + second if message.partition() == partition]
        assert offsets == list(range(20))


def test_cooperative_members_keep_what_they_have(member, topic, group):
    """A newcomer takes its share without anybody else stopping to read the rest."""
    name, revoked = topic(4), []
    first = member(group, partition_assignment_strategy="cooperative-sticky")
    first.subscribe([name], on_revoke=lambda _, lost: revoked.extend(place.partition for place in lost))
    clients.settled([first], name, 4)
    second = member(group, name, partition_assignment_strategy="cooperative-sticky")
    clients.settled([first, second], name, 4)
    assert len(revoked) == 2, f"revoked {revoked}"
    assert sorted(revoked) == [partition for _, partition in owned(second)]


def test_a_static_member_returns_without_a_rebalance(server, member, topic, group):
    """Restarted within its session timeout it gets what it had, and nobody else notices."""
    name, changes = topic(4), []
    stays = member(group, group_instance_id="stays", session_timeout_ms=20_000)
    stays.subscribe([name], on_assign=lambda *_: changes.append("assigned"), on_revoke=lambda *_: changes.append("revoked"))
    restarts = clients.consumer(server, group, name, group_instance_id="restarts", session_timeout_ms=20_000)
    clients.settled([stays, restarts], name, 4)
    before, had = len(changes), owned(restarts)
    restarts.close()  # A static member says nothing to the group when it ends.
    again = member(group, name, group_instance_id="restarts", session_timeout_ms=20_000)
    until(lambda: clients.assigned(stays) and clients.assigned(again) == had, what="the old assignment")
    end = time.monotonic() + 1.5  # Several heartbeats, by which a rebalance would be heard of.
    while time.monotonic() < end:
        clients.assigned(stays)
        clients.assigned(again)
    assert changes[before:] == []
    described = server.admin.describe_consumer_groups([group])[group].result(10)
    assert sorted(one.group_instance_id for one in described.members) == ["restarts", "stays"]


def test_a_member_that_falls_silent_is_replaced(server, member, topic, group):
    """Its partitions go to the others once its session ends, and nothing it did not commit is lost."""
    name = topic(2)
    lively = member(group, name)
    silent = clients.consumer(server, group, name, session_timeout_ms=6000, max_poll_interval_ms=6000)
    clients.settled([lively, silent], name, 2)
    clients.send(server, name, [{"value": b"%d" % n, "partition": n % 2} for n in range(20)])
    taken = clients.take(silent, 5) + clients.take(lively, 10)
    for message in (taken[4], taken[-1]):
        (silent if message is taken[4] else lively).commit(message=message, asynchronous=False)
    found = clients.take(lively, 5, timeout=30)  # `silent` is polled no more.
    assert owned(lively) == [(name, 0), (name, 1)]
    assert sorted(int(message.value()) for message in taken + found) == list(range(20))
    silent.close()


def test_groups_do_not_know_each_other(server, topic, names):
    name, groups = topic(), [names.group() for _ in range(3)]
    clients.send(server, name, numbers(20))
    for at, group in enumerate(groups):
        reader = clients.consumer(server, group, name)
        assert [message.value() for message in clients.take(reader, 20)] == numbers(20)
        reader.commit(offsets=[TopicPartition(name, 0, at + 1)], asynchronous=False)
        reader.close()
    assert [clients.committed(server, group, name) for group in groups] == [1, 2, 3]


def test_automatic_commits_on_close(server, topic, group):
    name = topic()
    clients.send(server, name, numbers(30))
    reader = clients.consumer(server, group, name, enable_auto_commit=True)
    clients.take(reader, 10)
    reader.close()
    assert clients.committed(server, group, name) == 10


def test_subscription_by_pattern_finds_new_topics(server, member, names, group):
    stem = names.group()
    first, second = f"{stem}-a", f"{stem}-b"
    names.topics += [first, second]
    server.create(first)
    reader = member(group, f"^{stem}-.*", topic_metadata_refresh_interval_ms=500)
    until(lambda: clients.assigned(reader) == [(first, 0)], what="the first topic")
    server.create(second)
    until(lambda: clients.assigned(reader) == [(first, 0), (second, 0)], what="the second topic")


def test_added_partitions_are_shared(server, member, topic, group):
    from confluent_kafka.admin import NewPartitions

    name = topic(1)
    reader = member(group, name, topic_metadata_refresh_interval_ms=500)
    clients.settled([reader], name, 1)
    server.admin.create_partitions([NewPartitions(name, 3)])[name].result(15)
    clients.settled([reader], name, 3)
    clients.send(server, name, [{"value": b"x", "partition": 2}])
    assert clients.take(reader, 1)[0].partition() == 2
