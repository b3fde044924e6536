//! Setting, clearing and finding bits in words, by inclusive ranges.

/// Bits `from..=to` of word number `word`, where the range is counted from the first word.
#[inline]
fn mask(word: usize, from: usize, to: usize) -> u64 {
    let low = from.saturating_sub(word * 64);
    let high = (to - word * 64).min(63);
    (u64::MAX << low) & (u64::MAX >> (63 - high))
}

/// Sets bits `from..=to` and returns how many were clear.
#[inline]
pub(crate) fn set(words: &mut [u64], from: usize, to: usize) -> u64 {
    let mut changed = 0;
    for (at, word) in (from / 64..).zip(&mut words[from / 64..=to / 64]) {
        let mask = mask(at, from, to);
        changed += u64::from((mask & !*word).count_ones());
        *word |= mask;
    }
    changed
}

/// Clears bits `from..=to` and returns how many were set.
#[inline]
pub(crate) fn clear(words: &mut [u64], from: usize, to: usize) -> u64 {
    let mut changed = 0;
    for (at, word) in (from / 64..).zip(&mut words[from / 64..=to / 64]) {
        let mask = mask(at, from, to);
        changed += u64::from((mask & *word).count_ones());
        *word &= !mask;
    }
    changed
}

/// Whether bit `at` is set.
#[inline]
pub(crate) fn is_set(words: &[u64], at: usize) -> bool {
    words[at / 64] >> (at % 64) & 1 == 1
}

/// The first set bit from `from` on.
#[inline]
pub(crate) fn next_set(words: &[u64], from: usize) -> Option<usize> {
    next(words, from, |word| word)
}

/// The first clear bit from `from` on.
#[inline]
pub(crate) fn next_clear(words: &[u64], from: usize) -> Option<usize> {
    next(words, from, |word| !word)
}

#[inline]
fn next(words: &[u64], from: usize, view: impl Fn(u64) -> u64) -> Option<usize> {
    let mut word = from / 64;
    let mut rest = view(*words.get(word)?) & (u64::MAX << (from % 64));
    while rest == 0 {
        word += 1;
        rest = view(*words.get(word)?);
    }
    Some(word * 64 + rest.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_within_and_across_words() {
        let mut words = [0; 3];
        assert_eq!(set(&mut words, 60, 130), 71);
        assert_eq!(set(&mut words, 0, 191), 121);
        assert_eq!(clear(&mut words, 63, 64), 2);
        assert!(is_set(&words, 62) && !is_set(&words, 63) && !is_set(&words, 64) && is_set(&words, 65));
        assert_eq!(next_clear(&words, 0), Some(63));
        assert_eq!(next_set(&words, 63), Some(65));
        assert_eq!(next_clear(&words, 65), None);
        assert_eq!(next_set(&words, 192), None);
    }
}
