//! CRC-32C (Castagnoli), the checksum of every byte at rest.

use crc_fast::{CrcAlgorithm, Digest};

/// CRC-32C of `bytes`.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of `seed` (8 bytes, little endian) followed by each part: binds content to a place or an identity, so
/// that the same bytes found elsewhere do not look valid.
pub fn crc32c_seeded(seed: u64, parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&seed.to_le_bytes());
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

/// CRC-32C of two parts, one behind the other, by their checksums and the length of the second: nothing is read.
pub fn crc32c_joined(first: u32, second: u32, second_bytes: u64) -> u32 {
    // The second part's bytes multiply what the first left by x^(8 n).
    let (mut shift, mut power, mut left) = (ONE, 3, second_bytes);
    while left > 0 {
        if left & 1 == 1 {
            shift = multiplied(POWERS[power % POWERS.len()], shift);
        }
        (left, power) = (left >> 1, power + 1);
    }
    multiplied(shift, first) ^ second
}

/// The polynomial, and the polynomial 1, with the lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const ONE: u32 = 1 << 31;
/// x^(2^n) for each n; they repeat from here on, since x has the order 2^31 - 1 or a divisor of it.
const POWERS: [u32; 31] = powers();

const fn powers() -> [u32; 31] {
    let mut powers = [1 << 30; 31];
    let mut at = 1;
    while at < powers.len() {
        powers[at] = multiplied(powers[at - 1], powers[at - 1]);
        at += 1;
    }
    powers
}

/// The product of two polynomials modulo that of CRC-32C.
const fn multiplied(a: u32, b: u32) -> u32 {
    let (mut product, mut shifted, mut bit) = (0, b, 0);
    while bit < 32 {
        if a & (ONE >> bit) != 0 {
            product ^= shifted;
        }
        shifted = if shifted & 1 == 1 { shifted >> 1 ^ POLYNOMIAL } else { shifted >> 1 };
        bit += 1;
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn joined_checksums_are_that_of_the_whole() {
        let mut prng = crate::Prng::new(1);
        let bytes: Vec<u8> = (0..300_000).map(|_| prng.below(256) as u8).collect();
        for cut in [0, 1, 7, 117, 4096, 65_536, 299_999, 300_000] {
            let (first, second) = bytes.split_at(cut);
            let joined = crc32c_joined(crc32c(first), crc32c(second), second.len() as u64);
            assert_eq!(joined, crc32c(&bytes), "cut at {cut}");
        }
    }

    #[test]
    fn seed_and_parts_are_one_stream() {
        let mut whole = 7u64.to_le_bytes().to_vec();
        whole.extend_from_slice(b"abcdef");
        assert_eq!(crc32c_seeded(7, &[b"abc", b"def"]), crc32c(&whole));
        assert_ne!(crc32c_seeded(8, &[b"abcdef"]), crc32c(&whole));
    }
}
