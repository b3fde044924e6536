//! Random schedules of clients that behave, that die and that come back, with the promises checked at every step:
//! a partition has at most one owner per generation, every request is answered or given up, and when the clients have
//! calmed down, every group is settled within a bound.

use std::collections::BTreeMap;

use base::{Now, Prng};
use model::LogRefusal;
use model::membership::{GroupAnswer, GroupPhase, Join, Membership, Sync};
use proptest::prelude::*;

use super::fixture::{REBALANCE_MS, SESSION_MS};
use crate::{Coordinator, Settings};

const PARTITIONS: usize = 8;

/// What a client is waiting for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Out,
    Joining(u64),
    Syncing(u64),
    In,
}

/// A client that does what a Kafka consumer does.
#[derive(Debug)]
struct Client {
    instance: Option<String>,
    member: String,
    generation: i32,
    state: State,
    beat_us: u64,
    owned: Vec<u8>,
}

struct Run {
    coordinator: Coordinator,
    now: Now,
    prng: Prng,
    clients: Vec<Client>,
    ticket: u64,
    /// Who was given a partition in a generation.
    owners: BTreeMap<(i32, u8), String>,
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut prng = Prng::new(seed);
        let instance = |number: u64| number.is_multiple_of(3).then(|| format!("i{number}"));
        let client = |number| Client {
            instance: instance(number),
            member: String::new(),
            generation: -1,
            state: State::Out,
            beat_us: 0,
            owned: Vec::new(),
        };
        let clients = (0..1 + prng.below(6)).map(client).collect();
        let delays = [0, 500, 3_000];
        let settings = Settings { initial_delay_ms: *prng.pick(&delays), ..Settings::default() };
        let coordinator = Coordinator::new(settings, seed);
        Run { coordinator, now: Now::default(), prng, clients, ticket: 0, owners: BTreeMap::new() }
    }

    fn who(&self, at: usize) -> Membership {
        let client = &self.clients[at];
        Membership {
            group: "g".into(),
            generation: client.generation,
            member: client.member.clone(),
            instance: client.instance.clone(),
        }
    }

    fn join(&mut self, at: usize) {
        self.ticket += 1;
        let client = &mut self.clients[at];
        client.state = State::Joining(self.ticket);
        let join = Join {
            group: "g".into(),
            member: client.member.clone(),
            instance: client.instance.clone(),
            client_id: "c".into(),
            client_host: String::new(),
            session_timeout_ms: SESSION_MS,
            rebalance_timeout_ms: REBALANCE_MS,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), vec![self.prng.below(2) as u8])],
            id_required: true,
            can_skip_assignment: self.prng.chance(1, 2),
        };
        self.coordinator.join(self.ticket, join, self.now);
    }

    fn sync(&mut self, at: usize, assignments: Vec<(String, Vec<u8>)>) {
        self.ticket += 1;
        self.clients[at].state = State::Syncing(self.ticket);
        let sync = Sync { who: self.who(at), assignments, ..Sync::default() };
        self.coordinator.sync(self.ticket, sync, self.now);
    }

    fn answers(&mut self) {
        while let Some((ticket, answer)) = self.coordinator.poll() {
            let waits = |client: &Client| {
                client.state == State::Joining(ticket) || client.state == State::Syncing(ticket)
            };
            // Answers to clients that have died are lost.
            let Some(at) = self.clients.iter().position(waits) else { continue };
            match answer {
                GroupAnswer::Joined(Ok(joined)) => {
                    assert!(joined.generation >= self.clients[at].generation, "generations only grow");
                    self.clients[at].member = joined.member.clone();
                    self.clients[at].generation = joined.generation;
                    let leads = joined.leader == joined.member && !joined.skip_assignment;
                    let mut assignments: Vec<(String, Vec<u8>)> =
                        joined.members.into_iter().map(|member| (member.member, Vec::new())).collect();
                    assert_eq!(leads, !assignments.is_empty() && !joined.skip_assignment);
                    if joined.skip_assignment {
                        assignments.clear();
                    }
                    for partition in 0..PARTITIONS {
                        let count = assignments.len().max(1);
                        if let Some((_, owned)) = assignments.get_mut(partition % count) {
                            owned.push(partition as u8);
                        }
                    }
                    self.sync(at, assignments);
                }
                GroupAnswer::Synced(Ok(synced)) => {
                    self.own(at, synced.assignment);
                    self.clients[at].state = State::In;
                    self.clients[at].beat_us = self.now.mono_us;
                }
                GroupAnswer::Joined(Err(refusal)) | GroupAnswer::Synced(Err(refusal)) => {
                    self.refused(at, refusal)
                }
                other => panic!("no answer to a join or a sync: {other:?}"),
            }
        }
    }

    /// A partition has at most one owner per generation. A static member goes on where its former self ended.
    fn own(&mut self, at: usize, owned: Vec<u8>) {
        let client = &mut self.clients[at];
        let identity = client.instance.clone().unwrap_or_else(|| client.member.clone());
        for partition in &owned {
            let owner =
                self.owners.entry((client.generation, *partition)).or_insert_with(|| identity.clone());
            assert_eq!(*owner, identity, "partition {partition} in generation {}", client.generation);
        }
        client.owned = owned;
    }

    fn refused(&mut self, at: usize, refusal: LogRefusal) {
        match refusal {
            LogRefusal::MemberIdRequired(id) => self.clients[at].member = id,
            LogRefusal::Rebalancing | LogRefusal::StaleGeneration => (),
            LogRefusal::UnknownMember => self.clients[at].member.clear(),
            // Its place was taken by a later start of itself: that one has given up on this answer.
            LogRefusal::FencedMember => self.clients[at].member.clear(),
            other => panic!("a client that behaves is not refused: {other:?}"),
        }
        self.join(at);
    }

    fn heartbeat(&mut self, at: usize) {
        self.ticket += 1;
        self.clients[at].beat_us = self.now.mono_us;
        self.coordinator.heartbeat(self.ticket, &self.who(at), self.now);
        let Some((ticket, GroupAnswer::Done(result))) = self.coordinator.poll() else {
            panic!("a heartbeat is answered at once")
        };
        assert_eq!(ticket, self.ticket);
        match result {
            Ok(()) => self.check_commit(at),
            Err(refusal) => self.refused(at, refusal),
        }
        self.answers();
    }

    /// Whoever is in the current generation may commit, and nobody of an older one.
    fn check_commit(&mut self, at: usize) {
        let who = self.who(at);
        let older = Membership { generation: who.generation - 1, ..who.clone() };
        let refused = self.coordinator.may_commit(&older, self.now);
        assert!(matches!(refused, Err(LogRefusal::StaleGeneration)), "{refused:?}");
        if self.coordinator.describe("g").phase == GroupPhase::Stable {
            assert_eq!(self.coordinator.may_commit(&who, self.now), Ok(()));
        }
    }

    /// Something happens to a client.
    fn disturb(&mut self) {
        let at = self.prng.below(self.clients.len() as u64) as usize;
        match (self.prng.below(5), self.clients[at].state) {
            (0 | 1, State::Out) => self.join(at),
            (0, _) => self.die(at, true),
            (1, _) => self.die(at, false),
            (2, State::In) => {
                let member = (self.clients[at].member.clone(), self.clients[at].instance.clone());
                self.ticket += 1;
                self.coordinator.leave(self.ticket, "g", &[member], self.now);
                self.die(at, false);
                self.clients[at].member.clear();
            }
            (3, State::In) => self.join(at),
            _ => (),
        }
        self.answers();
    }

    /// The client is gone; its connection may be known to be, too. Coming back, it may still know its id.
    fn die(&mut self, at: usize, noticed: bool) {
        if let (State::Joining(ticket) | State::Syncing(ticket), true) = (self.clients[at].state, noticed) {
            self.coordinator.cancel(ticket);
        }
        self.clients[at].state = State::Out;
        if self.prng.chance(2, 3) {
            self.clients[at].member.clear();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        if self.coordinator.next_deadline().is_some_and(|deadline| deadline <= self.now.mono_us) {
            self.coordinator.tick(self.now);
        }
        self.answers();
        for at in 0..self.clients.len() {
            let due = self.now.mono_us - self.clients[at].beat_us >= 3_000_000;
            if self.clients[at].state == State::In && due {
                self.heartbeat(at);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let group = self.coordinator.describe("g");
        let all_in = self.clients.iter().all(|client| client.state == State::In);
        all_in && group.phase == GroupPhase::Stable && group.members.len() == self.clients.len()
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            self.disturb();
            let ms = *self.prng.pick(&[0, 10, 700, 3_000, 11_000]);
            self.pass(ms);
        }
        for at in 0..self.clients.len() {
            if self.clients[at].state == State::Out {
                self.join(at);
            }
        }
        self.answers();
        // New members that died while they waited are there for five minutes; all else is over sooner.
        let mut seconds = 0;
        while !self.is_settled() {
            self.pass(1_000);
            seconds += 1;
            assert!(seconds < 600, "not settled: {:?} {:?}", self.coordinator.describe("g"), self.clients);
        }
        let mut owned: Vec<u8> = self.clients.iter().flat_map(|client| client.owned.clone()).collect();
        owned.sort_unstable();
        assert_eq!(owned, (0..PARTITIONS as u8).collect::<Vec<_>>(), "everything is owned once");
        assert_eq!(self.coordinator.waiting(), 0, "nobody waits in a settled group");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn any_schedule_keeps_its_promises(seed in any::<u64>(), steps in 1..60u32) {
        Run::new(seed).run(steps);
    }
}
