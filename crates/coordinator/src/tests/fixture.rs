//! A coordinator with a clock, and short words for what members say.

use base::Now;
use model::LogRefusal;
use model::membership::{GroupAnswer, Join, Joined, Membership, Sync, Synced};

use crate::{Coordinator, Settings};

pub(super) const SESSION_MS: u32 = 10_000;
pub(super) const REBALANCE_MS: u32 = 60_000;

/// A coordinator, the time, and the answers that have come.
pub(super) struct World {
    pub coordinator: Coordinator,
    pub now: Now,
    answers: Vec<(u64, GroupAnswer)>,
    ticket: u64,
}

pub(super) fn world() -> World {
    world_with(Settings::default())
}

pub(super) fn world_with(settings: Settings) -> World {
    World { coordinator: Coordinator::new(settings, 1), now: Now::default(), answers: Vec::new(), ticket: 0 }
}

/// A join of the group `g` that knows the ways `range` and `sticky`.
pub(super) fn a_join(member: &str) -> Join {
    Join {
        group: "g".into(),
        member: member.into(),
        client_id: "client".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), b"r".to_vec()), ("sticky".into(), b"s".to_vec())],
        ..Join::default()
    }
}

pub(super) fn static_join(instance: &str) -> Join {
    Join { instance: Some(instance.into()), ..a_join("") }
}

pub(super) fn who(member: &str, generation: i32) -> Membership {
    Membership { group: "g".into(), generation, member: member.into(), instance: None }
}

impl World {
    /// Asks and returns the ticket.
    pub fn join(&mut self, join: Join) -> u64 {
        self.ticket += 1;
        self.coordinator.join(self.ticket, join, self.now);
        self.collect();
        self.ticket
    }

    pub fn sync(&mut self, who: Membership, assignments: &[(&str, &str)]) -> u64 {
        let assignments =
            assignments.iter().map(|(id, bytes)| (id.to_string(), bytes.as_bytes().to_vec())).collect();
        self.sync_as(Sync { who, protocol_type: None, protocol: None, assignments })
    }

    pub fn sync_as(&mut self, sync: Sync) -> u64 {
        self.ticket += 1;
        self.coordinator.sync(self.ticket, sync, self.now);
        self.collect();
        self.ticket
    }

    pub fn heartbeat(&mut self, who: &Membership) -> Result<(), LogRefusal> {
        self.ticket += 1;
        self.coordinator.heartbeat(self.ticket, who, self.now);
        self.collect();
        match self.answer(self.ticket) {
            Some(GroupAnswer::Done(result)) => result,
            other => panic!("a heartbeat is answered at once: {other:?}"),
        }
    }

    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Result<(), LogRefusal>> {
        self.ticket += 1;
        let members: Vec<_> =
            members.iter().map(|(id, instance)| (id.to_string(), instance.map(str::to_owned))).collect();
        self.coordinator.leave(self.ticket, "g", &members, self.now);
        self.collect();
        match self.answer(self.ticket) {
            Some(GroupAnswer::Left(Ok(results))) => results,
            other => panic!("leaving is answered at once: {other:?}"),
        }
    }

    fn collect(&mut self) {
        while let Some(answer) = self.coordinator.poll() {
            self.answers.push(answer);
        }
    }

    pub fn answer(&mut self, ticket: u64) -> Option<GroupAnswer> {
        self.collect();
        let at = self.answers.iter().position(|(answered, _)| *answered == ticket)?;
        Some(self.answers.remove(at).1)
    }

    pub fn joined(&mut self, ticket: u64) -> Joined {
        match self.answer(ticket) {
            Some(GroupAnswer::Joined(Ok(joined))) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    pub fn not_joined(&mut self, ticket: u64) -> LogRefusal {
        match self.answer(ticket) {
            Some(GroupAnswer::Joined(Err(refusal))) => refusal,
            other => panic!("joined: {other:?}"),
        }
    }

    pub fn synced(&mut self, ticket: u64) -> Synced {
        match self.answer(ticket) {
            Some(GroupAnswer::Synced(Ok(synced))) => synced,
            other => panic!("not synced: {other:?}"),
        }
    }

    pub fn not_synced(&mut self, ticket: u64) -> LogRefusal {
        match self.answer(ticket) {
            Some(GroupAnswer::Synced(Err(refusal))) => refusal,
            other => panic!("synced: {other:?}"),
        }
    }

    /// Lets time pass, with a look at every deadline on the way.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now.mono_us + ms * 1000;
        while let Some(deadline) = self.coordinator.next_deadline().filter(|deadline| *deadline <= end) {
            self.now.mono_us = self.now.mono_us.max(deadline);
            self.coordinator.tick(self.now);
        }
        self.now.mono_us = end;
        self.coordinator.tick(self.now);
        self.collect();
    }

    /// A group of these members, the first of them its leader, each with an assignment; returns ids and generation.
    pub fn settled(&mut self, joins: Vec<Join>) -> (Vec<String>, i32) {
        let tickets: Vec<u64> = joins.iter().cloned().map(|join| self.join(join)).collect();
        self.pass(1000);
        let joined: Vec<Joined> = tickets.into_iter().map(|ticket| self.joined(ticket)).collect();
        let ids: Vec<String> = joined.iter().map(|joined| joined.member.clone()).collect();
        let generation = joined[0].generation;
        assert!(joined.iter().all(|one| one.leader == ids[0] && one.generation == generation));
        self.share(&joins.into_iter().map(|join| join.instance).collect::<Vec<_>>(), &ids, generation);
        (ids, generation)
    }

    /// Everybody fetches an assignment that bears the member's own id.
    pub fn share(&mut self, instances: &[Option<String>], ids: &[String], generation: i32) {
        let assignments: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
        let mut tickets = Vec::new();
        for (id, instance) in ids.iter().zip(instances).rev() {
            let brought = if *id == ids[0] { assignments.as_slice() } else { &[] };
            tickets
                .push(self.sync(Membership { instance: instance.clone(), ..who(id, generation) }, brought));
        }
        for (ticket, id) in tickets.into_iter().zip(ids.iter().rev()) {
            assert_eq!(self.synced(ticket).assignment, id.as_bytes());
        }
    }
}
