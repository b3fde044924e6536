//! The manifest of a shard: which runs there are, and which entries have left the ring for them.
//!
//! ```text
//! file shard-N/manifest-SEQUENCE
//!  0 magic "WSMANIFT"       8 version u16   10 shard u16   12 header crc u32
//! 16 sequence u64          24 next run u64
//! 32 run count u64         40 range count u64
//! 48 rows crc u32          52 reserve (12 bytes)
//! 64 runs, 48 bytes each: group u32, slot u32, number u64, first index u64, last index u64, file length u64,
//!    reserve (8 bytes)
//!    ranges of entries that left, 24 bytes each: group u32, reserve u32, first index u64, last index u64
//! ```
//! Little endian; CRC-32C, the header's over bytes 8 to 12 and 16 to 64. Files are put whole under a new name; the one
//! before is deleted when the new one is durable. The highest sequence number counts; if that one is damaged it is
//! damage: the one before may not name what has left the ring since. A run that it does not name is void.

use std::sync::Arc;

use base::{Put, Reader, Short, crc32c, crc32c_seeded};
use model::{GroupId, Index, ShardId};

use crate::checkpoint::Unusable;
use crate::disk::FileName;
use crate::flush::VERSION;
use crate::frame::NUMBER_MAX;
use crate::segment::directory;

const MAGIC: [u8; 8] = *b"WSMANIFT";
const HEADER: usize = 64;
const RUN: usize = 48;
const RANGE: usize = 24;

/// A run, as the manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedRun {
    pub group: GroupId,
    pub slot: u32,
    pub number: u64,
    pub first: Index,
    pub last: Index,
    pub length: u64,
}

/// What a manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub shard: ShardId,
    pub sequence: u64,
    pub next_run: u64,
    pub runs: Vec<NamedRun>,
    /// Of each group ascending and apart.
    pub moved: Vec<(GroupId, Index, Index)>,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.runs.len() * RUN + self.moved.len() * RANGE);
        out.put(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(self.shard.0);
        out.put_u32_le(0);
        for field in [self.sequence, self.next_run, self.runs.len() as u64, self.moved.len() as u64] {
            out.put_u64_le(field);
        }
        out.put(&[0; 16]);
        for run in &self.runs {
            out.put_u32_le(run.group.0);
            out.put_u32_le(run.slot);
            for field in [run.number, run.first.0, run.last.0, run.length, 0] {
                out.put_u64_le(field);
            }
        }
        for (group, first, last) in &self.moved {
            out.put_u32_le(group.0);
            out.put_u32_le(0);
            out.put_u64_le(first.0);
            out.put_u64_le(last.0);
        }
        let rows = crc32c(&out[HEADER..]);
        out[48..52].copy_from_slice(&rows.to_le_bytes());
        let crc = header_crc(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8], shard: ShardId) -> Result<Manifest, Unusable> {
        let damaged = |what, offset| Unusable::Damaged(what, offset);
        let Some(head) = bytes.get(..HEADER).filter(|head| head[..8] == MAGIC) else {
            return Err(damaged("the manifest has no header", 0));
        };
        let (mut manifest, rest) = Self::fields(head).map_err(|Short| damaged("the header is short", 0))?;
        if rest.crc != header_crc(head) {
            return Err(damaged("the manifest's header does not match its checksum", 0));
        }
        if rest.version > VERSION {
            return Err(Unusable::Newer(rest.version));
        }
        if manifest.shard != shard || manifest.sequence.max(manifest.next_run) >= NUMBER_MAX {
            return Err(damaged("the manifest is not one of this shard", 0));
        }
        let rows = &bytes[HEADER..];
        let runs = usize::try_from(rest.runs).ok().and_then(|runs| runs.checked_mul(RUN));
        let moved = usize::try_from(rest.moved).ok().and_then(|moved| moved.checked_mul(RANGE));
        let (Some(runs), Some(moved)) = (runs, moved) else {
            return Err(damaged("the manifest is too long", HEADER as u64));
        };
        if runs.checked_add(moved) != Some(rows.len()) || crc32c(rows) != rest.rows_crc {
            return Err(damaged("the rows of the manifest do not match their checksum", HEADER as u64));
        }
        let short = |Short| damaged("a row of the manifest is short", HEADER as u64);
        let (runs, moved) = rows.split_at(runs);
        manifest.runs = runs.chunks_exact(RUN).map(run_row).collect::<Result<_, _>>().map_err(short)?;
        manifest.moved = moved.chunks_exact(RANGE).map(range_row).collect::<Result<_, _>>().map_err(short)?;
        if !manifest.is_sane() {
            return Err(damaged("the rows of the manifest contradict each other", HEADER as u64));
        }
        Ok(manifest)
    }

    fn is_sane(&self) -> bool {
        let runs = self.runs.iter();
        let sane = |run: &NamedRun| run.first <= run.last && run.number < self.next_run;
        let apart =
            |a: &(GroupId, Index, Index), b: &(GroupId, Index, Index)| a.0 < b.0 || a.0 == b.0 && a.2 < b.1;
        let moved = self.moved.iter().all(|(_, first, last)| first <= last && last.0 < NUMBER_MAX);
        let left = |run: &NamedRun| {
            let ranges =
                self.moved.partition_point(|(group, first, _)| (*group, *first) <= (run.group, run.first));
            let range = self.moved[..ranges].last();
            range.is_some_and(|(group, _, last)| *group == run.group && run.last <= *last)
        };
        runs.clone().all(sane)
            && moved
            && self.moved.is_sorted_by(apart)
            && runs.clone().all(left)
            && self.runs.is_sorted_by(|a, b| a.group < b.group || a.group == b.group && a.last < b.first)
    }

    fn fields(head: &[u8]) -> Result<(Manifest, Rest), Short> {
        let mut reader = Reader::new(&head[8..]);
        let (version, shard, crc) = (reader.u16_le()?, reader.u16_le()?, reader.u32_le()?);
        let (sequence, next_run) = (reader.u64_le()?, reader.u64_le()?);
        let (runs, moved, rows_crc) = (reader.u64_le()?, reader.u64_le()?, reader.u32_le()?);
        let manifest = Manifest { shard: ShardId(shard), sequence, next_run, ..Manifest::default() };
        Ok((manifest, Rest { version, crc, runs, moved, rows_crc }))
    }
}

struct Rest {
    version: u16,
    crc: u32,
    runs: u64,
    moved: u64,
    rows_crc: u32,
}

fn run_row(row: &[u8]) -> Result<NamedRun, Short> {
    let mut reader = Reader::new(row);
    Ok(NamedRun {
        group: GroupId(reader.u32_le()?),
        slot: reader.u32_le()?,
        number: reader.u64_le()?,
        first: Index(reader.u64_le()?),
        last: Index(reader.u64_le()?),
        length: reader.u64_le()?,
    })
}

fn range_row(row: &[u8]) -> Result<(GroupId, Index, Index), Short> {
    let mut reader = Reader::new(row);
    let group = GroupId(reader.u32_le()?);
    reader.u32_le()?;
    Ok((group, Index(reader.u64_le()?), Index(reader.u64_le()?)))
}

fn header_crc(head: &[u8]) -> u32 {
    crc32c_seeded(0, &[&head[8..12], &head[16..HEADER]])
}

/// The name of a manifest.
pub(crate) fn file_name(shard: ShardId, sequence: u64) -> FileName {
    Arc::from(format!("{}/manifest-{sequence}", directory(shard)))
}

/// The sequence number a file name stands for.
pub(crate) fn named(shard: ShardId, name: &str) -> Option<u64> {
    let sequence = name.strip_prefix(&directory(shard))?.strip_prefix("/manifest-")?.parse().ok()?;
    (*file_name(shard, sequence) == *name && sequence < NUMBER_MAX).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(2);

    fn sample() -> Manifest {
        let run = NamedRun {
            group: GroupId(9),
            slot: u32::MAX,
            number: 4,
            first: Index(5),
            last: Index(8),
            length: 4160,
        };
        let adopted = NamedRun { slot: 3, number: 6, first: Index(9), last: Index(9), ..run };
        Manifest {
            shard: SHARD,
            sequence: 7,
            next_run: 12,
            runs: vec![run, adopted],
            moved: vec![(GroupId(9), Index(4), Index(10))],
        }
    }

    #[test]
    fn golden_bytes() {
        let u64s = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let u32s = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let expected = [
            b"WSMANIFT\x01\0\x02\0".to_vec(),
            u32s(&[GOLDEN[0]]),
            u64s(&[7, 12, 2, 1]),
            u32s(&[GOLDEN[1], 0, 0, 0]),
            u32s(&[9, u32::MAX]),
            u64s(&[4, 5, 8, 4160, 0]),
            u32s(&[9, 3]),
            u64s(&[6, 9, 9, 4160, 0]),
            u32s(&[9, 0]),
            u64s(&[4, 10]),
        ];
        assert_eq!(sample().encode(), expected.concat());
        assert_eq!(Manifest::decode(&expected.concat(), SHARD), Ok(sample()));
    }

    const GOLDEN: [u32; 2] = [0x202e_16f3, 0xc394_f768];

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let content = sample().encode();
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped, SHARD).is_err(), "bit {bit}");
        }
        for length in 0..content.len() {
            assert!(Manifest::decode(&content[..length], SHARD).is_err(), "length {length}");
        }
    }

    #[test]
    fn rows_that_contradict_each_other_are_not_believed() {
        let mut overlapping = sample();
        overlapping.runs[1].first = Index(8);
        let mut elsewhere = sample();
        elsewhere.moved[0].0 = GroupId(8);
        let mut unknown = sample();
        unknown.next_run = 6;
        for manifest in [overlapping, elsewhere, unknown] {
            assert!(matches!(Manifest::decode(&manifest.encode(), SHARD), Err(Unusable::Damaged(..))));
        }
    }

    #[test]
    fn names_come_back() {
        assert_eq!(named(SHARD, &file_name(SHARD, 17)), Some(17));
        assert_eq!(named(SHARD, "shard-2/manifest-017"), None);
        assert_eq!(named(SHARD, "shard-2/manifest-17.tmp"), None);
    }
}
