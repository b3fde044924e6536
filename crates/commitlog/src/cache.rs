//! Recent entries (or blocks of runs) kept in memory, oldest out first, within a budget of bytes of memory held.
//!
//! An entry whose flush is not durable yet is never put out: it cannot be read from anywhere else.

use std::collections::VecDeque;

use std::hash::Hash;

use base::{Block, Map, map};

#[derive(Debug)]
struct Kept {
    block: Block,
    stamp: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    blocks: Map<K, Kept>,
    /// In the order of arrival: key, stamp of the arrival, flush. Those whose stamp is not the block's are void.
    order: VecDeque<(K, u64, u64)>,
    stamps: u64,
    bytes: usize,
    bytes_max: usize,
    /// Bytes of the budget that somebody else uses.
    lent: usize,
}

impl<K: Copy + Eq + Hash> Cache<K> {
    pub fn new(bytes_max: usize) -> Cache<K> {
        Cache { blocks: map(0), order: VecDeque::new(), stamps: 0, bytes: 0, bytes_max, lent: 0 }
    }

    pub fn get(&self, key: K) -> Option<&Block> {
        self.blocks.get(&key).map(|kept| &kept.block)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Leaves so much of the budget to somebody else.
    pub fn lend(&mut self, bytes: usize, durable: u64) {
        self.lent = bytes;
        self.shrink(durable);
    }

    /// Adds an entry that stands in `flush`; everything up to flush `durable` may be put out for it.
    pub fn insert(&mut self, key: K, block: Block, flush: u64, durable: u64) {
        self.remove(key);
        self.stamps += 1;
        self.bytes += block.capacity();
        self.blocks.insert(key, Kept { block, stamp: self.stamps });
        self.order.push_back((key, self.stamps, flush));
        self.shrink(durable);
    }

    pub fn remove(&mut self, key: K) {
        if let Some(kept) = self.blocks.remove(&key) {
            self.bytes -= kept.block.capacity();
        }
    }

    /// Puts out the oldest until the budget holds; entries above flush `durable` stay.
    pub fn shrink(&mut self, durable: u64) {
        while let Some((key, stamp, flush)) = self.order.front().copied() {
            let current = self.blocks.get(&key).is_some_and(|kept| kept.stamp == stamp);
            if current && (self.bytes + self.lent <= self.bytes_max || flush > durable) {
                break;
            }
            self.order.pop_front();
            if current {
                self.remove(key);
            }
        }
        if self.order.len() > 64 + 2 * self.blocks.len() {
            let blocks = &self.blocks;
            self.order.retain(|(key, stamp, _)| blocks.get(key).is_some_and(|kept| kept.stamp == *stamp));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{PAGE, Pool};
    use model::{GroupId, Index};

    const G: GroupId = GroupId(1);

    #[test]
    fn the_oldest_durable_leave_first_and_the_rest_stays() {
        let pool = Pool::default();
        let mut cache = Cache::new(3 * PAGE);
        for index in 1..=5 {
            cache.insert((G, Index(index)), pool.block(b"x"), index, 0);
        }
        assert_eq!(cache.bytes(), 5 * PAGE, "nothing is durable yet");
        cache.shrink(1);
        assert!(cache.get((G, Index(1))).is_none() && cache.get((G, Index(2))).is_some());
        cache.shrink(5);
        assert_eq!(cache.bytes(), 3 * PAGE);
        assert!(cache.get((G, Index(2))).is_none() && cache.get((G, Index(3))).is_some());
    }

    #[test]
    fn replaced_and_removed_entries_leave_no_trace_behind_one_that_stays() {
        let pool = Pool::default();
        let mut cache = Cache::new(100 * PAGE);
        cache.insert((G, Index(1)), pool.block(b"stays"), 1, 1);
        for index in 2..1000 {
            cache.insert((G, Index(index)), pool.block(b"x"), 1, 1);
            cache.insert((G, Index(index)), pool.block(b"y"), 1, 1);
            cache.remove((G, Index(index)));
        }
        assert_eq!(cache.bytes(), PAGE);
        assert!(cache.order.len() < 100, "{}", cache.order.len());
    }
}
