//! The replicated state of one log, a partition: where its batches are, and from where to where it reaches.
//!
//! Records are never listed. A *chunk* is what one append added: rows or a batch as it came, always whole. It goes
//! when everything of it lies below the log's start (trim) or was removed offset by offset (compaction). A removed
//! offset is a bit; a chunk without bits has none removed. What a rewrite has put in place of a chunk's bytes is in
//! `rewritten`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Bug, planted};
use model::batch::{Encoding, Summary};
use model::topic::ProducerFigures;
use model::{Index, Seq};

use crate::bits;
use crate::chunks::{Chunks, Keyed};
use crate::liveness::Ledger;
use crate::origins::Piece;
use crate::producers::{Producers, Verdict};
use crate::queue_state::IN_PARTS;
use crate::rewritten::{REWRITTEN, Rewritten};
use crate::{AppendOutcome, AppendRefusal};

/// When a batch was taken in, and whether its age counts from then on or from its own times. In eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken(u64);

impl Taken {
    pub(crate) fn new(ms: i64, ages_from_then: bool) -> Taken {
        Taken(ms.max(0).cast_unsigned() << 1 | u64::from(ages_from_then))
    }

    /// The time of a batch. Rows age from their arrival, whatever time their writers give them; a batch of Kafka from
    /// its highest timestamp, where it has one.
    fn of(summary: &Summary) -> Taken {
        Taken::new(summary.ingest, summary.encoding == Encoding::Rows || summary.timestamp_max < 0)
    }

    /// As [`Taken::bits`] gave it.
    pub(crate) fn from_bits(bits: u64) -> Taken {
        Taken(bits)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    fn ms(self) -> i64 {
        (self.0 >> 1).cast_signed()
    }
}

/// What one append added to a log. 56 bytes: this is what a batch costs in memory, however large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogChunk {
    /// Its first offset.
    pub(crate) first: u64,
    /// The entry it was appended with: rises from chunk to chunk.
    pub(crate) index: u64,
    /// The highest timestamp in it.
    pub(crate) timestamp_max: i64,
    /// The highest timestamp in it and in what was appended before it: rises from chunk to chunk.
    pub(crate) running_max: i64,
    /// When it was taken in.
    pub(crate) taken: Taken,
    /// Where its batch header begins in the entry, or [`IN_PARTS`], or [`REWRITTEN`].
    pub(crate) at: u32,
    /// Offsets it takes up.
    pub(crate) span: u32,
    /// Records it was appended with.
    pub(crate) records: u32,
    /// Bytes of header and body as they are now.
    pub(crate) bytes: u32,
}

impl Keyed for LogChunk {
    fn key(&self) -> u64 {
        self.first
    }
}

impl LogChunk {
    /// The offset behind its last.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.span)
    }

    /// From when on its age counts.
    fn ages_from(&self) -> i64 {
        if self.taken.0 & 1 == 1 { self.taken.ms() } else { self.timestamp_max }
    }
}

/// Where one batch of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkAt<'a> {
    /// The entry it is in. Not needed for a row in parts: those are where `parts` says.
    pub index: Index,
    /// Where its batch header begins in the entry; without meaning for a row in parts.
    pub at: u32,
    /// Bytes of header and body; of a row in parts those of the row.
    pub bytes: u32,
    /// The offset of its first record.
    pub first: u64,
    /// Offsets it takes up.
    pub span: u32,
    /// Records it was appended with.
    pub records: u32,
    /// How many removed offsets its bytes have no record of: it was rewritten without them.
    pub left_out: u32,
    /// The highest timestamp it was appended with.
    pub timestamp_max: i64,
    /// When it was taken in.
    pub taken_ms: i64,
    /// Where the bytes of its only row are, where that came in parts: without any batch header. Else empty.
    pub parts: &'a [Piece],
}

impl ChunkAt<'_> {
    /// The offset behind its last.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.span)
    }
}

/// One log.
#[derive(Clone, Debug)]
pub struct LogState {
    pub(crate) config: Arc<[u8]>,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) timestamp_max: i64,
    /// Leader epochs and the offsets they began at, ascending.
    pub(crate) epochs: Vec<(u32, u64)>,
    pub(crate) chunks: Chunks<LogChunk>,
    pub(crate) removed: BTreeMap<u64, Arc<Vec<u64>>>,
    pub(crate) pieces: BTreeMap<u64, Arc<[Piece]>>,
    pub(crate) rewritten: Rewritten,
    pub(crate) producers: Producers,
}

impl LogState {
    pub(crate) fn new(config: &[u8]) -> LogState {
        LogState {
            config: config.into(),
            start: 0,
            end: 0,
            bytes: 0,
            records: 0,
            timestamp_max: i64::MIN,
            epochs: vec![(0, 0)],
            chunks: Chunks::default(),
            removed: BTreeMap::new(),
            pieces: BTreeMap::new(),
            rewritten: Rewritten::default(),
            producers: Producers::default(),
        }
    }

    /// The configuration as it came.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The first offset: everything below it is forgotten.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset the next record will get.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes of all batches, headers included; one that the start lies within counts whole.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records of all batches that were not removed; a batch that the start lies within counts whole.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The highest timestamp ever appended, `None` before the first.
    pub fn timestamp_max(&self) -> Option<i64> {
        (self.end > 0).then_some(self.timestamp_max)
    }

    /// The leader epoch now.
    pub fn epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |last| last.0)
    }

    /// The leader epoch an offset was written in.
    pub fn epoch_of(&self, offset: u64) -> u32 {
        let begun = self.epochs.partition_point(|(_, first)| *first <= offset);
        begun.checked_sub(1).map_or(0, |at| self.epochs[at].0)
    }

    /// The epoch asked for or the nearest older one there was, and the offset behind its last record.
    pub fn epoch_end(&self, epoch: u32) -> (u32, u64) {
        let behind = self.epochs.partition_point(|(begun, _)| *begun <= epoch);
        let end = self.epochs.get(behind).map_or(self.end, |(_, first)| *first);
        (behind.checked_sub(1).map_or(0, |at| self.epochs[at].0), end)
    }

    /// The producers that are remembered.
    pub fn producers(&self) -> impl Iterator<Item = ProducerFigures> {
        self.producers.from(0).map(|known| ProducerFigures {
            id: known.id,
            epoch: known.epoch,
            last_sequence: known.last().last_sequence,
            last_timestamp_ms: i64::try_from(known.last_ms).unwrap_or(i64::MAX),
        })
    }

    /// The chunk that has this offset, or the first behind it.
    pub fn chunk(&self, offset: u64) -> Option<ChunkAt<'_>> {
        self.chunks_from(offset).next()
    }

    /// The chunk that has this offset and those behind it, ascending.
    pub fn chunks_from(&self, offset: u64) -> impl Iterator<Item = ChunkAt<'_>> {
        let has = self.chunks.floor(offset).filter(|chunk| offset < chunk.end());
        self.chunks.from(has.map_or(offset, |chunk| chunk.first)).map(|chunk| self.place_of(chunk))
    }

    /// The first chunk with a timestamp of `timestamp` or later; one record or more in it is the first such of the
    /// log. Found by halves, unless later timestamps than this are among what was trimmed.
    pub fn chunk_by_time(&self, timestamp: i64) -> Option<ChunkAt<'_>> {
        let near = self.chunks.partition(|chunk| chunk.running_max < timestamp)?;
        // What was trimmed may have pushed the running maximum: then it is a later one.
        let mut behind = self.chunks.from(near.first);
        behind.find(|chunk| chunk.timestamp_max >= timestamp).map(|chunk| self.place_of(chunk))
    }

    /// The first chunk with the highest timestamp of all that are there. Found by halves, unless the highest ever is
    /// among what went.
    pub fn chunk_of_latest(&self) -> Option<ChunkAt<'_>> {
        let found = self.chunk_by_time(self.timestamp_max);
        found.or_else(|| self.chunk_by_time(self.chunks.iter().map(|chunk| chunk.timestamp_max).max()?))
    }

    /// Where the log should begin so that it keeps no more chunks in front than it must: one may go while `bytes_min`
    /// are left without it, or when all of it is older than the first of `before_ms` and was taken in before the second.
    /// Looks at `limit` chunks, the oldest first, so that no trim does the work of many.
    pub fn retention_bound(
        &self,
        bytes_min: Option<u64>,
        before_ms: Option<(i64, i64)>,
        limit: usize,
    ) -> u64 {
        let (mut bound, mut left) = (self.start, self.bytes);
        for chunk in self.chunks.iter().take(limit) {
            left -= u64::from(chunk.bytes);
            let is_spare = bytes_min.is_some_and(|min| left >= min);
            let is_old = before_ms
                .is_some_and(|(before, taken)| chunk.ages_from() < before && chunk.taken.ms() < taken);
            if !is_spare && !is_old {
                break;
            }
            bound = chunk.end();
        }
        bound
    }

    /// Whether an offset within the chunk was removed.
    pub fn is_removed(&self, chunk: &ChunkAt<'_>, offset: u64) -> bool {
        let within = offset.checked_sub(chunk.first).filter(|place| *place < u64::from(chunk.span));
        let words = self.removed.get(&chunk.first).filter(|_| !self.removed.is_empty());
        words.zip(within).is_some_and(|(words, place)| bits::is_set(words, place as usize))
    }

    /// Whether anything of the chunk was removed.
    pub fn has_removed(&self, chunk: &ChunkAt<'_>) -> bool {
        self.removed.contains_key(&chunk.first)
    }

    /// How many offsets of the chunk were removed: a number that only rises.
    pub fn removed_of(&self, chunk: &ChunkAt<'_>) -> u64 {
        let words = self.removed.get(&chunk.first).map_or(&[][..], |words| words);
        words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(crate) fn place_of(&self, chunk: &LogChunk) -> ChunkAt<'_> {
        let parts = self.pieces.get(&chunk.first).filter(|_| chunk.at == IN_PARTS);
        let rewritten = (chunk.at == REWRITTEN).then(|| self.rewritten.find(chunk.first)).flatten();
        let (index, at, left_out) =
            rewritten.map_or((chunk.index, chunk.at, 0), |place| (place.index, place.at, place.left_out));
        ChunkAt {
            index: Index(index),
            at,
            bytes: chunk.bytes,
            first: chunk.first,
            span: chunk.span,
            records: chunk.records,
            left_out,
            timestamp_max: chunk.timestamp_max,
            taken_ms: chunk.taken.ms(),
            parts: parts.map_or(&[], |parts| parts),
        }
    }

    /// Appends a batch as it came, unless its producer's numbers speak against it.
    pub(crate) fn append_native(
        &mut self,
        (index, at): (Index, u32),
        summary: &Summary,
        bytes: u32,
        now_ms: u64,
        ledger: &mut Ledger<'_>,
    ) -> Result<AppendOutcome, AppendRefusal> {
        let span = u64::from(summary.span);
        if let Some(producer) = &summary.producer
            && let Verdict::Repeat(base) = self.producers.judge(producer, summary.span, now_ms)?
        {
            return Ok(AppendOutcome { base, end: base + span, repeat: true });
        }
        let base = self.append((index, at), summary, bytes, ledger);
        if let Some(producer) = &summary.producer {
            self.producers.note(producer, summary.span, base, now_ms);
        }
        Ok(AppendOutcome { base, end: base + span, repeat: false })
    }

    /// Appends a batch and returns its first offset.
    pub(crate) fn append(
        &mut self,
        (index, at): (Index, u32),
        summary: &Summary,
        bytes: u32,
        ledger: &mut Ledger<'_>,
    ) -> u64 {
        ledger.hold(index.0, 1);
        self.add(LogChunk {
            first: self.end,
            index: index.0,
            timestamp_max: summary.timestamp_max,
            running_max: 0,
            taken: Taken::of(summary),
            at,
            span: summary.span,
            records: summary.count,
            bytes,
        })
    }

    /// Appends one row that came in parts; nobody has seen its timestamp, so `stamped_ms`, the time its entry was made,
    /// stands in. Not the group's time: that lags behind after a long stop, and the row would be taken for old.
    pub(crate) fn append_parts(
        &mut self,
        index: Index,
        pieces: &Arc<[Piece]>,
        stamped_ms: u64,
        ledger: &mut Ledger<'_>,
    ) -> u64 {
        let taken_ms = i64::try_from(stamped_ms).unwrap_or(i64::MAX);
        pieces.iter().for_each(|piece| ledger.hold(piece.index, 1));
        self.pieces.insert(self.end, pieces.clone());
        let bytes: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        self.add(LogChunk {
            first: self.end,
            index: index.0,
            timestamp_max: taken_ms,
            running_max: 0,
            taken: Taken::new(taken_ms, true),
            at: IN_PARTS,
            span: 1,
            records: 1,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        })
    }

    pub(crate) fn add(&mut self, chunk: LogChunk) -> u64 {
        self.timestamp_max = self.timestamp_max.max(chunk.timestamp_max);
        self.bytes += u64::from(chunk.bytes);
        self.records += u64::from(chunk.records);
        self.chunks.insert(LogChunk { running_max: self.timestamp_max, ..chunk });
        self.end = chunk.end();
        chunk.first
    }

    /// Forgets what lies below `bound`, but not beyond the end; true when the start rose.
    pub(crate) fn trim(&mut self, bound: u64, ledger: &mut Ledger<'_>) -> bool {
        let before = self.start;
        let bound = bound.min(self.end);
        // The planted bug lets the start fall back to where nothing is left.
        self.start = if planted(Bug::ResurrectTrimmed) { bound } else { bound.max(before) };
        while let Some(chunk) = self.chunks.first().copied().filter(|chunk| chunk.end() <= self.start) {
            self.forget(&chunk, ledger);
        }
        // Of the one that the start lies within now, all the rest may have been removed before.
        if let Some(chunk) = self.chunks.first().copied().filter(|chunk| chunk.first < self.start)
            && self.is_empty(&chunk)
        {
            self.forget(&chunk, ledger);
        }
        self.start > before
    }

    /// Removes the offsets `first..=last` as far as they are there and returns how many that were.
    pub(crate) fn remove(&mut self, first: Seq, last: Seq, ledger: &mut Ledger<'_>) -> u64 {
        let mut from = first.0.max(self.start);
        let mut total = 0;
        // What the start has passed meanwhile is gone already, though the chunk it was in may be there.
        while from <= last.0
            && let Some(chunk) = self.next_chunk(from).filter(|chunk| chunk.first <= last.0)
        {
            total += self.remove_in(&chunk, from, last.0, ledger);
            from = chunk.end();
        }
        total
    }

    fn next_chunk(&self, from: u64) -> Option<LogChunk> {
        let has = self.chunks.floor(from).filter(|chunk| from < chunk.end());
        has.or_else(|| self.chunks.from(from).next()).copied()
    }

    fn remove_in(&mut self, chunk: &LogChunk, first: u64, last: u64, ledger: &mut Ledger<'_>) -> u64 {
        let before = self.left(chunk);
        let from = (first.max(chunk.first) - chunk.first) as usize;
        let to = (last.min(chunk.end() - 1) - chunk.first) as usize;
        let words = (chunk.span as usize).div_ceil(64);
        let removed = self.removed.entry(chunk.first).or_insert_with(|| Arc::new(vec![0; words]));
        let removed = Arc::make_mut(removed);
        let changed = bits::set(removed, from, to);
        self.records -= before - self.left(chunk);
        if self.is_empty(chunk) {
            self.forget(chunk, ledger);
        }
        changed
    }

    /// Whether every offset of the chunk from the start on was removed.
    pub(crate) fn is_empty(&self, chunk: &LogChunk) -> bool {
        let Some(words) = self.removed.get(&chunk.first) else { return false };
        let below = (self.start.max(chunk.first) - chunk.first) as usize;
        bits::next_clear(words, below).is_none_or(|clear| clear >= chunk.span as usize)
    }

    /// Records of the chunk that were not removed. Which of the offsets of a batch with gaps have none is not known:
    /// a removed gap counts as a record.
    pub(crate) fn left(&self, chunk: &LogChunk) -> u64 {
        let words = self.removed.get(&chunk.first).map_or(&[][..], |words| words);
        let removed: u32 = words.iter().map(|word| word.count_ones()).sum();
        u64::from(chunk.records.saturating_sub(removed))
    }

    /// Lets go of a chunk and of what it needs.
    fn forget(&mut self, chunk: &LogChunk, ledger: &mut Ledger<'_>) {
        self.records -= self.left(chunk);
        self.bytes -= u64::from(chunk.bytes);
        self.chunks.remove(chunk.first);
        self.removed.remove(&chunk.first);
        self.release(chunk, ledger);
    }

    /// Lets go of what a chunk needs.
    pub(crate) fn release(&mut self, chunk: &LogChunk, ledger: &mut Ledger<'_>) {
        if chunk.at == REWRITTEN {
            let place = self.rewritten.remove(chunk.first).expect("a rewritten chunk is somewhere");
            return ledger.release(place.index, 1);
        }
        if chunk.at != IN_PARTS {
            return ledger.release(chunk.index, 1);
        }
        let pieces = self.pieces.remove(&chunk.first);
        for piece in pieces.iter().flat_map(|pieces| pieces.iter()) {
            ledger.release(piece.index, 1);
        }
    }

    /// Releases every entry the log still needs and returns how many records that were.
    pub(crate) fn release_all(mut self, ledger: &mut Ledger<'_>) -> u64 {
        let chunks = std::mem::take(&mut self.chunks);
        chunks.iter().for_each(|chunk| self.release(chunk, ledger));
        self.records
    }
}
