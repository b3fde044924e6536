//! What was read of a partition, held against what is known of it.
//!
//! In: answers to fetches and to questions about times, messages of streams. Out: the first broken promise; new
//! knowledge for the journal. Never: learns anything from what it was not asked about.

use super::{Checked, Fate, Found, Glance, Journal, RecordId, key_of};
use crate::kafka::batch::{GotBatch, GotRecord};
use crate::kafka::plan::{DRAWN_MS, Keeping};
use crate::kafka::wire::code;
use crate::ledger::is_body;

impl Journal {
    /// A fetch from an offset on was answered; returns the next offset and how many records came.
    pub fn fetched(
        &mut self,
        spot: usize,
        offset: u64,
        glance: Glance,
        found: &Found,
    ) -> Checked<(u64, usize)> {
        self.bounds(spot, glance, Some(found.start), Some(found.end))?;
        if found.stable != found.end {
            // Nobody can begin a transaction, so none is under way.
            let text = format!("it is stable up to {}, its end is {}", found.stable, found.end);
            return self.fault(spot, "K14", text);
        }
        let mut next = offset;
        for (at, batch) in found.batches.iter().enumerate() {
            let begins = if at == 0 { batch.base <= offset } else { batch.base == next };
            let keeps_all = !matches!(self.keeping(spot), Keeping::Keys(_));
            if batch.end <= next || (at > 0 && batch.base < next) || (keeps_all && !begins) {
                let text = format!("a batch from {} to {} where {next} was next", batch.base, batch.end);
                return self.fault(spot, if at == 0 { "K7" } else { "K8" }, text);
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
        if nothing && self.is_audited && next < found.end {
            // Nobody writes any more, so who reads to the end must get there.
            let text = format!("who reads it stays at {next} for ever, its end is {}", found.end);
            return self.fault(spot, "K14", text);
        }
        self.seen.read += came.len() as u64;
        if self.is_audited {
            let keeps = matches!(self.keeping(spot), Keeping::All | Keeping::Keys(_));
            // A mark that is young may go while others still read.
            let is_value = |id: &RecordId| self.records[*id].bytes.is_some() && !self.may_go(*id);
            let stays = |offset: &&u64| keeps && self.spots[spot].at.get(*offset).is_some_and(is_value);
            let last = came.iter().rev().find(stays).copied();
            self.spots[spot].last = self.spots[spot].last.max(last);
        }
        Ok((next, came.len()))
    }

    /// A consumer of the stream that `asked` then and was at `place` is handed a record.
    pub fn streamed(&mut self, spot: usize, place: Option<u64>, asked: u64, got: &GotRecord) -> Checked {
        if let Some(place) = place.filter(|place| got.offset < *place) {
            return self.fault(spot, "K7", format!("{} is streamed where {place} was next", got.offset));
        }
        self.read_record(spot, got, (0, asked))?;
        self.seen.streamed += 1;
        let now = self.tick();
        let of = &mut self.spots[spot];
        of.end = of.end.max(got.offset + 1);
        let from = place.unwrap_or(of.start).max(of.deleted);
        match self.keeping(spot) {
            // Others may have gone meanwhile.
            Keeping::Age(_) | Keeping::Size(_) => Ok(()),
            Keeping::All | Keeping::Keys(_) if from < got.offset => {
                self.missing(spot, from..got.offset, &[], now)
            }
            Keeping::All | Keeping::Keys(_) => Ok(()),
        }
    }

    fn read_batch(&mut self, spot: usize, batch: &GotBatch, from: (u64, u64)) -> Checked {
        let mut before = None;
        for record in &batch.records {
            let in_order = before.is_none_or(|before| before < record.offset);
            if !in_order || !(batch.base..batch.end).contains(&record.offset) {
                return self.fault(spot, "K8", format!("record {} stands in another place", record.offset));
            }
            before = Some(record.offset);
            self.read_record(spot, record, from)?;
        }
        self.came_as_sent(spot, batch)?;
        let whole = batch.records.len() as u64 == batch.end - batch.base;
        match self.keeping(spot) {
            Keeping::Keys(_) => Ok(()),
            _ if whole => Ok(()),
            _ => self.fault(spot, "K8", format!("the batch at {} has gaps", batch.base)),
        }
    }

    /// Batches are stored as they came; where the log gives the time, or took records out, nothing is known.
    fn came_as_sent(&self, spot: usize, batch: &GotBatch) -> Checked {
        let sent = batch.records.first().and_then(|first| self.sealed.get(&first.number));
        match sent {
            Some(sent)
                if sent.records == batch.records.len() && !self.is_stamped(spot) && sent.crc != batch.crc =>
            {
                self.fault(spot, "L11", format!("the batch at {} is not as it came", batch.base))
            }
            _ => Ok(()),
        }
    }

    fn read_record(&mut self, spot: usize, got: &GotRecord, (place, stamp): (u64, u64)) -> Checked {
        let (offset, id) = (got.offset, got.number);
        self.learn(spot, offset, id)?;
        if self.is_stamped(spot) {
            self.stamp(spot, id, got.time_ms)?;
        }
        let record = &self.records[id];
        let body = match (record.bytes, &got.value) {
            (Some(bytes), Some(value)) => is_body(id, bytes, value),
            (bytes, value) => bytes.is_none() && value.is_none(),
        };
        if !body || self.time_of(id) != Some(got.time_ms) || got.key != record.key.map(key_of) {
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

    pub(super) fn offset_of(&self, id: RecordId) -> Option<u64> {
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
                let invariant = if self.is_audited { "K3" } else { "K2" };
                return self.fault(spot, invariant, format!("record {id} at {offset} is lost"));
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
    pub(super) fn may_go(&self, id: RecordId) -> bool {
        let record = &self.records[id];
        let Keeping::Keys(marks_ms) = self.keeping(record.spot) else { return false };
        let offset = self.offset_of(id);
        let later = |other: &RecordId| match self.records[*other].fate {
            Fate::At(at, _) => Some(at) > offset,
            Fate::Open => *other != id,
            Fate::Refused(_) => false,
        };
        let same = record.key.and_then(|key| self.spots[record.spot].by_key.get(&key));
        // It came when it was written or later, unless the clock went back in between.
        let came_ms = self.age_ms(id) + DRAWN_MS + self.wall_back_ms;
        let is_old = record.bytes.is_none() && came_ms > marks_ms;
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
            let known = self.spots[spot].at.get(&offset).and_then(|id| self.time_of(*id));
            if found_ms < time_ms || known.is_some_and(|known| known != found_ms) {
                let text =
                    format!("{offset} of time {found_ms} is said to be of {time_ms}; it is of {known:?}");
                return self.fault(spot, "K15", text);
            }
        }
        let before = found.map_or(u64::MAX, |(offset, _)| offset);
        match self.of_time(spot, before, time_ms, glance) {
            Some(offset) => {
                self.fault(spot, "K15", format!("{offset} is of {time_ms} or later, but {found:?} was found"))
            }
            None => Ok(()),
        }
    }

    /// The record with the highest time was asked for.
    pub fn is_latest(&mut self, spot: usize, glance: Glance, found: Option<(u64, i64)>) -> Checked {
        self.seen.latest += 1;
        if let Some((offset, found_ms)) = found {
            let known = self.spots[spot].at.get(&offset).and_then(|id| self.time_of(*id));
            if known.is_some_and(|known| known != found_ms) {
                let text = format!("the latest, {offset}, is said to be of {found_ms}; it is of {known:?}");
                return self.fault(spot, "K15", text);
            }
        }
        let later_ms = found.map_or(i64::MIN, |(_, found_ms)| found_ms + 1);
        match self.of_time(spot, u64::MAX, later_ms, glance) {
            Some(offset) => self.fault(
                spot,
                "K15",
                format!("{offset} is of {later_ms} or later, and {found:?} the latest"),
            ),
            None => Ok(()),
        }
    }

    /// A record below an offset that is of a time or a later one, was known then, and is there still.
    fn of_time(&self, spot: usize, below: u64, time_ms: i64, glance: Glance) -> Option<u64> {
        let of = &self.spots[spot];
        let bounded = matches!(self.keeping(spot), Keeping::Age(_) | Keeping::Size(_));
        let first = of.start.max(of.deleted);
        if bounded || first >= below {
            // Anything may have gone meanwhile.
            return None;
        }
        let mut all = of.at.range(first..below);
        let is = all.find(|(_, id)| {
            let record = &self.records[**id];
            let known = matches!(record.fate, Fate::At(_, since) if since < glance.stamp);
            known && self.time_of(**id).is_some_and(|time| time >= time_ms) && !self.may_go(**id)
        });
        is.map(|(offset, _)| *offset)
    }
}
