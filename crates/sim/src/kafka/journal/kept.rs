//! What a topic keeps although it need not keep everything: nothing young goes, and enough stays.
//!
//! In: starts of partitions, offsets of records. Out: the first broken promise. Never: counts fewer bytes than may be
//! there, where it is not known exactly.

use super::{Checked, Fate, Journal, RecordId};
use crate::kafka::plan::{BEHIND_MS, Keeping};

/// Bytes that a record of a stream takes up beyond its value, at most.
const AROUND: u64 = 600;

impl Journal {
    /// How old a record may be by now, beyond what all are.
    pub(super) fn age_ms(&self, id: RecordId) -> i64 {
        self.wall_max_ms - self.records[id].time_ms - BEHIND_MS
    }

    /// A record is acknowledged that is gone already: it must be too old.
    pub(super) fn is_not_too_young(&self, spot: usize, offset: u64, id: RecordId) -> Checked {
        let of = &self.spots[spot];
        match self.keeping(spot) {
            Keeping::Age(ms) if (of.deleted..of.start).contains(&offset) && self.age_ms(id) <= ms => self
                .fault(spot, "K2", format!("{offset} went before its time and before it was acknowledged")),
            _ => Ok(()),
        }
    }

    /// Where more went than anybody asked for, as much is left as the topic keeps: whole batches and no fewer bytes.
    pub(super) fn keeps_enough(&self, spot: usize, start: u64, is_all_known: bool) -> Checked {
        let Keeping::Size(least) = self.keeping(spot) else { return Ok(()) };
        if start <= self.spots[spot].deleted {
            return Ok(());
        }
        match self.bytes_since(spot, start, is_all_known) {
            bytes if bytes < least => {
                self.fault(spot, "K2", format!("{bytes} bytes are left from {start} on, {least} are kept"))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of everything that may be at an offset or behind it; where all is known, of everything that is.
    fn bytes_since(&self, spot: usize, start: u64, is_all_known: bool) -> u64 {
        let counts = |id: &RecordId| match self.records[*id].fate {
            Fate::At(offset, _) => offset >= start,
            Fate::Open => !is_all_known,
            Fate::Refused(_) => false,
        };
        let (mut bytes, mut id) = (0, 0);
        while id < self.records.len() {
            let sealed = self.sealed.get(&id);
            let behind = id + sealed.map_or(1, |batch| batch.records);
            if self.records[id].spot == spot && (id..behind).any(|id| counts(&id)) {
                let alone = self.records[id].bytes.unwrap_or(0) as u64 + AROUND;
                bytes += sealed.map_or(alone, |batch| model::batch::HEADER as u64 + batch.bytes);
            }
            id = behind;
        }
        bytes
    }
}
