//! Joining, electing, sharing, joining again.

use model::LogRefusal;
use model::membership::{GroupPhase, Join, Sync};

use super::fixture::*;
use crate::Settings;

fn again(id: &str) -> Join {
    a_join(id)
}

#[test]
fn the_first_generation_waits_for_company() {
    let mut world = world();
    let first = world.join(a_join(""));
    assert_eq!(world.coordinator.next_deadline(), Some(500_000));
    world.pass(400);
    let second = world.join(a_join(""));
    world.pass(400);
    assert_eq!(world.answer(first), None, "put off by the second");
    world.pass(200);
    let (a, b) = (world.joined(first), world.joined(second));
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!((&a.leader, &b.leader), (&a.member, &a.member), "the first to come leads");
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    assert_ne!(a.member, b.member);
    assert!(a.member.starts_with("client-"));
    assert!(!a.skip_assignment);
}

#[test]
fn the_first_generation_does_not_wait_for_ever() {
    let mut world = world();
    let first = world.join(Join { rebalance_timeout_ms: 1_200, ..a_join("") });
    for _ in 0..20 {
        world.join(Join { rebalance_timeout_ms: 1_200, ..a_join("") });
        world.pass(100);
    }
    assert_eq!(world.joined(first).members.len(), 13, "those of the first 1.2 seconds");
}

#[test]
fn without_delay_the_first_member_is_not_kept_waiting() {
    let mut world = world_with(Settings { initial_delay_ms: 0, ..Settings::default() });
    let ticket = world.join(a_join(""));
    assert_eq!(world.joined(ticket).members.len(), 1);
}

#[test]
fn a_new_member_is_told_its_id_if_it_asks_for_that() {
    let mut world = world();
    let ticket = world.join(Join { id_required: true, ..a_join("") });
    let LogRefusal::MemberIdRequired(id) = world.not_joined(ticket) else { panic!("no id") };
    assert!(world.coordinator.exists("g"));
    let ticket = world.join(Join { id_required: true, ..a_join(&id) });
    world.pass(500);
    assert_eq!(world.joined(ticket).member, id);
}

#[test]
fn an_id_that_nobody_joins_with_is_forgotten() {
    let mut world = world();
    let ticket = world.join(Join { id_required: true, ..a_join("") });
    let LogRefusal::MemberIdRequired(id) = world.not_joined(ticket) else { panic!("no id") };
    world.pass(u64::from(SESSION_MS));
    assert!(!world.coordinator.exists("g"));
    assert_eq!(world.coordinator.next_deadline(), None);
    let ticket = world.join(a_join(&id));
    assert_eq!(world.not_joined(ticket), LogRefusal::UnknownMember);
}

#[test]
fn a_rebalance_waits_for_an_id_that_was_given() {
    let mut world = world();
    let (ids, _) = world.settled(vec![a_join("")]);
    let ticket = world.join(Join { id_required: true, ..a_join("") });
    let LogRefusal::MemberIdRequired(id) = world.not_joined(ticket) else { panic!("no id") };
    let leader = world.join(again(&ids[0]));
    assert_eq!(world.answer(leader), None);
    world.join(a_join(&id));
    assert_eq!(world.joined(leader).members.len(), 2);
}

#[test]
fn everybody_gets_what_the_leader_brought() {
    let mut world = world();
    let tickets = [world.join(a_join("")), world.join(a_join(""))];
    world.pass(1000);
    let [a, b] = tickets.map(|ticket| world.joined(ticket));
    let follower = world.sync(who(&b.member, 1), &[]);
    assert_eq!(world.answer(follower), None, "nothing to fetch yet");
    assert_eq!(world.coordinator.describe("g").phase, GroupPhase::CompletingRebalance);
    let leader = world.sync(who(&a.member, 1), &[(&b.member, "of b"), ("stranger", "lost")]);
    assert_eq!(world.synced(follower).assignment, b"of b");
    let synced = world.synced(leader);
    assert_eq!((synced.protocol_type.as_str(), synced.protocol.as_str()), ("consumer", "range"));
    assert_eq!(synced.assignment, b"", "who is not named gets nothing");
    let repeated = world.sync(who(&b.member, 1), &[]);
    assert_eq!(world.synced(repeated).assignment, b"of b");
    assert_eq!(world.coordinator.waiting(), 0);
}

#[test]
fn a_sync_that_is_not_of_this_generation_is_refused() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let mut refused = |who| {
        let ticket = world.sync(who, &[]);
        world.not_synced(ticket)
    };
    assert_eq!(refused(who(&ids[1], generation - 1)), LogRefusal::StaleGeneration);
    assert_eq!(refused(who(&ids[1], generation + 1)), LogRefusal::StaleGeneration);
    assert_eq!(refused(who("stranger", generation)), LogRefusal::UnknownMember);
    let elsewhere = model::membership::Membership { group: "h".into(), ..who(&ids[1], generation) };
    assert_eq!(refused(elsewhere), LogRefusal::UnknownMember);
    let sync = Sync { who: who(&ids[1], generation), protocol: Some("other".into()), ..Sync::default() };
    let ticket = world.sync_as(sync.clone());
    assert_eq!(world.not_synced(ticket), LogRefusal::InconsistentProtocol);
    let ticket = world.sync_as(Sync { protocol: Some("range".into()), ..sync });
    assert_eq!(world.synced(ticket).assignment, ids[1].as_bytes());
    world.join(a_join(""));
    let ticket = world.sync(who(&ids[1], generation), &[]);
    assert_eq!(world.not_synced(ticket), LogRefusal::Rebalancing);
}

#[test]
fn heartbeats_tell_of_a_rebalance() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    assert_eq!(world.heartbeat(&who(&ids[0], generation)), Ok(()));
    assert_eq!(world.heartbeat(&who(&ids[0], generation - 1)), Err(LogRefusal::StaleGeneration));
    assert_eq!(world.heartbeat(&who("stranger", generation)), Err(LogRefusal::UnknownMember));
    let third = world.join(a_join(""));
    assert_eq!(world.heartbeat(&who(&ids[0], generation)), Err(LogRefusal::Rebalancing));
    let first = world.join(again(&ids[0]));
    assert_eq!(world.answer(third), None);
    let second = world.join(again(&ids[1]));
    let joined = [first, second, third].map(|ticket| world.joined(ticket));
    assert!(joined.iter().all(|joined| joined.generation == generation + 1 && joined.leader == ids[0]));
    assert_eq!(world.heartbeat(&who(&ids[0], generation + 1)), Ok(()), "while the leader assigns");
    assert_eq!(world.heartbeat(&who(&ids[0], generation)), Err(LogRefusal::StaleGeneration));
}

#[test]
fn who_does_not_come_again_is_left_behind() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let follower = world.join(Join { protocols: vec![("range".into(), b"new".to_vec())], ..again(&ids[1]) });
    for _ in 0..11 {
        world.pass(5_000);
        // The former leader is alive, but does not join.
        assert_eq!(world.heartbeat(&who(&ids[0], generation)), Err(LogRefusal::Rebalancing));
    }
    assert_eq!(world.answer(follower), None);
    world.pass(5_000);
    let joined = world.joined(follower);
    assert_eq!((joined.leader.as_str(), joined.members.len()), (ids[1].as_str(), 1));
    assert_eq!(joined.generation, generation + 1);
    let late = world.join(again(&ids[0]));
    assert_eq!(world.not_joined(late), LogRefusal::UnknownMember);
}

#[test]
fn a_follower_that_asks_again_learns_what_it_was_told() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let ticket = world.join(again(&ids[1]));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.members.len()), (generation, 0));
    assert_eq!(world.coordinator.describe("g").phase, GroupPhase::Stable);
    let leader = world.join(again(&ids[0]));
    assert_eq!(world.answer(leader), None, "a leader joins again because something changed");
    assert_eq!(world.coordinator.describe("g").phase, GroupPhase::PreparingRebalance);
    let follower = world.join(again(&ids[1]));
    assert_eq!(world.joined(leader).generation, generation + 1);
    assert_eq!(world.joined(follower).generation, generation + 1);
    let repeated = world.join(again(&ids[0]));
    assert_eq!(world.joined(repeated).members.len(), 2, "the answer may have been lost");
    let changed = world.join(Join { protocols: vec![("range".into(), b"new".to_vec())], ..again(&ids[1]) });
    assert_eq!(world.answer(changed), None, "its metadata is new to the leader");
}

#[test]
fn the_way_of_sharing_is_what_most_want_of_what_all_know() {
    let protocols = |names: &[&str]| -> Vec<(String, Vec<u8>)> {
        names.iter().map(|name| (name.to_string(), name.as_bytes().to_vec())).collect()
    };
    let with = |names: &[&str]| Join { protocols: protocols(names), ..a_join("") };
    let mut world = world();
    let tickets =
        [with(&["a", "b", "c"]), with(&["c", "b"]), with(&["d", "c", "b"])].map(|join| world.join(join));
    let stranger = world.join(with(&["a"]));
    assert_eq!(world.not_joined(stranger), LogRefusal::InconsistentProtocol);
    let other = world.join(Join { protocol_type: "connect".into(), ..with(&["c"]) });
    assert_eq!(world.not_joined(other), LogRefusal::InconsistentProtocol);
    world.pass(2000);
    let leader = world.joined(tickets[0]);
    assert_eq!(leader.protocol, "c");
    assert!(leader.members.iter().all(|member| member.metadata == b"c"));
}

#[test]
fn a_lone_member_may_change_its_mind() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join("")]);
    let ticket = world.join(Join { protocols: vec![("other".into(), Vec::new())], ..again(&ids[0]) });
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.protocol.as_str()), (generation + 1, "other"));
}

#[test]
fn what_cannot_be_is_refused() {
    let settings = Settings { members_max: 2, groups_max: 1, metadata_max: 100, ..Settings::default() };
    let mut world = world_with(settings);
    let mut refused = |join| {
        let ticket = world.join(join);
        world.not_joined(ticket)
    };
    let good = || a_join("");
    assert_eq!(refused(Join { group: String::new(), ..good() }), LogRefusal::InvalidGroup);
    assert_eq!(refused(Join { session_timeout_ms: 5_999, ..good() }), LogRefusal::InvalidSessionTimeout);
    assert_eq!(refused(Join { session_timeout_ms: 1_800_001, ..good() }), LogRefusal::InvalidSessionTimeout);
    assert_eq!(refused(Join { protocol_type: String::new(), ..good() }), LogRefusal::InconsistentProtocol);
    assert_eq!(refused(Join { protocols: Vec::new(), ..good() }), LogRefusal::InconsistentProtocol);
    assert_eq!(refused(a_join("stranger")), LogRefusal::UnknownMember);
    let large = Join { protocols: vec![("p".into(), vec![0; 100])], ..good() };
    assert!(matches!(refused(large), LogRefusal::Invalid(_)));
    assert!(!world.coordinator.exists("g"), "what was refused left nothing");
    world.join(a_join(""));
    let other = world.join(Join { group: "h".into(), ..a_join("") });
    assert!(matches!(world.not_joined(other), LogRefusal::Unavailable(_, false)));
    world.join(a_join(""));
    let third = world.join(a_join(""));
    assert!(matches!(world.not_joined(third), LogRefusal::GroupFull(_)));
    assert_eq!(world.coordinator.describe("g").members.len(), 2);
}

#[test]
fn a_leader_that_does_not_assign_is_removed() {
    let mut world = world();
    let tickets = [world.join(a_join("")), world.join(a_join(""))];
    world.pass(1000);
    let [a, b] = tickets.map(|ticket| world.joined(ticket));
    let follower = world.sync(who(&b.member, 1), &[]);
    for _ in 0..11 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&who(&a.member, 1)), Ok(()), "it is alive, but silent");
    }
    assert_eq!(world.answer(follower), None);
    world.pass(5_000);
    assert_eq!(world.not_synced(follower), LogRefusal::Rebalancing);
    assert_eq!(world.heartbeat(&who(&a.member, 1)), Err(LogRefusal::UnknownMember));
    let ticket = world.join(again(&b.member));
    assert_eq!(world.joined(ticket).leader, b.member);
}

#[test]
fn a_follower_that_does_not_fetch_is_removed() {
    let mut world = world();
    let tickets = [world.join(a_join("")), world.join(a_join(""))];
    world.pass(1000);
    let [a, b] = tickets.map(|ticket| world.joined(ticket));
    world.sync(who(&a.member, 1), &[]);
    for _ in 0..12 {
        world.pass(5_000);
        let _ = world.heartbeat(&who(&a.member, 1));
        let _ = world.heartbeat(&who(&b.member, 1));
    }
    assert_eq!(world.coordinator.describe("g").members.len(), 1);
    assert_eq!(world.heartbeat(&who(&b.member, 1)), Err(LogRefusal::UnknownMember));
}

#[test]
fn the_time_to_fetch_may_be_shorter_than_a_session() {
    let quick = || Join { session_timeout_ms: 600_000, rebalance_timeout_ms: 3_000, ..a_join("") };
    let mut world = world();
    let tickets = [world.join(quick()), world.join(quick())];
    world.pass(1_000);
    let [a, b] = tickets.map(|ticket| world.joined(ticket));
    world.sync(who(&a.member, 1), &[]);
    world.pass(2_999);
    assert_eq!(world.heartbeat(&who(&b.member, 1)), Ok(()));
    world.pass(1);
    assert_eq!(world.heartbeat(&who(&b.member, 1)), Err(LogRefusal::UnknownMember));
    assert_eq!(world.heartbeat(&who(&a.member, 1)), Err(LogRefusal::Rebalancing));
}

#[test]
fn the_time_to_fetch_ends_with_its_generation() {
    let mut world = world();
    let tickets = [world.join(a_join("")), world.join(a_join(""))];
    world.pass(1_000);
    let [a, b] = tickets.map(|ticket| world.joined(ticket));
    for _ in 0..10 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&who(&a.member, 1)), Ok(()));
        assert_eq!(world.heartbeat(&who(&b.member, 1)), Ok(()));
    }
    world.join(a_join(""));
    for _ in 0..4 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&who(&a.member, 1)), Err(LogRefusal::Rebalancing));
        assert_eq!(world.heartbeat(&who(&b.member, 1)), Err(LogRefusal::Rebalancing));
    }
    assert_eq!(world.coordinator.describe("g").members.len(), 3, "there is time to join the next one");
}

#[test]
fn an_assignment_ends_with_its_generation() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let tickets = [world.join(again(&ids[0])), world.join(again(&ids[1]))];
    let _ = tickets.map(|ticket| world.joined(ticket));
    world.sync(who(&ids[0], generation + 1), &[(&ids[0], "all")]);
    let ticket = world.sync(who(&ids[1], generation + 1), &[]);
    assert_eq!(world.synced(ticket).assignment, b"", "the leader gave it nothing");
}

#[test]
fn generations_do_not_come_again() {
    let mut world = world_with(Settings { generation_base: 1_000, ..Settings::default() });
    let (ids, generation) = world.settled(vec![a_join("")]);
    assert_eq!(generation, 1_001);
    world.leave(&[(&ids[0], None)]);
    assert!(!world.coordinator.exists("g"));
    let (_, next) = world.settled(vec![a_join("")]);
    assert!(next > generation, "not even in a group that was gone");
    let mut world = world_with(Settings { generation_base: i32::MAX, ..Settings::default() });
    let (_, wrapped) = world.settled(vec![a_join("")]);
    assert_eq!(wrapped, 1);
}
