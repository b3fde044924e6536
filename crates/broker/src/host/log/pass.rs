//! One pass of compaction over one log: which offset is the last of each key, and which records are over by that.
//!
//! In: the log's batches, first those that are new, then all from its start. Out: the records that go. Never: reads
//! from disk, proposes anything.

use base::{Bug, Map, map, planted};
use model::{GroupId, OpSequence, QueueId, Seq};
use recordbatch::BatchError;
use topology::TopicSettings;

use super::reading::Chunk;
use crate::OPENED_BYTES_MAX;
use crate::parcel::merged;

/// Bytes of keys that a pass remembers; what does not fit is for the next pass.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// What a key costs beside its bytes.
const KEY_BYTES: usize = 48;

/// A pass over one log.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(super) group: GroupId,
    pub(super) log: QueueId,
    settings: TopicSettings,
    pub(super) phase: Phase,
    /// The next offset to look at.
    pub(super) next: u64,
    /// Nothing from here on is looked at.
    pub(super) limit: u64,
    /// The operation that must be applied before batches are rewritten: it removes some of their records, or enough
    /// of them is being rewritten already.
    pub(super) awaited: OpSequence,
    /// That operation is not applied yet.
    pub(super) waits_for_group: bool,
    /// Bytes rewritten behind that operation.
    pub(super) rewritten_bytes: usize,
    keys: Keys,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Noting,
    Removing,
    Rewriting,
}

impl Pass {
    /// A pass that notes the keys from `next` to `limit` first.
    pub(super) fn new(
        (group, log): (GroupId, QueueId),
        settings: TopicSettings,
        (next, limit): (u64, u64),
        seed: u64,
    ) -> Pass {
        Pass {
            group,
            log,
            settings,
            phase: Phase::Noting,
            next,
            limit,
            awaited: OpSequence(0),
            waits_for_group: false,
            rewritten_bytes: 0,
            keys: Keys::new(seed),
        }
    }

    /// Goes on to the next phase, from the log's start.
    pub(super) fn turn_to(&mut self, phase: Phase, start: u64) {
        (self.phase, self.next) = (phase, start);
    }

    /// No record's key is asked for any more.
    pub(super) fn forget_keys(&mut self, seed: u64) {
        self.keys = Keys::new(seed);
    }

    /// Notes the keys of a batch. Where they have become too many, the pass ends behind it.
    pub(super) fn note(&mut self, visited: &Visited<'_>) {
        let read = visited.for_each_keyed(|record| self.keys.note(record.key, record.offset));
        if read.is_ok() && self.keys.bytes > KEYS_BYTES_MAX {
            self.limit = visited.chunk.end;
        }
    }

    /// The records of a batch that are over, as ranges; none of a batch that cannot be read to its end.
    pub(super) fn over(&self, visited: &Visited<'_>, now_ms: i64) -> Vec<(Seq, Seq)> {
        let mut over = Vec::new();
        let read = visited.for_each_keyed(|record| {
            if self.is_over(&record, now_ms) {
                over.push((Seq(record.offset), Seq(record.offset)));
            }
        });
        read.map_or_else(|_| Vec::new(), |()| merged(over.into_iter()).collect())
    }

    /// Whether a record goes: there is a later one of its key, or it deletes its key and everybody had time to see.
    fn is_over(&self, record: &Keyed<'_>, now_ms: i64) -> bool {
        if record.offset >= self.limit {
            return false;
        }
        let latest = self.keys.latest.get(record.key).copied();
        let is_followed = latest.is_some_and(|latest| latest > record.offset);
        // The planted bugs take the last record of a key too, and a mark but not what it deletes.
        let later = match (planted(Bug::CompactNewest), planted(Bug::DropMarkBeforeValue)) {
            (true, _) => latest.is_some(),
            (_, true) => record.deletes && is_followed,
            _ => is_followed,
        };
        let age = now_ms.saturating_sub(record.since_ms);
        later || (record.deletes && age > self.settings.delete_retention_ms as i64)
    }
}

/// The last offset of each key that was appended since the last pass.
#[derive(Debug)]
struct Keys {
    latest: Map<Vec<u8>, u64>,
    bytes: usize,
}

impl Keys {
    fn new(seed: u64) -> Keys {
        Keys { latest: map(seed), bytes: 0 }
    }

    fn note(&mut self, key: &[u8], offset: u64) {
        if let Some(latest) = self.latest.get_mut(key) {
            *latest = offset;
            return;
        }
        self.bytes += key.len() + KEY_BYTES;
        self.latest.insert(key.to_vec(), offset);
    }
}

/// A batch that a pass is at.
pub(super) struct Visited<'a> {
    pub chunk: &'a Chunk,
    /// As a reader gets it, without what was removed.
    pub batch: &'a [u8],
    /// Where the log begins: what lies in front is no part of it any more.
    pub start: u64,
}

/// A record with a key.
struct Keyed<'a> {
    key: &'a [u8],
    offset: u64,
    /// It says that there is nothing of its key.
    deletes: bool,
    /// Since when it is there, by its own time or that of the log.
    since_ms: i64,
}

impl Visited<'_> {
    /// Goes through the records that have keys.
    fn for_each_keyed(&self, mut see: impl FnMut(Keyed<'_>)) -> Result<(), BatchError> {
        for record in recordbatch::open(self.batch, OPENED_BYTES_MAX)?.records() {
            let record = record?;
            let offset = self.chunk.first + record.offset_delta as u64;
            let Some(key) = record.key.filter(|_| offset >= self.start) else { continue };
            let since_ms = record.timestamp.max(self.chunk.taken_ms);
            see(Keyed { key, offset, deletes: record.value.is_none(), since_ms });
        }
        Ok(())
    }
}
