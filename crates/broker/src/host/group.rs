//! One group of queues: its log, its replicated machine, and the delivery state of each of its queues.

use std::collections::BTreeSet;

use base::{Block, Map, Pool, map};
use model::{GroupId, Index, OpSequence, Origin, QueueId, Seq, ShardId};
use queue::{Delivery, Effect, GroupMachine, Handed};
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
    pub asked: Vec<Asked>,
    pub effects: Vec<Effect>,
    pub handed: Vec<Handed>,
    pub enqueued: u64,
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
            asked: Vec::new(),
            effects: Vec::new(),
            handed: Vec::new(),
            enqueued: 0,
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
        if let Some(hosted) = self.queues.get_mut(&queue)
            && !hosted.awake
        {
            hosted.awake = true;
            self.active.push(queue);
        }
    }
}
