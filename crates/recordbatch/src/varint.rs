//! Numbers as records have them: zigzag, then seven bits per byte, lowest first, the high bit on all but the last.
//!
//! In: bytes and a place in them. Out: the number and the place behind it. Never: reads behind ten bytes.

use base::Put;

/// The number at `at`, which moves behind it; `None` when the bytes end early or the number does not end.
#[inline(always)]
pub(crate) fn take(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag(u64::from(first)));
    }
    let second = *bytes.get(*at + 1)?;
    if second < 0x80 {
        *at += 2;
        return Some(unzigzag(u64::from(first & 0x7f) | u64::from(second) << 7));
    }
    take_long(bytes, at)
}

#[inline(never)]
fn take_long(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut value = 0u64;
    for (place, byte) in bytes[*at..].iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).wrapping_shl(7 * place as u32);
        if *byte < 0x80 {
            *at += place + 1;
            return Some(unzigzag(value));
        }
    }
    None
}

#[inline(always)]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a number.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    out.put_varint(zigzag(value));
}

#[inline]
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// Bytes that a number takes.
#[inline]
pub(crate) fn width(value: i64) -> usize {
    (64 - (zigzag(value) | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_come_back_and_no_cut_does() {
        for shift in 0..64 {
            for value in [i64::MAX >> shift, i64::MIN >> shift, 1 << shift] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(bytes.len(), width(value));
                let mut at = 0;
                assert_eq!(take(&bytes, &mut at), Some(value));
                assert_eq!(at, bytes.len());
                assert!((0..bytes.len()).all(|cut| take(&bytes[..cut], &mut 0).is_none()));
            }
        }
        assert_eq!(take(&[0xff; 20], &mut 0), None, "a number without an end");
    }

    #[test]
    fn golden_bytes() {
        let cases: [(i64, &[u8]); 5] =
            [(0, &[0]), (-1, &[1]), (1, &[2]), (63, &[0x7e]), (-65, &[0x81, 0x01])];
        for (value, bytes) in cases {
            assert_eq!(take(bytes, &mut 0), Some(value));
        }
    }
}
