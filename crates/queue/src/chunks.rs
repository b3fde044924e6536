//! A sorted sequence in shared chunks: cheap to freeze, cheap at both ends, compact however few items are left.
//!
//! Cloning copies one pointer per chunk and the newest chunk; a chunk that is shared with a frozen clone is copied when
//! it is first changed. Items are small and found by their key, which is unique and never changes. The newest items
//! stand in the sequence itself, the first few without an allocation: thousands of short queues that take turns are
//! found in no cache, and every pointer on the way would be waited for.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use smallvec::SmallVec;

/// Items of a full chunk.
const FULL: usize = 256;
/// A chunk this small is not worth tightening.
const SMALL: usize = 32;

/// Items that need no allocation.
const INLINE: usize = 2;
/// Room that the newest chunk may keep when it empties: a queue that keeps up fills and empties it all the time.
const SPARE: usize = 4;

/// What chunks are sorted by.
pub(crate) trait Keyed: Copy {
    /// The item's key.
    fn key(&self) -> u64;
}

#[derive(Clone, Debug)]
struct Chunk<T> {
    items: SmallVec<[T; INLINE]>,
    /// Items before this one are gone: taking the first is the common case and moves nothing.
    start: usize,
}

impl<T> Default for Chunk<T> {
    fn default() -> Self {
        Chunk { items: SmallVec::new(), start: 0 }
    }
}

impl<T: Keyed> Chunk<T> {
    #[inline]
    fn live(&self) -> &[T] {
        &self.items[self.start..]
    }

    #[inline]
    fn live_mut(&mut self) -> &mut [T] {
        &mut self.items[self.start..]
    }

    fn is_empty(&self) -> bool {
        self.start == self.items.len()
    }

    /// Whether an item of `key` would stand behind the first one.
    #[inline]
    fn begins_by(&self, key: u64) -> bool {
        self.live().first().is_some_and(|first| first.key() <= key)
    }

    #[inline]
    fn insert(&mut self, at: usize, item: T) {
        self.items.insert(self.start + at, item);
    }

    #[inline]
    fn remove(&mut self, at: usize) {
        if at == 0 {
            self.start += 1;
        } else {
            self.items.remove(self.start + at);
        }
        self.tighten();
    }

    #[inline]
    fn tighten(&mut self) {
        if self.is_empty() {
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
            self.items.shrink_to_fit();
        }
    }

    /// Cuts the upper half off, where an item is to be inserted at `at`, and inserts it.
    fn split_insert(&mut self, at: usize, item: T) -> Chunk<T> {
        let upper = self.items.drain(self.start + FULL / 2..).collect();
        let mut upper = Chunk { items: upper, start: 0 };
        if at <= FULL / 2 {
            self.insert(at, item);
        } else {
            upper.insert(at - FULL / 2, item);
        }
        upper
    }
}

/// Items in the order of their keys. An older chunk's own key is no more than its first item's, none of them is empty,
/// and the newest chunk, which may be, comes behind them all.
#[derive(Clone, Debug)]
pub(crate) struct Chunks<T> {
    newest: Chunk<T>,
    len: usize,
    older: BTreeMap<u64, Arc<Chunk<T>>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { newest: Chunk::default(), len: 0, older: BTreeMap::new() }
    }
}

/// Items of some older chunks.
type Older<'a, T> = btree_map::Range<'a, u64, Arc<Chunk<T>>>;

impl<T: Keyed> Chunks<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The item with the lowest key.
    #[inline]
    pub(crate) fn first(&self) -> Option<&T> {
        let older = self.older.first_key_value().and_then(|(_, chunk)| chunk.live().first());
        older.or_else(|| self.newest.live().first())
    }

    /// The item with the highest key that is no more than `key`.
    #[inline]
    pub(crate) fn floor(&self, key: u64) -> Option<&T> {
        if self.newest.begins_by(key) {
            let live = self.newest.live();
            return live.get(live.partition_point(|item| item.key() <= key) - 1);
        }
        self.floor_of_older(key)
    }

    fn floor_of_older(&self, key: u64) -> Option<&T> {
        let (own, chunk) = self.older_at(key)?;
        let below = chunk.live().partition_point(|item| item.key() <= key);
        if below > 0 {
            return chunk.live().get(below - 1);
        }
        let (_, before) = self.older.range(..own).next_back()?;
        before.live().last()
    }

    /// The older chunk that an item of `key` would be in: often the last one, which is found faster.
    fn older_at(&self, key: u64) -> Option<(&u64, &Arc<Chunk<T>>)> {
        let last = self.older.last_key_value()?;
        if *last.0 <= key { Some(last) } else { self.older.range(..=key).next_back() }
    }

    /// The item of `key`.
    pub(crate) fn find(&self, key: u64) -> Option<&T> {
        self.floor(key).filter(|item| item.key() == key)
    }

    /// Items from `key` on.
    #[inline]
    pub(crate) fn from(&self, key: u64) -> impl Iterator<Item = &T> {
        let newest = self.newest.live();
        if self.older.is_empty() || self.newest.begins_by(key) {
            let skip = newest.partition_point(|item| item.key() < key);
            return older(&[], None).chain(&newest[skip..]);
        }
        let (head, rest) = self.older_from(key);
        older(head, Some(rest)).chain(newest)
    }

    /// Items from `key` on of the older chunk that would have it, and the chunks behind it.
    fn older_from(&self, key: u64) -> (&[T], Older<'_, T>) {
        let Some((own, chunk)) = self.older_at(key) else { return (&[], self.older.range(..)) };
        let skip = chunk.live().partition_point(|item| item.key() < key);
        (&chunk.live()[skip..], self.older.range((Excluded(own), Unbounded)))
    }

    /// The first item that `before` is false of; it must be true up to there and false from there on.
    pub(crate) fn partition(&self, before: impl Fn(&T) -> bool) -> Option<&T> {
        let newest = self.newest.live();
        if newest.first().is_some_and(&before) {
            return newest.get(newest.partition_point(&before));
        }
        self.partition_of_older(before).or_else(|| newest.first())
    }

    fn partition_of_older(&self, before: impl Fn(&T) -> bool) -> Option<&T> {
        let starts = |chunk: &Chunk<T>| chunk.live().first().is_some_and(&before);
        let (&first, chunk) = self.older.first_key_value()?;
        if !starts(chunk) {
            return chunk.live().first();
        }
        // The last chunk whose first item comes before: by halves of the keys, since chunks have no numbers.
        let (mut low, mut high) = (first, *self.older.last_key_value()?.0);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let below = self.older.range((Excluded(low), Included(middle))).next_back();
            match below.or_else(|| self.older.range((Excluded(middle), Included(high))).next()) {
                Some((&own, chunk)) if starts(chunk) => low = own,
                Some((&own, _)) => high = own - 1,
                None => break,
            }
        }
        let chunk = self.older.get(&low)?;
        let at = chunk.live().partition_point(&before);
        let behind = self.older.range((Excluded(low), Unbounded));
        chunk.live()[at..].iter().chain(behind.flat_map(|(_, chunk)| chunk.live())).next()
    }

    /// All items.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        older(&[], Some(self.older.range(..))).chain(self.newest.live())
    }

    /// Adds an item whose key is not there.
    #[inline]
    pub(crate) fn insert(&mut self, item: T) {
        let key = item.key();
        self.len += 1;
        if !self.is_of_newest(key) {
            return self.insert_older(item);
        }
        let at = self.newest.live().partition_point(|other| other.key() < key);
        if self.newest.live().len() < FULL {
            return self.newest.insert(at, item);
        }
        let upper = if at == FULL {
            Chunk { items: SmallVec::from_slice(&[item]), start: 0 }
        } else {
            self.newest.split_insert(at, item)
        };
        let full = std::mem::replace(&mut self.newest, upper);
        self.older.insert(full.live()[0].key(), Arc::new(full));
    }

    /// Whether an item of `key` is, or would be, in the newest chunk.
    #[inline]
    fn is_of_newest(&self, key: u64) -> bool {
        self.newest.begins_by(key) || self.is_behind_older(key)
    }

    fn is_behind_older(&self, key: u64) -> bool {
        let last = self.older.last_key_value();
        last.is_none_or(|(_, chunk)| chunk.live().last().is_some_and(|last| last.key() < key))
    }

    fn insert_older(&mut self, item: T) {
        let key = item.key();
        let Some(own) = self.older_for_insert(key) else { return };
        let Some(chunk) = self.older.get_mut(&own).map(Arc::make_mut) else { return };
        let at = chunk.live().partition_point(|other| other.key() < key);
        if chunk.live().len() < FULL {
            return chunk.insert(at, item);
        }
        let upper = chunk.split_insert(at, item);
        self.older.insert(upper.live()[0].key(), Arc::new(upper));
    }

    /// The older chunk an item of `key` belongs to; the first one is renamed where it comes before everything.
    fn older_for_insert(&mut self, key: u64) -> Option<u64> {
        if let Some((own, _)) = self.older_at(key) {
            return Some(*own);
        }
        let (_, first) = self.older.pop_first()?;
        self.older.insert(key, first);
        Some(key)
    }

    /// Changes the item of `key`, which is there; its key must stay.
    pub(crate) fn update<R>(&mut self, key: u64, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut result = None;
        self.update_or_remove(key, |item| {
            result = Some(change(item));
            true
        });
        result
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
    #[inline]
    pub(crate) fn update_or_remove(&mut self, key: u64, change: impl FnOnce(&mut T) -> bool) -> bool {
        if !self.newest.begins_by(key) {
            return self.update_older(key, change);
        }
        let Ok(at) = self.newest.live().binary_search_by_key(&key, Keyed::key) else { return false };
        if change(&mut self.newest.live_mut()[at]) {
            return true;
        }
        self.len -= 1;
        self.newest.remove(at);
        if self.newest.is_empty() && (self.len > 0 || self.newest.items.capacity() > SPARE) {
            self.newest = Chunk::default();
        }
        true
    }

    fn update_older(&mut self, key: u64, change: impl FnOnce(&mut T) -> bool) -> bool {
        let Some(own) = self.older_at(key).map(|(own, _)| *own) else { return false };
        let Some(chunk) = self.older.get_mut(&own) else { return false };
        let Ok(at) = chunk.live().binary_search_by_key(&key, Keyed::key) else { return false };
        let chunk = Arc::make_mut(chunk);
        if change(&mut chunk.live_mut()[at]) {
            return true;
        }
        self.len -= 1;
        chunk.remove(at);
        if chunk.is_empty() {
            self.older.remove(&own);
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

/// These items and those of the chunks behind them.
fn older<'a, T: Keyed>(head: &'a [T], rest: Option<Older<'a, T>>) -> impl Iterator<Item = &'a T> {
    head.iter().chain(rest.into_iter().flatten().flat_map(|(_, chunk)| chunk.live()))
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
        let sound = |(own, chunk): (&u64, &Arc<Chunk<(u64, u32)>>)| {
            *own <= chunk.live()[0].0 && (1..=FULL).contains(&chunk.live().len())
        };
        assert!(chunks.older.iter().all(sound) && chunks.newest.live().len() <= FULL);
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
        let older = chunks.older.values().map(|chunk| chunk.items.capacity()).sum::<usize>();
        let held = older + chunks.newest.items.capacity();
        assert_eq!(chunks.len(), 500);
        assert!(held <= 500 * 2 * SMALL, "{held} items of room for 500");
    }
}
