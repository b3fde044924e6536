//! Batches of a log that were rewritten, and where they are now.
//!
//! A rewrite stands in a later entry than the batches behind it in the log. Yet much is found by halves: so a chunk
//! keeps the entry it was appended with, which rises from chunk to chunk, and here is where its bytes are instead. In:
//! rewrites. Out: places, by offset and by entry. Never: judges what a rewrite says.

use base::{Bug, planted};
use model::batch::HEADER;
use model::{Batch, Index, Replaced};

use crate::LogState;
use crate::chunks::{Chunks, Keyed};
use crate::liveness::Ledger;
use crate::log_state::LogChunk;
use crate::queue_state::IN_PARTS;

/// The place of a chunk that was rewritten; where it is, is said here. Nothing begins there in any entry.
pub(crate) const REWRITTEN: u32 = IN_PARTS - 1;

/// Where a chunk is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewPlace {
    /// The first offset of the chunk.
    pub(crate) first: u64,
    /// The entry its bytes are in.
    pub(crate) index: u64,
    /// Where its batch header begins there.
    pub(crate) at: u32,
    /// How many removed offsets it has no record of.
    pub(crate) left_out: u32,
}

impl Keyed for NewPlace {
    fn key(&self) -> u64 {
        self.first
    }
}

/// How many rewritten chunks are in an entry.
#[derive(Clone, Copy, Debug)]
struct InEntry {
    index: u64,
    chunks: u32,
}

impl Keyed for InEntry {
    fn key(&self) -> u64 {
        self.index
    }
}

/// All rewritten chunks of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rewritten {
    places: Chunks<NewPlace>,
    entries: Chunks<InEntry>,
}

impl Rewritten {
    /// Where the rewritten chunk that begins at this offset is.
    pub(crate) fn find(&self, first: u64) -> Option<&NewPlace> {
        self.places.find(first)
    }

    /// Adds a chunk that has none, or none any more.
    pub(crate) fn insert(&mut self, place: NewPlace) {
        self.places.insert(place);
        if self.entries.update(place.index, |entry| entry.chunks += 1).is_none() {
            self.entries.insert(InEntry { index: place.index, chunks: 1 });
        }
    }

    /// Forgets where a chunk is.
    pub(crate) fn remove(&mut self, first: u64) -> Option<NewPlace> {
        let place = self.places.remove(first)?;
        self.entries.update_or_remove(place.index, |entry| {
            entry.chunks -= 1;
            entry.chunks > 0
        });
        Some(place)
    }

    /// Whether one of them is in the entries from `first` to `last`.
    fn is_within(&self, first: u64, last: u64) -> bool {
        self.entries.from(first).next().is_some_and(|entry| entry.index <= last)
    }
}

impl LogState {
    /// Puts a batch in place of one that is there; false where that is not where it was, or not as it was.
    pub(crate) fn rewrite(
        &mut self,
        replaced: &Replaced,
        (batch, at): (&Batch<'_>, u32),
        ledger: &mut Ledger<'_>,
    ) -> bool {
        let Some(chunk) = self.chunks.find(replaced.first).copied() else { return false };
        if !self.is_replaceable(&chunk, replaced, batch) {
            return false;
        }
        let index = ledger.current.0;
        ledger.hold(index, 1);
        self.release(&chunk, ledger);
        let bytes = (HEADER + batch.body.len()) as u32;
        self.bytes = self.bytes - u64::from(chunk.bytes) + u64::from(bytes);
        self.chunks.update(chunk.first, |chunk| (chunk.at, chunk.bytes) = (REWRITTEN, bytes));
        let Replaced { first, left_out, .. } = *replaced;
        self.rewritten.insert(NewPlace { first, index, at, left_out });
        true
    }

    /// Whether the batch says the same as the chunk does, but for what was removed of it.
    fn is_replaceable(&self, chunk: &LogChunk, replaced: &Replaced, batch: &Batch<'_>) -> bool {
        let place = self.place_of(chunk);
        let is_there = (place.index, place.at) == (replaced.index, replaced.at) && chunk.at != IN_PARTS;
        let is_same = batch.summary.span == chunk.span && batch.summary.count <= chunk.records;
        is_there && is_same && u64::from(replaced.left_out) <= self.removed_of(&place)
    }

    /// How many chunks are the appended batch whose header begins there: one, as long as no append names a log twice.
    pub(crate) fn chunks_of(&self, index: Index, at: u32) -> u64 {
        let Some(first) = self.chunks.partition(|chunk| chunk.index < index.0) else { return 0 };
        let of_entry = self.chunks.from(first.first).take_while(|chunk| chunk.index == index.0);
        of_entry.filter(|chunk| chunk.at == at && at != REWRITTEN).count() as u64
    }

    /// Whether the chunk that begins at this offset was rewritten and is the batch whose header begins there.
    pub(crate) fn is_rewritten_at(&self, first: u64, index: Index, at: u32) -> bool {
        self.rewritten.find(first).is_some_and(|place| (place.index, place.at) == (index.0, at))
    }

    /// Whether a chunk is the batch whose header begins there, appended or rewritten. Looks through all that were
    /// rewritten.
    pub(crate) fn needs_batch(&self, index: Index, at: u32) -> bool {
        let is_there = |place: &NewPlace| (place.index, place.at) == (index.0, at);
        self.chunks_of(index, at) > 0 || self.rewritten.places.iter().any(is_there)
    }

    /// Whether a batch in the entries from `first` to `last` is needed.
    pub(crate) fn needs_entries(&self, first: Index, last: Index) -> bool {
        let appended = || {
            let from = self.chunks.partition(|chunk| chunk.index < first.0)?.first;
            let mut within = self.chunks.from(from).take_while(|chunk| chunk.index <= last.0);
            within.find(|chunk| chunk.at != REWRITTEN)
        };
        // The planted bug knows of nothing but appends.
        let rewritten = self.rewritten.is_within(first.0, last.0) && !planted(Bug::RewriteForgottenByTrim);
        rewritten || appended().is_some()
    }
}
