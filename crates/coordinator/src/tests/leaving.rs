//! Leaving, dying, being cut off, and who may commit meanwhile.

use model::LogRefusal;
use model::membership::{GroupPhase, Join, Membership};

use super::fixture::*;

#[test]
fn the_others_share_what_a_leaving_member_had() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let results = world.leave(&[("stranger", None), (&ids[0], None), (&ids[0], None)]);
    assert_eq!(results, [Err(LogRefusal::UnknownMember), Ok(()), Err(LogRefusal::UnknownMember)]);
    assert_eq!(world.heartbeat(&who(&ids[1], generation)), Err(LogRefusal::Rebalancing));
    let ticket = world.join(a_join(&ids[1]));
    let joined = world.joined(ticket);
    assert_eq!((joined.generation, joined.leader.as_str()), (generation + 1, ids[1].as_str()));
}

#[test]
fn a_static_member_leaves_by_its_name() {
    let mut world = world();
    let (ids, _) = world.settled(vec![static_join("i0"), static_join("i1")]);
    assert_eq!(world.leave(&[("", Some("i1"))]), [Ok(())]);
    assert_eq!(world.leave(&[("", Some("i1"))]), [Err(LogRefusal::UnknownMember)]);
    assert_eq!(world.leave(&[("someone", Some("i0"))]), [Err(LogRefusal::FencedMember)]);
    assert_eq!(world.leave(&[(&ids[0], Some("i0"))]), [Ok(())]);
    assert!(!world.coordinator.exists("g"));
}

#[test]
fn it_is_told_when_the_last_member_is_gone() {
    let mut world = world();
    let emptied = |world: &mut World| {
        let told: Vec<String> =
            std::iter::from_fn(|| world.coordinator.poll_emptied()).map(|name| name.to_string()).collect();
        (world.coordinator.has_members("g"), told)
    };
    let asks = world.join(Join { id_required: true, ..a_join("") });
    world.not_joined(asks);
    world.pass(u64::from(SESSION_MS));
    assert_eq!(emptied(&mut world), (false, vec![]), "an id is no member");
    let (ids, _) = world.settled(vec![a_join(""), a_join("")]);
    world.leave(&[(&ids[0], None)]);
    assert_eq!(emptied(&mut world), (true, vec![]));
    world.leave(&[(&ids[1], None)]);
    assert_eq!(emptied(&mut world), (false, vec!["g".to_owned()]));
    // By silence, and while somebody is expected.
    world.settled(vec![a_join("")]);
    let asks = world.join(Join { id_required: true, session_timeout_ms: 60_000, ..a_join("") });
    world.not_joined(asks);
    world.pass(u64::from(SESSION_MS));
    assert!(world.coordinator.exists("g"));
    assert_eq!(emptied(&mut world), (false, vec!["g".to_owned()]));
}

#[test]
fn an_id_that_was_given_can_be_given_back() {
    let mut world = world();
    let (ids, _) = world.settled(vec![a_join("")]);
    let ticket = world.join(Join { id_required: true, ..a_join("") });
    let LogRefusal::MemberIdRequired(id) = world.not_joined(ticket) else { panic!("no id") };
    let leader = world.join(a_join(&ids[0]));
    assert_eq!(world.answer(leader), None, "somebody is expected");
    assert_eq!(world.leave(&[(&id, None)]), [Ok(())]);
    assert_eq!(world.joined(leader).members.len(), 1);
}

#[test]
fn who_leaves_while_it_waits_is_told_so() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let waits = world.join(a_join(&ids[0]));
    world.leave(&[(&ids[0], None)]);
    assert_eq!(world.not_joined(waits), LogRefusal::UnknownMember);
    let ticket = world.join(a_join(&ids[1]));
    assert_eq!(world.joined(ticket).generation, generation + 1);
    assert_eq!(world.coordinator.waiting(), 0);
}

#[test]
fn a_member_without_heartbeats_is_dead() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    for _ in 0..3 {
        world.pass(4_000);
        let _ = world.heartbeat(&who(&ids[0], generation));
    }
    assert_eq!(world.heartbeat(&who(&ids[1], generation)), Err(LogRefusal::UnknownMember));
    assert_eq!(world.heartbeat(&who(&ids[0], generation)), Err(LogRefusal::Rebalancing));
    world.pass(60_000);
    assert!(!world.coordinator.exists("g"), "the other did not join again");
    assert_eq!(world.coordinator.next_deadline(), None);
}

#[test]
fn who_waits_for_the_coordinator_is_not_dead() {
    let mut world = world();
    let tickets = [world.join(a_join("")), world.join(a_join(""))];
    world.pass(1_000);
    let [a, b] = tickets.map(|ticket| world.joined(ticket));
    let follower = world.sync(who(&b.member, 1), &[]);
    for _ in 0..5 {
        world.pass(8_000);
        assert_eq!(world.heartbeat(&who(&a.member, 1)), Ok(()));
    }
    world.sync(who(&a.member, 1), &[(&b.member, "at last")]);
    assert_eq!(world.synced(follower).assignment, b"at last");
}

#[test]
fn a_new_member_does_not_wait_for_ever() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![Join { rebalance_timeout_ms: 1_000_000, ..a_join("") }]);
    let new = world.join(a_join(""));
    for _ in 0..60 {
        world.pass(5_000);
        let _ = world.heartbeat(&who(&ids[0], generation));
    }
    assert_eq!(world.not_joined(new), LogRefusal::UnknownMember);
}

#[test]
fn a_cut_off_member_stays_until_its_session_ends() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let leader = world.join(a_join(&ids[0]));
    world.coordinator.cancel(leader);
    world.coordinator.cancel(leader);
    let follower = world.join(a_join(&ids[1]));
    assert_eq!((world.answer(leader), world.answer(follower)), (None, None), "the leader may come back");
    let back = world.join(a_join(&ids[0]));
    let joined = world.joined(back);
    assert_eq!((joined.generation, joined.members.len()), (generation + 1, 2));
    world.joined(follower);
    let sync = world.sync(who(&ids[1], generation + 1), &[]);
    world.coordinator.cancel(sync);
    world.sync(who(&ids[0], generation + 1), &[(&ids[1], "kept")]);
    assert_eq!(world.answer(sync), None);
    let sync = world.sync(who(&ids[1], generation + 1), &[]);
    assert_eq!(world.synced(sync).assignment, b"kept");
    world.coordinator.cancel(sync);
    let new = world.join(a_join(""));
    world.coordinator.cancel(new);
    world.pass(u64::from(SESSION_MS));
    assert!(!world.coordinator.exists("g"), "nobody gave a sign of life");
    assert_eq!(world.coordinator.waiting(), 0);
}

#[test]
fn a_newer_request_of_a_member_takes_the_place_of_an_older_one() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let older = world.join(a_join(&ids[0]));
    let newer = world.join(a_join(&ids[0]));
    assert_eq!(world.not_joined(older), LogRefusal::Rebalancing);
    world.join(a_join(&ids[1]));
    assert_eq!(world.joined(newer).generation, generation + 1);
    let older = world.sync(who(&ids[1], generation + 1), &[]);
    let newer = world.sync(who(&ids[1], generation + 1), &[]);
    assert_eq!(world.not_synced(older), LogRefusal::Rebalancing);
    world.sync(who(&ids[0], generation + 1), &[]);
    world.synced(newer);
}

#[test]
fn commits_are_of_members_of_this_generation() {
    let mut world = world();
    let simple = Membership { generation: -1, ..who("", -1) };
    assert_eq!(world.coordinator.may_commit(&simple, world.now), Ok(()), "while there are no members");
    let stale = world.coordinator.may_commit(&who("long gone", 3), world.now);
    assert_eq!(stale, Err(LogRefusal::StaleGeneration));
    let (ids, generation) = world.settled(vec![a_join(""), a_join("")]);
    let mut may = |who: Membership| world.coordinator.may_commit(&who, world.now);
    assert_eq!(may(simple), Err(LogRefusal::UnknownMember));
    assert_eq!(may(who(&ids[0], generation)), Ok(()));
    assert_eq!(may(who(&ids[0], generation - 1)), Err(LogRefusal::StaleGeneration));
    assert_eq!(may(who(&ids[0], -1)), Err(LogRefusal::StaleGeneration));
    assert_eq!(may(who("stranger", generation)), Err(LogRefusal::UnknownMember));
    assert_eq!(may(who("", generation)), Err(LogRefusal::UnknownMember));
    assert_eq!(may(Membership { group: String::new(), ..who("", -1) }), Err(LogRefusal::InvalidGroup));
    world.join(a_join(&ids[0]));
    let preparing = world.coordinator.may_commit(&who(&ids[1], generation), world.now);
    assert_eq!(preparing, Ok(()), "before it joins again a member commits what it has done");
    world.join(a_join(&ids[1]));
    assert_eq!(world.coordinator.describe("g").phase, GroupPhase::CompletingRebalance);
    let completing = world.coordinator.may_commit(&who(&ids[1], generation + 1), world.now);
    assert_eq!(completing, Err(LogRefusal::Rebalancing));
    let late = world.coordinator.may_commit(&who(&ids[1], generation), world.now);
    assert_eq!(late, Err(LogRefusal::StaleGeneration));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut world = world();
    let (ids, generation) = world.settled(vec![a_join("")]);
    for _ in 0..5 {
        world.pass(9_000);
        assert_eq!(world.coordinator.may_commit(&who(&ids[0], generation), world.now), Ok(()));
    }
    world.pass(9_999);
    assert!(world.coordinator.exists("g"));
    world.pass(1);
    assert!(!world.coordinator.exists("g"));
}
