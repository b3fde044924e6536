//! Committed offsets of consumer groups: how long they are kept, and from when that counts.

use model::membership::{Commit, CommittedOffset, GroupAnswer, GroupRequest, Join, Membership, Sync};
use model::topic::{PartitionRef, TopicRef};
use model::{
    Arguments, Change, Event, GroupId, Limits, LogAnswer, LogRefusal, LogRequest, QueueDeclaration, Refusal,
    Request, Value,
};

use super::node::{Client, LANE, Node};

const MINUTE_MS: u64 = 60_000;
/// How long offsets are kept here.
const KEPT: u64 = 120;

/// A node with the stream `s`, whose one group hosts the coordinators too.
fn with_stream() -> (Node, Client) {
    with_shards(1)
}

/// Likewise; the client is on the last shard and the group on the first.
fn with_shards(shards: u16) -> (Node, Client) {
    let limits = Limits { offsets_retention_ms: KEPT * MINUTE_MS, ..Limits::default() };
    let mut node = Node::with_limits(shards, 1, limits);
    let client = node.connect(usize::from(shards) - 1);
    let kind = Arguments(vec![("x-queue-type".into(), Value::text("stream"))]);
    let declaration = QueueDeclaration { arguments: kind, ..Node::declaration("s") };
    node.ask_change(client, Change::DeclareQueue(declaration));
    node.run();
    node.heard(client);
    (node, client)
}

fn ask(node: &mut Node, client: Client, request: GroupRequest) -> Option<GroupAnswer> {
    node.heard(client);
    node.ask(client, Request::Log { token: 1, request: LogRequest::Group(request) });
    node.run();
    answer(node, client)
}

fn answer(node: &mut Node, client: Client) -> Option<GroupAnswer> {
    let answers = node.heard(client).into_iter().find_map(|event| match event {
        Event::Log(1, answer) => Some(*answer),
        _ => None,
    });
    answers.map(|answer| match answer {
        LogAnswer::Group(answer) => answer,
        other => panic!("{other:?}"),
    })
}

fn partition() -> PartitionRef {
    PartitionRef { topic: TopicRef::Name("s".into()), partition: 0 }
}

/// Whoever commits without being a member.
fn nobody() -> Membership {
    Membership { group: "g".into(), generation: -1, member: String::new(), instance: None }
}

fn commit(node: &mut Node, client: Client, who: &Membership, offset: u64) {
    let offsets = vec![(partition(), CommittedOffset { offset, ..CommittedOffset::default() })];
    let answer = ask(node, client, GroupRequest::Commit(Commit { who: who.clone(), offsets }));
    assert!(matches!(&answer, Some(GroupAnswer::Committed(all)) if all == &[Ok(())]), "{answer:?}");
}

fn committed(node: &mut Node, client: Client) -> Option<u64> {
    let request = GroupRequest::Offsets { group: "g".into(), partitions: Some(vec![partition()]) };
    match ask(node, client, request) {
        Some(GroupAnswer::Offsets(Ok(found))) => {
            found.into_iter().find_map(|(_, offset)| Some(offset?.offset))
        }
        other => panic!("{other:?}"),
    }
}

/// A member that is alone in the group and has its assignment.
fn join(node: &mut Node, client: Client) -> Membership {
    let join = Join {
        group: "g".into(),
        session_timeout_ms: 300_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Vec::new())],
        ..Join::default()
    };
    assert!(ask(node, client, GroupRequest::Join(join)).is_none(), "others may come");
    node.run_after(1000);
    let joined = match answer(node, client) {
        Some(GroupAnswer::Joined(Ok(joined))) => joined,
        other => panic!("{other:?}"),
    };
    let who = Membership { generation: joined.generation, member: joined.member.clone(), ..nobody() };
    let assignments = vec![(joined.member, Vec::new())];
    let sync = Sync { who: who.clone(), protocol_type: None, protocol: None, assignments };
    let answer = ask(node, client, GroupRequest::Sync(sync));
    assert!(matches!(answer, Some(GroupAnswer::Synced(Ok(_)))), "{answer:?}");
    who
}

fn leave(node: &mut Node, client: Client, who: &Membership) {
    let members = vec![(who.member.clone(), None)];
    let answer = ask(node, client, GroupRequest::Leave { group: "g".into(), members });
    assert!(matches!(&answer, Some(GroupAnswer::Left(Ok(all))) if all == &[Ok(())]), "{answer:?}");
}

/// So many minutes pass, in which others publish and the member, if there is one, says that it is alive.
fn pass(node: &mut Node, client: Client, minutes: u64, member: Option<&Membership>) {
    for _ in 0..minutes {
        if let Some(who) = member {
            let answer = ask(node, client, GroupRequest::Heartbeat(who.clone()));
            assert!(matches!(answer, Some(GroupAnswer::Done(Ok(())))), "{answer:?}");
        }
        node.publish(client, "s", 0, "others");
        node.run_after(MINUTE_MS);
    }
    // What has become too old is looked for every second.
    node.run_after(1000);
    node.run_after(1000);
}

#[test]
fn offsets_without_members_are_kept_from_their_last_commit_on() {
    let (mut node, client) = with_stream();
    commit(&mut node, client, &nobody(), 3);
    pass(&mut node, client, 100, None);
    commit(&mut node, client, &nobody(), 4);
    pass(&mut node, client, KEPT - 5, None);
    assert_eq!(committed(&mut node, client), Some(4));
    pass(&mut node, client, 10, None);
    assert_eq!(committed(&mut node, client), None);
}

#[test]
fn offsets_are_kept_while_there_are_members_and_from_the_last_one_on() {
    for silently in [false, true] {
        let (mut node, client) = with_stream();
        let who = join(&mut node, client);
        commit(&mut node, client, &who, 3);
        // Until some time after it was last noted that there is a member.
        pass(&mut node, client, 3 * KEPT + 3, Some(&who));
        assert_eq!(committed(&mut node, client), Some(3), "it has had nothing to commit");
        match silently {
            false => leave(&mut node, client, &who),
            true => pass(&mut node, client, 5, None),
        }
        pass(&mut node, client, KEPT - 1, None);
        assert_eq!(committed(&mut node, client), Some(3), "it may come back");
        pass(&mut node, client, 10, None);
        assert_eq!(committed(&mut node, client), None);
    }
}

#[test]
fn offsets_are_kept_over_a_long_stop_until_those_who_were_members_are_back() {
    let (mut node, client) = with_stream();
    let who = join(&mut node, client);
    commit(&mut node, client, &who, 3);
    pass(&mut node, client, 5, Some(&who));
    node.restart();
    node.set_wall_forward(3 * KEPT * MINUTE_MS);
    let client = node.connect(0);
    // The group's time goes on with every entry, no more than a minute each.
    for _ in 0..2 * KEPT {
        node.publish(client, "s", 0, "others");
        node.run();
    }
    pass(&mut node, client, 5, None);
    assert_eq!(committed(&mut node, client), Some(3), "nobody has had the time to come back");
    let who = join(&mut node, client);
    pass(&mut node, client, 60, Some(&who));
    assert_eq!(committed(&mut node, client), Some(3));
    leave(&mut node, client, &who);
    pass(&mut node, client, KEPT - 5, None);
    node.restart();
    let client = node.connect(0);
    assert_eq!(committed(&mut node, client), Some(3));
    // A start gives a while, not the whole time again.
    pass(&mut node, client, 40, None);
    assert_eq!(committed(&mut node, client), None);
}

/// Asks for everything that a host passes on to its group; which of it was refused for now.
fn refused_for_now(node: &mut Node, client: Client) -> [bool; 4] {
    let loading = || Err::<(), _>(LogRefusal::CoordinatorLoading);
    let offsets = vec![(partition(), CommittedOffset { offset: 3, ..CommittedOffset::default() })];
    let again = GroupRequest::Commit(Commit { who: nobody(), offsets });
    let forget = GroupRequest::DeleteOffsets { group: "g".into(), partitions: vec![partition()] };
    let changed = [again, forget].map(|request| match ask(node, client, request) {
        Some(GroupAnswer::Committed(all)) => all == [loading()],
        other => panic!("{other:?}"),
    });
    let Some(GroupAnswer::Deleted(deleted)) = ask(node, client, GroupRequest::Delete(vec!["g".into()]))
    else {
        panic!("one answer")
    };
    node.ask(client, Request::Log { token: 1, request: LogRequest::Trim(vec![(partition(), 0)]) });
    node.run();
    let heard = node.heard(client);
    let [Event::Log(1, answer)] = &heard[..] else { panic!("{heard:?}") };
    let LogAnswer::Trimmed(trimmed) = &**answer else { panic!("{answer:?}") };
    let trimmed = trimmed == &[Err(LogRefusal::NotYet)];
    [changed[0], changed[1], deleted == [loading()], trimmed]
}

#[test]
fn whatever_cannot_be_passed_on_to_a_group_is_answered() {
    // Each is hosted by one of two shards: the first time that one does not know the groups, then the other.
    let all = [0, 1].map(|host| {
        let (mut node, last) = with_shards(2);
        let (client, at_host) = (node.connect(1 - host), node.connect(host));
        node.declare(last, "q");
        commit(&mut node, client, &nobody(), 3);
        node.brokers[host].door.by_group.retain(|group, _| *group == GroupId::METADATA);
        let refused = refused_for_now(&mut node, client);
        node.ask(at_host, Request::Get { lane: LANE, queue: "q", settled: true });
        node.run();
        let heard = node.heard(at_host);
        assert!(
            matches!(&heard[..], [Event::Refused(Some(LANE), Refusal::Unavailable(_, false))]),
            "{heard:?}"
        );
        node.assert_nothing_waits();
        refused
    });
    assert!((0..4).all(|what| all[0][what] != all[1][what]), "{all:?}");
}
