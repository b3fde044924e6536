//! Reading entries back: from memory when recent, else from their segment, each checked and read once however many ask.
//!
//! What finds no room in the budget waits in line and is read when there is; what is read ahead of its reader goes into
//! memory and is told to nobody.

use std::collections::BTreeMap;

use base::{Block, Bug, PAGE, crc32c, planted};
use model::{GroupId, Index};

use crate::budget::{Asked, Budget};
use crate::disk::{Disk, DiskOp};
use crate::error::OpenError;
use crate::group::At;
use crate::log::{CommitLog, LogEvent, UnderWay};
use crate::pieces::Waiting;

/// Bytes read at once while starting, where entries are wanted one behind the other.
const WINDOW: usize = 1 << 20;

/// The answer to [`CommitLog::read`].
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Here it is.
    Ready(Block),
    /// A [`LogEvent::Loaded`] brings it, or a [`LogEvent::Left`] says that it is not there any more.
    Pending,
    /// Not held: never appended, cut, or below the checkpoint and not kept.
    Gone,
}

/// What became of the wish to have something in memory before it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// It is in memory, on its way, or nowhere: there is nothing to read.
    Known,
    /// So many bytes are being read.
    Begun(usize),
    /// Enough is being read already.
    NoRoom,
}

/// Reads under way, and those that wait for room.
#[derive(Debug)]
pub(crate) struct Reads {
    /// Entries, with whether somebody waits for each.
    wanted: BTreeMap<(GroupId, Index), bool>,
    pub budget: Budget,
    /// Blocks of runs, with who waits for them.
    pub blocks: Waiting,
    /// What [`CommitLog::load`] read last: generation, offset, bytes.
    window: (u64, u32, Vec<u8>),
}

impl Reads {
    pub fn new(bytes_max: usize) -> Reads {
        let budget = Budget::new(bytes_max);
        Reads { wanted: BTreeMap::new(), budget, blocks: Waiting::new(), window: (0, 0, Vec::new()) }
    }
}

impl At {
    /// The bytes to read: from a page boundary, to the end of the payload.
    fn range(&self) -> (u32, usize) {
        let start = self.payload - self.payload % PAGE as u32;
        (start, (self.payload - start + self.length) as usize)
    }

    pub fn is_whole(&self, payload: &[u8]) -> bool {
        planted(Bug::SkipChecksum) || crc32c(payload) == self.crc
    }
}

impl CommitLog {
    /// A recent entry, if it is in memory.
    pub fn cached(&self, group: GroupId, index: Index) -> Option<&Block> {
        self.cache.get((group, index))
    }

    /// The term of an entry held, or of the checkpoint.
    pub fn term(&self, group: GroupId, index: Index) -> Option<model::Term> {
        let state = self.groups.get(&group)?;
        let at = || Some(state.at(index)?.term);
        if index == state.index && state.file != 0 { Some(state.term) } else { at() }
    }

    /// The entry, now or later.
    pub fn read(&mut self, group: GroupId, index: Index) -> Lookup {
        if let Some(block) = self.cache.get((group, index)) {
            return Lookup::Ready(block.clone());
        }
        let Some(at) = self.held(group, index) else { return Lookup::Gone };
        if at.length == 0 {
            return Lookup::Ready(self.config.pool.block(&[]));
        }
        if let Some(is_awaited) = self.reads.wanted.get_mut(&(group, index)) {
            *is_awaited = true;
            return Lookup::Pending;
        }
        self.reads.wanted.insert((group, index), true);
        if self.reads.budget.takes(at.range().1) {
            self.ask(group, index, at, false);
        } else {
            self.reads.budget.line.push_back(Asked::Entry(group, index));
        }
        Lookup::Pending
    }

    /// Reads the entry into memory where that is possible at once and memory has room for it; no event tells.
    pub fn prefetch(&mut self, group: GroupId, index: Index) -> Prefetch {
        let is_known = |log: &CommitLog| {
            log.cache.get((group, index)).is_some() || log.reads.wanted.contains_key(&(group, index))
        };
        let Some(at) = self.held(group, index).filter(|at| at.length > 0 && !is_known(self)) else {
            return Prefetch::Known;
        };
        let (_, bytes) = at.range();
        if !self.reads.budget.takes_ahead(bytes, self.cache.bytes_max() / 2) {
            return Prefetch::NoRoom;
        }
        self.reads.wanted.insert((group, index), false);
        self.ask(group, index, at, true);
        Prefetch::Begun(bytes)
    }

    /// Nobody here needs the entry any more: it leaves the memory (once durable).
    pub fn release(&mut self, group: GroupId, index: Index) {
        if self.held(group, index).is_none_or(|at| at.flush <= self.durable) {
            self.cache.remove((group, index));
        }
    }

    /// Reads an entry at once; only while starting.
    pub fn load(&mut self, disk: &dyn Disk, group: GroupId, index: Index) -> Result<Block, OpenError> {
        if let Some(block) = self.cache.get((group, index)) {
            return Ok(block.clone());
        }
        let Some(at) = self.held(group, index) else {
            return Err(OpenError::Failed(format!("group {group} has no entry {index}")));
        };
        let segment = self.ring.slot(at.slot);
        let (generation, start, bytes) = &mut self.reads.window;
        let within = |start: u32, bytes: &[u8]| {
            let from = at.payload.checked_sub(start)? as usize;
            bytes.get(from..from + at.length as usize).map(|payload| (from, payload.len()))
        };
        let mut place = if *generation == at.generation { within(*start, bytes) } else { None };
        if place.is_none() {
            (*generation, *start) = (at.generation, at.payload);
            bytes.resize(WINDOW.max(at.length as usize), 0);
            let read = disk.read(&segment.file, u64::from(at.payload), bytes).map_err(OpenError::Failed)?;
            bytes.truncate(read);
            place = within(*start, bytes);
        }
        let payload = place.map(|(from, length)| &bytes[from..from + length]);
        match payload.filter(|payload| at.is_whole(payload)) {
            Some(payload) => Ok(self.config.pool.block(payload)),
            None => Err(OpenError::Damaged {
                what: "an entry does not match its checksum".into(),
                file: segment.file.to_string(),
                offset: u64::from(at.payload),
                lost: vec![(group, index, index)],
            }),
        }
    }

    fn held(&self, group: GroupId, index: Index) -> Option<At> {
        let state = self.groups.get(&group).filter(|group| group.removed == 0)?;
        state.at(index).copied()
    }

    fn ask(&mut self, group: GroupId, index: Index, at: At, is_ahead: bool) {
        assert!(at.generation != 0 && at.flush <= self.durable, "what is not durable yet is in memory");
        let (start, bytes) = at.range();
        self.reads.budget.begin(bytes, is_ahead);
        self.stats.reads += 1;
        let segment = self.ring.slot_mut(at.slot);
        segment.pins += 1;
        let (file, offset) = (segment.file.clone(), u64::from(start));
        let what = UnderWay::Read { group, index, at, start, is_ahead };
        self.operations.ask(what, |id| DiskOp::Read { id, file, offset, bytes });
    }

    pub(crate) fn read_completed(
        &mut self,
        (group, index): (GroupId, Index),
        at: At,
        (start, is_ahead): (u32, bool),
        result: Result<Block, String>,
    ) {
        let is_awaited = self.reads.wanted.remove(&(group, index)).unwrap_or(false);
        self.reads.budget.end(at.range().1, is_ahead);
        self.ring.slot_mut(at.slot).pins -= 1;
        if let Some(block) = self.found(group, index, at, start, result, is_awaited)
            && is_awaited
        {
            self.events.push_back(LogEvent::Loaded { group, index, block });
        }
        self.admit();
    }

    /// What a read brought, unless it must be read again.
    fn found(
        &mut self,
        group: GroupId,
        index: Index,
        at: At,
        start: u32,
        result: Result<Block, String>,
        is_awaited: bool,
    ) -> Option<Result<Block, String>> {
        let now = self.held(group, index);
        let cached = self.cache.get((group, index)).cloned();
        Some(match (cached, now) {
            (Some(block), _) => Ok(block),
            // The entry was cut and another took its index while this one was read.
            (None, Some(now)) if now != at => {
                if is_awaited {
                    self.reads.wanted.insert((group, index), true);
                    self.reads.budget.line.push_front(Asked::Entry(group, index));
                }
                return None;
            }
            // A checkpoint forgot the entry while it was read; its bytes stood still as long as that took.
            (None, None) => result.and_then(|block| self.checked(block, &at, start)),
            (None, Some(_)) => {
                let block = result.and_then(|block| self.checked(block, &at, start));
                if let Ok(block) = &block {
                    self.cache.insert((group, index), block.clone(), at.flush, self.durable);
                }
                block
            }
        })
    }

    /// Begins what waits in line and has room now.
    pub(crate) fn admit(&mut self) {
        while let Some(next) = self.reads.budget.line.front().cloned() {
            let is_done = match next {
                Asked::Entry(group, index) => self.admit_entry(group, index),
                Asked::Block(reading) => self.admit_block(reading),
            };
            if !is_done {
                return;
            }
            self.reads.budget.line.pop_front();
        }
    }

    /// False while there is no room for it.
    fn admit_entry(&mut self, group: GroupId, index: Index) -> bool {
        let cached = self.cache.get((group, index)).cloned();
        let held = self.held(group, index);
        let here = cached.or_else(|| held.filter(|at| at.length == 0).map(|_| self.config.pool.block(&[])));
        let event = match (here, held) {
            (Some(block), _) => LogEvent::Loaded { group, index, block: Ok(block) },
            (None, None) => LogEvent::Left { group, index },
            (None, Some(at)) => {
                let has_room = self.reads.budget.has_room(at.range().1);
                if has_room {
                    self.ask(group, index, at, false);
                }
                return has_room;
            }
        };
        self.reads.wanted.remove(&(group, index));
        self.events.push_back(event);
        true
    }

    /// The payload within what was read, if it is whole.
    fn checked(&self, read: Block, at: &At, start: u32) -> Result<Block, String> {
        let from = (at.payload - start) as usize;
        let payload = read.as_slice().get(from..).and_then(|rest| rest.get(..at.length as usize));
        let Some(payload) = payload.filter(|payload| at.is_whole(payload)) else {
            let file = &self.ring.slot(at.slot).file;
            let offset = at.payload;
            return Err(format!("damaged: the entry in {file} at byte {offset} does not match its checksum"));
        };
        if payload.len() == read.len() {
            return Ok(read);
        }
        Ok(self.config.pool.block(payload))
    }
}
