//! The account of what was read: nothing lost, doubled, misordered, misrouted, invented or changed.
//!
//! In: each value's partition and stamp. Out: the flaws, counted. It believes only the producers' own counters.

use super::Kafka;
use super::plan::{Plan, Stream};
use super::producer::Producer;
use crate::clients;
use crate::load::Flaws;
use crate::load::body::Stamp;
use crate::load::seen::Seen;

/// One stream as its reader sees it.
#[derive(Clone, Debug)]
struct Account {
    partition: u32,
    seen: Seen,
    next: u64,
}

/// The reading of a run.
pub(crate) struct Ledger {
    streams: Vec<Account>,
    /// Records that had not been read before.
    pub(crate) distinct: u64,
    /// What went wrong.
    pub(crate) flaws: Flaws,
}

impl Ledger {
    /// An empty account of these streams.
    pub(crate) fn new(streams: &[Stream]) -> Ledger {
        let account =
            |stream: &Stream| Account { partition: stream.partition, seen: Seen::default(), next: 0 };
        Ledger { streams: streams.iter().map(account).collect(), distinct: 0, flaws: Flaws::default() }
    }

    /// Notes one intact value; `written` says how many records of each stream were sent.
    #[inline]
    pub(crate) fn note(&mut self, partition: u32, stamp: Stamp, written: &[u64]) {
        let at = usize::from(stamp.publisher);
        let Some(stream) = self.streams.get_mut(at).filter(|_| stamp.sequence < written[at]) else {
            self.flaws.corrupt += 1;
            return;
        };
        if stream.partition != partition {
            self.flaws.misrouted += 1;
            return;
        }
        match stream.seen.insert(stamp.sequence) {
            true => self.distinct += 1,
            false => self.flaws.duplicated += 1,
        }
        self.flaws.misordered += u64::from(stamp.sequence < stream.next);
        stream.next = stream.next.max(stamp.sequence + 1);
    }

    /// Counts what is missing of each stream, as far as `owed` says that it was confirmed.
    fn count_lost(&mut self, written: &[u64], owed: impl Fn(usize, u64) -> bool) {
        for (at, (stream, written)) in self.streams.iter().zip(written).enumerate() {
            let lost = stream.seen.missing(*written).filter(|sequence| owed(at, *sequence));
            self.flaws.lost += lost.count() as u64;
        }
    }
}

impl clients::Ledger<Kafka> for Ledger {
    fn streams(&self) -> usize {
        self.streams.len()
    }

    fn distinct(&self) -> u64 {
        self.distinct
    }

    fn flaws(&mut self) -> &mut Flaws {
        &mut self.flaws
    }

    fn close(&mut self, plan: &Plan, producers: &[Producer], written: &[u64]) {
        let owed = |stream, sequence| producers.iter().find_map(|one| one.is_owed(plan, stream, sequence));
        self.count_lost(written, |stream, sequence| owed(stream, sequence).unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flaw_is_counted() {
        let streams = [Stream { producer: 0, partition: 0 }, Stream { producer: 0, partition: 1 }];
        let mut ledger = Ledger::new(&streams);
        let mut note = |partition, publisher, sequence| {
            ledger.note(partition, Stamp { publisher, sequence, sent_ns: 0 }, &[10, 10]);
            ledger.flaws
        };
        assert!([0, 1, 3, 4].into_iter().all(|sequence| note(1, 1, sequence).none()));
        assert_eq!((note(1, 1, 4).duplicated, note(1, 1, 2).misordered), (1, 2));
        assert_eq!((note(0, 1, 5).misrouted, note(0, 0, 10).corrupt, note(0, 2, 0).corrupt), (1, 1, 2));
        ledger.count_lost(&[1, 7], |stream, sequence| (stream, sequence) != (1, 5));
        assert_eq!((ledger.flaws.lost, ledger.distinct), (2, 5));
    }
}
