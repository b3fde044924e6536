//! One group of queues: its log, its replicated machine, and the delivery state of each of its queues.

use std::collections::{BTreeMap, BTreeSet};

use base::{Block, Map, Pool, map};
use model::{GroupId, Index, OpSequence, Origin, QueueId, Seq, ShardId};
use queue::{Delivery, Effect, Fetched, GroupMachine, Handed, View, Wanted};
use replica::Replica;

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
}

impl HostedQueue {
    pub(crate) fn new(delivery: Delivery) -> HostedQueue {
        HostedQueue { delivery, awake: false, bound: Seq(0), delivered: 0 }
    }
}

/// Entries and pieces that were read from disk, within a bound.
#[derive(Debug)]
pub(crate) struct Loaded {
    entries: Map<Index, Block>,
    /// By who asked for them, and how.
    pieces: BTreeMap<PieceKey, Fetched>,
    bytes: usize,
}

/// Queue or log, entry, place in it, row of the batch.
type PieceKey = (QueueId, Index, u32, u32);

impl Loaded {
    fn new(seed: u64) -> Loaded {
        Loaded { entries: map(seed), pieces: BTreeMap::new(), bytes: 0 }
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

    /// Forgets everything when nobody waits any more, or when it is more than `most` bytes.
    pub(crate) fn tidy(&mut self, somebody_waits: bool, most: usize) {
        let is_empty = self.entries.is_empty() && self.pieces.is_empty();
        if !is_empty && (!somebody_waits || self.bytes > most) {
            self.entries.clear();
            self.pieces.clear();
            self.bytes = 0;
        }
    }
}

fn piece_key(log: QueueId, wanted: Wanted) -> PieceKey {
    (log, wanted.index, wanted.at, wanted.ordinal)
}

/// One group.
#[derive(Debug)]
pub(crate) struct QueueGroup {
    pub id: GroupId,
    pub log: GroupLog,
    pub machine: GroupMachine,
    pub queues: Map<QueueId, HostedQueue>,
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
            queues: map(seed),
            active: Vec::new(),
            reading: BTreeSet::new(),
            loaded: Loaded::new(seed),
            asked: Vec::new(),
            effects: Vec::new(),
            handed: Vec::new(),
            enqueued: 0,
            settled: 0,
            checkpointed: None,
            trimming: None,
        };
        group.rebuild_deliveries(pool);
        group
    }

    /// Delivery state starts anew: everything unsettled is ready.
    pub(crate) fn rebuild_deliveries(&mut self, pool: &Pool) {
        self.queues.clear();
        for (queue, state) in self.machine.queues() {
            self.queues.insert(queue, HostedQueue::new(Delivery::new(state, pool)));
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
        true
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
}
