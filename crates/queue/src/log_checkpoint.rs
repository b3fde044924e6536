//! A log as bytes of a checkpoint.
//!
//! ```text
//! log      id u64, configuration length and bytes, start, end, highest timestamp i64,
//!          epoch count, chunk count, producer count;
//!          epochs: epoch, first offset
//!          chunks: distance from the end of the chunk before, distance from the entry before,
//!                  offsets * 8 + rewritten * 4 + has removed * 2 + in parts (formats 2 and 3: offsets * 4, never
//!                  rewritten), records, highest timestamp i64,
//!                  when it was taken in (ms) * 2 + ages from then (not in format 2),
//!                  where the batch header begins, bytes | piece count and pieces (see `checkpoint`),
//!                  rewritten: distance of the entry it is in now from that it was appended with, removed offsets left
//!                  out (and where the header begins is in that entry),
//!                  with removed: a bit per offset, as words u64, set where removed
//!          producers: distance from the id before, epoch u16, last use (ms), batch count;
//!                  batches: first sequence, last sequence, base offset
//! ```
//! Numbers without a width are varints; the others are little endian.

use std::sync::Arc;

use base::{Bug, Put, planted};
use model::{Damaged, QueueId};

use crate::LogState;
use crate::bits;
use crate::checkpoint::{AS_APPENDED, COUNTER_MAX, Decoder, STRIDE, UNTIMED, encode_pieces, narrow, require};
use crate::log_state::{LogChunk, Taken};
use crate::producers::{ProducerState, REMEMBERED, Seen};
use crate::queue_state::IN_PARTS;
use crate::rewritten::{NewPlace, REWRITTEN};

pub(crate) fn encode_log(id: QueueId, log: &LogState, out: &mut Vec<u8>) {
    out.put_u64_le(id.0);
    out.put_lengthed(&log.config);
    out.put_varint(log.start);
    out.put_varint(log.end);
    out.put_u64_le(log.timestamp_max as u64);
    out.put_varint(log.epochs.len() as u64);
    out.put_varint(log.chunks.len() as u64);
    // The planted bug forgets who wrote.
    let forgotten = planted(Bug::ForgetProducerOnCheckpoint);
    out.put_varint(if forgotten { 0 } else { log.producers.len() as u64 });
    for (epoch, first) in &log.epochs {
        out.put_varint(u64::from(*epoch));
        out.put_varint(*first);
    }
}

/// Writes some chunks and returns the end and the entry of the last; `None` when there was none left.
pub(crate) fn encode_chunks(
    log: &LogState,
    mut end: u64,
    mut index: u64,
    out: &mut Vec<u8>,
) -> Option<(u64, u64)> {
    let mut any = false;
    for chunk in log.chunks.from(end).take(STRIDE) {
        // The planted bug brings back what compaction took.
        let removed = log.removed.get(&chunk.first).filter(|_| !planted(Bug::ForgetRemovedOnCheckpoint));
        let in_parts = chunk.at == IN_PARTS;
        let place = log.place_of(chunk);
        let rewritten = chunk.at == REWRITTEN;
        out.put_varint(chunk.first - end);
        out.put_varint(chunk.index - index);
        let flags = u64::from(rewritten) << 2 | u64::from(removed.is_some()) << 1 | u64::from(in_parts);
        out.put_varint(u64::from(chunk.span) << 3 | flags);
        out.put_varint(u64::from(chunk.records));
        out.put_u64_le(chunk.timestamp_max as u64);
        out.put_varint(chunk.taken.bits());
        match log.pieces.get(&chunk.first).filter(|_| in_parts) {
            Some(pieces) => {
                out.put_varint(pieces.len() as u64);
                encode_pieces(pieces, out);
            }
            None => {
                out.put_varint(u64::from(place.at));
                out.put_varint(u64::from(chunk.bytes));
            }
        }
        if rewritten {
            out.put_varint(place.index.0 - chunk.index);
            out.put_varint(removed.map_or(0, |_| u64::from(place.left_out)));
        }
        removed.iter().flat_map(|words| words.iter()).for_each(|word| out.put_u64_le(*word));
        (end, index, any) = (chunk.end(), chunk.index, true);
    }
    any.then_some((end, index))
}

/// Writes some producers and returns the id behind the last; `None` when there was none left.
pub(crate) fn encode_producers(log: &LogState, mut from: u64, out: &mut Vec<u8>) -> Option<u64> {
    if planted(Bug::ForgetProducerOnCheckpoint) {
        return None;
    }
    let mut any = false;
    for producer in log.producers.from(from).take(STRIDE) {
        out.put_varint(producer.id - from);
        out.put_u16_le(producer.epoch as u16);
        out.put_varint(producer.last_ms);
        out.put_varint(producer.batches().len() as u64);
        for seen in producer.batches() {
            out.put_varint(seen.first_sequence as u64);
            out.put_varint(seen.last_sequence as u64);
            out.put_varint(seen.base);
        }
        (from, any) = (producer.id + 1, true);
    }
    any.then_some(from)
}

impl Decoder<'_> {
    pub(crate) fn log(&mut self) -> Result<LogState, Damaged> {
        let mut log = LogState::new(self.reader.lengthed()?);
        (log.start, log.end) = (self.reader.varint()?, self.reader.varint()?);
        require(log.start <= log.end && log.end < COUNTER_MAX)?;
        let timestamp_max = self.reader.i64_le()?;
        let counts = [self.reader.varint()?, self.reader.varint()?, self.reader.varint()?];
        let [epochs, chunks, producers] = counts;
        self.epochs(&mut log, epochs)?;
        let (mut end, mut index) = (0, 0);
        for number in 0..chunks {
            let chunk = self.chunk(&mut log, end, index)?;
            (end, index) = (chunk.end(), chunk.index);
            // The planted bug loses one on the way.
            if planted(Bug::ForgetChunkOnCheckpoint) && number == 0 && chunks > 1 {
                continue;
            }
            require(chunk.timestamp_max <= timestamp_max)?;
            log.restore(chunk)?;
        }
        log.timestamp_max = timestamp_max;
        let mut id = 0;
        for _ in 0..producers {
            id = self.ascend(id)?;
            let producer = self.producer(id, log.end)?;
            require(id < 1 << 63 && log.producers.restore(producer))?;
            id += 1;
        }
        Ok(log)
    }

    fn epochs(&mut self, log: &mut LogState, count: u64) -> Result<(), Damaged> {
        log.epochs.clear();
        for _ in 0..count {
            let (epoch, first) = (narrow(self.reader.varint()?)?, self.reader.varint()?);
            let before = log.epochs.last();
            require(before.is_none_or(|before| before.0 < epoch && before.1 <= first) && first <= log.end)?;
            log.epochs.push((epoch, first));
        }
        require(log.epochs.first().is_some_and(|first| first.1 == 0))
    }

    fn chunk(&mut self, log: &mut LogState, end: u64, index: u64) -> Result<LogChunk, Damaged> {
        let first = self.ascend(end)?;
        let index = self.ascend(index)?;
        let packed = self.reader.varint()?;
        let (has_removed, in_parts) = (packed & 2 != 0, packed & 1 != 0);
        let (span, rewritten) = match self.format {
            ..=AS_APPENDED => (packed >> 2, false),
            _ => (packed >> 3, packed & 4 != 0),
        };
        let (span, records) = (narrow(span)?, narrow(self.reader.varint()?)?);
        let timestamp_max = self.reader.i64_le()?;
        let taken = match self.format {
            // Nothing more is known than that it was there when this was written.
            UNTIMED => Taken::new(self.time_ms, timestamp_max < 0),
            _ => Taken::from_bits(self.reader.varint()?),
        };
        let behind = first.checked_add(u64::from(span)).ok_or(Damaged("a chunk ends beyond all offsets"))?;
        require(log.start < behind && behind <= log.end && index <= self.applied)?;
        require(0 < records && records <= span)?;
        let running_max = timestamp_max;
        let mut chunk = LogChunk {
            first,
            index,
            timestamp_max,
            running_max,
            taken,
            at: IN_PARTS,
            span,
            records,
            bytes: 0,
        };
        let at = self.reader.varint()?;
        if in_parts {
            require(span == 1 && at > 0 && !rewritten)?;
            let pieces = self.pieces(at)?;
            chunk.bytes = u32::try_from(pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>())
                .unwrap_or(u32::MAX);
            log.pieces.insert(first, pieces.into());
        } else {
            (chunk.at, chunk.bytes) = (narrow(at)?, narrow(self.reader.varint()?)?);
            require(chunk.at < REWRITTEN)?;
        }
        let mut left_out = 0;
        if rewritten {
            let place = self.new_place(&chunk)?;
            left_out = place.left_out;
            log.rewritten.insert(place);
            chunk.at = REWRITTEN;
            self.need(place.index, 1)?;
        } else if !in_parts {
            self.need(index, 1)?;
        }
        let mut removed = 0;
        if has_removed {
            let words = self.reader.bytes((span as usize).div_ceil(64) * 8)?;
            let words: Vec<u64> = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            let any = bits::next_set(&words, 0).is_some();
            require(any && bits::next_set(&words, span as usize).is_none())?;
            removed = words.iter().map(|word| word.count_ones()).sum();
            log.removed.insert(first, Arc::new(words));
        }
        require(left_out <= removed)?;
        Ok(chunk)
    }

    /// Where a rewritten chunk is now, which was read with its place in that entry.
    fn new_place(&mut self, chunk: &LogChunk) -> Result<NewPlace, Damaged> {
        let index = self.ascend(chunk.index)?;
        let left_out = narrow(self.reader.varint()?)?;
        require(index <= self.applied)?;
        Ok(NewPlace { first: chunk.first, index, at: chunk.at, left_out })
    }

    fn producer(&mut self, id: u64, end: u64) -> Result<ProducerState, Damaged> {
        let epoch = self.reader.i16_le()?;
        let (last_ms, count) = (self.reader.varint()?, self.reader.varint()?);
        require(0 < count && count <= REMEMBERED as u64)?;
        let mut producer =
            ProducerState { id, last_ms, epoch, count: 0, seen: [Seen::default(); REMEMBERED] };
        for _ in 0..count {
            let [first, last, base] = [self.reader.varint()?, self.reader.varint()?, self.reader.varint()?];
            let sequence =
                |number| i32::try_from(number).map_err(|_| Damaged("a producer's number is out of range"));
            let seen = Seen { first_sequence: sequence(first)?, last_sequence: sequence(last)?, base };
            let before = producer.batches().last();
            require(base < end && before.is_none_or(|before| before.base < base))?;
            producer.push(seen);
        }
        Ok(producer)
    }
}

impl LogState {
    /// Adds a chunk that was read back, behind all others.
    fn restore(&mut self, chunk: LogChunk) -> Result<(), Damaged> {
        let end = self.end;
        self.end = chunk.first;
        self.add(chunk);
        self.end = end;
        require(!self.is_empty(&chunk))?;
        self.records -= u64::from(chunk.records) - self.left(&chunk);
        Ok(())
    }
}
