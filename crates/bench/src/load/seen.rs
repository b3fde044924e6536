//! Which numbers of a growing sequence have been seen: a watermark and, above it, one flag per number.
//!
//! In: numbers, mostly in order. Out: whether one is new, and which are missing. Bounded by the distance between the
//! oldest missing number and the newest seen one; the caller checks that a number can exist before it asks.

use std::collections::VecDeque;

/// A set of numbers that is cheap while they come nearly in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Every number below was seen.
    below: u64,
    /// Whether `below + index` was seen; the first is always unseen.
    ahead: VecDeque<bool>,
}

impl Seen {
    /// Notes `number`; false if it was there already.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        if number == self.below && self.ahead.is_empty() {
            self.below += 1;
            return true;
        }
        let Some(index) = number.checked_sub(self.below) else { return false };
        let index = index as usize;
        if index >= self.ahead.len() {
            self.ahead.resize(index + 1, false);
        }
        let new = !std::mem::replace(&mut self.ahead[index], true);
        while self.ahead.front() == Some(&true) {
            self.ahead.pop_front();
            self.below += 1;
        }
        new
    }

    /// Whether `number` was noted.
    pub(crate) fn contains(&self, number: u64) -> bool {
        match number.checked_sub(self.below) {
            None => true,
            Some(index) => self.ahead.get(index as usize) == Some(&true),
        }
    }

    /// The numbers below `end` that were not noted, in order.
    pub(crate) fn missing(&self, end: u64) -> impl Iterator<Item = u64> + '_ {
        (self.below..end).filter(|n| !self.contains(*n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(numbers in prop::collection::vec(0u64..60, 0..120)) {
            let (mut seen, mut model) = (Seen::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(seen.insert(number), model.insert(number));
            }
            for number in 0..70 {
                prop_assert_eq!(seen.contains(number), model.contains(&number));
            }
            let missing: Vec<u64> = (0..65).filter(|n| !model.contains(n)).collect();
            prop_assert_eq!(seen.missing(65).collect::<Vec<_>>(), missing);
        }
    }
}
