//! Segments: the files of the ring, their header page, and which of them may be written next.
//!
//! ```text
//! file shard-N/segment-SLOT.log: one header page, then flushes back to back, then leftovers
//!  0 magic "WSSEGMNT"       8 version u16   10 shard u16   12 crc u32
//! 16 generation u64        24 number of the first flush u64
//! 32 previous generation u64 (0: this is the beginning of the log)
//! 40 previous flush u64    48 previous end u32   52 link u32
//! 56 floor u64             64 zeros up to the page
//! ```
//! Little endian; the checksum is CRC-32C over bytes 8 to 12 and 16 to 64, seeded with the slot. `previous …` name the
//! last flush before this segment: its generation, number, the offset where it ends and its header checksum. What
//! stands behind that end in that file has been cut and is void for ever. `floor`: when this header was written, no
//! flush below that number was needed to recover any group.
//!
//! The header is written together with the segment's first flush. A generation is given once; the segment being left
//! is never the one written next, so a torn header leaves the end of the log known.

use std::sync::Arc;

use base::{PAGE, Put, Reader, Short, crc32c_seeded};
use model::ShardId;

use crate::disk::FileName;
use crate::flush::VERSION;
use crate::frame::NUMBER_MAX;

const MAGIC: [u8; 8] = *b"WSSEGMNT";
const HEADER: usize = 64;

/// Where the flush before stands, for the one that follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub generation: u64,
    pub number: u64,
    pub end: u32,
    pub crc: u32,
}

/// A segment's header page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub shard: ShardId,
    pub generation: u64,
    pub first: u64,
    pub previous: Link,
    pub floor: u64,
}

/// What a header page turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderPage {
    Valid(SegmentHeader),
    Newer(u16),
    Invalid,
}

impl SegmentHeader {
    pub fn encode(&self, slot: u32) -> [u8; HEADER] {
        self.encode_as(slot, VERSION)
    }

    pub fn encode_as(&self, slot: u32, version: u16) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.put(&MAGIC);
        out.put_u16_le(version);
        out.put_u16_le(self.shard.0);
        out.put_u32_le(0);
        out.put_u64_le(self.generation);
        out.put_u64_le(self.first);
        out.put_u64_le(self.previous.generation);
        out.put_u64_le(self.previous.number);
        out.put_u32_le(self.previous.end);
        out.put_u32_le(self.previous.crc);
        out.put_u64_le(self.floor);
        let crc = crc(slot, &out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&out);
        bytes
    }

    pub fn decode(page: &[u8], slot: u32, shard: ShardId) -> HeaderPage {
        let Some(bytes) = page.get(..HEADER).filter(|bytes| bytes[..8] == MAGIC) else {
            return HeaderPage::Invalid;
        };
        let Ok((header, version, stored)) = Self::fields(&bytes[8..]) else { return HeaderPage::Invalid };
        let Link { generation, number, .. } = header.previous;
        let sane = [header.generation, header.first, generation, number, header.floor];
        let sane = sane.into_iter().all(|counted| counted < NUMBER_MAX);
        if stored != crc(slot, bytes) || header.shard != shard || !sane {
            return HeaderPage::Invalid;
        }
        if version > VERSION { HeaderPage::Newer(version) } else { HeaderPage::Valid(header) }
    }

    fn fields(bytes: &[u8]) -> Result<(SegmentHeader, u16, u32), Short> {
        let mut reader = Reader::new(bytes);
        let (version, shard, crc) = (reader.u16_le()?, reader.u16_le()?, reader.u32_le()?);
        let (generation, first) = (reader.u64_le()?, reader.u64_le()?);
        let previous = Link {
            generation: reader.u64_le()?,
            number: reader.u64_le()?,
            end: reader.u32_le()?,
            crc: reader.u32_le()?,
        };
        let floor = reader.u64_le()?;
        Ok((SegmentHeader { shard: ShardId(shard), generation, first, previous, floor }, version, crc))
    }
}

fn crc(slot: u32, bytes: &[u8]) -> u32 {
    crc32c_seeded(u64::from(slot), &[&bytes[8..12], &bytes[16..HEADER]])
}

/// Offset of the first flush.
pub(crate) const FIRST_FLUSH: u32 = PAGE as u32;

/// What a segment file is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Being prepared in the background.
    Coming,
    /// Never written, ready.
    Fresh,
    /// Holds flushes up to `last` of this generation.
    Used { generation: u64, last: u64 },
    /// Holds blocks of runs and is no part of the ring any more; frames of this generation, if entries of a group
    /// that was on its way out were left behind.
    Adopted { generation: u64 },
}

/// One file of the ring.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub slot: u32,
    pub file: FileName,
    pub bytes: u64,
    pub state: State,
    /// Entries below their group's durable checkpoint that are still needed.
    pub kept: u64,
    /// Reads under way, and one for an evacuation.
    pub pins: u32,
    /// An entry cannot be read to be moved: it is left alone.
    pub is_stuck: bool,
    /// It is not worth being adopted.
    pub is_copied: bool,
    /// Some of its blocks may have been given back.
    pub has_holes: bool,
}

impl Segment {
    pub fn new(shard: ShardId, slot: u32, bytes: u64, state: State) -> Segment {
        let file = file_name(shard, slot);
        // What of a segment of runs was given back is not known after a start.
        let has_holes = matches!(state, State::Adopted { .. });
        Segment { slot, file, bytes, state, kept: 0, pins: 0, is_stuck: false, is_copied: false, has_holes }
    }

    /// The generation it holds, 0 if none.
    pub fn generation(&self) -> u64 {
        if let State::Used { generation, .. } = self.state { generation } else { 0 }
    }

    /// The law of reuse. `floor` is durable: no flush below it is needed to recover any group. `newest` is the
    /// generation of the last flush.
    pub fn reusable(&self, floor: u64, newest: u64) -> bool {
        match self.state {
            State::Used { generation, last } => {
                last < floor && generation != newest && self.kept == 0 && self.pins == 0
            }
            State::Coming | State::Fresh | State::Adopted { .. } => false,
        }
    }
}

/// No slot read from a file's name reaches this: slots are given one by one, and counting on must never overflow.
const SLOT_MAX: u32 = 1 << 31;

/// The name of a segment file.
pub(crate) fn file_name(shard: ShardId, slot: u32) -> FileName {
    Arc::from(format!("{}/segment-{slot}.log", directory(shard)))
}

/// The slot a file name stands for.
pub(crate) fn slot_of(shard: ShardId, name: &str) -> Option<u32> {
    let slot = name.strip_prefix(&directory(shard))?.strip_prefix("/segment-")?.strip_suffix(".log")?;
    let slot = slot.parse().ok()?;
    (*file_name(shard, slot) == *name && slot < SLOT_MAX).then_some(slot)
}

/// The directory of a shard's files.
pub(crate) fn directory(shard: ShardId) -> String {
    format!("shard-{shard}")
}

/// All segments.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub segments: Vec<Segment>,
    pub generations: u64,
    pub slots: u32,
}

impl Ring {
    pub fn slot(&self, slot: u32) -> &Segment {
        self.segments.iter().find(|segment| segment.slot == slot).expect("a slot in use has its segment")
    }

    pub fn slot_mut(&mut self, slot: u32) -> &mut Segment {
        self.segments.iter_mut().find(|segment| segment.slot == slot).expect("a slot in use has its segment")
    }

    /// Bytes of the files that are the ring's: those that are runs are not.
    pub fn bytes(&self) -> u64 {
        let in_ring = |segment: &&Segment| !matches!(segment.state, State::Adopted { .. });
        self.segments.iter().filter(in_ring).map(|segment| segment.bytes).sum()
    }

    /// Where a generation stands.
    pub fn of_generation(&mut self, wanted: u64) -> Option<&mut Segment> {
        let holds = |segment: &&mut Segment| match segment.state {
            State::Used { generation, .. } | State::Adopted { generation } => generation == wanted,
            State::Coming | State::Fresh => false,
        };
        self.segments.iter_mut().find(holds)
    }

    /// The segment to write next with at least `bytes`: the oldest that may be reused, or one never written.
    pub fn choose(&self, bytes: u64, floor: u64, newest: u64) -> Option<u32> {
        let age = |segment: &Segment| match segment.state {
            State::Used { generation, .. } => generation,
            State::Coming | State::Fresh | State::Adopted { .. } => u64::MAX,
        };
        let good = |s: &&Segment| s.bytes >= bytes && (s.state == State::Fresh || s.reusable(floor, newest));
        self.segments.iter().filter(good).min_by_key(|s| (age(s), s.slot)).map(|s| s.slot)
    }

    /// A new segment, not yet made.
    pub fn add(&mut self, shard: ShardId, bytes: u64, state: State) -> &Segment {
        let segment = Segment::new(shard, self.slots, bytes, state);
        self.slots += 1;
        self.segments.push(segment);
        &self.segments[self.segments.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(2);

    fn sample() -> SegmentHeader {
        SegmentHeader {
            shard: SHARD,
            generation: 3,
            first: 20,
            previous: Link { generation: 1, number: 18, end: 8192, crc: 0x0a0b_0c0d },
            floor: 17,
        }
    }

    #[test]
    fn golden_bytes() {
        #[rustfmt::skip]
        let expected = [
            b'W', b'S', b'S', b'E', b'G', b'M', b'N', b'T',
            1, 0, 2, 0, GOLDEN_CRC[0], GOLDEN_CRC[1], GOLDEN_CRC[2], GOLDEN_CRC[3],
            3, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0,
            1, 0, 0, 0, 0, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0,
            0, 0x20, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 17, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(sample().encode(5), expected);
        assert_eq!(SegmentHeader::decode(&expected, 5, SHARD), HeaderPage::Valid(sample()));
        assert_eq!(SegmentHeader::decode(&expected, 4, SHARD), HeaderPage::Invalid, "another slot");
        assert_eq!(SegmentHeader::decode(&expected, 5, ShardId(1)), HeaderPage::Invalid, "another shard");
        assert_eq!(SegmentHeader::decode(&expected[..63], 5, SHARD), HeaderPage::Invalid);
    }

    const GOLDEN_CRC: [u8; 4] = [0x6f, 0x2a, 0x5b, 0x24];

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = sample().encode(5);
        bytes[8] = 9;
        assert_eq!(SegmentHeader::decode(&bytes, 5, SHARD), HeaderPage::Invalid);
        let crc = crc(5, &bytes).to_le_bytes();
        bytes[12..16].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::decode(&bytes, 5, SHARD), HeaderPage::Newer(9));
    }

    #[test]
    fn numbers_that_could_not_be_counted_on_from_are_not_believed() {
        let at_most = |number| {
            let previous = Link { generation: 1, number, end: 0, crc: 0 };
            let header = SegmentHeader { shard: SHARD, generation: 2, first: 1, previous, floor: number };
            SegmentHeader::decode(&header.encode(5), 5, SHARD)
        };
        assert!(matches!(at_most(NUMBER_MAX - 1), HeaderPage::Valid(_)));
        assert_eq!(at_most(NUMBER_MAX), HeaderPage::Invalid);
    }

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(slot_of(SHARD, "shard-2/segment-17.log"), Some(17));
        for other in
            ["shard-2/segment-017.log", "shard-2/segment-.log", "shard-1/segment-1.log", "segment-1.log"]
        {
            assert_eq!(slot_of(SHARD, other), None, "{other}");
        }
        // The slot behind it could not be counted.
        assert_eq!(slot_of(SHARD, "shard-2/segment-4294967295.log"), None);
    }

    #[test]
    fn the_oldest_free_segment_is_written_next_and_never_the_newest() {
        let mut ring = Ring::default();
        for generation in [2, 1, 3] {
            ring.add(SHARD, 100, State::Used { generation, last: generation * 10 });
        }
        assert_eq!(ring.choose(100, 31, 3), Some(1));
        assert_eq!(ring.choose(100, 10, 3), None, "the floor is not above it");
        ring.slot_mut(1).pins = 1;
        assert_eq!(ring.choose(100, 31, 3), Some(0));
        ring.slot_mut(0).kept = 1;
        assert_eq!(ring.choose(100, 31, 3), None);
        ring.add(SHARD, 50, State::Fresh);
        assert_eq!(ring.choose(100, 31, 3), None, "too small");
        assert_eq!(ring.choose(50, 31, 3), Some(3));
    }
}
