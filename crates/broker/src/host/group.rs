//! One group of queues: its log, its replicated machine, and the delivery state of each of its queues.

use std::collections::{BTreeMap, BTreeSet};

use base::{Block, Map, Pool, Table, map, prefetch};
use model::{GroupId, Index, OpSequence, Origin, QueueId, Seq, ShardId};
use queue::{Delivery, Effect, Fetched, GroupMachine, Handed, View, Wanted};
use replica::Replica;

use super::reclaiming::Freed;
use crate::parcel::{Question, Ticket};

/// Where a group's entries are.
#[derive(Debug)]
pub(crate) enum GroupLog {
    /// In the commit log, replicated.
    Replicated(Box<Replica>),
    /// In this shard's memory, as long as a message in them is not settled.
    Memory { last: Index, entries: Map<Index, Block> },
}

/// A question that waits for the asking shard's earlier writes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub queue: QueueId,
    pub origin: Origin,
    pub after: OpSequence,
    pub from: ShardId,
    pub ticket: Ticket,
    pub question: Question,
}

/// One queue's leader-local state.
#[derive(Debug)]
pub(crate) struct HostedQueue {
    pub delivery: Delivery,
    /// Whether it is among the active ones.
    pub awake: bool,
    /// The hand-out bound proposed last.
    pub bound: Seq,
    /// Messages handed out since the start.
    pub delivered: u64,
    /// Whether it is among its group's takers.
    has_taker: bool,
}

impl HostedQueue {
    pub(crate) fn new(delivery: Delivery) -> HostedQueue {
        HostedQueue { delivery, awake: false, bound: Seq(0), delivered: 0, has_taker: false }
    }

    /// Keeps `takers` true after the delivery was changed.
    #[inline]
    pub(crate) fn note_taker(&mut self, queue: QueueId, takers: &mut Table<QueueId, ()>) {
        let has_taker = self.delivery.has_credit();
        if has_taker == self.has_taker {
            return;
        }
        self.has_taker = has_taker;
        if has_taker {
            takers.insert(queue, ());
        } else {
            takers.remove(&queue);
        }
    }
}

/// Entries and pieces that were read from disk, within a bound.
///
/// A message in parts needs all of them at once. Where several such messages do not fit together, one has the *turn*:
/// what it needs stays when the rest is put out, or each would put out the others' parts for ever.
#[derive(Debug)]
pub(crate) struct Loaded {
    entries: Map<Index, Block>,
    /// By who asked for them, and how.
    pieces: BTreeMap<PieceKey, Fetched>,
    bytes: usize,
    turn: Option<Turn>,
    /// Something was put out that somebody may wait for: who asks next has the turn.
    is_tight: bool,
}

/// Whose message in parts is read to its end first.
#[derive(Debug)]
struct Turn {
    reader: Reader,
    entries: BTreeSet<Index>,
    pieces: BTreeSet<PieceKey>,
    /// Whether it has asked since something was last put out: who does not is gone.
    has_asked: bool,
}

/// Who reads a message in parts: a queue, or whoever wants the row at that offset of a log.
pub(crate) type Reader = (QueueId, u64);

/// Queue or log, entry, place in it, row of the batch.
type PieceKey = (QueueId, Index, u32, u32);

impl Loaded {
    fn new(seed: u64) -> Loaded {
        Loaded { entries: map(seed), pieces: BTreeMap::new(), bytes: 0, turn: None, is_tight: false }
    }

    pub(crate) fn insert(&mut self, index: Index, block: Block) {
        self.bytes += block.capacity();
        if let Some(old) = self.entries.insert(index, block) {
            self.bytes -= old.capacity();
        }
    }

    pub(crate) fn find(&self, index: Index) -> Option<&Block> {
        self.entries.get(&index)
    }

    pub(crate) fn insert_piece(&mut self, log: QueueId, wanted: Wanted, piece: Fetched) {
        self.bytes += piece.block.capacity();
        if let Some(old) = self.pieces.insert(piece_key(log, wanted), piece) {
            self.bytes -= old.block.capacity();
        }
    }

    pub(crate) fn find_piece(&self, log: QueueId, wanted: Wanted) -> Option<&Fetched> {
        self.pieces.get(&piece_key(log, wanted))
    }

    /// The reader of a message in parts asks for one of them.
    pub(crate) fn asks(&mut self, reader: Reader, log: QueueId, wanted: Wanted) {
        if self.turn.is_none() && self.is_tight {
            self.is_tight = false;
            let (entries, pieces) = (BTreeSet::new(), BTreeSet::new());
            self.turn = Some(Turn { reader, entries, pieces, has_asked: true });
        }
        if let Some(turn) = self.turn.as_mut().filter(|turn| turn.reader == reader) {
            turn.entries.insert(wanted.index);
            turn.pieces.insert(piece_key(log, wanted));
            turn.has_asked = true;
        }
    }

    /// The reader has what it needed, or some of it that it does not need again.
    pub(crate) fn served(&mut self, reader: Reader) {
        if self.turn.take_if(|turn| turn.reader == reader).is_some() {
            // Others may have been put out for it.
            self.is_tight = true;
        }
    }

    /// Forgets everything when nobody waits any more, and all but what the one whose turn it is needs when it is more
    /// than `most` bytes.
    pub(crate) fn tidy(&mut self, somebody_waits: bool, most: usize) {
        if !somebody_waits {
            (self.turn, self.is_tight) = (None, false);
        }
        let is_empty = self.entries.is_empty() && self.pieces.is_empty();
        if is_empty || (somebody_waits && self.bytes <= most) {
            return;
        }
        self.turn.take_if(|turn| !std::mem::take(&mut turn.has_asked));
        self.is_tight = somebody_waits && self.turn.is_none();
        let keeps = self.turn.as_ref();
        self.entries.retain(|index, _| keeps.is_some_and(|turn| turn.entries.contains(index)));
        self.pieces.retain(|key, _| keeps.is_some_and(|turn| turn.pieces.contains(key)));
        let pieces = self.pieces.values().map(|piece| piece.block.capacity());
        self.bytes = self.entries.values().map(Block::capacity).chain(pieces).sum();
    }
}

fn piece_key(log: QueueId, wanted: Wanted) -> PieceKey {
    (log, wanted.index, wanted.at, wanted.ordinal)
}

/// So many effects before it is changed a queue's memory is asked for.
const AHEAD: usize = 8;

/// One group.
#[derive(Debug)]
pub(crate) struct QueueGroup {
    pub id: GroupId,
    pub log: GroupLog,
    pub machine: GroupMachine,
    /// Boxed, so that the map itself stays small and near.
    pub queues: Table<QueueId, Box<HostedQueue>>,
    /// Queues of which somebody would take a message now.
    pub takers: Table<QueueId, ()>,
    /// Queues that may have something to hand out; each once.
    pub active: Vec<QueueId>,
    /// Queues that wait for an entry to be read.
    pub reading: BTreeSet<QueueId>,
    /// Entries and pieces read for those that wait, until nobody does: the log's own cache may have put them out again before
    /// all that one message needs has come.
    pub loaded: Loaded,
    pub asked: Vec<Asked>,
    pub effects: Vec<Effect>,
    pub handed: Vec<Handed>,
    /// Since the start, whatever became of their queues.
    pub enqueued: u64,
    pub settled: u64,
    pub freed: Freed,
    /// The state that is being made durable.
    pub checkpointed: Option<View>,
    /// The state that is durable, while runs are looked through for what it does not need.
    pub trimming: Option<View>,
}

impl QueueGroup {
    /// A group whose machine is as recovered (or new).
    pub(crate) fn new(
        id: GroupId,
        log: GroupLog,
        machine: GroupMachine,
        seed: u64,
        pool: &Pool,
    ) -> QueueGroup {
        let mut group = QueueGroup {
            id,
            log,
            machine,
            queues: Table::new(seed),
            takers: Table::new(seed),
            active: Vec::new(),
            reading: BTreeSet::new(),
            loaded: Loaded::new(seed),
            asked: Vec::new(),
            effects: Vec::new(),
            handed: Vec::new(),
            enqueued: 0,
            settled: 0,
            freed: Freed::default(),
            checkpointed: None,
            trimming: None,
        };
        group.rebuild_deliveries(pool);
        group
    }

    /// Delivery state starts anew: everything unsettled is ready.
    pub(crate) fn rebuild_deliveries(&mut self, pool: &Pool) {
        self.queues.clear();
        self.takers.clear();
        for (queue, state) in self.machine.queues() {
            self.queues.insert(queue, Box::new(HostedQueue::new(Delivery::new(state, pool))));
        }
    }

    /// A group of one shard's memory.
    pub(crate) fn memory(shard: ShardId, seed: u64, pool: &Pool) -> QueueGroup {
        let log = GroupLog::Memory { last: Index(0), entries: map(seed) };
        QueueGroup::new(GroupId::memory(shard), log, GroupMachine::new(), seed, pool)
    }

    /// The queue may have something to hand out.
    pub(crate) fn wake(&mut self, queue: QueueId) {
        self.change(queue, |_| true);
    }

    /// Changes the delivery of a queue and wakes it where `change` says so; false where there is no such queue.
    #[inline]
    pub(crate) fn change(&mut self, queue: QueueId, change: impl FnOnce(&mut Delivery) -> bool) -> bool {
        let Some(hosted) = self.queues.get_mut(&queue) else { return false };
        if change(&mut hosted.delivery) && !hosted.awake {
            hosted.awake = true;
            self.active.push(queue);
        }
        hosted.note_taker(queue, &mut self.takers);
        true
    }

    /// Asks for the memory of the queues whose delivery is changed soon: first for where they stand, then for them.
    #[inline]
    pub(crate) fn prefetch(&self, coming: &[Effect]) {
        let queue_of = |effect: &Effect| match effect {
            Effect::Enqueued { queue, .. } | Effect::Settled { queue, .. } => Some(*queue),
            _ => None,
        };
        if let Some(queue) = coming.get(2 * AHEAD).and_then(queue_of) {
            self.queues.prefetch(&queue);
        }
        if let Some(queue) = coming.get(AHEAD).and_then(queue_of) {
            self.queues.get(&queue).into_iter().for_each(|hosted| prefetch(&**hosted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_stays_while_somebody_waits_and_within_the_bound() {
        let pool = Pool::default();
        let mut loaded = Loaded::new(0);
        let block = pool.block(&[1]);
        let size = block.capacity();
        for index in [1, 2, 2] {
            loaded.insert(Index(index), block.clone());
        }
        loaded.tidy(true, 2 * size);
        assert!(loaded.find(Index(1)).is_some() && loaded.find(Index(2)).is_some());
        loaded.insert(Index(3), block.clone());
        loaded.tidy(true, 2 * size);
        assert!(loaded.find(Index(3)).is_none());
        loaded.insert(Index(4), block);
        loaded.tidy(false, 2 * size);
        assert!(loaded.find(Index(4)).is_none());
    }

    #[test]
    fn pieces_that_were_read_stay_for_who_asked_until_nobody_waits() {
        let pool = Pool::default();
        let mut loaded = Loaded::new(0);
        let wanted = Wanted { index: Index(7), at: 60, ordinal: 2 };
        let piece = Fetched::entry(pool.block(&[1]));
        let size = piece.block.capacity();
        loaded.insert_piece(QueueId(1), wanted, piece.clone());
        loaded.insert_piece(QueueId(1), wanted, piece);
        loaded.tidy(true, size);
        assert!(loaded.find_piece(QueueId(1), wanted).is_some());
        assert!(loaded.find_piece(QueueId(2), wanted).is_none());
        assert!(loaded.find_piece(QueueId(1), Wanted { ordinal: 3, ..wanted }).is_none());
        loaded.tidy(false, size);
        assert!(loaded.find_piece(QueueId(1), wanted).is_none());
    }

    #[test]
    fn of_two_that_do_not_fit_together_the_one_whose_turn_it_is_keeps_what_it_needs() {
        let pool = Pool::default();
        let mut loaded = Loaded::new(0);
        let block = pool.block(&[1]);
        let most = 2 * block.capacity();
        let (one, other) = ((QueueId(1), 0), (QueueId(2), 0));
        let wanted = |index| Wanted { index: Index(index), at: 0, ordinal: 0 };
        for index in 1..=3 {
            loaded.insert(Index(index), block.clone());
        }
        loaded.tidy(true, most);
        assert!(loaded.find(Index(1)).is_none(), "nobody has the turn yet");
        for (reader, index) in [(one, 1), (other, 2), (one, 3)] {
            loaded.asks(reader, reader.0, wanted(index));
            loaded.insert(Index(index), block.clone());
        }
        loaded.tidy(true, most);
        let held = [1, 2, 3].map(|index| loaded.find(Index(index)).is_some());
        assert_eq!(held, [true, false, true]);
        loaded.served(other);
        loaded.served(one);
        loaded.asks(other, other.0, wanted(2));
        for index in [2, 4] {
            loaded.insert(Index(index), block.clone());
        }
        loaded.tidy(true, most);
        assert_eq!(
            [1, 2, 3, 4].map(|index| loaded.find(Index(index)).is_some()),
            [false, true, false, false]
        );
        // Who has not asked since is gone, and the turn is free.
        for index in [5, 6] {
            loaded.insert(Index(index), block.clone());
        }
        loaded.tidy(true, most);
        assert!(loaded.find(Index(2)).is_none());
        loaded.asks(one, one.0, wanted(7));
        loaded.insert(Index(7), block);
        loaded.tidy(true, 0);
        assert!(loaded.find(Index(7)).is_some());
    }
}
