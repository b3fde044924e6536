//! Members with lasting names.

use model::LogRefusal;
use model::membership::{GroupPhase, Join, Membership};

use super::fixture::*;

fn named(instance: &str, member: &str, generation: i32) -> Membership {
    Membership { instance: Some(instance.into()), ..who(member, generation) }
}

fn skipping(instance: &str) -> Join {
    Join { can_skip_assignment: true, ..static_join(instance) }
}

#[test]
fn a_follower_comes_back_to_what_it_had() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![static_join("i0"), static_join("i1")]);
    assert!(ids[1].starts_with("i1-"));
    let ticket = world.join(skipping("i1"));
    let joined = world.joined(ticket);
    assert_ne!(joined.member, ids[1]);
    assert_eq!(
        (joined.generation, joined.leader.as_str(), joined.skip_assignment),
        (generation, ids[0].as_str(), false)
    );
    let ticket = world.sync(named("i1", &joined.member, generation), &[]);
    assert_eq!(world.synced(ticket).assignment, ids[1].as_bytes(), "what its former self had");
    assert_eq!(world.coordinator.describe("g").phase, GroupPhase::Stable);
    assert_eq!(world.heartbeat(&named("i1", &ids[1], generation)), Err(LogRefusal::FencedMember));
    assert_eq!(world.heartbeat(&who(&ids[1], generation)), Err(LogRefusal::UnknownMember));
    let commit = world.coordinator.may_commit(&named("i1", &ids[1], generation), world.now);
    assert_eq!(commit, Err(LogRefusal::FencedMember));
    assert_eq!(world.coordinator.may_commit(&named("i1", &joined.member, generation), world.now), Ok(()));
}

#[test]
fn a_leader_comes_back_and_may_skip_the_assignment() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![static_join("i0"), static_join("i1")]);
    let ticket = world.join(skipping("i0"));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.skip_assignment, joined.members.len()), (generation, true, 2));
    assert_eq!(joined.leader, joined.member);
    let ticket = world.join(static_join("i0"));
    let older = world.joined(ticket);
    assert_eq!((&older.leader, older.members.len()), (&joined.member, 0), "it must not think that it leads");
    assert_ne!(older.leader, older.member);
    let ticket = world.sync(named("i0", &older.member, generation), &[]);
    assert_eq!(world.synced(ticket).assignment, ids[0].as_bytes());
}

#[test]
fn another_way_of_sharing_is_a_reason_to_share_anew() {
    let mut world = world();
    let range_only = vec![("range".to_owned(), Vec::new())];
    let sticky_first = vec![("sticky".to_owned(), Vec::new()), ("range".to_owned(), Vec::new())];
    let both = |instance: &str| Join { protocols: sticky_first.clone(), ..static_join(instance) };
    let (ids, generation) =
        world.settled(vec![both("i0"), Join { protocols: range_only, ..static_join("i1") }]);
    let follower = world.join(both("i1"));
    assert_eq!(world.answer(follower), None);
    let leader = world.join(Join { member: ids[0].clone(), ..both("i0") });
    let joined = world.joined(leader);
    assert_eq!((joined.generation, joined.protocol.as_str()), (generation + 1, "sticky"));
    assert_eq!(world.joined(follower).generation, generation + 1);
}

#[test]
fn the_former_self_is_fenced_wherever_it_waits() {
    let mut world = world();
    let first = world.join(static_join("i0"));
    let second = world.join(static_join("i0"));
    assert_eq!(world.not_joined(first), LogRefusal::FencedMember);
    world.pass(1000);
    let joined = world.joined(second);
    assert_eq!((joined.members.len(), &joined.leader), (1, &joined.member));
    let (ids, generation) = ([joined.member], joined.generation);
    let other = world.join(static_join("i1"));
    let leader = world.join(Join { member: ids[0].clone(), ..static_join("i0") });
    let follower = world.joined(other);
    let sync = world.sync(named("i1", &follower.member, generation + 1), &[]);
    let back = world.join(static_join("i1"));
    assert_eq!(world.not_synced(sync), LogRefusal::FencedMember);
    assert_eq!(world.joined(leader).generation, generation + 1);
    assert_eq!(world.answer(back), None, "the leader was told of the former one: all share anew");
    let sync = world.sync(named("i0", &ids[0], generation + 1), &[]);
    assert_eq!(world.not_synced(sync), LogRefusal::Rebalancing);
    world.join(Join { member: ids[0].clone(), ..static_join("i0") });
    assert_eq!(world.joined(back).generation, generation + 2);
}

#[test]
fn a_static_member_keeps_its_place_until_its_session_ends() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![static_join("i0"), static_join("i1")]);
    world.pass(9_000);
    assert_eq!(world.heartbeat(&named("i0", &ids[0], generation)), Ok(()));
    assert_eq!(world.coordinator.describe("g").members.len(), 2);
    world.pass(1_000);
    assert_eq!(world.heartbeat(&named("i0", &ids[0], generation)), Err(LogRefusal::Rebalancing));
    assert_eq!(world.coordinator.describe("g").members.len(), 1);
    let ticket = world.join(Join { member: ids[0].clone(), ..static_join("i0") });
    assert_eq!(world.joined(ticket).members.len(), 1);
}

#[test]
fn a_rebalance_does_not_drop_static_members_that_are_alive() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![static_join("i0"), static_join("i1")]);
    let third = world.join(a_join(""));
    let leader = world.join(Join { member: ids[0].clone(), ..static_join("i0") });
    for _ in 0..12 {
        world.pass(5_000);
        let _ = world.heartbeat(&named("i1", &ids[1], generation));
    }
    assert_eq!(world.joined(leader).members.len(), 3, "the one that did not join is still part of it");
    assert_eq!(world.joined(third).generation, generation + 1);
}

#[test]
fn a_lasting_name_that_is_not_known_is_nobody() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join("")]);
    assert_eq!(world.heartbeat(&named("i9", &ids[0], generation)), Err(LogRefusal::UnknownMember));
    let ticket = world.join(Join { instance: Some("i9".into()), ..a_join(&ids[0]) });
    assert_eq!(world.not_joined(ticket), LogRefusal::UnknownMember);
}
