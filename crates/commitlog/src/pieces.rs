//! Reading what has left the ring: from a piece's identity to the block of a run that has it.
//!
//! Blocks are read whole, checked, and kept in memory within a quarter of the budget of recent entries; those behind
//! the one asked for are read ahead, and others where their reader says that it will want them.

use std::collections::BTreeMap;

use base::{Block, Bug, PAGE, crc32c, planted};
use model::{GroupId, Index, QueueId};

use crate::budget::Asked;
use crate::disk::{DiskOp, FileName};
use crate::log::{CommitLog, LogEvent, UnderWay};
use crate::reading::Prefetch;
use crate::run::{self, BlockRow, Identity};
use crate::runs::Run;

/// Blocks of the same log that are read with one that is not in memory.
const READ_AHEAD: usize = 4;
/// The log of pieces that several logs share.
const SHARED: QueueId = QueueId(0);

/// Some bytes of an entry that has left the ring.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What they stand in; more than them.
    pub block: Block,
    /// Where in the block they begin.
    pub start: u32,
    /// Where in the entry they began.
    pub entry_at: u32,
    /// Rows of their batch in front of them.
    pub ordinal: u32,
    /// How many.
    pub length: u32,
    /// The row that was asked for.
    pub wanted: u32,
}

/// The answer to [`CommitLog::read_piece`].
#[derive(Clone, Debug)]
pub enum PieceLookup {
    /// Here it is.
    Ready(Piece),
    /// A [`crate::LogEvent::LoadedPiece`] brings it.
    Pending,
    /// No run has it: it was not needed when its entry left the ring, or trimmed since.
    Gone,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// [`CommitLog::read`] has it.
    Ring,
    /// [`CommitLog::read_piece`] has what was still needed of it.
    Runs,
    /// Nothing is held of it.
    Gone,
}

/// Where a block is: its run and its offset.
pub(crate) type BlockKey = (u64, u32);

/// A block being read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    identity: Identity,
    file: FileName,
    row: BlockRow,
    is_ahead: bool,
}

/// A question that waits for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    group: GroupId,
    log: QueueId,
    index: Index,
    at: u32,
    ordinal: u32,
}

/// Blocks under way, with who waits for each; nobody waits for one that is read ahead.
pub(crate) type Waiting = BTreeMap<BlockKey, Vec<Wanted>>;

impl Reading {
    fn new(run: &Run, block: usize) -> Reading {
        let row = run.blocks[block];
        Reading { identity: run.identity, file: run.data.clone(), row, is_ahead: false }
    }

    fn key(&self) -> BlockKey {
        (self.identity.number, self.row.offset)
    }

    /// The bytes to read: from a page boundary, to the end of the block.
    fn range(&self) -> (u32, usize) {
        let start = self.row.offset - self.row.offset % PAGE as u32;
        (start, (self.row.offset - start + self.row.length) as usize)
    }

    /// The block within what was read.
    fn content<'a>(&self, read: &'a Block) -> Option<&'a [u8]> {
        let start = (self.row.offset - self.range().0) as usize;
        read.as_slice().get(start..)?.get(..self.row.length as usize)
    }

    fn is_whole(&self, read: &Block) -> bool {
        let crc = |content| self.identity.block_crc(self.row.offset, crc32c(content));
        planted(Bug::SkipChecksum) || self.content(read).is_some_and(|content| crc(content) == self.row.crc)
    }

    /// The piece in what was read, if it is there.
    fn piece(&self, read: &Block, wanted: &Wanted) -> Option<Piece> {
        let content = self.content(read)?;
        let before = self.row.offset - self.range().0;
        let (start, entry_at, ordinal, length) = if self.identity.is_adopted() {
            let row = &self.row;
            let is_it = (row.first, row.at) == (wanted.index, wanted.at) && row.ordinal <= wanted.ordinal;
            is_it.then_some((before, row.entry_at, row.ordinal, row.length))?
        } else {
            let row = run::find_piece(content, wanted.index, wanted.at, wanted.ordinal)?;
            (row.offset, row.entry_at, row.ordinal, row.length)
        };
        Some(Piece { block: read.clone(), start, entry_at, ordinal, length, wanted: wanted.ordinal })
    }
}

/// Where else to look for a piece that a block of that log does not have.
fn shared_after(log: QueueId) -> &'static [QueueId] {
    if log == SHARED { &[] } else { &[SHARED] }
}

impl CommitLog {
    /// Where an entry is now; it moves from the ring into runs at any [`CommitLog::completed`].
    pub fn location(&self, group: GroupId, index: Index) -> Location {
        let state = self.groups.get(&group).filter(|group| group.removed == 0);
        let Some(state) = state else { return Location::Gone };
        if state.at(index).is_some() {
            return Location::Ring;
        }
        let runs = self.runs.groups.get(&group);
        let moved = runs.is_some_and(|runs| runs.has_moved(index, index));
        if moved { Location::Runs } else { Location::Gone }
    }

    /// The piece of that log, entry and place with the greatest ordinal that is not above `ordinal`, else the one
    /// that several logs share; now or later.
    pub fn read_piece(
        &mut self,
        group: GroupId,
        log: QueueId,
        index: Index,
        at: u32,
        ordinal: u32,
    ) -> PieceLookup {
        self.look_up(Wanted { group, log, index, at, ordinal }, &[log, SHARED])
    }

    /// Reads the block that has that log's piece of the entry into memory, if it is that log's alone, where that is
    /// possible at once; no event tells.
    pub fn prefetch_piece(&mut self, group: GroupId, log: QueueId, index: Index, at: u32) -> Prefetch {
        let wanted = Wanted { group, log, index, at, ordinal: 0 };
        let is_there = self.groups.get(&group).is_some_and(|group| group.removed == 0);
        let found = if is_there { self.block_at(&wanted, log) } else { None };
        let Some(reading) = found.map(|(run, block)| Reading::new(run, block)) else {
            return Prefetch::Known;
        };
        self.read_block_ahead(reading)
    }

    fn look_up(&mut self, wanted: Wanted, logs: &[QueueId]) -> PieceLookup {
        if self.groups.get(&wanted.group).is_none_or(|group| group.removed != 0) {
            return PieceLookup::Gone;
        }
        for log in logs {
            let Some((reading, ahead)) = self.block_of(&wanted, *log) else { continue };
            if let Some(read) = self.blocks.get(reading.key()) {
                match reading.piece(read, &wanted) {
                    Some(piece) => return PieceLookup::Ready(piece),
                    None => continue,
                }
            }
            if let Some(waiting) = self.reads.blocks.get_mut(&reading.key()) {
                if !waiting.contains(&wanted) {
                    waiting.push(wanted);
                }
                return PieceLookup::Pending;
            }
            self.reads.blocks.insert(reading.key(), vec![wanted]);
            if self.reads.budget.takes(reading.range().1) {
                self.read_block(reading);
                self.read_ahead(ahead);
            } else {
                self.reads.budget.line.push_back(Asked::Block(reading));
            }
            return PieceLookup::Pending;
        }
        PieceLookup::Gone
    }

    /// The block that has the piece if that log's pieces have it, and those behind it.
    fn block_of(&self, wanted: &Wanted, log: QueueId) -> Option<(Reading, Vec<Reading>)> {
        let (run, block) = self.block_at(wanted, log)?;
        let behind = (block + 1..run.blocks.len()).take(READ_AHEAD);
        let behind = behind.filter(|block| run.blocks[*block].log == log && run.blocks[*block].length > 0);
        Some((Reading::new(run, block), behind.map(|block| Reading::new(run, block)).collect()))
    }

    fn block_at(&self, wanted: &Wanted, log: QueueId) -> Option<(&Run, usize)> {
        let run = self.runs.groups.get(&wanted.group)?.run_of(wanted.index)?;
        Some((run, run.block_of(log, wanted.index, wanted.at, wanted.ordinal)?))
    }

    fn read_ahead(&mut self, ahead: Vec<Reading>) {
        let bytes: usize = ahead.iter().map(|reading| reading.range().1).sum();
        if 2 * bytes > self.blocks.bytes_max() {
            return;
        }
        for reading in ahead {
            self.read_block_ahead(reading);
        }
    }

    fn read_block_ahead(&mut self, reading: Reading) -> Prefetch {
        let (key, (_, bytes)) = (reading.key(), reading.range());
        if self.blocks.get(key).is_some() || self.reads.blocks.contains_key(&key) {
            return Prefetch::Known;
        }
        if !self.reads.budget.takes_ahead(bytes, self.blocks.bytes_max() / 2) {
            return Prefetch::NoRoom;
        }
        self.reads.blocks.insert(key, Vec::new());
        self.read_block(Reading { is_ahead: true, ..reading });
        Prefetch::Begun(bytes)
    }

    fn read_block(&mut self, reading: Reading) {
        let (start, bytes) = reading.range();
        self.reads.budget.begin(bytes, reading.is_ahead);
        self.stats.reads += 1;
        let (file, offset) = (reading.file.clone(), u64::from(start));
        self.operations.ask(UnderWay::Block(reading), |id| DiskOp::Read { id, file, offset, bytes });
    }

    /// False while there is no room for it.
    pub(crate) fn admit_block(&mut self, reading: Reading) -> bool {
        if !self.has_block(&reading) {
            for wanted in self.reads.blocks.remove(&reading.key()).unwrap_or_default() {
                self.dropped(wanted);
            }
            return true;
        }
        let has_room = self.reads.budget.has_room(reading.range().1);
        if has_room {
            self.read_block(reading);
        }
        has_room
    }

    fn dropped(&mut self, Wanted { group, log, index, at, .. }: Wanted) {
        self.events.push_back(LogEvent::Dropped { group, log, index, at });
    }

    /// Whether a run still has the block.
    fn has_block(&self, reading: &Reading) -> bool {
        let runs = self.runs.groups.get(&reading.identity.group);
        let mut runs = runs.into_iter().flat_map(|runs| &runs.runs);
        let run = runs.find(|run| run.identity.number == reading.identity.number);
        let has = |row: &BlockRow| row.offset == reading.row.offset && row.length > 0;
        run.is_some_and(|run| run.blocks.iter().any(has))
    }

    pub(crate) fn block_read(&mut self, reading: Reading, result: Result<Block, String>) {
        self.reads.budget.end(reading.range().1, reading.is_ahead);
        let waiting = self.reads.blocks.remove(&reading.key()).unwrap_or_default();
        let (file, offset) = (&reading.file, reading.row.offset);
        let damaged = || format!("damaged: the block in {file} at byte {offset} does not match its checksum");
        let block = result.and_then(|read| if reading.is_whole(&read) { Ok(read) } else { Err(damaged()) });
        if let Ok(block) = &block {
            self.blocks.insert(reading.key(), block.clone(), 0, self.durable);
            self.cache.lend(self.blocks.bytes(), self.durable);
        }
        // Its space may have been given back while it was read: nobody needs it then, and nothing is damaged.
        let is_dropped = block.is_err() && !self.has_block(&reading);
        for wanted in waiting {
            if is_dropped {
                self.dropped(wanted);
                continue;
            }
            let found = block.as_ref().map_err(String::clone);
            let piece = match found.map(|block| reading.piece(block, &wanted)) {
                Ok(Some(piece)) => Ok(piece),
                // Other logs may share it: that is another block. This one is not looked into again: it may have left
                // memory already, and would be read for ever. And it may be a hole: nothing of it was needed, its
                // pages were given back, and the index of a restart has it again. What is in neither is damaged.
                other => match self.look_up(wanted, shared_after(reading.row.log)) {
                    PieceLookup::Ready(piece) => Ok(piece),
                    PieceLookup::Pending => continue,
                    PieceLookup::Gone => Err(other
                        .err()
                        .unwrap_or_else(|| format!("no run has that piece of entry {}", wanted.index))),
                },
            };
            let Wanted { group, log, index, at, ordinal, .. } = wanted;
            self.events.push_back(LogEvent::LoadedPiece { group, log, index, at, ordinal, piece });
        }
        self.admit();
    }
}
