//! A checkpoint file: the state of one group at an index, and what recovery needs to go on from there.
//!
//! ```text
//! file shard-N/checkpoint-GROUP-SEQUENCE
//!   0 magic "WSCHKPNT"       8 version u16   10 shard u16   12 header crc u32
//!  16 group u32             20 reserve u32   24 sequence u64
//!  32 index u64             40 term u64
//!  48 hard state: term u64  56 vote u64      64 commit u64
//!  72 replay from: flush u64                 80 frame u32   84 kept crc u32
//!  88 floor u64             96 kept count u64
//! 104 state length u64     112 state crc u32 116 manifest u64    124 reserve u32
//! 128 kept entries, 48 bytes each: index u64, term u64, generation u64, flush u64,
//!     frame offset u32, payload offset u32, length u32, payload crc u32
//!     state
//! ```
//! Little endian; CRC-32C throughout, the header's over bytes 8 to 12 and 16 to 128. The group's frames before
//! frame `frame` of flush `flush` are not replayed (its hard states are, they only ever move forward). `floor`: with
//! this file durable no flush below that number is needed to recover any group of the shard. `manifest`: the sequence
//! number of the newest durable manifest when the file was made, 0 if there was none; kept entries that are in its
//! runs are not in the list.
//!
//! Files are put whole under a new name; the one before is deleted when the new one is durable. The highest sequence
//! number counts; if that one is damaged it is damage, not a reason to look at an older one.

use std::sync::Arc;

use base::{Put, Reader, Short, crc32c, crc32c_seeded};
use model::{GroupId, Index, ShardId, Term};

use crate::disk::FileName;
use crate::flush::VERSION;
use crate::frame::NUMBER_MAX;
use crate::group::{At, HardState};
use crate::segment::directory;

const MAGIC: [u8; 8] = *b"WSCHKPNT";
const HEADER: usize = 128;
const KEPT: usize = 48;

/// A checkpoint asked for and not durable yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub index: Index,
    pub term: Term,
    pub state: Vec<Vec<u8>>,
    pub kept: Vec<(Index, Index)>,
    /// The flush that must be durable first: the file names entries up to there.
    pub after: u64,
    /// It replaces the group's log instead of shortening it.
    pub jump: bool,
    pub way: Way,
}

/// Where a checkpoint is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Waiting,
    /// Being put as the file of that number, with that floor; the hard state of flush `saved` is in it.
    Put {
        sequence: u64,
        floor: u64,
        saved: u64,
    },
}

/// All of a file but the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointFile {
    pub shard: ShardId,
    pub group: GroupId,
    pub sequence: u64,
    pub index: Index,
    pub term: Term,
    pub hard_state: HardState,
    pub replay_from: (u64, u32),
    pub floor: u64,
    pub manifest: u64,
    /// `slot` and `ordinal` are not stored.
    pub kept: Vec<(Index, At)>,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    Newer(u16),
    Damaged(&'static str, u64),
}

impl CheckpointFile {
    /// The content of the file, in pieces.
    pub fn encode(&self, state: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut kept = Vec::with_capacity(self.kept.len() * KEPT);
        for (index, at) in &self.kept {
            kept.put_u64_le(index.0);
            kept.put_u64_le(at.term.0);
            kept.put_u64_le(at.generation);
            kept.put_u64_le(at.flush);
            kept.put_u32_le(at.frame);
            kept.put_u32_le(at.payload);
            kept.put_u32_le(at.length);
            kept.put_u32_le(at.crc);
        }
        let parts: Vec<&[u8]> = state.iter().map(Vec::as_slice).collect();
        let mut head = Vec::with_capacity(HEADER);
        head.put(&MAGIC);
        head.put_u16_le(VERSION);
        head.put_u16_le(self.shard.0);
        head.put_u32_le(0);
        head.put_u32_le(self.group.0);
        head.put_u32_le(0);
        head.put_u64_le(self.sequence);
        head.put_u64_le(self.index.0);
        head.put_u64_le(self.term.0);
        head.put_u64_le(self.hard_state.term.0);
        head.put_u64_le(self.hard_state.vote);
        head.put_u64_le(self.hard_state.commit.0);
        head.put_u64_le(self.replay_from.0);
        head.put_u32_le(self.replay_from.1);
        head.put_u32_le(crc32c(&kept));
        head.put_u64_le(self.floor);
        head.put_u64_le(self.kept.len() as u64);
        head.put_u64_le(parts.iter().map(|part| part.len() as u64).sum());
        head.put_u32_le(crc32c_seeded(self.sequence, &parts));
        head.put_u64_le(self.manifest);
        head.put_u32_le(0);
        let crc = header_crc(&head);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        let mut content = vec![head, kept];
        content.extend(state);
        content
    }

    /// What a file says, and the state.
    pub fn decode(bytes: &[u8], shard: ShardId) -> Result<(CheckpointFile, Vec<u8>), Unusable> {
        let damaged = |what, offset: usize| Unusable::Damaged(what, offset as u64);
        let Some(head) = bytes.get(..HEADER).filter(|head| head[..8] == MAGIC) else {
            return Err(damaged("the checkpoint has no header", 0));
        };
        let (mut file, rest) = Self::fields(head).map_err(|Short| damaged("the header is short", 0))?;
        if rest.crc != header_crc(head) {
            return Err(damaged("the checkpoint's header does not match its checksum", 0));
        }
        if rest.version > VERSION {
            return Err(Unusable::Newer(rest.version));
        }
        let HardState { term, commit, .. } = file.hard_state;
        let counted = [file.index.0, file.term.0, term.0, commit.0, file.replay_from.0, file.floor];
        if file.shard != shard || counted.into_iter().any(|number| number >= NUMBER_MAX) {
            return Err(damaged("the checkpoint is not one of this shard", 0));
        }
        let kept_end = usize::try_from(rest.kept).ok().and_then(|kept| kept.checked_mul(KEPT));
        let kept = kept_end.and_then(|length| bytes[HEADER..].get(..length));
        let Some(kept) = kept.filter(|kept| crc32c(kept) == rest.kept_crc) else {
            return Err(damaged("the list of kept entries does not match its checksum", HEADER));
        };
        let state = &bytes[HEADER + kept.len()..];
        if state.len() as u64 != rest.state || crc32c_seeded(file.sequence, &[state]) != rest.state_crc {
            return Err(damaged("the state does not match its checksum", HEADER + kept.len()));
        }
        let read = |row| kept_row(row).map_err(|Short| damaged("a kept entry is short", HEADER));
        file.kept = kept.chunks_exact(KEPT).map(read).collect::<Result<_, _>>()?;
        Ok((file, state.to_vec()))
    }

    fn fields(head: &[u8]) -> Result<(CheckpointFile, Rest), Short> {
        let mut reader = Reader::new(&head[8..]);
        let (version, shard, crc) = (reader.u16_le()?, reader.u16_le()?, reader.u32_le()?);
        let group = GroupId(reader.u32_le()?);
        reader.u32_le()?;
        let sequence = reader.u64_le()?;
        let (index, term) = (Index(reader.u64_le()?), Term(reader.u64_le()?));
        let hard_state = HardState {
            term: Term(reader.u64_le()?),
            vote: reader.u64_le()?,
            commit: Index(reader.u64_le()?),
        };
        let replay_from = (reader.u64_le()?, reader.u32_le()?);
        let kept_crc = reader.u32_le()?;
        let (floor, kept) = (reader.u64_le()?, reader.u64_le()?);
        let (state, state_crc) = (reader.u64_le()?, reader.u32_le()?);
        let manifest = reader.u64_le()?;
        let shard = ShardId(shard);
        let file = CheckpointFile {
            shard,
            group,
            sequence,
            index,
            term,
            hard_state,
            replay_from,
            floor,
            manifest,
            kept: Vec::new(),
        };
        Ok((file, Rest { version, crc, kept, kept_crc, state, state_crc }))
    }
}

struct Rest {
    version: u16,
    crc: u32,
    kept: u64,
    kept_crc: u32,
    state: u64,
    state_crc: u32,
}

fn kept_row(row: &[u8]) -> Result<(Index, At), Short> {
    let mut reader = Reader::new(row);
    let index = Index(reader.u64_le()?);
    let at = At {
        term: Term(reader.u64_le()?),
        generation: reader.u64_le()?,
        flush: reader.u64_le()?,
        frame: reader.u32_le()?,
        payload: reader.u32_le()?,
        length: reader.u32_le()?,
        crc: reader.u32_le()?,
        slot: 0,
        ordinal: 0,
    };
    Ok((index, at))
}

fn header_crc(head: &[u8]) -> u32 {
    crc32c_seeded(0, &[&head[8..12], &head[16..HEADER]])
}

/// The name of a checkpoint file.
pub(crate) fn file_name(shard: ShardId, group: GroupId, sequence: u64) -> FileName {
    Arc::from(format!("{}/checkpoint-{group}-{sequence}", directory(shard)))
}

/// The group and sequence number a file name stands for.
pub(crate) fn named(shard: ShardId, name: &str) -> Option<(GroupId, u64)> {
    let numbers = name.strip_prefix(&directory(shard))?.strip_prefix("/checkpoint-")?;
    let (group, sequence) = numbers.split_once('-')?;
    let (group, sequence) = (GroupId(group.parse().ok()?), sequence.parse().ok()?);
    (*file_name(shard, group, sequence) == *name && sequence < NUMBER_MAX).then_some((group, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> CheckpointFile {
        let at = At {
            generation: 1,
            flush: 2,
            term: Term(3),
            frame: 4160,
            payload: 8192,
            length: 5,
            crc: 6,
            slot: 0,
            ordinal: 0,
        };
        CheckpointFile {
            shard: ShardId(2),
            group: GroupId(9),
            sequence: 4,
            index: Index(10),
            term: Term(3),
            hard_state: HardState { term: Term(5), vote: 1, commit: Index(11) },
            replay_from: (7, 8),
            floor: 6,
            manifest: 0x0102_0304_0506,
            kept: vec![(Index(1), at)],
        }
    }

    #[test]
    fn golden_bytes() {
        let content = sample().encode(vec![b"st".to_vec(), b"ate".to_vec()]).concat();
        let u64s = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let u32s = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let expected = [
            b"WSCHKPNT\x01\0\x02\0".to_vec(),
            GOLDEN[0].to_le_bytes().to_vec(),
            u32s(&[9, 0]),
            u64s(&[4, 10, 3, 5, 1, 11, 7]),
            u32s(&[8, GOLDEN[1]]),
            u64s(&[6, 1, 5]),
            u32s(&[GOLDEN[2], 0x0304_0506, 0x0102, 0]),
            u64s(&[1, 3, 1, 2]),
            u32s(&[4160, 8192, 5, 6]),
            b"state".to_vec(),
        ];
        assert_eq!(content, expected.concat());
        assert_eq!(CheckpointFile::decode(&content, ShardId(2)), Ok((sample(), b"state".to_vec())));
    }

    const GOLDEN: [u32; 3] = [0x01329006, 0x30879e37, 0x5cba5a9a];

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let content = sample().encode(vec![b"state".to_vec()]).concat();
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointFile::decode(&flipped, ShardId(2)).is_err(), "bit {bit}");
        }
        for length in 0..content.len() {
            assert!(CheckpointFile::decode(&content[..length], ShardId(2)).is_err(), "length {length}");
        }
    }

    #[test]
    fn numbers_that_could_not_be_counted_on_from_are_not_believed() {
        let content = CheckpointFile { floor: NUMBER_MAX, ..sample() }.encode(vec![]).concat();
        assert!(matches!(CheckpointFile::decode(&content, sample().shard), Err(Unusable::Damaged(..))));
    }

    #[test]
    fn names_come_back() {
        let name = file_name(ShardId(2), GroupId(9), 17);
        assert_eq!(named(ShardId(2), &name), Some((GroupId(9), 17)));
        assert_eq!(named(ShardId(2), "shard-2/checkpoint-9-017"), None);
        assert_eq!(named(ShardId(2), "shard-2/checkpoint-9-17.tmp"), None);
    }
}
