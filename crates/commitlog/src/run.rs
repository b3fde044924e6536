//! Runs: immutable files of what old entries of one group still hold, sorted, with an index at their end.
//!
//! ```text
//! file shard-N/run-GROUP-NUMBER
//! one header page:
//!  0 magic "WSRUNFIL"       8 version u16   10 shard u16   12 crc u32
//! 16 group u32             20 slot u32     24 number u64   32 zeros up to the page
//! blocks, sorted by (log, index, at, ordinal) of their first piece, each from a page boundary on, then zeros up to
//! the next one:
//!    the bytes of pieces of one log, one behind the other
//!    directory, 28 bytes per piece: index u64, at u32, ordinal u32, place in the entry u32, offset in the block u32,
//!    length u32
//!    piece count u32
//! index, 48 bytes per block: log u64, first index u64, last index u64, at u32 and ordinal u32 of the first piece,
//!    offset u32, length u32, place in the entry u32, crc u32
//! footer:
//!  0 magic "WSRUNEND"       8 version u16   10 shard u16   12 crc u32
//! 16 group u32             20 slot u32     24 number u64
//! 32 index offset u64      40 block count u64
//! 48 index crc u32         52 reserve (12 bytes)
//! ```
//! Little endian; CRC-32C. Those of header and footer are over bytes 8 to 12 and 16 to their end (32 and 64). That of
//! a block is seeded with the run's number, over shard, group, the block's offset and the checksum of its content.
//! `slot` is 2^32-1 in a run that has its blocks itself. Else the run is *adopted*: it has no blocks but only an index
//! into the segment of that slot, where each block is the bytes of one piece, without a directory.

use std::sync::Arc;

use base::{PAGE, Put, Reader, Short, crc32c, crc32c_seeded};
use model::{GroupId, Index, QueueId, ShardId};

use crate::checkpoint::Unusable;
use crate::disk::FileName;
use crate::flush::VERSION;
use crate::frame::NUMBER_MAX;
use crate::segment::directory;

const MAGIC: [u8; 8] = *b"WSRUNFIL";
const END_MAGIC: [u8; 8] = *b"WSRUNEND";
pub(crate) const FOOTER: usize = 64;
pub(crate) const ROW: usize = 48;
const PIECE: usize = 28;
const COUNT: usize = 4;
/// No slot: the blocks are in the run's own file.
pub(crate) const OWN_FILE: u32 = u32::MAX;
/// Bytes of a block, unless a single piece is larger.
pub(crate) const BLOCK_MAX: usize = if cfg!(test) { 2 << 10 } else { 64 << 10 };

/// What tells pieces apart, in the order in which they are stored.
pub(crate) type Key = (QueueId, Index, u32, u32);

/// Whose run it is, and where its blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub shard: ShardId,
    pub group: GroupId,
    pub number: u64,
    pub slot: u32,
}

/// One block, as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub log: QueueId,
    pub first: Index,
    pub last: Index,
    pub at: u32,
    pub ordinal: u32,
    pub offset: u32,
    /// 0: it is dropped.
    pub length: u32,
    pub entry_at: u32,
    pub crc: u32,
}

/// Where a piece stands in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PieceRow {
    pub index: Index,
    pub at: u32,
    pub ordinal: u32,
    pub entry_at: u32,
    pub offset: u32,
    pub length: u32,
}

impl Identity {
    /// The name of the run's file.
    pub fn file_name(&self) -> FileName {
        file_name(self.shard, self.group, self.number)
    }

    pub fn is_adopted(&self) -> bool {
        self.slot != OWN_FILE
    }

    /// The checksum of a block at `offset` whose content has the checksum `content`.
    pub fn block_crc(&self, offset: u32, content: u32) -> u32 {
        let mut place = Vec::with_capacity(14);
        place.put_u16_le(self.shard.0);
        place.put_u32_le(self.group.0);
        place.put_u32_le(offset);
        place.put_u32_le(content);
        crc32c_seeded(self.number, &[&place])
    }

    /// The header page.
    pub fn header(&self) -> Vec<u8> {
        let mut page = self.head(MAGIC);
        let crc = head_crc(&page);
        page[12..16].copy_from_slice(&crc.to_le_bytes());
        page.resize(PAGE, 0);
        page
    }

    fn head(&self, magic: [u8; 8]) -> Vec<u8> {
        let mut head = Vec::with_capacity(FOOTER);
        head.put(&magic);
        head.put_u16_le(VERSION);
        head.put_u16_le(self.shard.0);
        head.put_u32_le(0);
        head.put_u32_le(self.group.0);
        head.put_u32_le(self.slot);
        head.put_u64_le(self.number);
        head
    }

    /// Index and footer, which stand at `offset`.
    pub fn index(&self, rows: &[BlockRow], offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(rows.len() * ROW + FOOTER);
        rows.iter().for_each(|row| row.encode(&mut out));
        let mut footer = self.head(END_MAGIC);
        footer.put_u64_le(offset);
        footer.put_u64_le(rows.len() as u64);
        footer.put_u32_le(crc32c(&out));
        footer.put(&[0; 12]);
        let crc = head_crc(&footer);
        footer[12..16].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&footer);
        out
    }
}

fn head_crc(head: &[u8]) -> u32 {
    crc32c_seeded(0, &[&head[8..12], &head[16..]])
}

/// Where the index of a run stands, as its last bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub identity: Identity,
    pub index_offset: u64,
    pub blocks: u64,
    pub index_crc: u32,
}

impl Footer {
    /// The footer of a file of `length` bytes.
    pub fn decode(bytes: &[u8], length: u64) -> Result<Footer, Unusable> {
        let damaged = |what| Unusable::Damaged(what, length.saturating_sub(FOOTER as u64));
        if bytes.len() != FOOTER || bytes[..8] != END_MAGIC {
            return Err(damaged("the run has no footer"));
        }
        let (footer, version, crc) = Self::fields(bytes).map_err(|Short| damaged("the footer is short"))?;
        if crc != head_crc(bytes) {
            return Err(damaged("the run's footer does not match its checksum"));
        }
        if version > VERSION {
            return Err(Unusable::Newer(version));
        }
        let rows = footer.blocks.checked_mul(ROW as u64);
        let end = rows.and_then(|rows| rows.checked_add(footer.index_offset)?.checked_add(FOOTER as u64));
        if end != Some(length) || footer.identity.number >= NUMBER_MAX {
            return Err(damaged("the run's footer contradicts its length"));
        }
        Ok(footer)
    }

    fn fields(bytes: &[u8]) -> Result<(Footer, u16, u32), Short> {
        let mut reader = Reader::new(&bytes[8..]);
        let (version, shard, crc) = (reader.u16_le()?, reader.u16_le()?, reader.u32_le()?);
        let (group, slot, number) = (reader.u32_le()?, reader.u32_le()?, reader.u64_le()?);
        let identity = Identity { shard: ShardId(shard), group: GroupId(group), number, slot };
        let (index_offset, blocks, index_crc) = (reader.u64_le()?, reader.u64_le()?, reader.u32_le()?);
        Ok((Footer { identity, index_offset, blocks, index_crc }, version, crc))
    }

    /// The blocks that `index` names, if they are in order and within the first `end` bytes of their file.
    pub fn rows(&self, index: &[u8], end: u64) -> Result<Vec<BlockRow>, Unusable> {
        let damaged = |what| Unusable::Damaged(what, self.index_offset);
        if index.len() as u64 != self.blocks * ROW as u64 || crc32c(index) != self.index_crc {
            return Err(damaged("the run's index does not match its checksum"));
        }
        let read = |row| BlockRow::decode(row).map_err(|Short| damaged("a row of the index is short"));
        let rows = index.chunks_exact(ROW).map(read).collect::<Result<Vec<_>, _>>()?;
        let within = |row: &BlockRow| u64::from(row.offset) + u64::from(row.length) <= end;
        let sane = |row: &BlockRow| row.first <= row.last && row.last.0 < NUMBER_MAX && within(row);
        if !rows.iter().all(sane) || !rows.is_sorted_by(|a, b| a.key() < b.key()) {
            return Err(damaged("the run's index is out of order"));
        }
        Ok(rows)
    }
}

impl BlockRow {
    pub fn key(&self) -> Key {
        (self.log, self.first, self.at, self.ordinal)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.log.0);
        out.put_u64_le(self.first.0);
        out.put_u64_le(self.last.0);
        for field in [self.at, self.ordinal, self.offset, self.length, self.entry_at, self.crc] {
            out.put_u32_le(field);
        }
    }

    fn decode(row: &[u8]) -> Result<BlockRow, Short> {
        let mut reader = Reader::new(row);
        Ok(BlockRow {
            log: QueueId(reader.u64_le()?),
            first: Index(reader.u64_le()?),
            last: Index(reader.u64_le()?),
            at: reader.u32_le()?,
            ordinal: reader.u32_le()?,
            offset: reader.u32_le()?,
            length: reader.u32_le()?,
            entry_at: reader.u32_le()?,
            crc: reader.u32_le()?,
        })
    }
}

/// Writes the directory behind the pieces of a block.
pub(crate) fn put_directory(block: &mut Vec<u8>, pieces: &[PieceRow]) {
    block.reserve(pieces.len() * PIECE + COUNT);
    for piece in pieces {
        block.put_u64_le(piece.index.0);
        for field in [piece.at, piece.ordinal, piece.entry_at, piece.offset, piece.length] {
            block.put_u32_le(field);
        }
    }
    block.put_u32_le(pieces.len() as u32);
}

/// Bytes that a directory of so many pieces takes.
pub(crate) fn directory_bytes(pieces: usize) -> usize {
    pieces * PIECE + COUNT
}

/// The piece of that entry and place with the greatest ordinal not above `ordinal`, in a block with a directory.
pub(crate) fn find_piece(block: &[u8], index: Index, at: u32, ordinal: u32) -> Option<PieceRow> {
    let (rest, count) = block.split_last_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let directory = rest.len().checked_sub(count.checked_mul(PIECE)?)?;
    let rows = &rest[directory..];
    let row = |place: usize| piece_row(&rows[place * PIECE..(place + 1) * PIECE]).ok();
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        let found = row(middle)?;
        if (found.index, found.at, found.ordinal) <= (index, at, ordinal) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let found = row(low.checked_sub(1)?)?;
    let end = u64::from(found.offset) + u64::from(found.length);
    ((found.index, found.at) == (index, at) && end <= directory as u64).then_some(found)
}

fn piece_row(row: &[u8]) -> Result<PieceRow, Short> {
    let mut reader = Reader::new(row);
    Ok(PieceRow {
        index: Index(reader.u64_le()?),
        at: reader.u32_le()?,
        ordinal: reader.u32_le()?,
        entry_at: reader.u32_le()?,
        offset: reader.u32_le()?,
        length: reader.u32_le()?,
    })
}

/// The name of a run's file.
pub(crate) fn file_name(shard: ShardId, group: GroupId, number: u64) -> FileName {
    Arc::from(format!("{}/run-{group}-{number}", directory(shard)))
}

/// The group and number a file name stands for.
pub(crate) fn named(shard: ShardId, name: &str) -> Option<(GroupId, u64)> {
    let numbers = name.strip_prefix(&directory(shard))?.strip_prefix("/run-")?;
    let (group, number) = numbers.split_once('-')?;
    let (group, number) = (GroupId(group.parse().ok()?), number.parse().ok()?);
    (*file_name(shard, group, number) == *name && number < NUMBER_MAX).then_some((group, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    const IDENTITY: Identity = Identity { shard: ShardId(2), group: GroupId(9), number: 4, slot: OWN_FILE };

    fn row() -> BlockRow {
        BlockRow {
            log: QueueId(1),
            first: Index(5),
            last: Index(6),
            at: 7,
            ordinal: 8,
            offset: 4096,
            length: 10,
            entry_at: 11,
            crc: IDENTITY.block_crc(4096, 12),
        }
    }

    fn piece(index: u64, at: u32, ordinal: u32, offset: u32, length: u32) -> PieceRow {
        PieceRow { index: Index(index), at, ordinal, entry_at: 100 + offset, offset, length }
    }

    #[test]
    fn golden_bytes() {
        let u64s = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let u32s = |numbers: &[u32]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
        let header = IDENTITY.header();
        let expected =
            [b"WSRUNFIL\x01\0\x02\0".to_vec(), u32s(&[GOLDEN[0], 9, u32::MAX]), u64s(&[4])].concat();
        assert_eq!((&header[..32], header.len()), (&expected[..], PAGE));
        let index = IDENTITY.index(&[row()], 8192);
        let expected = [
            u64s(&[1, 5, 6]),
            u32s(&[7, 8, 4096, 10, 11, GOLDEN[1]]),
            b"WSRUNEND\x01\0\x02\0".to_vec(),
            u32s(&[GOLDEN[2], 9, u32::MAX]),
            u64s(&[4, 8192, 1]),
            u32s(&[GOLDEN[3], 0, 0, 0]),
        ];
        assert_eq!(index, expected.concat());
        let length = 8192 + index.len() as u64;
        let footer = Footer::decode(&index[ROW..], length).unwrap();
        assert_eq!((footer.identity, footer.index_offset), (IDENTITY, 8192));
        assert_eq!(footer.rows(&index[..ROW], 8192), Ok(vec![row()]));
        let mut block = b"abc".to_vec();
        put_directory(&mut block, &[piece(5, 7, 8, 0, 3)]);
        let expected = [b"abc".to_vec(), u64s(&[5]), u32s(&[7, 8, 100, 0, 3, 1])];
        assert_eq!(block, expected.concat());
    }

    const GOLDEN: [u32; 4] = [0x5033_de94, 0x41eb_bb7a, 0x925f_af14, 0xef11_879b];

    #[test]
    fn every_flipped_bit_of_index_and_footer_is_noticed() {
        let index = IDENTITY.index(&[row()], 8192);
        let length = 8192 + index.len() as u64;
        for bit in 0..index.len() * 8 {
            let mut flipped = index.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let footer = Footer::decode(&flipped[ROW..], length);
            let rows = footer.and_then(|footer| footer.rows(&flipped[..ROW], 8192));
            assert!(rows.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn blocks_that_are_out_of_order_or_beyond_the_file_are_not_believed() {
        let believed = |rows: &[BlockRow]| {
            let index = IDENTITY.index(rows, 8192);
            let footer = Footer::decode(&index[rows.len() * ROW..], 8192 + index.len() as u64).unwrap();
            footer.rows(&index[..rows.len() * ROW], 8192).is_ok()
        };
        let next = BlockRow { first: Index(6), ..row() };
        assert!(believed(&[row(), next]));
        assert!(!believed(&[next, row()]) && !believed(&[row(), row()]));
        assert!(!believed(&[BlockRow { offset: 8190, ..row() }]));
        assert!(!believed(&[BlockRow { offset: u32::MAX, length: u32::MAX, ..row() }]));
        assert!(!believed(&[BlockRow { last: Index(4), ..row() }]));
    }

    #[test]
    fn a_block_is_bound_to_its_place() {
        let crc = IDENTITY.block_crc(4096, 12);
        assert_ne!(crc, IDENTITY.block_crc(8192, 12));
        assert_ne!(crc, Identity { number: 5, ..IDENTITY }.block_crc(4096, 12));
        assert_ne!(crc, Identity { group: GroupId(8), ..IDENTITY }.block_crc(4096, 12));
        assert_ne!(crc, Identity { shard: ShardId(1), ..IDENTITY }.block_crc(4096, 12));
    }

    #[test]
    fn the_piece_with_the_greatest_ordinal_not_above_is_found() {
        let mut block = vec![0; 30];
        let pieces = [piece(5, 7, 0, 0, 10), piece(5, 7, 4, 10, 10), piece(5, 9, 2, 20, 10)];
        put_directory(&mut block, &pieces);
        assert_eq!(block.len(), 30 + directory_bytes(3));
        let found = |index, at, ordinal| find_piece(&block, Index(index), at, ordinal);
        assert_eq!(found(5, 7, 3), Some(pieces[0]));
        assert_eq!(found(5, 7, 4), Some(pieces[1]));
        assert_eq!(found(5, 7, 900), Some(pieces[1]));
        assert_eq!(found(5, 9, 2), Some(pieces[2]));
        assert_eq!(
            (found(5, 9, 1), found(5, 8, 9), found(4, 7, 0), found(6, 0, 0)),
            (None, None, None, None)
        );
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        for seed in 0..2000 {
            let mut prng = Prng::new(seed);
            let mut bytes: Vec<u8> = (0..prng.below(200)).map(|_| prng.draw() as u8).collect();
            if prng.chance(1, 2) {
                bytes.extend_from_slice(&(prng.below(8) as u32).to_le_bytes());
            }
            if let Some(piece) = find_piece(&bytes, Index(prng.draw()), 0, u32::MAX) {
                assert!(piece.offset as usize + piece.length as usize <= bytes.len());
            }
            assert!(Footer::decode(&bytes, prng.draw()).is_err());
        }
        assert_eq!(find_piece(&u32::MAX.to_le_bytes(), Index(1), 0, 0), None);
    }

    #[test]
    fn names_come_back() {
        assert_eq!(named(ShardId(2), &IDENTITY.file_name()), Some((GroupId(9), 4)));
        assert_eq!(named(ShardId(2), "shard-2/run-9-04"), None);
        assert_eq!(named(ShardId(2), "shard-2/run-9-4.tmp"), None);
    }
}
