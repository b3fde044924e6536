"""The coordinator's answers word by word: generations, stale members, fenced instances, commits from outside.

In: bare requests of the classic protocol. Never: a client library, which would repair what it is told.
"""

import time

import pytest

import raw
from conftest import numbers, until
from records import batch


def pair(wires, group, **options):
    """Two members of one generation, the leader first: [(connection, member id)], generation."""
    one, two = wires(), wires()
    error, generation, _, leader, first, members = one.enter(group, **options)
    assert (error, leader, [member for member, _, _ in members]) == (raw.NONE, first, [first])
    assert one.sync(group, generation, first, [(first, b"all")]) == (raw.NONE, b"all")
    two.join(group, **options)  # Waits for the first to join again.
    answer = None
    if options.get("instance") is None:
        answer = two.joined()
        assert answer[0] == raw.MEMBER_ID_REQUIRED
        two.join(group, **{**options, "member": answer[4]})
    until(lambda: one.heartbeat(group, generation, first) == raw.REBALANCING, what="the rebalance")
    one.join(group, **{**options, "member": first})
    mine, others = one.joined(), two.joined()
    assert mine[0] == others[0] == raw.NONE and mine[1] == others[1] > generation
    assert mine[3] == others[3] == first and len(mine[5]) == 2 and others[5] == []
    return [(one, first), (two, others[4])], mine[1]


def test_a_first_member(wire, group):
    wire.join(group, protocols=(("range", b"meta"), ("other", b"")))
    error, generation, _, _, member, _ = wire.joined()
    assert error == raw.MEMBER_ID_REQUIRED and member
    wire.join(group, member=member, protocols=(("range", b"meta"), ("other", b"")))
    error, generation, protocol, leader, again, members = wire.joined()
    assert (error, protocol, leader, again) == (raw.NONE, "range", member, member)
    assert members == [(member, None, b"meta")]
    assert wire.heartbeat(group, generation, member) in (raw.NONE, raw.REBALANCING)
    assert wire.sync(group, generation, member, [(member, b"assigned")]) == (raw.NONE, b"assigned")
    assert wire.heartbeat(group, generation, member) == raw.NONE
    assert wire.leave(group, member) == raw.NONE
    assert wire.heartbeat(group, generation, member) == raw.UNKNOWN_MEMBER


def test_two_members_share_what_the_leader_says(wires, group):
    ((one, first), (two, second)), generation = pair(wires, group)
    two.send(two.frame(raw.SYNC, 3, raw.text(group) + generation.to_bytes(4, "big") + raw.text(second) + raw.text(None) + raw.array([])))
    assert one.sync(group, generation, first, [(first, b"mine"), (second, b"yours")]) == (raw.NONE, b"mine")
    _, fields = two.read()
    fields.i32()
    assert (fields.i16(), fields.data()) == (raw.NONE, b"yours")
    assert two.sync(group, generation, second) == (raw.NONE, b"yours")  # Asked again, told again.


def test_offsets_below_0_are_kept_as_they_are(wire, topic, group):
    """KafkaJS commits -2 for the beginning and puts itself there when it is told so."""
    name = topic()
    assert raw.patiently(lambda: [wire.commit(group, -1, "", name, -2, metadata="back")]) == [raw.NONE]
    assert wire.committed(group, name) == (raw.NONE, -2, "back")


def test_stale_generations_and_strangers(wires, topic, group):
    name = topic()
    ((one, first), (two, second)), generation = pair(wires, group)
    assert one.sync(group, generation, first, [(first, b"a"), (second, b"b")])[0] == raw.NONE
    for stale in (generation - 1, generation + 1):
        assert one.heartbeat(group, stale, first) == raw.STALE_GENERATION
        assert one.sync(group, stale, first)[0] == raw.STALE_GENERATION
        assert one.commit(group, stale, first, name, 5) == raw.STALE_GENERATION
    assert one.heartbeat(group, generation, "stranger") == raw.UNKNOWN_MEMBER
    assert one.sync(group, generation, "stranger")[0] == raw.UNKNOWN_MEMBER
    assert one.commit(group, generation, "stranger", name, 5) == raw.UNKNOWN_MEMBER
    assert one.leave(group, "stranger") == raw.UNKNOWN_MEMBER
    one.join(group, member="stranger")
    assert one.joined()[0] == raw.UNKNOWN_MEMBER
    assert one.commit(group, -1, "", name, 5) == raw.UNKNOWN_MEMBER  # From outside, while there are members.
    assert two.committed(group, name) == (raw.NONE, -1, "")
    assert one.commit(group, generation, first, name, 5) == raw.NONE
    assert two.committed(group, name) == (raw.NONE, 5, "")


def test_a_commit_of_the_generation_before_is_refused(wires, topic, group):
    """Whoever slept through a rebalance cannot overwrite what its successor committed."""
    name = topic()
    ((one, first), (two, second)), generation = pair(wires, group)
    assert one.sync(group, generation, first, [(first, b"a"), (second, b"b")])[0] == raw.NONE
    assert two.leave(group, second) == raw.NONE
    until(lambda: one.heartbeat(group, generation, first) == raw.REBALANCING, what="the rebalance")
    one.join(group, member=first)
    error, newer, *_ = one.joined()
    assert error == raw.NONE and newer > generation
    assert one.sync(group, newer, first, [(first, b"all")])[0] == raw.NONE
    assert one.commit(group, newer, first, name, 100) == raw.NONE
    assert one.commit(group, generation, first, name, 3) == raw.STALE_GENERATION
    assert two.commit(group, generation, second, name, 3) == raw.UNKNOWN_MEMBER
    assert one.committed(group, name) == (raw.NONE, 100, "")


def test_commits_without_members(wire, topic, group):
    name = topic()
    assert wire.commit(group, -1, "", name, 42, metadata="by hand") == raw.NONE
    assert wire.committed(group, name) == (raw.NONE, 42, "by hand")
    assert wire.commit(group, -1, "", name, 7) == raw.NONE
    assert wire.committed(group, name) == (raw.NONE, 7, "")
    assert wire.commit(group, 5, "nobody", name, 8) in (raw.STALE_GENERATION, raw.UNKNOWN_MEMBER)
    assert wire.commit(group, -1, "", name, 8, metadata="x" * 5000) == 12  # OFFSET_METADATA_TOO_LARGE
    assert wire.committed(group, name) == (raw.NONE, 7, "")
    assert wire.commit(group, -1, "", name, 8, partition=9) == raw.UNKNOWN_PARTITION


def test_what_cannot_be_joined(wires, wire, group):
    wire.join(group, session=10)
    assert wire.joined()[0] == raw.INVALID_SESSION_TIMEOUT
    wire.join(group, session=2_000_000_000)
    assert wire.joined()[0] == raw.INVALID_SESSION_TIMEOUT
    wire.join("")
    assert wire.joined()[0] == raw.INVALID_GROUP
    wire.join(group, protocols=())
    assert wire.joined()[0] == raw.INCONSISTENT_PROTOCOL
    error, generation, _, _, member, _ = wire.enter(group)
    assert error == raw.NONE
    assert wire.sync(group, generation, member, [(member, b"")])[0] == raw.NONE
    other = wires()
    assert other.enter(group, protocols=(("unheard-of", b""),))[0] == raw.INCONSISTENT_PROTOCOL
    assert other.enter(group, kind="connect")[0] == raw.INCONSISTENT_PROTOCOL
    assert wire.heartbeat(group, generation, member) == raw.NONE, "refused joins disturb nobody"


def test_a_static_member_takes_its_place_back(wires, topic, group):
    name, one, two = topic(), wires(), wires()
    error, generation, _, leader, first, _ = one.enter(group, instance="place")
    assert error == raw.NONE and leader == first
    assert one.sync(group, generation, first, [(first, b"kept")], instance="place") == (raw.NONE, b"kept")
    error, same, _, _, second, _ = two.enter(group, instance="place")
    assert (error, same) == (raw.NONE, generation) and second != first
    assert two.sync(group, same, second, instance="place") == (raw.NONE, b"kept")
    assert one.heartbeat(group, generation, first, instance="place") == raw.FENCED_INSTANCE
    assert one.sync(group, generation, first, instance="place")[0] == raw.FENCED_INSTANCE
    assert two.heartbeat(group, generation, second, instance="place") == raw.NONE
    assert two.commit(group, generation, second, name, 1) == raw.NONE


def test_a_silent_member_is_dropped(wires, group):
    """No heartbeat for the session timeout, and the generation ends for the others; the connection does not matter."""
    ((one, first), (two, second)), generation = pair(wires, group, session=6000, rebalance=6000)
    assert one.sync(group, generation, first, [(first, b"a"), (second, b"b")])[0] == raw.NONE
    two.close()
    begun = time.monotonic()
    until(lambda: one.heartbeat(group, generation, first) == raw.REBALANCING, timeout=20, what="the end of the session")
    assert 4 < time.monotonic() - begun < 12
    one.join(group, member=first, session=6000, rebalance=6000)
    error, newer, _, leader, _, members = one.joined()
    assert (error, leader, len(members)) == (raw.NONE, first, 1) and newer > generation


def test_a_group_with_members_is_not_deleted(server, wires, topic, group):
    from confluent_kafka import KafkaError, KafkaException

    name, one = topic(), wires()
    error, generation, _, _, member, _ = one.enter(group)
    assert error == raw.NONE and one.sync(group, generation, member, [(member, b"")])[0] == raw.NONE
    assert one.commit(group, generation, member, name, 3) == raw.NONE
    with pytest.raises(KafkaException) as refused:
        server.admin.delete_consumer_groups([group])[group].result(10)
    assert refused.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    assert one.leave(group, member) == raw.NONE
    assert one.committed(group, name) == (raw.NONE, 3, ""), "offsets outlive the members"
    server.admin.delete_consumer_groups([group])[group].result(10)
    assert one.committed(group, name)[1] == -1


def test_the_coordinator_is_where_the_client_is(server, wire, group):
    assert wire.coordinator(group) == (raw.NONE, *server.address)


def test_committed_offsets_do_not_bound_the_log(wire, topic, group):
    """An offset beyond the end can be committed; reading there is out of range."""
    name = topic()
    assert wire.produce(name, batch(numbers(3)))[0] == raw.NONE
    assert wire.commit(group, -1, "", name, 1_000_000) == raw.NONE
    assert wire.committed(group, name)[1] == 1_000_000
    assert wire.fetch(name, 1_000_000)[0] == raw.OUT_OF_RANGE
