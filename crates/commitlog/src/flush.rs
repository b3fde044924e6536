//! A flush: what one write and one sync make durable together, of all groups of the shard.
//!
//! ```text
//!  0 magic "WSFL"        4 header crc u32
//!  8 generation u64     16 number u64
//! 24 previous number u64
//! 32 link u32           36 frames crc u32
//! 40 length u32         44 head length u32
//! 48 frame count u32    52 shard u16   54 version u16   56 reserve (8 bytes)
//! 64 frames, each at a multiple of 8; zeros up to the page: the head
//!    payloads that stand apart, each from a page boundary on and padded with zeros to the next
//! ```
//! Little endian. A flush begins at a page boundary and its length is a multiple of the page. The header checksum is
//! CRC-32C over its bytes 8 to 64, seeded with its file offset and the segment's salt: the link its segment begins
//! with, which nobody outside can foresee, so that no payload page passes for a flush header. `link` is the header checksum of the flush before, in
//! whatever segment that stood: flushes form a chain, and bytes that are valid by themselves but not next in the
//! chain (left over from a cut, from an earlier life of the segment, or written by a client who hoped to be read as
//! a flush) are never taken for part of the log. `frames crc` is over the header checksums of all frames in order,
//! so a flush is valid as a whole or not at all.

use base::{Bug, planted};
use base::{PAGE, Put, Reader, Short, crc32c, crc32c_seeded};
use model::ShardId;

use crate::frame::{FRAME_HEADER, Frame, Kind, NUMBER_MAX, Place};
use crate::group::At;

/// Bytes of a flush header.
pub(crate) const FLUSH_HEADER: usize = 64;
const MAGIC: [u8; 4] = *b"WSFL";
/// The version of all layouts of a segment file.
pub(crate) const VERSION: u16 = 1;

/// A flush header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlushHeader {
    pub shard: ShardId,
    pub generation: u64,
    pub number: u64,
    pub previous: u64,
    pub link: u32,
    pub frames_crc: u32,
    pub length: u32,
    pub head_length: u32,
    pub frames: u32,
}

impl FlushHeader {
    /// The header's bytes for a flush at `offset` of a segment with that salt, and their checksum: the link of the
    /// next flush.
    pub fn encode(&self, offset: u32, salt: u32) -> ([u8; FLUSH_HEADER], u32) {
        let mut fields = Vec::with_capacity(FLUSH_HEADER - 8);
        fields.put_u64_le(self.generation);
        fields.put_u64_le(self.number);
        fields.put_u64_le(self.previous);
        fields.put_u32_le(self.link);
        fields.put_u32_le(self.frames_crc);
        fields.put_u32_le(self.length);
        fields.put_u32_le(self.head_length);
        fields.put_u32_le(self.frames);
        fields.put_u16_le(self.shard.0);
        fields.put_u16_le(VERSION);
        fields.put_u64_le(0);
        let crc = crc32c_seeded(seed(offset, salt), &[&fields]);
        let mut out = [0; FLUSH_HEADER];
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out[8..].copy_from_slice(&fields);
        (out, crc)
    }

    /// The header `bytes` begin with, if it is whole and was written for this place; with its checksum.
    pub fn decode(bytes: &[u8], shard: ShardId, offset: u32, salt: u32) -> Option<(FlushHeader, u32)> {
        let bytes = bytes.get(..FLUSH_HEADER)?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let (header, version, crc) = Self::fields(bytes).ok()?;
        let whole =
            crc == crc32c_seeded(seed(offset, salt), &[&bytes[8..]]) || planted(Bug::StaleGenerationAccepted);
        let sane = header.number < NUMBER_MAX && header.generation < NUMBER_MAX;
        (whole && sane && version == VERSION && header.shard == shard).then_some((header, crc))
    }

    fn fields(bytes: &[u8]) -> Result<(FlushHeader, u16, u32), Short> {
        let mut reader = Reader::new(&bytes[4..]);
        let crc = reader.u32_le()?;
        let (generation, number, previous) = (reader.u64_le()?, reader.u64_le()?, reader.u64_le()?);
        let (link, frames_crc) = (reader.u32_le()?, reader.u32_le()?);
        let (length, head_length, frames) = (reader.u32_le()?, reader.u32_le()?, reader.u32_le()?);
        let (shard, version) = (ShardId(reader.u16_le()?), reader.u16_le()?);
        let header = FlushHeader {
            shard,
            generation,
            number,
            previous,
            link,
            frames_crc,
            length,
            head_length,
            frames,
        };
        Ok((header, version, crc))
    }
}

fn seed(offset: u32, salt: u32) -> u64 {
    u64::from(salt) << 32 | u64::from(offset)
}

/// What is wrong with a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// For a person.
    pub what: &'static str,
    /// From the beginning of the flush.
    pub offset: usize,
    /// The frame whose payload is bad.
    pub frame: Option<Frame>,
}

/// Calls `found` with each frame of the flush that `bytes` begin with and its ordinal, if the whole flush is valid;
/// says what is wrong otherwise, without a call. `slot` and `offset` tell where the bytes come from.
pub(crate) fn walk(
    bytes: &[u8],
    header: &FlushHeader,
    slot: u32,
    offset: u32,
    mut found: impl FnMut(&Frame, At),
) -> Result<(), Broken> {
    let broken = |what, offset| Broken { what, offset, frame: None };
    let (length, head) = (header.length as usize, header.head_length as usize);
    let padded = head.next_multiple_of(PAGE);
    if length % PAGE != 0 || head < FLUSH_HEADER || padded > length {
        return Err(broken("the lengths of a flush contradict each other", 0));
    }
    if bytes.len() < length {
        return Err(broken("the file ends within a flush", bytes.len()));
    }
    let bytes = &bytes[..length];
    let mut crcs = Vec::new();
    let mut frames = Vec::new();
    let mut at = FLUSH_HEADER;
    for ordinal in 0..header.frames {
        let place = Place { generation: header.generation, flush: header.number, offset: offset + at as u32 };
        let Some((frame, crc)) = bytes[..head].get(at..).and_then(|rest| Frame::decode(rest, place)) else {
            return Err(broken("a frame header is damaged", at));
        };
        let start = frame.apart.map_or(at + FRAME_HEADER, |page| page as usize * PAGE);
        let (floor, end) = if frame.apart.is_some() { (padded, length) } else { (at, head) };
        let payload = bytes[..end].get(start..).and_then(|rest| rest.get(..frame.length as usize));
        let whole = |payload: &&[u8]| planted(Bug::SkipChecksum) || crc32c(payload) == frame.payload_crc;
        let Some(payload) = payload.filter(|_| start >= floor).filter(whole) else {
            return Err(Broken { what: "a payload is damaged", offset: start, frame: Some(frame) });
        };
        crcs.put_u32_le(crc);
        frames.push((
            frame,
            At {
                generation: header.generation,
                flush: header.number,
                term: frame.term,
                frame: place.offset,
                payload: offset + start as u32,
                length: frame.length,
                crc: frame.payload_crc,
                slot,
                ordinal,
            },
        ));
        at += FRAME_HEADER;
        if frame.apart.is_none() {
            at = (at + payload.len()).next_multiple_of(8);
        }
    }
    if crc32c(&crcs) != header.frames_crc {
        return Err(broken("the frames are not those of this flush", 0));
    }
    for (frame, at) in &frames {
        debug_assert!(frame.kind == Kind::Entry || frame.apart.is_none());
        found(frame, *at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let header = FlushHeader {
            shard: ShardId(2),
            generation: 3,
            number: 9,
            previous: 8,
            link: 0x0a0b_0c0d,
            frames_crc: 0x0102_0304,
            length: 8192,
            head_length: 200,
            frames: 1,
        };
        let (bytes, crc) = header.encode(4096, 0x55);
        #[rustfmt::skip]
        let expected = [
            b'W', b'S', b'F', b'L', GOLDEN_CRC[0], GOLDEN_CRC[1], GOLDEN_CRC[2], GOLDEN_CRC[3],
            3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, // generation, number
            8, 0, 0, 0, 0, 0, 0, 0, // previous
            0x0d, 0x0c, 0x0b, 0x0a, 4, 3, 2, 1, // link, frames crc
            0, 0x20, 0, 0, 200, 0, 0, 0, // length, head length
            1, 0, 0, 0, 2, 0, 1, 0, // frames, shard, version
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(FlushHeader::decode(&expected, ShardId(2), 4096, 0x55), Some((header, crc)));
        assert_eq!(FlushHeader::decode(&expected, ShardId(2), 8192, 0x55), None, "another place");
        assert_eq!(FlushHeader::decode(&expected, ShardId(2), 4096, 0x54), None, "another segment");
        assert_eq!(FlushHeader::decode(&expected, ShardId(1), 4096, 0x55), None, "another shard");
    }

    const GOLDEN_CRC: [u8; 4] = [0x1c, 0x53, 0xd0, 0xb8];
}
