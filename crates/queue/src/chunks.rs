//! A sorted sequence in shared chunks: cheap to freeze, cheap at both ends, compact however few items are left.
//!
//! Cloning copies one pointer per chunk; a chunk that is shared with a frozen clone is copied when it is first
//! changed. Items are small and found by their key, which is unique and never changes.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// Items of a full chunk.
const FULL: usize = 256;
/// A chunk this small is not worth tightening.
const SMALL: usize = 32;

/// Room that the last chunk may keep when it empties: a queue that keeps up fills and empties it all the time.
const SPARE: usize = 4;

/// What chunks are sorted by.
pub(crate) trait Keyed: Copy {
    /// The item's key.
    fn key(&self) -> u64;
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    /// Items before this one are gone: taking the first is the common case and moves nothing.
    start: usize,
    items: Vec<T>,
}

impl<T: Keyed> Chunk<T> {
    fn live(&self) -> &[T] {
        &self.items[self.start..]
    }

    fn live_mut(&mut self) -> &mut [T] {
        &mut self.items[self.start..]
    }

    fn remove(&mut self, at: usize) {
        if at == 0 {
            self.start += 1;
        } else {
            self.items.remove(self.start + at);
        }
        self.tighten();
    }

    fn tighten(&mut self) {
        if self.live().is_empty() {
            self.items.clear();
            self.start = 0;
            return;
        }
        if self.start >= SMALL && self.start > self.items.len() / 2 {
            self.items.drain(..self.start);
            self.start = 0;
        }
        if self.items.capacity() > SMALL && self.items.capacity() / 4 > self.live().len() {
            self.items.drain(..self.start);
            self.start = 0;
            self.items.shrink_to(self.items.len() * 2);
        }
    }
}

/// Items in the order of their keys. A chunk's own key is no more than its first item's; no chunk is empty, except
/// perhaps an only one.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<T> {
    chunks: BTreeMap<u64, Arc<Chunk<T>>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: BTreeMap::new(), len: 0 }
    }
}

impl<T: Keyed> Chunks<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item with the lowest key.
    pub(crate) fn first(&self) -> Option<&T> {
        self.chunks.first_key_value().and_then(|(_, chunk)| chunk.live().first())
    }

    /// The item with the highest key that is no more than `key`.
    pub(crate) fn floor(&self, key: u64) -> Option<&T> {
        let (own, chunk) = self.chunk_at(key)?;
        let below = chunk.live().partition_point(|item| item.key() <= key);
        if below > 0 {
            return chunk.live().get(below - 1);
        }
        let (_, before) = self.chunks.range(..own).next_back()?;
        before.live().last()
    }

    /// The chunk that an item of `key` would be in: almost always the last one, which is found faster.
    #[inline]
    fn chunk_at(&self, key: u64) -> Option<(&u64, &Arc<Chunk<T>>)> {
        let last = self.chunks.last_key_value()?;
        if *last.0 <= key { Some(last) } else { self.chunks.range(..=key).next_back() }
    }

    /// The item of `key`.
    pub(crate) fn find(&self, key: u64) -> Option<&T> {
        self.floor(key).filter(|item| item.key() == key)
    }

    /// Items from `key` on.
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = &T> {
        let own = self.chunk_at(key).map_or(0, |(own, _)| *own);
        let (head, skip) = match self.chunks.get(&own) {
            Some(chunk) => (chunk.live(), chunk.live().partition_point(|item| item.key() < key)),
            None => (&[][..], 0),
        };
        let rest = self.chunks.range((Excluded(own), Unbounded));
        head[skip..].iter().chain(rest.flat_map(|(_, chunk)| chunk.live()))
    }

    /// The first item that `before` is false of; it must be true up to there and false from there on.
    pub(crate) fn partition(&self, before: impl Fn(&T) -> bool) -> Option<&T> {
        let starts = |chunk: &Chunk<T>| chunk.live().first().is_some_and(&before);
        let (&first, chunk) = self.chunks.first_key_value()?;
        if !starts(chunk) {
            return chunk.live().first();
        }
        // The last chunk whose first item comes before: by halves of the keys, since chunks have no numbers.
        let (mut low, mut high) = (first, *self.chunks.last_key_value()?.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let below = self.chunks.range((Excluded(low), Included(middle))).next_back();
            match below.or_else(|| self.chunks.range((Excluded(middle), Included(high))).next()) {
                Some((&own, chunk)) if starts(chunk) => low = own,
                Some((&own, _)) => high = own - 1,
                None => break,
            }
        }
        let chunk = self.chunks.get(&low)?;
        let at = chunk.live().partition_point(&before);
        let behind = self.chunks.range((Excluded(low), Unbounded));
        chunk.live()[at..].iter().chain(behind.flat_map(|(_, chunk)| chunk.live())).next()
    }

    /// All items.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.values().flat_map(|chunk| chunk.live())
    }

    /// Adds an item whose key is not there.
    pub(crate) fn insert(&mut self, item: T) {
        let key = item.key();
        self.len += 1;
        let own = self.chunk_for_insert(key);
        let Some(chunk) = own.and_then(|own| self.chunks.get_mut(&own)) else {
            self.chunks.insert(key, Arc::new(Chunk { start: 0, items: vec![item] }));
            return;
        };
        let at = chunk.live().partition_point(|other| other.key() < key);
        if chunk.live().len() < FULL {
            let chunk = Arc::make_mut(chunk);
            chunk.items.insert(chunk.start + at, item);
        } else if at == FULL {
            self.chunks.insert(key, Arc::new(Chunk { start: 0, items: vec![item] }));
        } else {
            self.split_insert(key, at, item);
        }
    }

    fn split_insert(&mut self, key: u64, at: usize, item: T) {
        let Some((_, chunk)) = self.chunks.range_mut(..=key).next_back() else { return };
        let chunk = Arc::make_mut(chunk);
        let mut upper = chunk.items.split_off(chunk.start + FULL / 2);
        if at <= FULL / 2 {
            chunk.items.insert(chunk.start + at, item);
        } else {
            upper.insert(at - FULL / 2, item);
        }
        self.chunks.insert(upper[0].key(), Arc::new(Chunk { start: 0, items: upper }));
    }

    /// The chunk an item of `key` belongs to; the first one is renamed where it comes before everything.
    fn chunk_for_insert(&mut self, key: u64) -> Option<u64> {
        if let Some((own, _)) = self.chunk_at(key) {
            return Some(*own);
        }
        let (_, first) = self.chunks.pop_first()?;
        self.chunks.insert(key, first);
        Some(key)
    }

    /// Changes the item of `key`, which is there; its key must stay.
    pub(crate) fn update<R>(&mut self, key: u64, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let own = *self.chunk_at(key)?.0;
        let chunk = self.chunks.get_mut(&own)?;
        let at = chunk.live().binary_search_by_key(&key, Keyed::key).ok()?;
        Some(change(&mut Arc::make_mut(chunk).live_mut()[at]))
    }

    /// Removes the item of `key`.
    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let mut removed = None;
        self.update_or_remove(key, |item| {
            removed = Some(*item);
            false
        });
        removed
    }

    /// Changes the item of `key` and removes it where `change` says that it is over; true when it was there.
    pub(crate) fn update_or_remove(&mut self, key: u64, change: impl FnOnce(&mut T) -> bool) -> bool {
        let Some(own) = self.chunk_at(key).map(|(own, _)| *own) else { return false };
        let Some(chunk) = self.chunks.get_mut(&own) else { return false };
        let Ok(at) = chunk.live().binary_search_by_key(&key, Keyed::key) else { return false };
        let chunk = Arc::make_mut(chunk);
        if change(&mut chunk.live_mut()[at]) {
            return true;
        }
        self.len -= 1;
        chunk.remove(at);
        if chunk.live().is_empty() && (self.len > 0 || chunk.items.capacity() > SPARE) {
            self.chunks.remove(&own);
        }
        true
    }

    /// Removes all items with keys in `first..=last`.
    pub(crate) fn remove_between(&mut self, first: u64, last: u64) {
        while let Some(key) = self.next_key(first).filter(|key| *key <= last) {
            self.remove(key);
        }
    }

    fn next_key(&self, from: u64) -> Option<u64> {
        self.from(from).next().map(Keyed::key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    impl Keyed for (u64, u32) {
        fn key(&self) -> u64 {
            self.0
        }
    }

    fn agree(chunks: &Chunks<(u64, u32)>, model: &BTreeMap<u64, u32>) {
        assert_eq!(chunks.len(), model.len());
        assert!(chunks.iter().copied().eq(model.iter().map(|(k, v)| (*k, *v))));
        assert_eq!(chunks.first().map(|i| i.0), model.keys().next().copied());
        let only = chunks.chunks.len() == 1;
        assert!(chunks.chunks.iter().all(|(_, chunk)| only || !chunk.live().is_empty()));
        assert!(
            chunks
                .chunks
                .iter()
                .filter(|_| !chunks.is_empty())
                .all(|(own, chunk)| *own <= chunk.live()[0].0 && chunk.live().len() <= FULL)
        );
    }

    #[test]
    fn any_sequence_of_changes_agrees_with_a_plain_map_and_frozen_clones_stay() {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let mut chunks: Chunks<(u64, u32)> = Chunks::default();
            let mut model = BTreeMap::new();
            let mut frozen = Vec::new();
            for _ in 0..3000 {
                let key = prng.below(4000);
                match prng.below(10) {
                    0..6 if !model.contains_key(&key) => {
                        chunks.insert((key, 1));
                        model.insert(key, 1);
                    }
                    6 => assert_eq!(chunks.remove(key), model.remove(&key).map(|value| (key, value))),
                    7 => {
                        let expected = model.get_mut(&key).map(|value| *value += 1);
                        assert_eq!(chunks.update(key, |item| item.1 += 1), expected);
                    }
                    8 if prng.chance(1, 20) => {
                        let last = key + prng.below(500);
                        chunks.remove_between(key, last);
                        model.retain(|k, _| *k < key || *k > last);
                    }
                    9 if prng.chance(1, 100) => frozen.push((chunks.clone(), model.clone())),
                    _ => {
                        let floor = model.range(..=key).next_back().map(|(k, v)| (*k, *v));
                        assert_eq!(chunks.floor(key).copied(), floor);
                        assert_eq!(chunks.find(key).map(|i| i.1), model.get(&key).copied());
                        let next = model.range(key..).next().map(|(k, v)| (*k, *v));
                        assert_eq!(chunks.from(key).next().copied(), next);
                        assert_eq!(chunks.partition(|item| item.0 < key).copied(), next);
                    }
                }
            }
            agree(&chunks, &model);
            frozen.iter().for_each(|(chunks, model)| agree(chunks, model));
        }
    }

    #[test]
    fn what_is_left_of_many_holds_little_memory() {
        let mut chunks = Chunks::default();
        (0..100_000).for_each(|key| chunks.insert((key, 0)));
        (0..100_000).filter(|key| key % 200 != 0).for_each(|key| assert!(chunks.remove(key).is_some()));
        let held: usize = chunks.chunks.values().map(|chunk| chunk.items.capacity()).sum();
        assert_eq!(chunks.len(), 500);
        assert!(held <= 500 * 2 * SMALL, "{held} items of room for 500");
    }
}
