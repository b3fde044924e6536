//! One run: a node is started, used, broken and started again, and in the end everything is taken out and counted.
//!
//! In: a seed. Out: the first broken promise, a digest of all that happened, figures.

use base::Prng;

use crate::client::{Channel, Client, DRAINING, Role, Routes, Stagehand};
use crate::kafka::{Acts, Around, Side};
use crate::ledger::{Ledger, MessageId};
use crate::node::Node;
use crate::plan::Plan;
use crate::tally::Tally;

/// Turns within which a sound node must serve, answer or hand over what it has.
const PATIENCE: u64 = 60_000;
/// Bytes of a ring beyond which a run does not evacuate much.
const RARELY_EVACUATED: u64 = 1 << 20;
/// Bytes of a ring that nothing but a nearly full disk has evacuated.
const NEVER_EVACUATED: u64 = 1 << 30;
/// Most microseconds that pass at once while a consumer group settles.
const SETTLING_LEAP_US: u64 = 300_000;
/// Within so many microseconds all shards know of the alarm, or of its end.
const NOTICED_US: u64 = 1_000_000;
/// So long a group that has settled stays as it is.
const SETTLED_US: u64 = 1_000_000;

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first broken promise.
    pub broken: Option<String>,
    /// Equal for equal seeds.
    pub trace: u64,
    /// Figures.
    pub tally: Tally,
}

/// A run under way.
pub struct Life {
    plan: Plan,
    prng: Prng,
    node: Node,
    ledger: Ledger,
    routes: Routes,
    clients: Vec<Client>,
    declared: bool,
    kafka: Option<Side>,
    tally: Tally,
    numbers: u64,
    /// Segments that the node has adopted since its start.
    adopted: u64,
    is_loud: bool,
}

/// Ends a run early: what is broken stands in the ledger.
struct Broken;

impl Life {
    /// The run of a seed; `loud` tells its story on standard error.
    pub fn new(seed: u64, password_hash: &str, is_loud: bool) -> Life {
        let mut prng = Prng::new(seed);
        let plan = Plan::draw(&mut prng);
        if is_loud {
            eprintln!("{plan:#?}");
        }
        let routes = Routes::draw(plan.queues, &mut prng);
        let cuts = Prng::new(prng.draw());
        let mut node = Node::new(&plan, password_hash, cuts);
        node.is_loud = is_loud;
        let mut ledger = Ledger::default();
        ledger.is_loud = is_loud;
        ledger.is_lonely(plan.queues - 1);
        if plan.faults.scarce {
            node.disk.leave_free(2 * plan.free_bytes_min());
        }
        let kafka = plan.kafka.as_ref().map(|plan| Side::new(plan, is_loud));
        let (clients, tally) = (Vec::new(), Tally::default());
        Life {
            plan,
            prng,
            node,
            ledger,
            routes,
            clients,
            declared: false,
            kafka,
            tally,
            numbers: 0,
            adopted: 0,
            is_loud,
        }
    }

    /// Lives it.
    pub fn run(mut self) -> Outcome {
        let _ = self.live();
        self.sum_up()
    }

    fn live(&mut self) -> Result<(), Broken> {
        for _ in 0..self.plan.boots {
            self.start()?;
            self.work()?;
            self.end()?;
        }
        self.node.disk.errors.heal();
        self.node.disk.restore();
        if self.prng.chance(1, 2) {
            // What takes out and reads goes on, and what makes room.
            self.fill_up();
        }
        self.start()?;
        self.empty_all()?;
        self.audit_kafka()?;
        self.crash();
        self.start()?;
        self.find_nothing()?;
        self.audit_kafka()
    }

    fn say(&self, what: &str) {
        if self.is_loud {
            eprintln!("{} {what}", self.node.now.mono_us);
        }
    }

    fn fail(&mut self, invariant: &str, what: String) -> Result<(), Broken> {
        self.ledger.fail(invariant, what);
        Err(Broken)
    }

    fn check(&mut self) -> Result<(), Broken> {
        if std::mem::take(&mut self.node.disk.has_run_out) {
            return self.fail("L12", "the node ran out of room although it holds publishers back".to_owned());
        }
        if self.ledger.broken.is_some() { Err(Broken) } else { Ok(()) }
    }

    /// Starts the node and waits until it serves; with damage it may refuse or halt, and then serves once healed.
    fn start(&mut self) -> Result<(), Broken> {
        for _ in 0..4 {
            let before = self.node.disk.digest();
            self.tally.starts += 1;
            let refused = self.node.start(&mut self.prng).err();
            if let Some(why) = refused {
                self.say(&format!("refuses to start: {why}"));
                if self.node.disk.atlas.is_empty() {
                    return self.fail("L10", format!("a sound disk is refused: {why}"));
                }
                if self.node.disk.digest() != before {
                    return self.fail("L17", "a refused start changed the disk".to_owned());
                }
                self.tally.refused_starts += 1;
                self.node.disk.restore();
                continue;
            }
            if self.becomes_ready()? {
                self.ledger.restarted();
                self.say("serves");
                return Ok(());
            }
            self.crash();
            self.node.disk.restore();
        }
        self.fail("L10", "four starts were not enough".to_owned())
    }

    fn becomes_ready(&mut self) -> Result<bool, Broken> {
        for _ in 0..PATIENCE {
            if self.node.is_ready() {
                return Ok(true);
            }
            self.step();
            if self.has_halted()? {
                return Ok(false);
            }
        }
        self.fail("L10", "the node does not become ready".to_owned())?;
        Ok(false)
    }

    fn step(&mut self) {
        self.node.step(&mut self.prng);
    }

    /// Whether the node has stopped, which it must have had a reason to; and it must have if its disk failed.
    fn has_halted(&mut self) -> Result<bool, Broken> {
        let failed = !self.node.disk.errors.told.is_empty();
        match (self.node.halted.clone(), failed) {
            (None, true) => {
                self.fail("L1", "a failed write or sync did not stop the node".to_owned())?;
                Ok(true)
            }
            (Some(why), false) if self.node.disk.atlas.is_empty() => {
                self.fail("L10", format!("the node stopped on a sound disk: {why}"))?;
                Ok(true)
            }
            (Some(why), _) => {
                self.say(&format!("halts: {why}"));
                self.tally.halts += 1;
                Ok(true)
            }
            (None, false) => Ok(false),
        }
    }

    /// One boot's work.
    fn work(&mut self) -> Result<(), Broken> {
        self.hire();
        let turns = 1 + self.prng.below(self.plan.turns);
        let sound = !self.node.disk.errors.are_coming() && self.node.disk.atlas.is_empty();
        if sound && self.prng.chance(1, 3) {
            self.group_settles()?;
        }
        for _ in 0..turns {
            self.step();
            self.spoil();
            if self.has_halted()? {
                return self.nothing_is_confirmed();
            }
            self.let_act(true);
            self.check()?;
            if self.is_cut_short() {
                return Ok(());
            }
        }
        let sound = !self.node.disk.errors.are_coming() && self.node.disk.atlas.is_empty();
        if sound && self.prng.chance(1, 2) {
            self.group_settles()?;
        }
        if sound && self.plan.faults.scarce && self.prng.chance(1, 2) {
            self.goes_on_while_full()?;
        }
        if sound && self.prng.chance(1, 3) { self.everything_is_answered() } else { Ok(()) }
    }

    /// Whether the boot ends right now: while old messages are on their way into runs, or as a segment was just adopted
    /// and what was named a moment ago must be there.
    fn is_cut_short(&mut self) -> bool {
        if self.plan.ring_bytes_max > RARELY_EVACUATED {
            return false;
        }
        let adopted = self.node.counter("log_adopted_segments");
        let is_new = std::mem::replace(&mut self.adopted, adopted) < adopted;
        let (is_cut_behind, is_cut_within) = (
            is_new && self.prng.chance(1, self.plan.cut_one_in),
            self.node.disk.moves() && self.prng.chance(1, 15 * self.plan.cut_one_in),
        );
        self.tally.cut_behind_adoptions += u64::from(is_cut_behind);
        self.tally.cut_within_moves += u64::from(is_cut_within);
        is_cut_behind || is_cut_within
    }

    fn hire(&mut self) {
        self.clients.clear();
        if !self.declared {
            self.add_client(Role::Declarer);
        }
        for worker in 0..self.plan.workers {
            let (publishes, consumes) = match worker {
                0 => (true, self.prng.chance(1, 2)),
                1 => (self.prng.chance(1, 2), true),
                _ => *self.prng.pick(&[(true, false), (false, true), (true, true)]),
            };
            self.add_client(Role::Worker { publishes, consumes });
        }
        let consumes = self.prng.chance(1, 2);
        self.add_client(Role::Loner { consumes });
        if let Some(kafka) = &mut self.kafka {
            kafka.hire(&mut self.prng);
        }
    }

    fn add_client(&mut self, role: Role) {
        self.numbers += 1;
        self.clients.push(Client::new(self.numbers, role));
    }

    fn let_act(&mut self, acts: bool) {
        self.let_clients_act(acts);
        self.let_kafka_act(if acts { Acts::Anything } else { Acts::Nothing });
    }

    fn let_clients_act(&mut self, acts: bool) {
        let habits = self.plan.habits;
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            client.read(&mut self.node, &mut self.ledger);
            let declares = client.role == Role::Declarer;
            self.declared |= declares && client.is_done;
            if acts && (declares || self.declared) && self.prng.chance(2, 3) {
                let plan = &self.plan;
                let (routes, ledger, prng) = (&self.routes, &mut self.ledger, &mut self.prng);
                if client.link.is_none() && !client.is_done {
                    client.connect(&mut self.node, prng);
                } else {
                    client.act(&mut Stagehand { plan, routes, ledger, prng });
                }
            }
            client.flush(&mut self.node);
            if acts && !declares && self.prng.chance(habits.disconnect, 400) {
                client.leave(&mut self.node, &mut self.ledger, &mut self.prng);
            }
        }
    }

    fn let_kafka_act(&mut self, acts: Acts) {
        let Some(kafka) = &mut self.kafka else { return };
        let is_damaged = !self.node.disk.atlas.is_empty();
        let mut around = Around { node: &mut self.node, prng: &mut self.prng, is_damaged };
        if let Err((invariant, what)) = kafka.turn(acts, &mut around) {
            self.ledger.fail(invariant, what);
        }
    }

    fn is_quiet(&self) -> bool {
        self.clients.iter().all(Client::is_quiet) && self.kafka.as_ref().is_none_or(Side::is_quiet)
    }

    /// Promises of durability that were given so far.
    fn promises(&self) -> u64 {
        self.ledger.seen.confirmed + self.kafka.as_ref().map_or(0, |kafka| kafka.seen().acked)
    }

    /// Reads everything of Kafka's and compares it with what must be there.
    fn audit_kafka(&mut self) -> Result<(), Broken> {
        let Some(kafka) = &mut self.kafka else { return Ok(()) };
        kafka.begin_audit();
        for turn in 0..=PATIENCE {
            if self.kafka.as_ref().is_none_or(Side::is_audited) {
                break;
            }
            if turn == PATIENCE {
                return self.fail("L10", "what is in Kafka's partitions cannot be read".to_owned());
            }
            self.step();
            if self.has_halted()? {
                return self.fail("L10", "the node halts while Kafka's partitions are read".to_owned());
            }
            self.let_act(true);
            self.check()?;
        }
        match self.kafka.as_mut().map(|kafka| kafka.end_audit(&mut self.node)) {
            Some(Err((invariant, what))) => self.fail(invariant, what),
            _ => Ok(()),
        }
    }

    /// Perhaps something goes wrong now.
    fn spoil(&mut self) {
        let faults = self.plan.faults;
        let rarely = |prng: &mut Prng, is_on: bool| is_on && prng.chance(1, 100);
        let prng = &mut self.prng;
        if rarely(prng, faults.flips) {
            self.node.disk.flip(prng);
        }
        if rarely(prng, faults.misdirects) {
            self.node.disk.misdirect(prng);
        }
        let shard = prng.below(u64::from(self.plan.shards)) as u16;
        if rarely(prng, faults.write_errors) {
            self.node.disk.errors.write_of = Some(shard);
        }
        if rarely(prng, faults.put_errors) {
            self.node.disk.errors.put_of = Some(shard);
        }
        if rarely(prng, faults.full) {
            self.node.disk.errors.is_full = true;
        }
        if rarely(prng, faults.scarce) {
            match prng.chance(1, 2) {
                true => self.fill_up(),
                false => self.make_room(),
            }
        }
        let prng = &mut self.prng;
        if rarely(prng, faults.wall_jumps) {
            self.tally.wall_jumps += 1;
            // The node may have used the time that it was.
            let now_ms = self.node.now.wall_ms;
            self.kafka.iter_mut().for_each(|kafka| kafka.see_clock(now_ms));
            let jump = prng.below(7_200_000);
            let wall = &mut self.node.now.wall_ms;
            *wall = if prng.chance(1, 2) { *wall + jump } else { wall.saturating_sub(jump) };
        }
    }

    /// The node has halted. Where one log holds everything, no publish is confirmed any more.
    fn nothing_is_confirmed(&mut self) -> Result<(), Broken> {
        if self.plan.shards != 1 || self.node.disk.errors.told.is_empty() {
            return Ok(());
        }
        self.node.drain_sockets();
        self.let_act(true);
        self.check()?;
        let before = self.promises();
        for _ in 0..30 {
            self.step();
            self.let_act(true);
        }
        match self.promises() - before {
            0 => self.check(),
            late => self.fail("L1", format!("{late} publishes were confirmed after a failed write or sync")),
        }
    }

    /// Members of the consumer group stay: the group settles, and a static member that begins anew changes nothing.
    fn group_settles(&mut self) -> Result<(), Broken> {
        if !self.kafka.as_ref().is_some_and(Side::has_group) {
            return Ok(());
        }
        if !self.until_settled()? || !self.kafka.as_mut().is_some_and(Side::restart_static) {
            return Ok(());
        }
        self.until_settled().map(drop)
    }

    /// False where the node has halted.
    fn until_settled(&mut self) -> Result<bool, Broken> {
        let bound_us = self.kafka.as_ref().map_or(0, Side::settles_within_us);
        let began_us = self.node.now.mono_us;
        let mut settled_us = None;
        while self.node.now.mono_us < began_us + bound_us {
            self.node.rest(SETTLING_LEAP_US, &mut self.prng);
            if self.has_halted()? {
                return Ok(false);
            }
            self.let_clients_act(false);
            self.let_kafka_act(Acts::Settles);
            self.check()?;
            if self.is_cut_short() {
                return Ok(false);
            }
            let now_us = self.node.now.mono_us;
            let is_settled = !self.node.has_ghosts() && self.kafka.as_ref().is_some_and(Side::has_settled);
            settled_us = is_settled.then(|| settled_us.unwrap_or(now_us));
            if settled_us.is_some_and(|since| now_us - since > SETTLED_US) {
                return Ok(true);
            }
        }
        let (invariant, what) = self.kafka.as_ref().map(Side::unsettled).unwrap_or_default();
        self.fail(invariant, what).map(|()| false)
    }

    /// Others leave so little that publishers must be held back, where that is counted.
    fn fill_up(&mut self) {
        if self.plan.faults.scarce {
            self.tally.full += 1;
            let least = self.plan.free_bytes_min();
            self.node.disk.leave_free(least - 1 - self.prng.below(least / 8));
        }
    }

    /// Others leave enough again.
    fn make_room(&mut self) {
        if self.plan.faults.scarce {
            let least = self.plan.free_bytes_min();
            // More than it takes to go on, by as much as the node may write before it counts.
            self.node.disk.leave_free(least + least / 2 + self.prng.below(2 * least));
        }
    }

    /// The disk becomes nearly full: whoever does not publish is answered all the same, and once there is room again
    /// publishers go on.
    fn goes_on_while_full(&mut self) -> Result<(), Broken> {
        self.fill_up();
        if !self.until_alarmed(true)? {
            return Ok(());
        }
        for _ in 0..self.prng.below(60) {
            self.step();
            if self.has_halted()? {
                return Ok(());
            }
            self.let_act(true);
            self.check()?;
        }
        for turn in 0..=PATIENCE {
            let mut takers = self.clients.iter().filter(|client| !client.role.publishes());
            let is_answered = self.kafka.as_ref().is_none_or(Side::reads_are_answered);
            if is_answered && takers.all(Client::is_quiet) {
                break;
            }
            if turn == PATIENCE {
                return self.fail("L10", "who does not publish waits while the disk is full".to_owned());
            }
            self.step();
            if self.has_halted()? {
                return Ok(());
            }
            self.let_act(false);
            self.check()?;
        }
        self.tally.lived_through_full += 1;
        self.make_room();
        if self.until_alarmed(false)? { self.everything_is_answered() } else { Ok(()) }
    }

    /// Waits until all shards hold publishers back, or none does; false where the node has halted.
    fn until_alarmed(&mut self, alarmed: bool) -> Result<bool, Broken> {
        let began_us = self.node.now.mono_us;
        while self.node.now.mono_us < began_us + NOTICED_US {
            if if alarmed { self.node.holds_back().is_some() } else { !self.node.is_alarmed() } {
                return Ok(true);
            }
            self.step();
            if self.has_halted()? {
                return Ok(false);
            }
            self.let_act(true);
            self.check()?;
        }
        self.fail("L10", format!("it is not noticed that the alarm is to be {alarmed}")).map(|()| false)
    }

    /// Nobody wants anything new: everything asked for is answered within a bound.
    fn everything_is_answered(&mut self) -> Result<(), Broken> {
        self.make_room();
        for _ in 0..PATIENCE {
            if self.is_quiet() || self.is_cut_short() {
                return Ok(());
            }
            self.step();
            if self.has_halted()? {
                return Ok(());
            }
            self.let_act(false);
            self.check()?;
        }
        let mut waits: String = self.clients.iter().map(Client::waits_for).collect();
        self.kafka.iter().for_each(|kafka| waits.push_str(&kafka.waits_for()));
        self.fail("L10", format!("never answered:{waits}"))
    }

    /// The boot ends: in order, or as it comes; the disk may be damaged while the node is down.
    fn end(&mut self) -> Result<(), Broken> {
        let sound = self.node.halted.is_none() && !self.node.disk.errors.are_coming();
        if sound && self.node.disk.atlas.is_empty() && self.prng.chance(1, 4) {
            self.tally.orderly_ends += 1;
            self.make_room();
            self.kafka.iter_mut().for_each(|kafka| kafka.hang_up_all(&mut self.node));
            for _ in 0..PATIENCE {
                self.clients.iter_mut().for_each(|client| client.close(&mut self.ledger));
                self.let_act(false);
                self.check()?;
                if self.clients.iter().all(|client| !client.is_open() && client.link.is_none()) {
                    break;
                }
                self.step();
                if self.has_halted()? {
                    break;
                }
            }
        }
        self.crash();
        for _ in 0..2 {
            if self.plan.faults.flips && self.prng.chance(1, 3) {
                self.node.disk.flip(&mut self.prng);
            }
            if self.plan.faults.misdirects && self.prng.chance(1, 3) {
                self.node.disk.misdirect(&mut self.prng);
            }
        }
        self.check()
    }

    fn crash(&mut self) {
        self.say("crashes");
        self.tally.crashes += 1;
        self.tally.checkpoints += self.node.counter("checkpoints");
        let evacuated = self.node.counter("log_evacuated_bytes");
        self.tally.evacuated_bytes += evacuated;
        if self.plan.ring_bytes_max == NEVER_EVACUATED {
            self.tally.evacuated_for_room += evacuated;
        }
        self.tally.evacuating_boots += u64::from(evacuated > 0);
        self.tally.adopted_segments += self.node.counter("log_adopted_segments");
        self.tally.adopted_reused += self.node.counter("log_adopted_segments_reused");
        self.tally.punched_bytes += self.node.counter("log_punched_bytes");
        self.tally.kafka_rewritten += self.node.counter("compaction_rewritten_batches");
        self.node.crash(&mut self.prng);
        self.adopted = 0;
        self.clients.iter_mut().for_each(|client| client.lost(&mut self.ledger));
        self.clients.clear();
        self.kafka.iter_mut().for_each(Side::crashed);
    }

    /// Takes everything out of every queue and compares it with what must be there.
    fn empty_all(&mut self) -> Result<(), Broken> {
        if !self.declared {
            return Ok(());
        }
        self.add_client(Role::Drainer);
        self.until_open()?;
        for queue in 0..self.plan.queues {
            self.empty(queue)?;
        }
        self.clients.iter_mut().for_each(|client| client.close(&mut self.ledger));
        self.wait("the drainer's goodbye is not answered", |life| {
            life.clients.iter().all(|client| client.link.is_none())
        })
    }

    fn until_open(&mut self) -> Result<(), Broken> {
        self.wait("nobody is let in", |life| {
            let client = &mut life.clients[0];
            if client.link.is_none() {
                client.connect(&mut life.node, &mut life.prng);
            }
            client.is_open() && client.link.as_mut().is_some_and(|link| link.drains())
        })
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&mut Life) -> bool) -> Result<(), Broken> {
        for _ in 0..PATIENCE {
            if done(self) {
                self.let_act(false);
                return self.check();
            }
            self.step();
            if self.has_halted()? {
                return self.fail("L10", "the node halts at the end".to_owned());
            }
            self.let_act(false);
            self.check()?;
        }
        self.fail("L10", what.to_owned())
    }

    fn drain(&mut self) -> Option<&mut Channel> {
        self.clients[0].link.as_mut().map(|link| link.drain())
    }

    fn count(&mut self, queue: usize) -> Result<u32, Broken> {
        if let Some(link) = &mut self.clients[0].link {
            link.count(DRAINING, queue);
        }
        let mut counted = None;
        self.wait("a count is not answered", |life| {
            counted = life.drain().and_then(|channel| channel.counts.pop());
            counted.is_some()
        })?;
        Ok(counted.map_or(0, |(_, messages)| messages))
    }

    fn empty(&mut self, queue: usize) -> Result<(), Broken> {
        let owed = self.ledger.owed(queue);
        let count = self.count(queue)? as usize;
        if let Some(link) = &mut self.clients[0].link {
            link.drain().found.clear();
            link.subscribe(DRAINING, queue, (64, false), false);
        }
        let mut came = 0;
        let waited = self.wait("", |life| {
            let Life { clients, ledger, .. } = life;
            let Some(link) = &mut clients[0].link else { return false };
            link.settle_all(DRAINING, ledger);
            came = link.drain().found.len();
            came >= count && link.drain().is_quiet()
        });
        let found: Vec<MessageId> = self
            .drain()
            .map(|channel| channel.found.iter().map(|(_, message)| *message).collect())
            .unwrap_or_default();
        let lost: Vec<MessageId> = owed.iter().filter(|message| !found.contains(message)).copied().collect();
        if waited.is_err() {
            self.ledger.broken = self.ledger.broken.take().filter(|broken| broken != "L10: ");
            self.check()?;
        }
        if !lost.is_empty() {
            let text = format!("{} messages of q{queue} are lost, the first is {}", lost.len(), lost[0]);
            return self.fail("L1", text);
        }
        self.ledger.drained(queue, &found);
        self.check()?;
        self.tally.drained += found.len() as u64;
        let left = self.count(queue)?;
        if found.len() != count || left != 0 {
            let text =
                format!("q{queue} said it had {count} messages, {} came, and then {left}", found.len());
            return self.fail("Q2", text);
        }
        Ok(())
    }

    /// Everything was settled and the node started again: nothing may be left.
    fn find_nothing(&mut self) -> Result<(), Broken> {
        if !self.declared {
            return Ok(());
        }
        self.add_client(Role::Drainer);
        self.until_open()?;
        for queue in 0..self.plan.queues {
            let left = self.count(queue)?;
            if left != 0 {
                return self.fail("Q3", format!("{left} messages of q{queue} were settled and are back"));
            }
        }
        Ok(())
    }

    fn sum_up(self) -> Outcome {
        let (disk, seen, alarms) = (self.node.disk.tally, self.ledger.seen, self.node.alarms());
        let kafka = self.kafka.as_ref().map(Side::seen).unwrap_or_default();
        let tally = Tally {
            published: seen.published,
            confirmed: seen.confirmed,
            first_deliveries: seen.first,
            redeliveries: seen.redelivered,
            settled: seen.settled,
            known_durable: seen.settled_durably,
            given_back: seen.requeued,
            counted_failures: seen.counted,
            excused: seen.excused,
            alarmed: alarms.0,
            unblocked: alarms.1,
            told_of_blocked: seen.blocked,
            kafka_held_back: kafka.held_back,
            deleted_segments: disk.deleted_segments,
            disk_writes: disk.writes,
            disk_reads: disk.reads,
            prepared_segments: disk.prepared,
            recycled_segments: disk.recycled,
            queued_writes: disk.queued_writes,
            lost_writes: disk.lost_writes,
            torn_writes: disk.torn_writes,
            hidden_writes: disk.hidden_writes,
            cut_puts: disk.cut_puts,
            reordered: disk.reordered,
            failed_operations: disk.errors,
            flipped_bits: disk.flips,
            misdirected_writes: disk.misdirected,
            kafka_written: kafka.written,
            kafka_acked: kafka.acked,
            kafka_resent: kafka.resent,
            kafka_read: kafka.read,
            kafka_packed: kafka.packed,
            kafka_stamped: kafka.stamped,
            kafka_topics_deleted: kafka.topics_deleted,
            kafka_recreated: kafka.recreated,
            kafka_recreated_read: kafka.recreated_read,
            kafka_deleted_ids: kafka.deleted_ids,
            kafka_grown: kafka.grown,
            kafka_incremental: kafka.incremental,
            kafka_untold: kafka.untold,
            streams_confirmed: kafka.confirmed,
            streams_read: kafka.streamed,
            kafka_looked_up: kafka.looked_up,
            kafka_latest: kafka.latest,
            kafka_deleted: kafka.deleted,
            kafka_outlived: kafka.outlived,
            kafka_compacted: kafka.compacted,
            kafka_marks_gone: kafka.marks_gone,
            kafka_out_of_range: kafka.out_of_range,
            kafka_probes: kafka.probes,
            kafka_transactions_refused: kafka.transactions_refused,
            kafka_put_off: kafka.put_off,
            kafka_commits: kafka.commits,
            kafka_commits_refused: kafka.commits_refused,
            kafka_offsets_fetched: kafka.offsets_fetched,
            kafka_generations: kafka.generations,
            kafka_assigned: kafka.assigned,
            kafka_vanished: kafka.vanished,
            kafka_settled_groups: kafka.settled_groups,
            kafka_statics_kept: kafka.statics_kept,
            kafka_fenced: kafka.fenced,
            ..self.tally
        };
        Outcome { broken: self.ledger.broken, trace: self.node.trace, tally }
    }
}
