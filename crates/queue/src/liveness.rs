//! Which entries are still needed: for each, how many messages (and waiting parts) still point to it.

use model::Index;

use crate::Effect;
use crate::chunks::{Chunks, Keyed};

#[derive(Clone, Copy, Debug)]
struct Needed {
    index: u64,
    count: u64,
}

impl Keyed for Needed {
    fn key(&self) -> u64 {
        self.index
    }
}

/// Entries with something to keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Liveness {
    entries: Chunks<Needed>,
}

impl Liveness {
    /// `count` more messages point to entry `index`.
    #[inline]
    pub(crate) fn hold(&mut self, index: u64, count: u64) {
        if count > 0 && self.entries.update(index, |entry| entry.count += count).is_none() {
            self.entries.insert(Needed { index, count });
        }
    }

    /// `count` messages no longer point to entry `index`; true when nothing does any more.
    fn release(&mut self, index: u64, count: u64) -> bool {
        let mut left = 0;
        let held = self.entries.update_or_remove(index, |entry| {
            assert!(entry.count >= count, "an entry is released no more often than held");
            entry.count -= count;
            left = entry.count;
            left > 0
        });
        assert!(held, "only a held entry is released");
        left == 0
    }

    /// The first entry from this one on that is still needed.
    pub(crate) fn next(&self, index: u64) -> Option<u64> {
        self.entries.from(index).next().map(|needed| needed.index)
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn is_held(&self, index: u64) -> bool {
        self.entries.find(index).is_some()
    }

    /// How much points to an entry; `None` where nothing does.
    pub(crate) fn count(&self, index: u64) -> Option<u64> {
        self.entries.find(index).map(|entry| entry.count)
    }

    /// Inclusive ranges of the entries still needed.
    pub(crate) fn ranges(&self) -> Vec<(Index, Index)> {
        let mut ranges: Vec<(Index, Index)> = Vec::new();
        for Needed { index, .. } in self.entries.iter() {
            match ranges.last_mut() {
                Some((_, last)) if last.0 + 1 == *index => last.0 = *index,
                _ => ranges.push((Index(*index), Index(*index))),
            }
        }
        ranges
    }
}

/// Liveness while one entry is applied: what is freed becomes an effect, except the entry itself, of which that is
/// known only at its end.
pub(crate) struct Ledger<'a> {
    pub(crate) live: &'a mut Liveness,
    pub(crate) effects: &'a mut Vec<Effect>,
    pub(crate) current: Index,
}

impl Ledger<'_> {
    pub(crate) fn hold(&mut self, index: u64, count: u64) {
        self.live.hold(index, count);
    }

    pub(crate) fn release(&mut self, index: u64, count: u64) {
        if self.live.release(index, count) && index != self.current.0 {
            self.effects.push(Effect::Freed(Index(index)));
        }
    }
}
