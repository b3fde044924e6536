//! A frame: one entry or one hard state of one group inside a flush.
//!
//! ```text
//!  0 header crc u32    4 payload crc u32
//!  8 kind u8           9 flags u8 (1: the payload stands apart)   10 reserve u16   12 group u32
//! 16 term u64         24 index u64 (hard state: the vote)
//! 32 length u32       36 page u32 (of a payload apart: pages from the beginning of the flush)
//! 40 commit u64
//! 48 payload, unless apart, and zeros up to a multiple of 8
//! ```
//! Little endian. The header's checksum is CRC-32C over its bytes 4 to 48, seeded with generation, flush number and
//! file offset; it covers the payload's checksum, so content is bound to identity and place while the payload's
//! own checksum can be had before the place is known.

use base::{Reader, Short, crc32c_seeded};
use model::{GroupId, Index, Term};

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER: usize = 48;
const APART: u8 = 1;
/// No number read from a disk reaches this, so that counting on never overflows.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry of the group; all of the group's entries at and above its index that came before are cut.
    Entry = 1,
    /// Term, vote and commit index of the group.
    HardState = 2,
    /// The group is no more; everything before is void.
    Removed = 3,
}

/// Where a frame stands, which its checksum vouches for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub generation: u64,
    pub flush: u64,
    pub offset: u32,
}

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: Kind,
    pub group: GroupId,
    pub term: Term,
    pub index: Index,
    pub commit: Index,
    pub length: u32,
    pub payload_crc: u32,
    /// The page of a payload that stands apart.
    pub apart: Option<u32>,
}

impl Frame {
    /// The header's bytes; [`seal`] completes them.
    pub fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut out = [0; FRAME_HEADER];
        out[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[8] = self.kind as u8;
        out[9] = if self.apart.is_some() { APART } else { 0 };
        out[12..16].copy_from_slice(&self.group.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.term.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.index.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.length.to_le_bytes());
        out[36..40].copy_from_slice(&self.apart.unwrap_or(0).to_le_bytes());
        out[40..48].copy_from_slice(&self.commit.0.to_le_bytes());
        out
    }

    /// The frame whose header `bytes` begin with, if it is whole and belongs to this place; with its header's crc.
    pub fn decode(bytes: &[u8], place: Place) -> Option<(Frame, u32)> {
        let header = bytes.get(..FRAME_HEADER)?;
        let (frame, crc) = Self::fields(header).ok()??;
        (crc == header_crc(header, place)).then_some((frame, crc))
    }

    fn fields(header: &[u8]) -> Result<Option<(Frame, u32)>, Short> {
        let mut reader = Reader::new(header);
        let crc = reader.u32_le()?;
        let payload_crc = reader.u32_le()?;
        let kind = match reader.u8()? {
            1 => Kind::Entry,
            2 => Kind::HardState,
            3 => Kind::Removed,
            _ => return Ok(None),
        };
        let apart = reader.u8()? & APART != 0;
        reader.u16_le()?;
        let group = GroupId(reader.u32_le()?);
        let (term, index) = (reader.u64_le()?, reader.u64_le()?);
        let (length, page) = (reader.u32_le()?, reader.u32_le()?);
        let commit = reader.u64_le()?;
        let sane = term < NUMBER_MAX && commit < NUMBER_MAX && (kind != Kind::Entry || index < NUMBER_MAX);
        let frame = Frame {
            kind,
            group,
            term: Term(term),
            index: Index(index),
            commit: Index(commit),
            length,
            payload_crc,
            apart: apart.then_some(page),
        };
        Ok(sane.then_some((frame, crc)))
    }
}

/// Gives an encoded header its page, if its payload stands apart, and its checksum, which is returned.
pub(crate) fn seal(header: &mut [u8], page: Option<u32>, place: Place) -> u32 {
    if let Some(page) = page {
        header[36..40].copy_from_slice(&page.to_le_bytes());
    }
    let crc = header_crc(header, place);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    crc
}

fn header_crc(header: &[u8], place: Place) -> u32 {
    let at = [&place.flush.to_le_bytes()[..], &place.offset.to_le_bytes()[..], &header[4..FRAME_HEADER]];
    crc32c_seeded(place.generation, &at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { generation: 3, flush: 9, offset: 4160 };

    fn sample() -> Frame {
        Frame {
            kind: Kind::Entry,
            group: GroupId(0x0102),
            term: Term(5),
            index: Index(7),
            commit: Index(6),
            length: 11,
            payload_crc: 0xaabb_ccdd,
            apart: None,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut header = sample().encode();
        seal(&mut header, None, PLACE);
        let expected = [
            GOLDEN_CRC[0],
            GOLDEN_CRC[1],
            GOLDEN_CRC[2],
            GOLDEN_CRC[3],
            0xdd,
            0xcc,
            0xbb,
            0xaa, // crcs
            1,
            0,
            0,
            0,
            2,
            1,
            0,
            0, // kind, flags, group
            5,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // term
            7,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // index
            11,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // length, page
            6,
            0,
            0,
            0,
            0,
            0,
            0,
            0, // commit
        ];
        assert_eq!(header, expected);
        assert_eq!(Frame::decode(&expected, PLACE).map(|(frame, _)| frame), Some(sample()));
    }

    const GOLDEN_CRC: [u8; 4] = [0xf7, 0xce, 0xf0, 0x76];

    #[test]
    fn another_place_another_generation_or_one_flipped_bit_is_refused() {
        let mut header = sample().encode();
        seal(&mut header, Some(4), PLACE);
        for place in
            [Place { generation: 4, ..PLACE }, Place { flush: 10, ..PLACE }, Place { offset: 4168, ..PLACE }]
        {
            assert_eq!(Frame::decode(&header, place), None);
        }
        for bit in 0..FRAME_HEADER * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(&flipped, PLACE), None, "bit {bit}");
        }
        assert_eq!(Frame::decode(&header[..47], PLACE), None);
    }
}
