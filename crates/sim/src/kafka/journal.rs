//! What was written to Kafka's partitions and what was read of them, and every promise that can be checked against it.
//!
//! In: what clients sent and what came back, in the order in which they learned it. Out: the first broken promise, by
//! the id of its invariant: K1 an offset holds one record for ever; K2 what was acknowledged or read is not lost; K6 a
//! record has one offset; K7 readers meet no gaps; K8 nor are there any within one answer; K9 each writer's order
//! holds; K14 neither end nor start falls; K15 offsets by time are right, of each key the last record stays and a
//! deleted key does not come back; G7 nothing is out of range that is there; L11 nothing is altered.
//!
//! Answers of different connections are read in any order. Everything sent notes a *glance* at what was known then,
//! and an answer is held only to that.

mod kept;
mod reads;

use std::collections::{BTreeMap, BTreeSet};

use super::batch::GotBatch;
use super::plan::{Keeping, Topic};
use crate::client::Fault;
use crate::ledger::body_of;

/// A record by its number.
pub(super) type RecordId = usize;
type Checked<T = ()> = Result<T, Fault>;

/// Whether its writer heard of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    /// It must never be read, says this invariant.
    Refused(&'static str),
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
    /// When it was appended, where that is its time and is known.
    stamp_ms: Option<i64>,
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
    /// Confirmed records whose offset nobody knows.
    owed: BTreeSet<RecordId>,
    /// The last offset that a reader of everything found and that cannot go.
    last: Option<u64>,
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

/// A batch as it was sent; its records have successive numbers.
#[derive(Clone, Copy, Debug)]
struct Sealed {
    crc: [u8; 4],
    records: usize,
    bytes: u64,
}

/// What an answer says of a partition.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub start: u64,
    pub end: u64,
    pub batches: Vec<GotBatch>,
    /// The first offset that a transaction under way may hold back.
    pub stable: u64,
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
    pub incremental: u64,
    pub untold: u64,
    pub confirmed: u64,
    pub streamed: u64,
    pub looked_up: u64,
    pub latest: u64,
    pub deleted: u64,
    pub outlived: u64,
    pub compacted: u64,
    pub marks_gone: u64,
    pub out_of_range: u64,
    pub probes: u64,
    pub packed: u64,
    pub stamped: u64,
    pub topics_deleted: u64,
    pub recreated: u64,
    pub recreated_read: u64,
    pub deleted_ids: u64,
    pub grown: u64,
    pub transactions_refused: u64,
    pub put_off: u64,
    pub held_back: u64,
    pub commits: u64,
    pub commits_refused: u64,
    pub offsets_fetched: u64,
    pub generations: u64,
    pub assigned: u64,
    pub vanished: u64,
    pub settled_groups: u64,
    pub statics_kept: u64,
    pub fenced: u64,
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
    /// The earliest.
    pub wall_min_ms: i64,
    /// By how much it went back, in all.
    wall_back_ms: i64,
    wall_ms: i64,
    /// Batches by their first record.
    sealed: BTreeMap<RecordId, Sealed>,
    pub seen: Seen,
    /// Everything is at rest and is read for the last time.
    pub is_audited: bool,
    is_loud: bool,
}

impl Journal {
    pub fn new(topics: &[Topic], is_loud: bool) -> Journal {
        let numbered = topics.iter().enumerate();
        let spots = numbered.flat_map(|(topic, of)| (0..of.partitions).map(move |at| (topic, at)));
        let spots = spots.map(|(topic, partition)| Spot { topic, partition, ..Spot::default() }).collect();
        let (records, seen) = (Vec::new(), Seen::default());
        Journal {
            topics: topics.to_vec(),
            spots,
            records,
            stamp: 0,
            wall_max_ms: 0,
            wall_min_ms: i64::MAX,
            wall_back_ms: 0,
            wall_ms: 0,
            sealed: BTreeMap::new(),
            seen,
            is_audited: false,
            is_loud,
        }
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

    /// What the partition is called as a stream.
    pub fn stream_name(&self, spot: usize) -> String {
        let of = &self.spots[spot];
        let Topic { name, partitions, .. } = &self.topics[of.topic];
        // Where a topic begins with one partition, that one has its name.
        if *partitions == 1 && of.partition == 0 { name.clone() } else { format!("{name}-{}", of.partition) }
    }

    /// Everything is at rest and is read for the last time.
    pub fn begin_audit(&mut self) {
        self.is_audited = true;
        self.spots.iter_mut().for_each(|spot| spot.last = None);
    }

    /// The first and the last offset of each partition that has any, as the audit found them; of those that lose records
    /// by themselves nobody knows.
    pub fn present(&self) -> BTreeMap<usize, (u64, u64)> {
        let spots = self.spots.iter().enumerate();
        spots.filter_map(|(number, spot)| Some((number, (spot.start, spot.last?)))).collect()
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

    /// Whether the times of its records are those of their appends.
    pub fn is_stamped(&self, spot: usize) -> bool {
        self.topics[self.spots[spot].topic].is_stamped
    }

    /// The topic that partitions are added to, and how many it has.
    pub fn growing(&self) -> Option<(usize, usize)> {
        let topic = self.topics.iter().position(|topic| topic.grows)?;
        Some((topic, self.spots.iter().filter(|spot| spot.topic == topic).count()))
    }

    /// It has got one more.
    pub fn grow(&mut self, topic: usize) {
        let partition = self.spots.iter().filter(|spot| spot.topic == topic).count() as i32;
        self.spots.push(Spot { topic, partition, ..Spot::default() });
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
        self.records.push(Record { spot, writer, key, bytes, time_ms, stamp_ms: None, fate: Fate::Open });
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

    /// Records were refused for good, or must be.
    pub fn refused(&mut self, invariant: &'static str, ids: &[RecordId]) {
        ids.iter().for_each(|id| self.records[*id].fate = Fate::Refused(invariant));
    }

    /// Records were acknowledged.
    pub fn acked(&mut self, spot: usize, base: u64, ids: &[RecordId]) -> Checked {
        if self.is_loud {
            eprintln!("    {:?} has {ids:?} from {base} on", self.place(spot));
        }
        for (offset, id) in (base..).zip(ids) {
            self.learn(spot, offset, *id)?;
            self.is_not_too_young(spot, offset, *id)?;
            self.seen.acked += 1;
        }
        let of = &mut self.spots[spot];
        of.end = of.end.max(base + ids.len() as u64);
        self.serves(spot);
        Ok(())
    }

    /// A record was confirmed to who does not learn its offset.
    pub fn confirmed(&mut self, id: RecordId) {
        let Record { spot, fate, .. } = self.records[id];
        self.seen.confirmed += 1;
        if fate == Fate::Open {
            self.spots[spot].owed.insert(id);
        }
    }

    /// A batch is about to be sent.
    pub fn sealed(&mut self, ids: &[RecordId], batch: &[u8]) {
        let crc = batch.get(17..21).and_then(|crc| crc.try_into().ok());
        if let (Some(first), Some(crc)) = (ids.first(), crc) {
            let (records, bytes) = (ids.len(), batch.len() as u64);
            self.sealed.insert(*first, Sealed { crc, records, bytes });
        }
    }

    /// What the node says of the time of records that it acknowledges; -1: it is as they were sent, or they were sent
    /// again when they were gone already.
    pub fn stamped(&mut self, spot: usize, (base, ids): (u64, &[RecordId]), time_ms: i64) -> Checked {
        let of = &self.spots[spot];
        match self.is_stamped(spot) {
            false if time_ms == -1 => Ok(()),
            true if time_ms == -1 && base < of.start.max(of.deleted) => Ok(()),
            false => self.fault(spot, "K15", format!("records {ids:?} are said to be of {time_ms}")),
            true => ids.iter().try_for_each(|id| self.stamp(spot, *id, time_ms)),
        }
    }

    /// A record was appended then.
    fn stamp(&mut self, spot: usize, id: RecordId, time_ms: i64) -> Checked {
        let is_possible = (self.wall_min_ms..=self.wall_max_ms).contains(&time_ms);
        match self.records[id].stamp_ms.replace(time_ms) {
            Some(before) if before != time_ms => {
                self.fault(spot, "K15", format!("record {id} was appended at {before} and at {time_ms}"))
            }
            None if !is_possible => {
                self.fault(spot, "K15", format!("record {id} was appended at {time_ms}, which never was"))
            }
            None => {
                self.seen.stamped += 1;
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// The time of a record, where it is known.
    fn time_of(&self, id: RecordId) -> Option<i64> {
        let record = &self.records[id];
        if self.is_stamped(record.spot) { record.stamp_ms } else { Some(record.time_ms) }
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
            Fate::Refused(invariant) => {
                return self.fault(spot, invariant, format!("record {id} was refused and is at {offset}"));
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
            Keeping::Size(_) => self.keeps_enough(spot, start, false),
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

    /// What the node's clock says now.
    pub fn see_clock(&mut self, now_ms: i64) {
        self.wall_back_ms += (self.wall_ms - now_ms).max(0);
        self.wall_ms = now_ms;
        self.wall_max_ms = self.wall_max_ms.max(now_ms);
        self.wall_min_ms = self.wall_min_ms.min(now_ms);
    }

    /// Somebody asks for everything below an offset to be deleted.
    pub fn delete(&mut self, spot: usize, below: u64) {
        let of = &mut self.spots[spot];
        of.deleted = of.deleted.max(below);
    }

    /// Everything was read and nothing is under way: of what a writer with numbers wrote nothing may be missing
    /// before what is there.
    pub fn has_no_holes(&self, writers: &BTreeMap<u64, Vec<RecordId>>) -> Checked {
        for (number, of) in self.spots.iter().enumerate() {
            self.keeps_enough(number, of.start, true)?;
        }
        for (number, spot) in self.spots.iter().enumerate().filter(|(_, of)| of.start.max(of.deleted) == 0) {
            let is_lost = |id: &&RecordId| self.offset_of(**id).is_none() && !self.may_go(**id);
            if let Some(id) = spot.owed.iter().find(is_lost) {
                return self.fault(number, "K3", format!("record {id} was confirmed and is not there"));
            }
        }
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
