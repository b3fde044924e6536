//! Snappy, as far as the simulator's clients need it: they write bytes as they are, and read what anybody writes, bare or
//! in the chunks of the Java library.
//!
//! ```text
//! bare     varint length  elements:  00 literal  01, 10, 11 a copy of what stands so many bytes before
//! chunks   82 "SNAPPY" 0  i32 1  i32 1  then i32 length and a bare block, repeated
//! ```
//! Never: makes anything smaller, shares code with the node.

use super::wire::Fields;
use crate::client::Fault;

const MAGIC: &[u8] = b"\x82SNAPPY\0";
/// Bytes of a literal whose length has two bytes.
const LITERAL_MAX: usize = 1 << 16;
/// The tag of such a literal.
const LITERAL_2: u8 = 61 << 2;

/// The bytes, as literals.
pub(super) fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    for part in bytes.chunks(LITERAL_MAX) {
        out.push(LITERAL_2);
        out.extend_from_slice(&((part.len() - 1) as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}

fn broken() -> Fault {
    ("L11", "the records of a batch cannot be unpacked".to_owned())
}

/// What was packed.
pub(super) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    match bytes.strip_prefix(MAGIC) {
        None => unpack_bare(Fields(bytes), &mut out)?,
        Some(chunks) => {
            let mut chunks = Fields(chunks);
            chunks.take(8)?;
            while !chunks.0.is_empty() {
                unpack_bare(Fields(chunks.blob()?), &mut out)?;
            }
        }
    }
    Ok(out)
}

fn unpack_bare(mut fields: Fields<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = fields.take(1)?[0];
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
        if shift > 28 {
            return Err(broken());
        }
    }
    let end = out.len() + length;
    while !fields.0.is_empty() {
        element(&mut fields, out)?;
    }
    if out.len() == end { Ok(()) } else { Err(broken()) }
}

fn element(fields: &mut Fields<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let tag = fields.take(1)?[0];
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |all, byte| all << 8 | usize::from(*byte));
    let high = usize::from(tag >> 2);
    let (length, back) = match tag & 3 {
        0 => {
            let length = if high < 60 { high } else { number(fields.take(high - 59)?) };
            out.extend_from_slice(fields.take(length + 1)?);
            return Ok(());
        }
        1 => ((high & 7) + 4, usize::from(tag >> 5) << 8 | number(fields.take(1)?)),
        2 => (high + 1, number(fields.take(2)?)),
        _ => (high + 1, number(fields.take(4)?)),
    };
    if back == 0 || back > out.len() {
        return Err(broken());
    }
    // It may run into what it writes.
    (0..length).for_each(|_| out.push(out[out.len() - back]));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        for length in [0, 1, 127, 128, 70_000, 200_000] {
            let bytes: Vec<u8> = (0..length).map(|at| ((at * 7) >> 3) as u8).collect();
            assert_eq!(unpack(&pack(&bytes)), Ok(bytes));
        }
    }

    #[test]
    fn copies_and_chunks_are_understood() {
        let bare = [9, 2 << 2, b'a', b'b', b'c', 1 | (2 << 2), 3];
        assert_eq!(unpack(&bare), Ok(b"abcabcabc".to_vec()));
        let far = [5, 0, b'x', 2 | (3 << 2), 1, 0];
        assert_eq!(unpack(&far), Ok(b"xxxxx".to_vec()));
        let chunks = [MAGIC, &[0, 0, 0, 1, 0, 0, 0, 1], &[0, 0, 0, 7], &bare, &[0, 0, 0, 6], &far].concat();
        assert_eq!(unpack(&chunks), Ok(b"abcabcabcxxxxx".to_vec()));
        assert!(unpack(&[4, 0, b'x', 2 | (2 << 2), 9, 0]).is_err(), "before the beginning");
    }
}
