//! What operators and the keeper of offsets learn.

use model::LogRefusal;
use model::membership::{GroupPhase, Join};

use super::fixture::*;
use crate::subscription::tests::subscription;

fn reading(topics: &[&str]) -> Join {
    Join { protocols: vec![("range".into(), subscription(topics))], ..a_join("") }
}

#[test]
fn a_group_is_described_as_far_as_it_is_settled() {
    let mut world = world();
    assert_eq!(world.coordinator.describe("g").phase, GroupPhase::Dead);
    let joins = vec![Join { client_host: "10.0.0.1".into(), ..a_join("") }, static_join("i1")];
    let (ids, _) = world.settled(joins);
    let group = world.coordinator.describe("g");
    assert_eq!((group.phase, group.protocol.as_str()), (GroupPhase::Stable, "range"));
    assert_eq!(group.protocol_type, "consumer");
    let first = group.members.iter().find(|member| member.member == ids[0]).expect("it is a member");
    assert_eq!((first.client_id.as_str(), first.client_host.as_str()), ("client", "10.0.0.1"));
    assert_eq!((first.metadata.as_slice(), first.assignment.as_slice()), (&b"r"[..], ids[0].as_bytes()));
    assert!(group.members.iter().any(|member| member.instance.as_deref() == Some("i1")));
    world.join(a_join(""));
    let group = world.coordinator.describe("g");
    assert_eq!((group.phase, group.protocol.as_str()), (GroupPhase::PreparingRebalance, ""));
    assert!(group.members.iter().all(|member| member.assignment.is_empty()));
}

#[test]
fn groups_are_listed_by_name() {
    let mut world = world();
    for group in ["b", "a"] {
        world.join(Join { group: group.into(), ..a_join("") });
    }
    world.join(Join { group: "c".into(), id_required: true, ..a_join("") });
    let listed: Vec<_> =
        world.coordinator.list().into_iter().map(|group| (group.group, group.phase)).collect();
    let preparing = GroupPhase::PreparingRebalance;
    assert_eq!(listed, [("a".into(), preparing), ("b".into(), preparing), ("c".into(), GroupPhase::Empty)]);
}

#[test]
fn only_groups_without_members_are_deleted() {
    let mut world = world();
    assert_eq!(world.coordinator.delete("g"), Err(LogRefusal::UnknownGroup));
    assert_eq!(world.coordinator.delete(""), Err(LogRefusal::InvalidGroup));
    world.join(Join { id_required: true, ..a_join("") });
    assert_eq!(world.coordinator.delete("g"), Ok(()), "an id was given, nobody has joined");
    assert!(!world.coordinator.exists("g"));
    world.settled(vec![a_join("")]);
    assert_eq!(world.coordinator.delete("g"), Err(LogRefusal::GroupNotEmpty));
}

#[test]
fn offsets_of_topics_that_are_read_stay() {
    let mut world = world();
    assert_eq!(world.coordinator.may_forget("g", "t"), Ok(()));
    world.settled(vec![reading(&["t"]), reading(&["u", "v"])]);
    assert_eq!(world.coordinator.may_forget("g", "t"), Err(LogRefusal::GroupSubscribed));
    assert_eq!(world.coordinator.may_forget("g", "v"), Err(LogRefusal::GroupSubscribed));
    assert_eq!(world.coordinator.may_forget("g", "w"), Ok(()));
    let unreadable = Join { group: "h".into(), ..a_join("") };
    world.join(unreadable);
    assert_eq!(world.coordinator.may_forget("h", "w"), Err(LogRefusal::GroupSubscribed), "it might read it");
    world.join(Join { group: "i".into(), protocol_type: "connect".into(), ..reading(&[]) });
    assert_eq!(world.coordinator.may_forget("i", "w"), Err(LogRefusal::GroupNotEmpty));
}
