//! Random use of the machines, each step compared with the plain model.

use std::collections::BTreeMap;

use ::model::entry::COUNT;
use ::model::{
    ConnId, ConsumerId, EntryBuilder, Index, Lane, OpSequence, OperationKind, Origin, QueueId, Seq, ShardId,
};
use base::{Block, Pool, Prng};

use super::model::{Group, Told};
use super::record;
use crate::{
    ConsumerKey, Delivery, Effect, Fetched, Filled, Got, GroupMachine, Handed, LivePiece, Subscription, View,
    Wanted,
};

mod logs;

const QUEUES: u64 = 4;
const PLENTY: i64 = 1 << 40;

#[derive(Clone, Debug)]
struct Consumer {
    key: ConsumerKey,
    priority: i32,
    settled: bool,
    messages: Option<u32>,
    bytes: i64,
}

impl Consumer {
    fn has_credit(&self) -> bool {
        self.messages != Some(0) && self.bytes > 0
    }
}

/// One queue's delivery beside what the model expects of it.
struct Served {
    delivery: Delivery,
    /// Everybody, those with credit in the order of their turns.
    consumers: Vec<Consumer>,
    exclusive: bool,
}

/// An entry as it came, or what was needed of it when it was moved.
enum Stored {
    Whole(Block),
    Pieces(Vec<(LivePiece, Block, u32)>),
}

impl Stored {
    /// What somebody who moves entries answers to a queue.
    fn fetch(&self, queue: u64, wanted: Wanted) -> Fetched {
        let pieces = match self {
            Stored::Whole(block) => return Fetched::entry(block.clone()),
            Stored::Pieces(pieces) => pieces,
        };
        let of = |log: u64| {
            let named = pieces.iter().filter(move |(piece, ..)| (piece.log.0, piece.at) == (log, wanted.at));
            named
                .filter(|(piece, ..)| piece.ordinal <= wanted.ordinal)
                .max_by_key(|(piece, ..)| piece.ordinal)
        };
        let (piece, block, start) = of(queue).or_else(|| of(0)).expect("what is needed was named");
        let LivePiece { ordinal, length, start: entry_at, .. } = *piece;
        Fetched { block: block.clone(), entry_at, start: *start, ordinal, length }
    }
}

struct World {
    prng: Prng,
    pool: Pool,
    machine: GroupMachine,
    replica: GroupMachine,
    group: Group,
    index: u64,
    entries: BTreeMap<u64, Stored>,
    sent: Vec<Block>,
    origins: Vec<(Origin, u64)>,
    served: BTreeMap<u64, Served>,
    /// Delivered and not settled by their client, whoever led then.
    outstanding: Vec<(u64, u64)>,
    frozen: Option<(View, u64, Vec<u8>)>,
    consumers: u32,
    bodies: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let origins = (0..3).map(|shard| (Origin::new(::model::NodeId(1), ShardId(shard), 1), 1)).collect();
        World {
            prng: Prng::new(seed),
            pool: Pool::default(),
            machine: GroupMachine::new(),
            replica: GroupMachine::new(),
            group: Group::default(),
            index: 0,
            entries: BTreeMap::new(),
            sent: Vec::new(),
            origins,
            served: BTreeMap::new(),
            outstanding: Vec::new(),
            frozen: None,
            consumers: 0,
            bodies: 0,
        }
    }

    fn queue(&mut self) -> u64 {
        1 + self.prng.below(QUEUES)
    }

    fn some_queues(&mut self) -> Vec<QueueId> {
        let mut queues: Vec<QueueId> = (1..=QUEUES).map(QueueId).collect();
        queues.retain(|_| self.prng.chance(1, 3));
        queues.extend(self.some_logs());
        if queues.is_empty() {
            queues.push(QueueId(self.queue()));
        }
        queues
    }

    fn body(&mut self) -> Vec<u8> {
        self.bodies += 1;
        let mut body = self.bodies.to_le_bytes().to_vec();
        body.resize(8 + self.prng.below(40) as usize, 0xbb);
        body
    }

    /// An entry of a random origin with `fill`'s operations, behind an earlier entry at times.
    fn propose<R>(&mut self, fill: impl FnOnce(&mut World, &mut EntryBuilder) -> R) {
        let who = self.prng.below(self.origins.len() as u64) as usize;
        self.propose_as(who, fill);
    }

    fn propose_as<R>(&mut self, who: usize, fill: impl FnOnce(&mut World, &mut EntryBuilder) -> R) {
        let (origin, next) = self.origins[who];
        let mut builder = EntryBuilder::new(&self.pool, 0, origin, OpSequence(next));
        if !self.sent.is_empty() && self.prng.chance(1, 10) {
            let resent = self.prng.pick(&self.sent).clone();
            let count = ::model::Entry::decode(resent.as_slice()).unwrap().count;
            builder.merge(resent.as_slice(), count);
        }
        fill(self, &mut builder);
        self.origins[who].1 = builder.next_sequence().0;
        let time = self.prng.below(1 << 40);
        let block = builder.seal(time, 0);
        self.sent.push(block.clone());
        self.apply(block);
    }

    fn apply(&mut self, block: Block) {
        self.index += 1 + self.prng.below(2);
        let index = self.index;
        self.entries.insert(index, Stored::Whole(block.clone()));
        let (mut effects, mut other) = (Vec::new(), Vec::new());
        let before = self.machine.time_ms();
        self.machine.apply(Index(index), block.as_slice(), &mut effects).unwrap();
        self.replica.apply(Index(index), block.as_slice(), &mut other).unwrap();
        assert_eq!(effects, other, "replicas tell the same");
        assert!(self.machine.time_ms() >= before, "time never goes back");
        let expected = self.group.apply(index, block.as_slice());
        let told = Told::of(&effects);
        assert_eq!(told, expected);
        told.freed.iter().for_each(|freed| drop(self.entries.remove(freed)));
        self.pass_on(&effects);
        self.compare();
    }

    fn pass_on(&mut self, effects: &[Effect]) {
        for effect in effects {
            match *effect {
                Effect::Settled { queue, first, last, .. } => {
                    self.with(queue, |served| served.delivery.on_settled(first, last));
                }
                Effect::Returned { queue, first, last } => {
                    self.with(queue, |served| served.delivery.on_returned(first, last));
                }
                Effect::Deleted { queue, .. } => {
                    if let Some(mut served) = self.served.remove(&queue.0) {
                        assert_eq!(served.delivery.on_deleted().len(), served.consumers.len());
                    }
                    self.outstanding.retain(|held| held.0 != queue.0);
                }
                Effect::Configured { queue } if self.machine.queue(queue).is_none() => {}
                Effect::Configured { queue } if !self.served.contains_key(&queue.0) => {
                    self.serve(queue.0);
                }
                _ => {}
            }
        }
    }

    fn with(&mut self, queue: QueueId, act: impl FnOnce(&mut Served)) {
        if let Some(served) = self.served.get_mut(&queue.0) {
            act(served);
        }
    }

    fn serve(&mut self, queue: u64) {
        let state = self.machine.queue(QueueId(queue)).unwrap();
        let delivery = Delivery::new(state, &self.pool);
        self.served.insert(queue, Served { delivery, consumers: Vec::new(), exclusive: false });
    }

    /// Everything replicated, against the model; everything counted, against what is there.
    fn compare(&self) {
        assert_eq!(self.machine.hash(), self.replica.hash(), "replicas are equal");
        let kept: Vec<u64> =
            self.machine.kept_ranges().into_iter().flat_map(|(first, last)| first.0..=last.0).collect();
        assert!(kept.into_iter().eq(self.group.alive.iter().copied()), "exactly the needed entries are kept");
        assert_eq!(self.machine.queues().count(), self.group.queues.len());
        for (id, queue) in &self.group.queues {
            let state = self.machine.queue(QueueId(*id)).unwrap();
            assert_eq!(state.config(), queue.config);
            assert_eq!(state.handed_out().0, queue.handed_out);
            let counters = state.counters();
            assert_eq!(counters.enqueued, queue.messages.len() as u64);
            assert_eq!(counters.live, queue.live().count() as u64);
            assert_eq!(counters.enqueued, counters.live + counters.settled);
            assert_eq!(state.oldest().map(|seq| seq.0), queue.live().next().map(|(seq, _)| seq));
            for (seq, message) in queue.messages.iter().enumerate() {
                let seq = Seq(seq as u64);
                assert_eq!(state.is_live(seq), !message.settled, "queue {id} place {seq}");
                assert_eq!(state.failures(seq), if message.settled { 0 } else { message.failures });
            }
            assert!(!state.is_live(state.next()));
            self.compare_delivery(*id);
        }
        self.compare_logs();
        self.compare_offsets();
    }

    fn compare_delivery(&self, id: u64) {
        let (queue, served) = (&self.group.queues[&id], &self.served[&id]);
        let state = self.machine.queue(QueueId(id)).unwrap();
        let delivery = &served.delivery;
        let held = queue.live().filter(|(_, m)| m.held).count() as u64;
        assert_eq!(delivery.unacked(), held);
        assert_eq!(delivery.ready(state), queue.live().count() as u64 - held);
        assert_eq!(delivery.oldest_ready(state).map(|seq| seq.0), queue.first_ready());
        assert_eq!(delivery.has_credit(), served.consumers.iter().any(Consumer::has_credit));
        assert_eq!(delivery.consumer_count(), served.consumers.len());
        let ranges = delivery.ready_ranges(state);
        assert!(ranges.windows(2).all(|two| two[0].1 < two[1].0), "ranges ascend");
        for (seq, message) in queue.live() {
            let covered = ranges.iter().any(|(first, last)| first.0 <= seq && seq <= last.0);
            assert_eq!(covered, !message.held, "ready ranges cover what is ready and nothing held");
        }
    }

    fn step(&mut self) {
        if self.prng.chance(1, 3) {
            return self.step_logs();
        }
        match self.prng.below(102) {
            0..5 => self.configure(),
            5..30 => self.append(),
            30..35 => self.append_parts(),
            35..50 => self.settle_or_return(),
            50..52 => self.purge(),
            52..53 => self.delete(),
            53..57 => self.hand_out(),
            57..59 => self.misnumbered(),
            59..60 => self.reboot_origin(),
            60..66 => self.subscribe(),
            66..69 => self.unsubscribe(),
            69..75 => self.grant(),
            75..90 => self.fill(),
            90..94 => self.get(),
            94..96 => self.restart(),
            96..98 => self.replace_replica(),
            98..100 => self.freeze_or_thaw(),
            _ => self.move_entries(),
        }
    }

    /// Keeps of some entries only what is needed.
    fn move_entries(&mut self) {
        for (index, stored) in &mut self.entries {
            let Stored::Whole(entry) = stored else { continue };
            if self.prng.chance(1, 2) {
                continue;
            }
            let mut pieces = Vec::new();
            self.machine.live_pieces(Index(*index), entry.as_slice(), &mut pieces);
            let mut keys: Vec<_> = pieces.iter().map(|piece| (piece.log, piece.at, piece.ordinal)).collect();
            keys.sort_unstable();
            assert!(keys.windows(2).all(|two| two[0] < two[1]), "pieces can be told apart");
            let mut moved = Vec::new();
            for piece in pieces {
                let mut bytes = vec![0xee; self.prng.below(9) as usize];
                let start = bytes.len() as u32;
                let end = (piece.start + piece.length) as usize;
                assert!(piece.length > 0);
                bytes.extend_from_slice(&entry.as_slice()[piece.start as usize..end]);
                bytes.resize(bytes.len() + self.prng.below(3) as usize, 0xee);
                moved.push((piece, self.pool.block(&bytes), start));
            }
            *stored = Stored::Pieces(moved);
        }
    }

    fn configure(&mut self) {
        let id = QueueId(self.queue());
        let config = self.body();
        self.propose(|_, entry| entry.operation(OperationKind::Configure, 0, id, &config));
    }

    fn append(&mut self) {
        self.propose(|world, entry| {
            for _ in 0..1 + world.prng.below(4) {
                let queues = world.some_queues();
                let hand_out = world.prng.chance(1, 2);
                let count = if world.prng.chance(1, 10) { 100 } else { 1 + world.prng.below(4) };
                for _ in 0..count {
                    let body = world.body();
                    entry.append(&queues, hand_out, 0, &record(&body));
                }
            }
        });
    }

    fn append_parts(&mut self) {
        let mut row = Vec::new();
        record(&self.body()).encode(&mut row);
        let queues = self.some_queues();
        // One of six is given up in the middle; another may follow it.
        let given_up = self.prng.chance(1, 6).then(|| self.prng.below(row.len() as u64) as usize);
        let rows = if let Some(cut) = given_up { vec![row[..cut].to_vec(), row.clone()] } else { vec![row] };
        let mut parts = Vec::new();
        for row in &rows {
            let mut rest = &row[..];
            while !rest.is_empty() {
                let (part, more) = rest.split_at((4 + self.prng.below(30) as usize).min(rest.len()));
                parts.push(part);
                rest = more;
            }
        }
        self.send_parts(&queues, parts);
    }

    /// All in one entry, or spread over several with those of other origins between.
    fn send_parts(&mut self, queues: &[QueueId], mut parts: Vec<&[u8]>) {
        let who = self.prng.below(self.origins.len() as u64) as usize;
        let hand_out = self.prng.chance(1, 2);
        while self.prng.chance(2, 3) && parts.len() > 1 {
            let more = parts.split_off(1 + self.prng.below(parts.len() as u64 - 1) as usize);
            self.propose_as(who, |_, entry| {
                parts.iter().for_each(|part| {
                    entry.operation(OperationKind::Part, 0, queues[0], part);
                });
            });
            parts = more;
            if self.prng.chance(1, 4) {
                self.append();
            }
        }
        self.propose_as(who, |_, entry| {
            parts.iter().for_each(|part| {
                entry.operation(OperationKind::Part, 0, queues[0], part);
            });
            entry.append_parts(queues, hand_out);
        });
    }

    fn ranges(&mut self, id: u64) -> Vec<(Seq, Seq)> {
        let mut places: Vec<u64> =
            self.outstanding.iter().filter(|held| held.0 == id).map(|held| held.1).collect();
        if self.prng.chance(1, 8) {
            // Settled before, never there, or never handed out: none of it may matter.
            let end = self.group.queues.get(&id).map_or(0, |queue| queue.messages.len() as u64);
            places = (0..end + 3).filter(|_| self.prng.chance(1, 3)).collect();
        } else {
            places.retain(|_| self.prng.chance(1, 2));
        }
        places.sort_unstable();
        places.dedup();
        let mut ranges: Vec<(Seq, Seq)> = Vec::new();
        for place in places {
            match ranges.last_mut() {
                Some((_, last)) if last.0 + 1 == place => last.0 = place,
                _ => ranges.push((Seq(place), Seq(place))),
            }
        }
        ranges
    }

    fn settle_or_return(&mut self) {
        let id = self.queue();
        let ranges = self.ranges(id);
        let (kind, flags) = *self.prng.pick(&[
            (OperationKind::Settle, 0),
            (OperationKind::Settle, 0),
            (OperationKind::Return, 0),
            (OperationKind::Return, COUNT),
        ]);
        self.propose(|_, entry| entry.ranges(kind, flags, QueueId(id), ranges.iter().copied()));
        let named = |seq: u64| ranges.iter().any(|(first, last)| first.0 <= seq && seq <= last.0);
        self.outstanding.retain(|held| held.0 != id || !named(held.1));
    }

    fn purge(&mut self) {
        let id = self.queue();
        let Some(served) = self.served.get(&id) else { return };
        let state = self.machine.queue(QueueId(id)).unwrap();
        let ready = served.delivery.ready(state);
        let ranges = served.delivery.ready_ranges(state);
        let before = self.machine.queue(QueueId(id)).unwrap().counters().settled;
        self.propose(|_, entry| entry.ranges(OperationKind::Drop, 0, QueueId(id), ranges));
        let Some(state) = self.machine.queue(QueueId(id)) else { return };
        // An earlier entry that was resent with it changes nothing, so the difference is the purge's.
        assert_eq!(state.counters().settled - before, ready);
    }

    fn delete(&mut self) {
        let id = QueueId(self.queue());
        self.propose(|_, entry| entry.operation(OperationKind::Delete, 0, id, &[]));
    }

    fn hand_out(&mut self) {
        let id = self.queue();
        let wanted = self.served.get(&id).and_then(|served| served.delivery.wants_hand_out());
        let bound = wanted.map_or(self.prng.below(30), |wanted| wanted.0);
        let bound = bound.to_le_bytes();
        self.propose(|_, entry| entry.operation(OperationKind::HandOut, 0, QueueId(id), &bound));
    }

    /// Operations with a number too high, or of a boot that is over: nothing may come of them.
    fn misnumbered(&mut self) {
        let (origin, next) = self.origins[0];
        let mut entries = vec![(origin, next + 1 + self.prng.below(3))];
        // Once the group knows the boot behind it: until then these are numbers that stand for something else.
        if self.machine.last_sequence(origin) > OpSequence(0) && origin.boot() > 1 {
            entries.push((Origin(origin.0 - 1), 1 + self.prng.below(50)));
        }
        for (origin, sequence) in entries {
            let mut entry = EntryBuilder::new(&self.pool, 0, origin, OpSequence(sequence));
            let id = QueueId(self.queue());
            entry.operation(OperationKind::Delete, 0, id, &[]);
            let body = self.body();
            entry.append(&[id], true, 0, &record(&body));
            self.apply(entry.seal(0, 0));
        }
    }

    fn reboot_origin(&mut self) {
        let who = self.prng.below(self.origins.len() as u64) as usize;
        self.origins[who] = (Origin(self.origins[who].0.0 + 1), 1);
    }

    fn subscribe(&mut self) {
        let id = self.queue();
        self.consumers += 1;
        let key = ConsumerKey { shard: ShardId(0), conn: ConnId(7), consumer: ConsumerId(self.consumers) };
        let subscription = Subscription {
            key,
            lane: Lane(1),
            settled: self.prng.chance(1, 4),
            exclusive: self.prng.chance(1, 8),
            priority: *self.prng.pick(&[0, 0, 0, 5, -5]),
            messages: (!self.prng.chance(1, 5)).then(|| self.prng.below(20) as u32),
            bytes: if self.prng.chance(1, 3) { self.prng.below(300) as i64 } else { PLENTY },
        };
        let Some(served) = self.served.get_mut(&id) else { return };
        let refused = served.exclusive || (subscription.exclusive && !served.consumers.is_empty());
        assert_eq!(served.delivery.subscribe(subscription).is_err(), refused);
        if !refused {
            let Subscription { priority, settled, messages, bytes, .. } = subscription;
            served.exclusive = subscription.exclusive;
            served.consumers.push(Consumer { key, priority, settled, messages, bytes });
        }
    }

    fn unsubscribe(&mut self) {
        let id = self.queue();
        let Some(served) = self.served.get_mut(&id).filter(|served| !served.consumers.is_empty()) else {
            return;
        };
        let at = self.prng.below(served.consumers.len() as u64) as usize;
        let gone = served.consumers.remove(at);
        assert!(served.delivery.unsubscribe(gone.key));
        assert!(!served.delivery.unsubscribe(gone.key));
        served.exclusive = false;
    }

    fn grant(&mut self) {
        let id = self.queue();
        let (messages, bytes) = (self.prng.below(10) as u32, self.prng.below(400) as i64);
        let Some(served) = self.served.get_mut(&id).filter(|served| !served.consumers.is_empty()) else {
            return;
        };
        let at = self.prng.below(served.consumers.len() as u64) as usize;
        let mut consumer = served.consumers.remove(at);
        let waited = consumer.has_credit();
        consumer.messages = consumer.messages.map(|credit| credit + messages);
        consumer.bytes += bytes;
        served.delivery.grant(consumer.key, messages, bytes);
        // Whoever has waited keeps the turn; whoever begins to wait is the last.
        let at = if waited { at } else { served.consumers.len() };
        served.consumers.insert(at, consumer);
    }

    fn fill(&mut self) {
        let id = self.queue();
        let Some(mut served) = self.served.remove(&id) else { return };
        let limit = if self.prng.chance(1, 3) { self.prng.below(400) } else { u64::MAX };
        let missing = self.prng.chance(1, 5).then(|| self.prng.below(self.index + 1));
        let mut out = Vec::new();
        let state = self.machine.queue(QueueId(id)).unwrap();
        let mut source = |wanted: Wanted| {
            let Wanted { index, at, ordinal } = wanted;
            assert!(self.machine.needs_piece(QueueId(id), index, at, ordinal), "what is asked for is needed");
            let stored = self.entries.get(&wanted.index.0).expect("only needed entries are asked for");
            (missing != Some(wanted.index.0)).then(|| stored.fetch(id, wanted))
        };
        let filled = served.delivery.fill(state, limit, &mut source, &mut out);
        self.check_filled(id, &mut served, filled, limit, &out);
        let mut ranges = Vec::new();
        served.delivery.take_settled(&mut ranges);
        self.served.insert(id, served);
        if !ranges.is_empty() {
            self.propose(|_, entry| entry.ranges(OperationKind::Settle, 0, QueueId(id), ranges));
        }
    }

    fn check_filled(&mut self, id: u64, served: &mut Served, filled: Filled, limit: u64, out: &[Handed]) {
        let mut got: BTreeMap<ConsumerKey, Vec<u64>> = BTreeMap::new();
        for handed in out {
            assert_eq!(handed.bytes, self.check_rows(id, handed));
            got.entry(handed.key).or_default().extend(handed.items.iter().map(|item| item.seq.0));
        }
        assert_eq!(filled.bytes, out.iter().map(|handed| handed.bytes).sum::<u64>());
        let total: usize = out.iter().map(|handed| handed.items.len()).sum();
        let mut expected: BTreeMap<ConsumerKey, Vec<u64>> = BTreeMap::new();
        for _ in 0..total {
            let (key, seq) = self.expect_next(id, served).expect("no more than the model hands out");
            expected.entry(key).or_default().push(seq);
        }
        assert_eq!(got, expected);
        if filled.more {
            assert!(filled.bytes >= limit);
        } else if served.delivery.waiting_for().is_none() {
            assert_eq!(self.expect_next(id, served), None, "nothing is held back");
        }
        let queue = &self.group.queues[&id];
        let above = queue.first_ready().is_some_and(|seq| seq >= queue.handed_out);
        if above && served.consumers.iter().any(Consumer::has_credit) {
            assert!(served.delivery.wants_hand_out().is_some_and(|wanted| wanted.0 > queue.handed_out));
        }
    }

    /// Checks flags and bytes of what was handed over, and returns how many bytes that were.
    fn check_rows(&mut self, id: u64, handed: &Handed) -> u64 {
        let queue = self.group.queues.get_mut(&id).unwrap();
        let mut bytes = 0;
        for item in &handed.items {
            assert!(item.seq.0 < queue.handed_out, "nothing above the handed-out bound");
            let doubtful = item.seq.0 < queue.doubtful_below;
            let message = &mut queue.messages[item.seq.0 as usize];
            assert!(!message.settled && !message.held, "only what is ready is handed out");
            assert!(item.redelivered || !message.ever_handed, "never handed out before");
            assert_eq!(item.redelivered, doubtful || message.handed);
            assert_eq!(item.count, message.failures);
            let at = item.at as usize;
            assert_eq!(&handed.block.as_slice()[at..at + message.row.len()], message.row);
            bytes += message.row.len() as u64;
        }
        bytes
    }

    /// Whom the model hands what next; it counts as handed out then.
    fn expect_next(&mut self, id: u64, served: &mut Served) -> Option<(ConsumerKey, u64)> {
        let queue = self.group.queues.get_mut(&id).unwrap();
        let seq = queue.first_ready().filter(|seq| *seq < queue.handed_out)?;
        let waiting = served.consumers.iter().filter(|consumer| consumer.has_credit());
        let priority = waiting.map(|consumer| consumer.priority).max()?;
        let turn = |consumer: &Consumer| consumer.has_credit() && consumer.priority == priority;
        let at = served.consumers.iter().position(turn)?;
        let mut consumer = served.consumers.remove(at);
        let message = &mut queue.messages[seq as usize];
        consumer.messages = consumer.messages.map(|credit| credit - 1);
        consumer.bytes -= message.row.len() as i64;
        (message.handed, message.ever_handed, message.held) = (true, true, true);
        if !consumer.settled {
            self.outstanding.push((id, seq));
        }
        let key = consumer.key;
        served.consumers.push(consumer);
        Some((key, seq))
    }

    fn get(&mut self) {
        let id = self.queue();
        let Some(mut served) = self.served.remove(&id) else { return };
        let key = ConsumerKey { shard: ShardId(0), conn: ConnId(7), consumer: ConsumerId(0) };
        let missing = self.prng.chance(1, 5).then(|| self.prng.below(self.index + 1));
        let state = self.machine.queue(QueueId(id)).unwrap();
        let mut source = |wanted: Wanted| {
            let Wanted { index, at, ordinal } = wanted;
            assert!(self.machine.needs_piece(QueueId(id), index, at, ordinal), "what is asked for is needed");
            let stored = self.entries.get(&wanted.index.0).expect("only needed entries are asked for");
            (missing != Some(wanted.index.0)).then(|| stored.fetch(id, wanted))
        };
        let got = served.delivery.get(state, (key, Lane(1)), false, &mut source);
        let queue = &self.group.queues[&id];
        let first = queue.first_ready();
        match got {
            Got::Empty => assert_eq!(first, None),
            Got::Later => {
                let above = first.is_some_and(|seq| seq >= queue.handed_out);
                assert_eq!(above, served.delivery.wants_hand_out().is_some());
                assert_eq!(!above, served.delivery.waiting_for().is_some());
            }
            Got::One(handed, ready) => {
                assert_eq!(ready, queue.live().filter(|(_, m)| !m.held).count() as u64 - 1);
                assert_eq!(handed.items.iter().map(|item| Some(item.seq.0)).collect::<Vec<_>>(), [first]);
                assert_eq!(handed.bytes, self.check_rows(id, &handed));
                let queue = self.group.queues.get_mut(&id).unwrap();
                let message = &mut queue.messages[handed.items[0].seq.0 as usize];
                (message.handed, message.ever_handed, message.held) = (true, true, true);
                self.outstanding.push((id, handed.items[0].seq.0));
            }
        }
        self.served.insert(id, served);
        self.compare_delivery(id);
    }

    fn restart(&mut self) {
        self.machine = copy_by_checkpoint(self.machine.freeze(), &mut self.prng);
        self.group.restart();
        let queues: Vec<u64> = self.served.keys().copied().collect();
        queues.into_iter().for_each(|queue| self.serve(queue));
        self.compare();
    }

    fn replace_replica(&mut self) {
        self.replica = copy_by_checkpoint(self.replica.freeze(), &mut self.prng);
        self.compare();
    }

    /// Begins a checkpoint, or goes on with one that was begun some entries ago.
    fn freeze_or_thaw(&mut self) {
        let budget = self.prng.below(300) as usize;
        match self.frozen.take() {
            None => self.frozen = Some((self.machine.freeze(), self.machine.hash(), Vec::new())),
            Some((mut view, hash, mut bytes)) => {
                if view.encode(budget, &mut bytes) {
                    assert_eq!(GroupMachine::decode(&bytes).unwrap().hash(), hash, "as it was when frozen");
                } else {
                    self.frozen = Some((view, hash, bytes));
                }
            }
        }
    }
}

fn copy_by_checkpoint(mut view: View, prng: &mut Prng) -> GroupMachine {
    let mut bytes = Vec::new();
    while !view.encode(prng.below(200) as usize, &mut bytes) {}
    GroupMachine::decode(&bytes).unwrap()
}

fn run(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    for id in 1..=QUEUES {
        world.propose(|_, entry| entry.operation(OperationKind::Configure, 0, QueueId(id), b"c"));
    }
    world.configure_others();
    for _ in 0..steps {
        world.step();
    }
    world.read_logs();
}

#[cfg(not(planted))]
#[test]
fn any_use_agrees_with_the_plain_model() {
    for seed in 0..300 {
        run(seed, 150);
    }
    run(1_000_000, 1500);
}

#[cfg(planted)]
#[test]
fn every_planted_bug_is_found() {
    use base::{Bug, planted::plant};
    let here = [
        Bug::DeliverAboveHandedOutBound,
        Bug::RequeueToTail,
        Bug::SettleNeighbour,
        Bug::LoseDeliveryCountOnCheckpoint,
        Bug::LoseSettlementOnCheckpoint,
        Bug::AcceptSequenceGap,
        Bug::CommitGoesBack,
        Bug::ForgetProducerOnCheckpoint,
        Bug::ResurrectTrimmed,
        Bug::RewriteForgottenByTrim,
    ];
    (0..20).for_each(|seed| run(seed, 150));
    for bug in here {
        plant(Some(bug));
        let found = (0..20).find(|seed| std::panic::catch_unwind(|| run(*seed, 150)).is_err());
        plant(None);
        assert!(found.is_some(), "{bug:?} is not found by twenty runs");
    }
}
