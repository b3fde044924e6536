//! The logs hosted here: read by offset, trimmed, kept for as long as their topics say; and the coordinators of
//! consumer groups.

mod ahead;
mod closing;
mod compacting;
mod converting;
mod coordinating;
mod keeping;
mod offsets;
mod pass;
mod reading;
mod rewriting;
mod streaming;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Block, Map, map};
use coordinator::Coordinator;
use model::{GroupId, QueueId, ShardId};

use crate::log_parcel::{LogQuestion, ReadRequest};
use crate::parcel::Ticket;
use ahead::Ahead;
use compacting::Compaction;
use streaming::Followers;

/// Bytes of converted batches kept, so that ten readers convert once.
const CONVERTED_BYTES_MAX: usize = 16 << 20;

/// A read that waits for records, for the disk or for its time.
#[derive(Debug)]
pub(crate) struct Reading {
    pub from: ShardId,
    pub ticket: Ticket,
    pub request: ReadRequest,
}

/// A question that waits for the disk.
#[derive(Debug)]
pub(crate) struct AskedLog {
    pub from: ShardId,
    pub group: GroupId,
    pub log: QueueId,
    pub ticket: Ticket,
    pub question: LogQuestion,
}

/// Everything this host knows of its logs beyond what their machines hold.
#[derive(Debug)]
pub(crate) struct Logs {
    next_reading: u64,
    readings: Map<u64, Reading>,
    by_ticket: Map<(ShardId, Ticket), u64>,
    deadlines: BTreeSet<(u64, u64)>,
    /// Who waits for records of a log.
    watching: Map<QueueId, Vec<u64>>,
    /// Reads to be looked at in this turn.
    ripe: VecDeque<u64>,
    /// Reads that wait for the disk.
    loading: Vec<u64>,
    /// Questions that wait for the disk.
    asked: Vec<AskedLog>,
    converted: Converted<Block>,
    ahead: Ahead,
    pub followers: Followers,
    pub compaction: Compaction,
    pub coordinators: BTreeMap<QueueId, Coordinator>,
    /// Whom a coordinator's answer is for.
    pub waiting_members: Map<u64, (ShardId, Ticket)>,
    next_member_ticket: u64,
    /// When logs are next looked at for what has become too old.
    keep_at_us: u64,
    /// Since when members have been able to join.
    joinable_since_us: Option<u64>,
}

impl Logs {
    pub(crate) fn new(seed: u64) -> Logs {
        Logs {
            next_reading: 1,
            readings: map(seed),
            by_ticket: map(seed),
            deadlines: BTreeSet::new(),
            watching: map(seed),
            ripe: VecDeque::new(),
            loading: Vec::new(),
            asked: Vec::new(),
            converted: Converted::new(seed),
            ahead: Ahead::default(),
            followers: Followers::new(seed),
            compaction: Compaction::new(seed),
            coordinators: BTreeMap::new(),
            waiting_members: map(seed),
            next_member_ticket: 1,
            keep_at_us: 0,
            joinable_since_us: None,
        }
    }

    /// When something here is due, in microseconds.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let reading = self.deadlines.first().map(|(due, _)| *due);
        let members = self.coordinators.values().filter_map(Coordinator::next_deadline).min();
        let keeping = (self.keep_at_us > 0).then_some(self.keep_at_us);
        [reading, members, keeping].into_iter().flatten().min()
    }

    /// Whether somebody waits for the disk.
    pub(crate) fn is_loading(&self) -> bool {
        let waits = !self.loading.is_empty() || !self.asked.is_empty();
        waits || self.followers.is_loading() || self.compaction.waits_for_disk
    }
}

/// Group, log, first offset, and what tells thinned states of one batch apart.
type ConvertedKey = (GroupId, QueueId, u64, u64);

/// Batches in another encoding than they are stored in.
#[derive(Debug)]
struct Converted<T> {
    /// With their bytes.
    batches: Map<ConvertedKey, (T, usize)>,
    order: VecDeque<ConvertedKey>,
    bytes: usize,
}

impl<T: Clone> Converted<T> {
    fn new(seed: u64) -> Converted<T> {
        Converted { batches: map(seed), order: VecDeque::new(), bytes: 0 }
    }

    fn find(&self, key: &ConvertedKey) -> Option<T> {
        self.batches.get(key).map(|(batch, _)| batch.clone())
    }

    fn insert(&mut self, key: ConvertedKey, batch: T, bytes: usize) {
        self.bytes += bytes;
        match self.batches.insert(key, (batch, bytes)) {
            Some((_, old)) => self.bytes -= old,
            None => self.order.push_back(key),
        }
        while self.bytes > CONVERTED_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some((_, bytes)) = self.batches.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
    }
}
