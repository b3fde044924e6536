//! A set of places in a queue, by ranges: pages of bits that exist only where something is set.

use std::collections::BTreeMap;

use crate::bits;

const WORDS: usize = 16;
/// Places of one page.
const SPAN: u64 = WORDS as u64 * 64;

#[derive(Debug, Default)]
struct Page {
    words: [u64; WORDS],
    len: u64,
}

/// The places in it, and how many.
#[derive(Debug, Default)]
pub(crate) struct SeqSet {
    pages: BTreeMap<u64, Page>,
    /// The page that emptied last stays until another does: it is likely to be needed again at once.
    emptied: u64,
    len: u64,
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

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `first..=last`; the caller bounds the range.
    pub(crate) fn insert(&mut self, first: u64, last: u64) {
        for page in first / SPAN..=last / SPAN {
            let entry = self.pages.entry(page).or_default();
            let (from, to) = on_page(page, first, last);
            let added = bits::set(&mut entry.words, from, to);
            entry.len += added;
            self.len += added;
        }
    }

    /// Removes `first..=last`, however wide.
    pub(crate) fn remove(&mut self, first: u64, last: u64) {
        if first / SPAN == last / SPAN {
            return self.remove_on(first / SPAN, first, last);
        }
        let mut from = first / SPAN;
        while from <= last / SPAN {
            let Some((&page, _)) = self.pages.range(from..=last / SPAN).next() else { return };
            self.remove_on(page, first, last);
            from = page + 1;
        }
    }

    #[inline]
    fn remove_on(&mut self, page: u64, first: u64, last: u64) {
        let Some(entry) = self.pages.get_mut(&page) else { return };
        let (low, high) = on_page(page, first, last);
        let removed = bits::clear(&mut entry.words, low, high);
        entry.len -= removed;
        self.len -= removed;
        if entry.len == 0 {
            self.keep_emptied(page);
        }
    }

    fn keep_emptied(&mut self, page: u64) {
        let before = std::mem::replace(&mut self.emptied, page);
        if before != page && self.pages.get(&before).is_some_and(|entry| entry.len == 0) {
            self.pages.remove(&before);
        }
    }

    /// The lowest place in it from `from` on.
    pub(crate) fn next(&self, from: u64) -> Option<u64> {
        for (page, entry) in self.pages.range(from / SPAN..) {
            let low = from.saturating_sub(page * SPAN) as usize;
            if let Some(bit) = bits::next_set(&entry.words, low) {
                return Some(page * SPAN + bit as u64);
            }
        }
        None
    }

    /// The next unbroken range in it from `from` on, cut at page borders.
    pub(crate) fn next_range(&self, from: u64) -> Option<(u64, u64)> {
        let first = self.next(from)?;
        let page = first / SPAN;
        let words = &self.pages.get(&page)?.words;
        let end = bits::next_clear(words, (first % SPAN) as usize).map_or(SPAN, |bit| bit as u64);
        Some((first, page * SPAN + end - 1))
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = SeqSet::default();
    }
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
            assert!(set.pages.len() <= needed + 1, "empty pages are let go");
        }
    }
}
