//! What a log and a coordinator mean, as plainly as possible: every batch ever appended, looked through each time.

use std::collections::BTreeMap;

use ::model::Replaced;
use ::model::batch::{Producer, Summary};
use ::model::commit::{Commit, Forget, Forgotten};

use crate::AppendRefusal;

const DAY_MS: u64 = 86_400_000;

/// First offset, the one behind the last, whether it was there before; or why not.
pub(super) type Answer = Result<(u64, u64, bool), AppendRefusal>;

#[derive(Clone, Debug)]
pub(super) struct LogBatch {
    pub(super) first: u64,
    pub(super) records: u64,
    pub(super) timestamp: i64,
    pub(super) taken: i64,
    /// Header and body, or the row that came in parts.
    pub(super) bytes: Vec<u8>,
    pub(super) in_parts: bool,
    /// The entries it is in.
    pub(super) entries: Vec<u64>,
    /// Where its header begins there; 0 in parts.
    pub(super) at: u32,
    /// Removed offsets that it was rewritten without.
    pub(super) left_out: u32,
    /// Per offset.
    pub(super) removed: Vec<bool>,
}

impl LogBatch {
    pub(super) fn end(&self) -> u64 {
        self.first + self.removed.len() as u64
    }

    pub(super) fn left(&self) -> u64 {
        self.records.saturating_sub(self.removed.iter().filter(|removed| **removed).count() as u64)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Sent {
    producer: i64,
    epoch: i16,
    first: i64,
    last: i64,
    base: u64,
    time_ms: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) config: Vec<u8>,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) all: Vec<LogBatch>,
    pub(super) sent: Vec<Sent>,
}

impl Log {
    /// The batches of which something is there.
    pub(super) fn batches(&self) -> impl Iterator<Item = &LogBatch> {
        self.all.iter().filter(|batch| {
            let below = self.start.saturating_sub(batch.first).min(batch.removed.len() as u64);
            batch.removed[below as usize..].iter().any(|removed| !removed)
        })
    }

    pub(super) fn timestamp_max(&self) -> Option<i64> {
        self.all.iter().map(|batch| batch.timestamp).max()
    }

    /// The number that would follow, and the epoch, of a producer that is known.
    pub(super) fn expects(&self, producer: i64) -> Option<(i16, i32)> {
        let newest = self.sent.iter().rev().find(|sent| sent.producer == producer)?;
        Some((newest.epoch, ((newest.last + 1) % (1 << 31)) as i32))
    }

    /// Some batch a producer sent: its epoch, first number and length.
    pub(super) fn sent(&self, producer: i64, back: usize) -> Option<(i16, i32, u32)> {
        let mine = self.sent.iter().rev().filter(|sent| sent.producer == producer).nth(back)?;
        let length = (mine.last - mine.first).rem_euclid(1 << 31) + 1;
        Some((mine.epoch, mine.first as i32, length as u32))
    }

    fn judge(&mut self, batch: &Producer, span: u32, now_ms: u64) -> Result<Option<u64>, AppendRefusal> {
        let mine = |sent: &&Sent| sent.producer == batch.id;
        if self.sent.iter().rev().find(mine).is_some_and(|newest| now_ms - newest.time_ms > DAY_MS) {
            self.sent.retain(|sent| sent.producer != batch.id);
        }
        let mine: Vec<&Sent> = self.sent.iter().filter(mine).collect();
        let first = i64::from(batch.base_sequence);
        let Some(newest) = mine.last() else { return Ok(None) };
        if batch.epoch < newest.epoch {
            return Err(AppendRefusal::StaleProducer);
        }
        let last = (first + i64::from(span) - 1) % (1 << 31);
        let known = mine.iter().rev().take_while(|sent| sent.epoch == batch.epoch).take(5);
        if let Some(same) = known.into_iter().find(|sent| (sent.first, sent.last) == (first, last)) {
            return Ok(Some(same.base));
        }
        let follows = if batch.epoch > newest.epoch { 0 } else { (newest.last + 1) % (1 << 31) };
        if first == follows { Ok(None) } else { Err(AppendRefusal::OutOfSequence) }
    }

    pub(super) fn append_native(
        &mut self,
        summary: &Summary,
        bytes: &[u8],
        place: (u64, u32),
        now_ms: u64,
    ) -> Answer {
        let span = u64::from(summary.span);
        if let Some(producer) = &summary.producer
            && let Some(base) = self.judge(producer, summary.span, now_ms)?
        {
            return Ok((base, base + span, true));
        }
        let base = self.end;
        self.append(summary, bytes, place);
        if let Some(producer) = &summary.producer {
            let first = i64::from(producer.base_sequence);
            let last = (first + span as i64 - 1) % (1 << 31);
            let (producer, epoch) = (producer.id, producer.epoch);
            self.sent.push(Sent { producer, epoch, first, last, base, time_ms: now_ms });
        }
        Ok((base, base + span, false))
    }

    pub(super) fn append(&mut self, summary: &Summary, bytes: &[u8], (index, at): (u64, u32)) {
        self.all.push(LogBatch {
            first: self.end,
            records: u64::from(summary.count),
            timestamp: summary.timestamp_max,
            taken: summary.ingest,
            bytes: bytes.to_vec(),
            in_parts: false,
            entries: vec![index],
            at,
            left_out: 0,
            removed: vec![false; summary.span as usize],
        });
        self.end += u64::from(summary.span);
    }

    pub(super) fn append_row(&mut self, row: &[u8], entries: &[u64], now_ms: u64) {
        self.all.push(LogBatch {
            first: self.end,
            records: 1,
            timestamp: now_ms as i64,
            taken: now_ms as i64,
            bytes: row.to_vec(),
            in_parts: true,
            entries: entries.to_vec(),
            at: 0,
            left_out: 0,
            removed: vec![false],
        });
        self.end += 1;
    }

    /// Puts these bytes in place of a batch and returns how many bytes it had and has; `None` where they do not fit.
    pub(super) fn rewrite(
        &mut self,
        replaced: &Replaced,
        summary: &Summary,
        bytes: &[u8],
        (index, at): (u64, u32),
    ) -> Option<(u32, u32)> {
        let is_there = self.batches().any(|batch| batch.first == replaced.first && !batch.in_parts);
        let batch = self.all.iter_mut().find(|batch| batch.first == replaced.first).filter(|_| is_there)?;
        let removed = batch.removed.iter().filter(|removed| **removed).count();
        let is_it = batch.entries == [replaced.index.0] && batch.at == replaced.at;
        let is_same =
            batch.removed.len() == summary.span as usize && u64::from(summary.count) <= batch.records;
        if !is_it || !is_same || replaced.left_out as usize > removed {
            return None;
        }
        let before = batch.bytes.len() as u32;
        (batch.bytes, batch.entries, batch.at) = (bytes.to_vec(), vec![index], at);
        batch.left_out = replaced.left_out;
        Some((before, bytes.len() as u32))
    }

    pub(super) fn trim(&mut self, bound: u64) -> bool {
        let before = self.start;
        self.start = before.max(bound.min(self.end));
        self.start > before
    }

    pub(super) fn remove(&mut self, ranges: &[(u64, u64)]) -> u64 {
        let there: Vec<u64> = self.batches().map(|batch| batch.first).collect();
        let start = self.start;
        let mut removed = 0;
        for batch in self.all.iter_mut().filter(|batch| there.contains(&batch.first)) {
            for (offset, gone) in (batch.first..).zip(&mut batch.removed) {
                let named = ranges.iter().any(|(first, last)| *first <= offset && offset <= *last);
                if named && offset >= start && !*gone {
                    (*gone, removed) = (true, removed + 1);
                }
            }
        }
        removed
    }
}

/// Offset, epoch, metadata, time.
pub(super) type Offset = (u64, Option<u32>, String, u64);

#[derive(Clone, Debug, Default)]
pub(super) struct Coordinator {
    pub(super) config: Vec<u8>,
    /// By group: its last commit and its offsets.
    pub(super) groups: BTreeMap<String, (u64, BTreeMap<u64, Offset>)>,
}

impl Coordinator {
    pub(super) fn commit(&mut self, commit: &Commit<'_>, now_ms: u64) {
        if let Some(group) = self.groups.get_mut(commit.group) {
            group.0 = now_ms;
        }
        for new in &commit.offsets {
            let group = self.groups.entry(commit.group.to_owned()).or_default();
            group.0 = now_ms;
            group.1.insert(new.log.0, (new.offset, new.epoch, new.metadata.to_owned(), now_ms));
        }
    }

    pub(super) fn forget(&mut self, forget: &Forget<'_>) {
        self.groups.retain(|name, (touched, offsets)| {
            match &forget.what {
                _ if name != forget.group => {}
                Forgotten::UnlessSince(time) if *time == u64::MAX || *touched < *time => offsets.clear(),
                Forgotten::UnlessSince(_) => {}
                Forgotten::Logs(logs) => offsets.retain(|log, _| !logs.iter().any(|gone| gone.0 == *log)),
            }
            !offsets.is_empty()
        });
    }
}
