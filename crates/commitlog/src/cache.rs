//! Recent entries kept in memory, oldest out first, within a budget of bytes of memory held.
//!
//! An entry whose flush is not durable yet is never put out: it cannot be read from anywhere else.

use std::collections::VecDeque;

use base::{Block, Map, map};
use model::{GroupId, Index};

type Key = (GroupId, Index);

#[derive(Debug)]
struct Kept {
    block: Block,
    stamp: u64,
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    blocks: Map<Key, Kept>,
    /// In the order of arrival: key, stamp of the arrival, flush. Those whose stamp is not the block's are void.
    order: VecDeque<(Key, u64, u64)>,
    stamps: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub fn new(bytes_max: usize) -> Cache {
        Cache { blocks: map(0), order: VecDeque::new(), stamps: 0, bytes: 0, bytes_max }
    }

    pub fn get(&self, group: GroupId, index: Index) -> Option<&Block> {
        self.blocks.get(&(group, index)).map(|kept| &kept.block)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an entry that stands in `flush`; everything up to flush `durable` may be put out for it.
    pub fn insert(&mut self, group: GroupId, index: Index, block: Block, flush: u64, durable: u64) {
        self.remove(group, index);
        self.stamps += 1;
        self.bytes += block.capacity();
        self.blocks.insert((group, index), Kept { block, stamp: self.stamps });
        self.order.push_back(((group, index), self.stamps, flush));
        self.shrink(durable);
    }

    pub fn remove(&mut self, group: GroupId, index: Index) {
        if let Some(kept) = self.blocks.remove(&(group, index)) {
            self.bytes -= kept.block.capacity();
        }
    }

    /// Puts out the oldest until the budget holds; entries above flush `durable` stay.
    pub fn shrink(&mut self, durable: u64) {
        while let Some((key, stamp, flush)) = self.order.front().copied() {
            let current = self.blocks.get(&key).is_some_and(|kept| kept.stamp == stamp);
            if current && (self.bytes <= self.bytes_max || flush > durable) {
                break;
            }
            self.order.pop_front();
            if current {
                self.remove(key.0, key.1);
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

    const G: GroupId = GroupId(1);

    #[test]
    fn the_oldest_durable_leave_first_and_the_rest_stays() {
        let pool = Pool::default();
        let mut cache = Cache::new(3 * PAGE);
        for index in 1..=5 {
            cache.insert(G, Index(index), pool.block(b"x"), index, 0);
        }
        assert_eq!(cache.bytes(), 5 * PAGE, "nothing is durable yet");
        cache.shrink(1);
        assert!(cache.get(G, Index(1)).is_none() && cache.get(G, Index(2)).is_some());
        cache.shrink(5);
        assert_eq!(cache.bytes(), 3 * PAGE);
        assert!(cache.get(G, Index(2)).is_none() && cache.get(G, Index(3)).is_some());
    }

    #[test]
    fn replaced_and_removed_entries_leave_no_trace_behind_one_that_stays() {
        let pool = Pool::default();
        let mut cache = Cache::new(100 * PAGE);
        cache.insert(G, Index(1), pool.block(b"stays"), 1, 1);
        for index in 2..1000 {
            cache.insert(G, Index(index), pool.block(b"x"), 1, 1);
            cache.insert(G, Index(index), pool.block(b"y"), 1, 1);
            cache.remove(G, Index(index));
        }
        assert_eq!(cache.bytes(), PAGE);
        assert!(cache.order.len() < 100, "{}", cache.order.len());
    }
}
