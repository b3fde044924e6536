//! What was written to Kafka's partitions and what was read of them, and every promise that can be checked against it.
//!
//! In: what clients sent and what came back, in the order in which they learned it. Out: the first broken promise, by
//! the id of its invariant: K1 an offset holds one record for ever; K2 what was acknowledged or read is not lost; K6 a
//! record has one offset; K7 readers meet no gaps; K9 each writer's order holds; K14 neither end nor start falls; K15
//! offsets by time are right, of each key the last record stays and a deleted key does not come back; G7 nothing is
//! out of range that is there; L11 nothing is altered.
//!
//! Answers of different connections are read in any order. Everything sent notes a *glance* at what was known then,
//! and an answer is held only to that.

use std::collections::BTreeMap;

use super::batch::{GotBatch, GotRecord};
use super::plan::{BEHIND_MS, Keeping, Topic};
use super::wire::code;
use crate::client::Fault;
use crate::ledger::{body_of, is_body};

/// A record by its number.
pub(super) type RecordId = usize;
type Checked<T = ()> = Result<T, Fault>;

/// Whether its writer heard of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Refused,
    /// At this offset, known since then.
    At(u64, u64),
}

/// One record.
#[derive(Clone, Debug)]
struct Record {
    spot: usize,
    writer: u64,
    key: Option<u64>,
    /// Bytes of its value; `None` deletes its key.
    bytes: Option<usize>,
    time_ms: i64,
    fate: Fate,
}

/// One partition.
#[derive(Clone, Debug, Default)]
struct Spot {
    topic: usize,
    partition: i32,
    at: BTreeMap<u64, RecordId>,
    by_key: BTreeMap<u64, Vec<RecordId>>,
    by_writer: BTreeMap<u64, BTreeMap<RecordId, u64>>,
    /// As high as anybody has heard.
    start: u64,
    end: u64,
    /// As far as anybody has asked for records to be deleted.
    deleted: u64,
    /// Since when it is known that compaction took these.
    gone: BTreeMap<u64, u64>,
    /// Since when it has been read or written, since the node was started.
    served: Option<u64>,
}

/// What was known of a partition when something was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    pub stamp: u64,
    pub start: u64,
    pub end: u64,
}

/// What an answer says of a partition.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub start: u64,
    pub end: u64,
    pub batches: Vec<GotBatch>,
    /// No other partition was read with it: where nothing came, there is nothing.
    pub is_alone: bool,
}

/// How often what was checked.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Seen {
    pub written: u64,
    pub acked: u64,
    pub resent: u64,
    pub read: u64,
    pub looked_up: u64,
    pub deleted: u64,
    pub outlived: u64,
    pub compacted: u64,
    pub marks_gone: u64,
    pub out_of_range: u64,
    pub probes: u64,
    pub put_off: u64,
    pub commits: u64,
    pub commits_refused: u64,
    pub offsets_fetched: u64,
    pub generations: u64,
    pub assigned: u64,
}

/// All records of a run.
#[derive(Debug)]
pub(super) struct Journal {
    pub topics: Vec<Topic>,
    spots: Vec<Spot>,
    records: Vec<Record>,
    stamp: u64,
    /// The latest time that the node's clock may have had.
    pub wall_max_ms: i64,
    pub seen: Seen,
    is_loud: bool,
}

impl Journal {
    pub fn new(topics: &[Topic], is_loud: bool) -> Journal {
        let numbered = topics.iter().enumerate();
        let spots = numbered.flat_map(|(topic, of)| (0..of.partitions).map(move |at| (topic, at)));
        let spots = spots.map(|(topic, partition)| Spot { topic, partition, ..Spot::default() }).collect();
        let (records, seen) = (Vec::new(), Seen::default());
        Journal { topics: topics.to_vec(), spots, records, stamp: 0, wall_max_ms: 0, seen, is_loud }
    }

    /// How many partitions there are; they are numbered.
    pub fn spots(&self) -> usize {
        self.spots.len()
    }

    /// Topic and partition.
    pub fn place(&self, spot: usize) -> (&str, i32) {
        let of = &self.spots[spot];
        (&self.topics[of.topic].name, of.partition)
    }

    /// The partition that an answer names.
    pub fn spot_of(&self, topic: &str, partition: i32) -> Checked<usize> {
        let is = |spot: &usize| self.place(*spot) == (topic, partition);
        let found = (0..self.spots.len()).find(is);
        found.ok_or_else(|| ("L2", format!("nobody asked about partition {partition} of '{topic}'")))
    }

    pub fn keeping(&self, spot: usize) -> Keeping {
        self.topics[self.spots[spot].topic].keeping
    }

    fn fault<T>(&self, spot: usize, invariant: &'static str, what: String) -> Checked<T> {
        let (topic, partition) = self.place(spot);
        Err((invariant, format!("{topic}-{partition}: {what}")))
    }

    /// A moment of its own.
    pub fn tick(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// The node has died.
    pub fn crashed(&mut self) -> u64 {
        self.spots.iter_mut().for_each(|spot| spot.served = None);
        self.tick()
    }

    fn serves(&mut self, spot: usize) {
        let now = self.tick();
        self.spots[spot].served.get_or_insert(now);
    }

    /// A partition is said not to exist. Right after a start its group may not have learned of it yet.
    pub fn unknown(&mut self, spot: usize, asked: u64) -> Checked {
        self.seen.put_off += 1;
        match self.spots[spot].served.is_some_and(|since| since < asked) {
            true => self.fault(spot, "K2", "it is said not to exist".to_owned()),
            false => Ok(()),
        }
    }

    pub fn glance(&mut self, spot: usize) -> Glance {
        let (stamp, of) = (self.tick(), &self.spots[spot]);
        Glance { stamp, start: of.start, end: of.end }
    }

    /// A record is about to be sent.
    pub fn write(
        &mut self,
        spot: usize,
        writer: u64,
        key: Option<u64>,
        bytes: Option<usize>,
        time_ms: i64,
    ) -> RecordId {
        let id = self.records.len();
        self.records.push(Record { spot, writer, key, bytes, time_ms, fate: Fate::Open });
        if let Some(key) = key {
            self.spots[spot].by_key.entry(key).or_default().push(id);
        }
        self.seen.written += 1;
        id
    }

    /// Its value.
    pub fn value(&self, id: RecordId) -> Option<Vec<u8>> {
        self.records[id].bytes.map(|bytes| body_of(id, bytes))
    }

    pub fn key_and_time(&self, id: RecordId) -> (Option<u64>, i64) {
        (self.records[id].key, self.records[id].time_ms)
    }

    /// Records were refused for good.
    pub fn refused(&mut self, ids: &[RecordId]) {
        ids.iter().for_each(|id| self.records[*id].fate = Fate::Refused);
    }

    /// Records were acknowledged.
    pub fn acked(&mut self, spot: usize, base: u64, ids: &[RecordId]) -> Checked {
        if self.is_loud {
            eprintln!("    {:?} has {ids:?} from {base} on", self.place(spot));
        }
        for (offset, id) in (base..).zip(ids) {
            self.learn(spot, offset, *id)?;
            self.seen.acked += 1;
        }
        let of = &mut self.spots[spot];
        of.end = of.end.max(base + ids.len() as u64);
        self.serves(spot);
        Ok(())
    }

    /// A record is at an offset.
    fn learn(&mut self, spot: usize, offset: u64, id: RecordId) -> Checked {
        let stamp = self.tick();
        let Some(record) = self.records.get_mut(id).filter(|record| record.spot == spot) else {
            return self.fault(spot, "L2", format!("nobody sent record {id} to offset {offset}"));
        };
        match record.fate {
            Fate::At(before, _) if before == offset => return Ok(()),
            Fate::At(before, _) => {
                return self.fault(spot, "K6", format!("record {id} is at {before} and at {offset}"));
            }
            Fate::Refused => {
                return self.fault(spot, "K6", format!("record {id} was refused and is at {offset}"));
            }
            Fate::Open => record.fate = Fate::At(offset, stamp),
        }
        let writer = record.writer;
        let of = &mut self.spots[spot];
        if let Some(before) = of.at.insert(offset, id) {
            return self.fault(spot, "K1", format!("offset {offset} has record {id} and had {before}"));
        }
        let order = of.by_writer.entry(writer).or_default();
        order.insert(id, offset);
        let before = order.range(..id).next_back().is_none_or(|(_, before)| *before < offset);
        let behind = order.range(id + 1..).next().is_none_or(|(_, behind)| *behind > offset);
        if before && behind {
            return Ok(());
        }
        self.fault(spot, "K9", format!("record {id} is at {offset}, out of its writer's order"))
    }

    /// What the node says of the bounds of a partition.
    pub fn bounds(&mut self, spot: usize, glance: Glance, start: Option<u64>, end: Option<u64>) -> Checked {
        self.serves(spot);
        if let Some(end) = end {
            if end < glance.end {
                return self.fault(spot, "K14", format!("its end was {} and is {end}", glance.end));
            }
            self.spots[spot].end = self.spots[spot].end.max(end);
        }
        let Some(start) = start else { return Ok(()) };
        if start < glance.start || end.is_some_and(|end| end < start) {
            let before = glance.start;
            return self.fault(
                spot,
                "K14",
                format!("its start was {before} and is {start}, its end {end:?}"),
            );
        }
        self.may_start_at(spot, start)?;
        let of = &mut self.spots[spot];
        of.start = of.start.max(start);
        Ok(())
    }

    /// A start may lie where somebody asked for it, or behind what the topic need not keep.
    fn may_start_at(&mut self, spot: usize, start: u64) -> Checked {
        let of = &self.spots[spot];
        if start <= of.deleted.max(of.start) {
            return Ok(());
        }
        self.seen.outlived += 1;
        match self.keeping(spot) {
            Keeping::Size(_) => Ok(()),
            Keeping::Age(ms) => {
                let mut gone = of.at.range(of.start.max(of.deleted)..start);
                let young = gone.find(|(_, id)| self.age_ms(**id) <= ms);
                match young {
                    None => Ok(()),
                    Some((offset, _)) => self.fault(spot, "K2", format!("{offset} went before its time")),
                }
            }
            Keeping::All | Keeping::Keys(_) => {
                self.fault(spot, "K2", format!("it begins at {start}, which nobody asked for"))
            }
        }
    }

    /// How old a record may be by now, beyond what all are.
    fn age_ms(&self, id: RecordId) -> i64 {
        self.wall_max_ms - self.records[id].time_ms - BEHIND_MS
    }

    /// Somebody asks for everything below an offset to be deleted.
    pub fn delete(&mut self, spot: usize, below: u64) {
        let of = &mut self.spots[spot];
        of.deleted = of.deleted.max(below);
    }

    /// A fetch from an offset on was answered; returns the next offset and how many records came.
    pub fn fetched(
        &mut self,
        spot: usize,
        offset: u64,
        glance: Glance,
        found: &Found,
    ) -> Checked<(u64, usize)> {
        self.bounds(spot, glance, Some(found.start), Some(found.end))?;
        let mut next = offset;
        for (at, batch) in found.batches.iter().enumerate() {
            let begins = if at == 0 { batch.base <= offset } else { batch.base == next };
            let keeps_all = !matches!(self.keeping(spot), Keeping::Keys(_));
            if batch.end <= next || (at > 0 && batch.base < next) || (keeps_all && !begins) {
                let text = format!("a batch from {} to {} where {next} was next", batch.base, batch.end);
                return self.fault(spot, "K7", text);
            }
            self.read_batch(spot, batch, (offset, glance.stamp))?;
            next = batch.end;
        }
        if next > found.end {
            return self.fault(spot, "K14", format!("a batch ends at {next}, behind the end {}", found.end));
        }
        let nothing = found.batches.is_empty() && found.is_alone;
        let until = if nothing { found.end } else { next };
        let came: Vec<u64> =
            found.batches.iter().flat_map(|batch| &batch.records).map(|r| r.offset).collect();
        self.missing(spot, offset..until, &came, glance.stamp)?;
        self.seen.read += came.len() as u64;
        Ok((next, came.len()))
    }

    fn read_batch(&mut self, spot: usize, batch: &GotBatch, from: (u64, u64)) -> Checked {
        let mut before = None;
        for record in &batch.records {
            let in_order = before.is_none_or(|before| before < record.offset);
            if !in_order || !(batch.base..batch.end).contains(&record.offset) {
                return self.fault(spot, "K7", format!("record {} stands in another place", record.offset));
            }
            before = Some(record.offset);
            self.read_record(spot, record, from)?;
        }
        let whole = batch.records.len() as u64 == batch.end - batch.base;
        match self.keeping(spot) {
            Keeping::Keys(_) => Ok(()),
            _ if whole => Ok(()),
            _ => self.fault(spot, "K7", format!("the batch at {} has gaps", batch.base)),
        }
    }

    fn read_record(&mut self, spot: usize, got: &GotRecord, (place, stamp): (u64, u64)) -> Checked {
        let (offset, id) = (got.offset, got.number);
        self.learn(spot, offset, id)?;
        let record = &self.records[id];
        let body = match (record.bytes, &got.value) {
            (Some(bytes), Some(value)) => is_body(id, bytes, value),
            (bytes, value) => bytes.is_none() && value.is_none(),
        };
        if !body || got.time_ms != record.time_ms || got.key != record.key.map(key_of) {
            return self.fault(spot, "L11", format!("record {id} at {offset} was altered"));
        }
        if offset < place {
            // It only shares a batch with what was asked for.
            return Ok(());
        }
        let of = &self.spots[spot];
        let is_gone = |offset: &u64| of.gone.get(offset).is_some_and(|since| *since < stamp);
        if is_gone(&offset) {
            return self.fault(spot, "K15", format!("record {id} at {offset} was gone and is back"));
        }
        let same = record.key.and_then(|key| of.by_key.get(&key)).into_iter().flatten();
        let mark = same.filter(|other| self.records[**other].bytes.is_none()).find_map(|other| {
            let at = self.offset_of(*other)?;
            (at > offset && is_gone(&at)).then_some(at)
        });
        match mark {
            Some(mark) => self.fault(
                spot,
                "K15",
                format!("record {id} at {offset} came back: its key was deleted at {mark}"),
            ),
            None => Ok(()),
        }
    }

    fn offset_of(&self, id: RecordId) -> Option<u64> {
        match self.records[id].fate {
            Fate::At(offset, _) => Some(offset),
            _ => None,
        }
    }

    /// What was known in a range that was read and did not come must have been allowed to go.
    fn missing(&mut self, spot: usize, range: std::ops::Range<u64>, came: &[u64], stamp: u64) -> Checked {
        if range.is_empty() {
            return Ok(());
        }
        let of = &self.spots[spot];
        let known = of.at.range(range).map(|(offset, id)| (*offset, *id));
        let known =
            known.filter(|(_, id)| matches!(self.records[*id].fate, Fate::At(_, since) if since < stamp));
        let missing: Vec<(u64, RecordId)> =
            known.filter(|(offset, _)| came.binary_search(offset).is_err()).collect();
        for (offset, id) in missing {
            if !self.may_go(id) {
                return self.fault(spot, "K2", format!("record {id} at {offset} is lost"));
            }
            let now = self.tick();
            if self.spots[spot].gone.insert(offset, now).is_none() {
                self.seen.compacted += 1;
                self.seen.marks_gone += u64::from(self.records[id].bytes.is_none());
            }
        }
        Ok(())
    }

    /// Whether compaction may have taken a record: there is a later one of its key, or it deletes its key and stood
    /// there long enough.
    fn may_go(&self, id: RecordId) -> bool {
        let record = &self.records[id];
        let Keeping::Keys(marks_ms) = self.keeping(record.spot) else { return false };
        let offset = self.offset_of(id);
        let later = |other: &RecordId| match self.records[*other].fate {
            Fate::At(at, _) => Some(at) > offset,
            Fate::Open => *other != id,
            Fate::Refused => false,
        };
        let same = record.key.and_then(|key| self.spots[record.spot].by_key.get(&key));
        let is_old = record.bytes.is_none() && self.age_ms(id) > marks_ms;
        is_old || same.into_iter().flatten().any(later)
    }

    /// A fetch was refused.
    pub fn fetch_refused(&mut self, spot: usize, offset: u64, why: i16) -> Checked {
        let of = &self.spots[spot];
        let may_be = match self.keeping(spot) {
            Keeping::All | Keeping::Keys(_) => offset < of.deleted,
            Keeping::Age(_) | Keeping::Size(_) => true,
        };
        if why != code::OFFSET_OUT_OF_RANGE || !may_be {
            return self.fault(spot, "G7", format!("reading from {offset} is refused with {why}"));
        }
        self.seen.out_of_range += 1;
        Ok(())
    }

    /// The first offset with a time was asked for.
    pub fn looked_up(
        &mut self,
        spot: usize,
        time_ms: i64,
        glance: Glance,
        found: Option<(u64, i64)>,
    ) -> Checked {
        self.seen.looked_up += 1;
        if let Some((offset, found_ms)) = found {
            let known = self.spots[spot].at.get(&offset).map(|id| self.records[*id].time_ms);
            if found_ms < time_ms || known.is_some_and(|known| known != found_ms) {
                let text =
                    format!("{offset} of time {found_ms} is said to be of {time_ms}; it is of {known:?}");
                return self.fault(spot, "K15", text);
            }
        }
        let of = &self.spots[spot];
        let before = found.map_or(u64::MAX, |(offset, _)| offset);
        let bounded = matches!(self.keeping(spot), Keeping::Age(_) | Keeping::Size(_));
        let first = of.start.max(of.deleted);
        if bounded || first >= before {
            // Anything may have gone meanwhile.
            return Ok(());
        }
        let mut nearer = of.at.range(first..before);
        let nearer = nearer.find(|(_, id)| {
            let record = &self.records[**id];
            let known = matches!(record.fate, Fate::At(_, since) if since < glance.stamp);
            known && record.time_ms >= time_ms && !self.may_go(**id)
        });
        match nearer {
            Some((offset, _)) => {
                self.fault(spot, "K15", format!("{offset} is of {time_ms} or later, but {found:?} was found"))
            }
            None => Ok(()),
        }
    }

    /// Everything was read and nothing is under way: of what a writer with numbers wrote nothing may be missing
    /// before what is there.
    pub fn has_no_holes(&self, writers: &BTreeMap<u64, Vec<RecordId>>) -> Checked {
        for ids in writers.values() {
            let mut by_spot: BTreeMap<usize, Vec<RecordId>> = BTreeMap::new();
            ids.iter().for_each(|id| by_spot.entry(self.records[*id].spot).or_default().push(*id));
            for (spot, ids) in by_spot {
                // What lies below the start may have gone unseen.
                let start = self.spots[spot].start;
                let is_there = |id: &RecordId| self.offset_of(*id).is_some_and(|offset| offset >= start);
                let first = ids.iter().position(is_there).unwrap_or(ids.len());
                let behind = ids.iter().rposition(|id| self.offset_of(*id).is_some()).unwrap_or(0);
                let from = if start > 0 { first } else { 0 };
                if matches!(self.keeping(spot), Keeping::Keys(_)) || from >= behind {
                    continue;
                }
                if let Some(hole) = ids[from..behind].iter().find(|id| self.offset_of(**id).is_none()) {
                    return self.fault(spot, "K9", format!("record {hole} is missing, later ones are there"));
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a key.
pub(super) fn key_of(key: u64) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
