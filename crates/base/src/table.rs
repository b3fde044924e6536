//! A map whose keys are numbers that this program gave out, in one row of slots.
//!
//! Where a key stands follows from its number by one multiplication, so its memory can be asked for before it is
//! needed without looking at any other (`prefetch`); a hash map must read to know where. Linear probing, at most half
//! full; what is removed closes up. The factor is drawn at random where clients choose which numbers stay: none can
//! choose such that collide.

use crate::prefetch;

/// Slots of the smallest row.
const SLOTS_MIN: usize = 8;

/// A key: a number in a type of its own.
pub trait Number: Copy + Eq {
    /// The number.
    fn number(self) -> u64;
}

/// Values by their numbers. Iteration is in no useful order, but in the same one for the same history and seed.
#[derive(Clone, Debug)]
pub struct Table<K, V> {
    slots: Vec<Option<(K, V)>>,
    len: usize,
    factor: u64,
}

impl<K: Number, V> Table<K, V> {
    /// An empty table; `seed` is as for [`crate::map`].
    pub fn new(seed: u64) -> Table<K, V> {
        // Odd, so that no two numbers become one; the golden ratio keeps neighbours apart.
        Table { slots: Vec::new(), len: 0, factor: (0x9e37_79b9_7f4a_7c15 ^ (seed << 8)) | 1 }
    }

    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without any.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the key stands unless others stand there. There must be slots.
    #[inline]
    fn home(&self, key: K) -> usize {
        let bits = self.slots.len().trailing_zeros();
        (key.number().wrapping_mul(self.factor) >> (64 - bits)) as usize
    }

    #[inline]
    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Asks for the memory of a value that is needed soon.
    #[inline]
    pub fn prefetch(&self, key: &K) {
        if !self.slots.is_empty() {
            prefetch(&self.slots[self.home(*key)]);
        }
    }

    #[inline]
    fn place(&self, key: &K) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(*key);
        while let Some((own, _)) = &self.slots[at] {
            if own == key {
                return Some(at);
            }
            at = self.behind(at);
        }
        None
    }

    /// Whether it is there.
    #[inline]
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_some()
    }

    /// The value.
    #[inline]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.slots[self.place(key)?].as_ref().map(|(_, value)| value)
    }

    /// The value, to be changed.
    #[inline]
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.place(key)?;
        self.slots[at].as_mut().map(|(_, value)| value)
    }

    /// Adds a value and returns the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(own) = self.get_mut(&key) {
            return Some(std::mem::replace(own, value));
        }
        if 2 * (self.len + 1) > self.slots.len() {
            self.grow();
        }
        self.put(key, value);
        self.len += 1;
        None
    }

    fn grow(&mut self) {
        let slots = (2 * self.slots.len()).max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, (0..slots).map(|_| None).collect());
        before.into_iter().flatten().for_each(|(key, value)| self.put(key, value));
    }

    /// Puts a new one into the first free slot from its home on.
    fn put(&mut self, key: K, value: V) {
        let mut at = self.home(key);
        while self.slots[at].is_some() {
            at = self.behind(at);
        }
        self.slots[at] = Some((key, value));
    }

    /// Takes a value out. Those behind it that would not be found any more close up.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let mut free = self.place(key)?;
        let taken = self.slots[free].take();
        let mut at = self.behind(free);
        while let Some((other, _)) = &self.slots[at] {
            if self.distance(self.home(*other), at) >= self.distance(free, at) {
                self.slots.swap(free, at);
                free = at;
            }
            at = self.behind(at);
        }
        self.len -= 1;
        taken.map(|(_, value)| value)
    }

    /// Steps from one slot on to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        (self.slots, self.len) = (Vec::new(), 0);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().flatten().map(|(key, value)| (key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Prng;

    impl Number for u32 {
        fn number(self) -> u64 {
            self.into()
        }
    }

    #[test]
    fn like_a_sorted_map_whatever_collides() {
        for seed in 0..40 {
            let mut prng = Prng::new(seed);
            let (mut table, mut reference) = (Table::new(seed), BTreeMap::new());
            // With a factor of one and small numbers all have the same home.
            table.factor = if seed % 2 == 0 { 1 } else { table.factor };
            for step in 0..600 {
                let key = prng.below(60) as u32;
                match prng.below(5) {
                    0..3 => assert_eq!(table.insert(key, step), reference.insert(key, step)),
                    3 => assert_eq!(table.remove(&key), reference.remove(&key)),
                    _ => assert_eq!(table.get(&key), reference.get(&key)),
                }
                table.prefetch(&key);
                assert_eq!(table.len(), reference.len());
            }
            let mut all: Vec<_> = table.iter().map(|(key, value)| (*key, *value)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(reference.iter().map(|(key, value)| (*key, *value))));
            table.clear();
            assert!(table.is_empty() && table.get(&1).is_none() && table.remove(&1).is_none());
        }
    }
}
