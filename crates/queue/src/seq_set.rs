//! A set of places in a queue, by ranges: pages of bits that exist only where something is set.

use std::collections::BTreeMap;

use crate::bits;

const WORDS: usize = 8;
/// Places of one page.
const SPAN: u64 = WORDS as u64 * 64;

#[derive(Debug, Default)]
struct Page {
    words: [u64; WORDS],
    len: u64,
}

/// The places in it, and how many.
///
/// The page used last stands in the set itself, and stays when it empties: it is likely to be needed again at once, and
/// a queue that keeps up needs no other.
#[derive(Debug, Default)]
pub(crate) struct SeqSet {
    len: u64,
    number: u64,
    page: Page,
    /// The others by number; none of them is empty.
    others: BTreeMap<u64, Page>,
}

/// The part of `first..=last` that lies on `page`, counted from the page's start.
#[inline]
fn on_page(page: u64, first: u64, last: u64) -> (usize, usize) {
    let base = page * SPAN;
    (first.saturating_sub(base) as usize, (last - base).min(SPAN - 1) as usize)
}

impl SeqSet {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the page of that number the one that stands in the set.
    #[inline]
    fn turn_to(&mut self, number: u64) -> &mut Page {
        if self.number != number {
            self.swap_in(number);
        }
        &mut self.page
    }

    fn swap_in(&mut self, number: u64) {
        let page = self.others.remove(&number).unwrap_or_default();
        let before = std::mem::replace(&mut self.page, page);
        if before.len > 0 {
            self.others.insert(self.number, before);
        }
        self.number = number;
    }

    /// Adds `first..=last`; the caller bounds the range.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        for number in first / SPAN..=last / SPAN {
            let (from, to) = on_page(number, first, last);
            let page = self.turn_to(number);
            let added = bits::set(&mut page.words, from, to);
            page.len += added;
            self.len += added;
        }
    }

    /// Removes `first..=last`, however wide.
    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        let pages = first / SPAN..=last / SPAN;
        if pages.contains(&self.number) {
            self.len -= clear(&mut self.page, self.number, first, last);
        }
        if self.others.is_empty() || (first / SPAN == last / SPAN && first / SPAN == self.number) {
            return;
        }
        let mut from = first / SPAN;
        while let Some((&number, page)) = self.others.range_mut(from..=last / SPAN).next() {
            self.len -= clear(page, number, first, last);
            if page.len == 0 {
                self.others.remove(&number);
            }
            from = number + 1;
            if from > last / SPAN {
                return;
            }
        }
    }

    /// The page with the lowest number from `number` on that has anything.
    fn page_from(&self, number: u64) -> Option<(u64, &Page)> {
        let own = Some((self.number, &self.page)).filter(|own| own.0 >= number && own.1.len > 0);
        if self.others.is_empty() {
            return own;
        }
        let other = self.others.range(number..).next().map(|(number, page)| (*number, page));
        match (own, other) {
            (Some(own), Some(other)) => Some(if own.0 < other.0 { own } else { other }),
            (own, other) => own.or(other),
        }
    }

    /// The lowest place in it from `from` on.
    #[inline]
    pub(crate) fn next(&self, from: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let mut number = from / SPAN;
        while let Some((found, page)) = self.page_from(number) {
            let low = from.saturating_sub(found * SPAN) as usize;
            if let Some(bit) = bits::next_set(&page.words, low) {
                return Some(found * SPAN + bit as u64);
            }
            number = found + 1;
        }
        None
    }

    /// The next unbroken range in it from `from` on, cut at page borders.
    pub(crate) fn next_range(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.next(from)?;
        let (number, page) = self.page_from(first / SPAN)?;
        let end = bits::next_clear(&page.words, (first % SPAN) as usize).map_or(SPAN, |bit| bit as u64);
        Some((first, number * SPAN + end - 1))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = SeqSet::default();
    }
}

/// Clears what lies on the page and returns how much that was.
#[inline]
fn clear(page: &mut Page, number: u64, first: u64, last: u64) -> u64 {
    let (low, high) = on_page(number, first, last);
    let removed = bits::clear(&mut page.words, low, high);
    page.len -= removed;
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;
    use std::collections::BTreeSet;

    #[test]
    fn any_sequence_of_ranges_agrees_with_a_plain_set() {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for _ in 0..400 {
                let first = prng.below(6000);
                let width = if prng.chance(1, 4) { 3000 } else { 40 };
                let last = first + prng.below(width);
                if prng.chance(1, 2) {
                    set.insert(first, last);
                    model.extend(first..=last);
                } else {
                    let last = if prng.chance(1, 20) { u64::MAX } else { last };
                    set.remove(first, last);
                    model.retain(|seq| *seq < first || *seq > last);
                }
                assert_eq!(set.len(), model.len() as u64);
                assert_eq!(set.next(0), model.first().copied());
                assert_eq!(set.next(first), model.range(first..).next().copied());
                let mut listed = Vec::new();
                let mut from = 0;
                while let Some((a, b)) = set.next_range(from) {
                    listed.extend(a..=b);
                    from = b + 1;
                }
                assert!(listed.into_iter().eq(model.iter().copied()));
            }
            let needed = model.iter().map(|seq| seq / SPAN).collect::<BTreeSet<_>>().len();
            assert!(set.others.len() <= needed, "empty pages are let go");
        }
    }
}
