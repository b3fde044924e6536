//! Pieces of one group on their way into a run: sorted into blocks as they come.
//!
//! Entries come in the order of their indexes, so each log's pieces arrive sorted and a block is sealed as soon as it
//! is full; what is left for the end is only to give each block its place.

use std::collections::BTreeMap;

use base::{PAGE, crc32c};
use model::{Index, QueueId};

use crate::evacuation::PiecePlan;
use crate::run::{self, BLOCK_MAX, BlockRow, Identity, Key, PieceRow};

/// A full block, without its place.
#[derive(Debug)]
struct Sealed {
    key: Key,
    last: Index,
    length: u32,
    crc: u32,
    /// Padded to whole pages.
    content: Vec<u8>,
}

/// The pieces of one log.
#[derive(Debug, Default)]
struct OfLog {
    sealed: Vec<Sealed>,
    data: Vec<u8>,
    pieces: Vec<PieceRow>,
}

/// The pieces of one group.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    logs: BTreeMap<QueueId, OfLog>,
    /// Adopted ones: with their place in the segment.
    rows: Vec<BlockRow>,
    /// The entries they come from, and those of which nothing is needed any more.
    pub entries: Option<(Index, Index)>,
    /// Those that have a piece.
    pub pieces: Option<(Index, Index)>,
    /// Bytes of the pieces.
    pub bytes: u64,
}

fn widen(range: &mut Option<(Index, Index)>, index: Index) {
    let (first, last) = range.unwrap_or((index, index));
    *range = Some((first.min(index), last.max(index)));
}

impl Gathered {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_none()
    }

    /// Takes over the pieces of an entry, sorted by log, place and ordinal.
    pub fn copy(&mut self, index: Index, entry: &[u8], plan: &[PiecePlan]) {
        widen(&mut self.entries, index);
        for piece in plan {
            let bytes = &entry[piece.start as usize..][..piece.length as usize];
            self.logs.entry(piece.log).or_default().add(piece, index, bytes);
            self.bytes += u64::from(piece.length);
            widen(&mut self.pieces, index);
        }
    }

    /// As [`Gathered::copy`], of pieces that stay where they are: the entry begins at `payload` of its segment, and
    /// `crc` has the checksum of each.
    pub fn adopt(&mut self, index: Index, plan: &[PiecePlan], payload: u32, crc: impl Fn(&PiecePlan) -> u32) {
        widen(&mut self.entries, index);
        for piece in plan {
            self.rows.push(BlockRow {
                log: piece.log,
                first: index,
                last: index,
                at: piece.at,
                ordinal: piece.ordinal,
                offset: payload + piece.start,
                length: piece.length,
                entry_at: piece.start,
                crc: crc(piece),
            });
            self.bytes += u64::from(piece.length);
            widen(&mut self.pieces, index);
        }
    }

    /// Pieces that were adopted.
    pub fn adopted(&self) -> usize {
        self.rows.len()
    }
}

impl OfLog {
    fn add(&mut self, piece: &PiecePlan, index: Index, bytes: &[u8]) {
        let full = self.data.len() + bytes.len() + run::directory_bytes(self.pieces.len() + 1) > BLOCK_MAX;
        if full {
            self.seal();
        }
        self.pieces.push(PieceRow {
            index,
            at: piece.at,
            ordinal: piece.ordinal,
            entry_at: piece.start,
            offset: self.data.len() as u32,
            length: piece.length,
        });
        self.data.extend_from_slice(bytes);
    }

    fn seal(&mut self) {
        let (Some(first), Some(last)) = (self.pieces.first(), self.pieces.last()) else { return };
        let (key, last) = ((QueueId(0), first.index, first.at, first.ordinal), last.index);
        let mut content = std::mem::take(&mut self.data);
        run::put_directory(&mut content, &self.pieces);
        self.pieces.clear();
        let (length, crc) = (content.len() as u32, crc32c(&content));
        content.resize(content.len().next_multiple_of(PAGE), 0);
        self.sealed.push(Sealed { key, last, length, crc, content });
    }
}

/// A run being put together, in slices.
#[derive(Debug)]
pub(crate) struct Assembly {
    pub identity: Identity,
    gathered: Gathered,
    content: Vec<Vec<u8>>,
    rows: Vec<BlockRow>,
    offset: u64,
}

impl Assembly {
    pub fn new(identity: Identity, mut gathered: Gathered) -> Assembly {
        let mut rows = std::mem::take(&mut gathered.rows);
        rows.sort_unstable_by_key(BlockRow::key);
        for row in &mut rows {
            row.crc = identity.block_crc(row.offset, row.crc);
        }
        let content = vec![identity.header()];
        Assembly { identity, gathered, content, rows, offset: PAGE as u64 }
    }

    /// Bytes of the pieces.
    pub fn bytes(&self) -> u64 {
        self.gathered.bytes
    }

    /// Gives blocks their place, about `slice` bytes' worth; true when all have it.
    pub fn go_on(&mut self, slice: usize) -> bool {
        let mut done = 0;
        while done < slice {
            let Some((log, mut pieces)) = self.gathered.logs.pop_first() else { return true };
            done += pieces.data.len();
            pieces.seal();
            for block in pieces.sealed {
                // What placing a block costs, told in bytes.
                done += 512;
                let offset = u32::try_from(self.offset).expect("a run is far below 4 GiB");
                let (_, first, at, ordinal) = block.key;
                let crc = self.identity.block_crc(offset, block.crc);
                self.rows.push(BlockRow {
                    log,
                    first,
                    last: block.last,
                    at,
                    ordinal,
                    offset,
                    length: block.length,
                    entry_at: 0,
                    crc,
                });
                self.offset += block.content.len() as u64;
                self.content.push(block.content);
            }
        }
        self.gathered.logs.is_empty()
    }

    /// The content of the file, its blocks, its first and last index.
    pub fn finish(mut self) -> (Vec<Vec<u8>>, Vec<BlockRow>, (Index, Index)) {
        self.content.push(self.identity.index(&self.rows, self.offset));
        let range = self.gathered.pieces.expect("a run has pieces");
        (self.content, self.rows, range)
    }
}
