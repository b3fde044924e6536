//! Flushes from sealed to durable, and the segments they need.
//!
//! In: the oldest open flush. Out: one write, perhaps a file to be made. Decides where a flush goes, what may be
//! written over, and what follows from a flush being durable.

use base::{Block, Bug, PAGE, planted};

use crate::disk::DiskOp;
use crate::flush::FlushHeader;
use crate::frame::Kind;
use crate::group::At;
use crate::log::{CommitLog, FlushId, LogEvent, UnderWay, hard_state_frame};
use crate::open_flush::{OpenFlush, OpenFrame};
use crate::segment::{FIRST_FLUSH, Link, SegmentHeader, State};

/// Flushes of so many bytes on average are dear by themselves: a segment for them is not written with zeros first,
/// which would cost the disk as much again, while the sync of blocks never written adds little to theirs.
const LARGE: u64 = if cfg!(test) { 4 << 10 } else { 512 << 10 };

/// Flushes given to the disk at most: one that is being written, and one to be begun when that one is durable, so that
/// the disk need not wait for a turn of the loop.
const FLIGHTS_MAX: usize = 2;

/// Bytes from which on a flush is given to the disk behind another one. A smaller one rather grows meanwhile: each is a
/// commit of the file system's journal where its blocks are new.
const AHEAD_MIN: u64 = 2 << 20;

/// How much larger that segment is: what moves a segment out of the ring costs as many syncs whatever is in it.
const LARGER: u64 = 4;

/// Where the next flush goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tail {
    /// The last flush.
    pub link: Link,
    /// The segment whose end it is, if the next may follow it there.
    pub slot: Option<u32>,
    /// That segment's salt: the link it began with.
    pub salt: u32,
    /// The first flushes of the newest segment and of the one before it.
    pub first: u64,
    pub first_before: u64,
}

#[derive(Debug)]
pub(crate) struct InFlight {
    number: u64,
    frames: Vec<OpenFrame>,
    /// The floor named by the header of the segment that it begins.
    floor: u64,
}

impl CommitLog {
    /// If there is something to write, and nothing under way or enough to go behind it, seals the open flush into one
    /// write.
    pub fn flush(&mut self) -> bool {
        // Where segments are small, so is all else.
        let ahead_min = AHEAD_MIN.min(self.config.segment_bytes / 8);
        let is_due = self.in_flight.is_empty()
            || (self.in_flight.len() < FLIGHTS_MAX && self.open[0].bytes() as u64 >= ahead_min);
        if self.failed || !is_due || self.open[0].is_empty() {
            return false;
        }
        let mut flush = self.open.pop_front().expect("a flush is always open");
        if self.open.is_empty() {
            self.open_another();
        }
        let mut blocks = Vec::new();
        let mut floor = 0;
        if !self.fits(flush.bytes()) {
            self.save_idle(&mut flush);
            let header = self.begin_segment(&flush);
            floor = header.floor;
            let slot = self.tail.slot.expect("a segment was just begun");
            blocks.push(self.config.pool.block(&header.encode(slot)));
        }
        self.write(flush, blocks, floor);
        true
    }

    fn fits(&self, bytes: usize) -> bool {
        let end = u64::from(self.tail.link.end) + bytes as u64;
        self.tail.slot.is_some_and(|slot| end <= self.ring.slot(slot).bytes)
    }

    /// Hard states that stand in segments older than the one being left move on, or idle groups would hold those
    /// for ever.
    fn save_idle(&mut self, flush: &mut OpenFlush) {
        let young = self.tail.first;
        for (id, group) in &mut self.groups {
            let newest = group.saved.map_or(0, |(flush, _)| flush).max(group.saved_durable);
            if group.needs_saved_from() != u64::MAX && newest < young && group.removed == 0 {
                let head = flush.push(hard_state_frame(*id, group.hard_state_in(flush.number)));
                group.saved = Some((flush.number, head));
            }
        }
    }

    fn begin_segment(&mut self, flush: &OpenFlush) -> SegmentHeader {
        let bytes = (PAGE + flush.bytes()) as u64;
        let newest = self.tail.link.generation;
        let written = flush.number.saturating_sub(self.tail.first);
        let are_large = u64::from(self.tail.link.end) / written.max(1) >= LARGE;
        let slot = match self.ring.choose(bytes, self.floor, newest) {
            Some(slot) => slot,
            None => self.create_segment(bytes.max(self.config.segment_bytes)),
        };
        self.ring.generations += 1;
        let generation = self.ring.generations;
        let segment = self.ring.slot_mut(slot);
        if let State::Used { .. } = segment.state {
            self.stats.segments_reused += 1;
        }
        segment.state = State::Used { generation, last: flush.number };
        (segment.is_copied, segment.is_stuck) = (false, false);
        (self.tail.slot, self.tail.salt) = (Some(slot), self.tail.link.crc);
        (self.tail.first_before, self.tail.first) = (self.tail.first, flush.number);
        self.prepare_ahead(generation, are_large);
        SegmentHeader {
            shard: self.config.shard,
            generation,
            first: flush.number,
            previous: self.tail.link,
            floor: self.floor_now().max(self.floor),
        }
    }

    /// Asks for a file now; operations of one file are carried out in order, so it may be written at once.
    pub(crate) fn create_segment(&mut self, bytes: u64) -> u32 {
        let segment = self.ring.add(self.config.shard, bytes, State::Fresh);
        let (slot, file) = (segment.slot, segment.file.clone());
        self.operations.ask(UnderWay::Create, |id| DiskOp::Create { id, file, bytes });
        slot
    }

    /// Has the next segment made in the background if none will be free: written with zeros, so that each sync is
    /// cheap, unless flushes are large.
    fn prepare_ahead(&mut self, newest: u64, are_large: bool) {
        let bytes = self.config.segment_bytes;
        let coming = self.ring.segments.iter().any(|segment| segment.state == State::Coming);
        if coming || self.ring.choose(bytes, self.floor, newest).is_some() {
            return;
        }
        let is_roomy = 4 * LARGER * bytes <= self.config.ring_bytes_max && !self.is_scarce;
        let bytes = if are_large && is_roomy { LARGER * bytes } else { bytes };
        let segment = self.ring.add(self.config.shard, bytes, State::Coming);
        let (slot, file) = (segment.slot, segment.file.clone());
        let written = !are_large;
        self.operations.ask(UnderWay::Prepare(slot), |id| DiskOp::Prepare { id, file, bytes, written });
    }

    fn write(&mut self, flush: OpenFlush, mut blocks: Vec<Block>, floor: u64) {
        let slot = self.tail.slot.expect("the tail has a segment");
        let segment = self.ring.slot_mut(slot);
        let begins = !blocks.is_empty();
        let State::Used { generation, last } = &mut segment.state else {
            unreachable!("a segment being written is in use")
        };
        *last = flush.number;
        let generation = *generation;
        let file = segment.file.clone();
        let offset = if begins { FIRST_FLUSH } else { self.tail.link.end };
        let header = FlushHeader { shard: self.config.shard, generation, ..FlushHeader::default() };
        let (number, groups) = (flush.number, &mut self.groups);
        let sealed =
            flush.seal(header, self.tail.link, (offset, self.tail.salt), |ordinal, frame, payload| {
                let at = groups.get_mut(&frame.group).and_then(|group| group.at_mut(frame.index));
                let Some(at) = at.filter(|_| frame.kind == Kind::Entry) else { return };
                if (at.flush, at.ordinal) == (number, ordinal) {
                    let frame = offset + frame.head;
                    *at = At { generation, slot, frame, payload, ..*at };
                }
            });
        blocks.extend(sealed.blocks);
        self.tail.link = sealed.link;
        self.stats.syncs += 1;
        self.stats.frames += sealed.frames.len() as u64;
        self.stats.bytes_written += sealed.bytes as u64;
        self.in_flight.push_back(InFlight { number, frames: sealed.frames, floor });
        let offset = if begins { 0 } else { u64::from(offset) };
        self.operations.ask(UnderWay::Flush, |id| DiskOp::Write { id, file, offset, blocks });
        if planted(Bug::AckBeforeSync) {
            self.events.push_back(LogEvent::Durable(FlushId(number)));
        }
    }

    /// The first of the flushes under way is durable.
    pub(crate) fn flushed(&mut self) {
        let flush = self.in_flight.pop_front().expect("a completed flush was under way");
        if self.failed {
            return;
        }
        self.durable = flush.number;
        self.floor = self.floor.max(flush.floor);
        self.header_floor = self.header_floor.max(flush.floor);
        for frame in flush.frames.iter().filter(|frame| frame.kind == Kind::HardState) {
            if let Some(group) = self.groups.get_mut(&frame.group) {
                group.saved_durable = flush.number;
            }
        }
        let removals = flush.frames.iter().any(|frame| frame.kind == Kind::Removed);
        self.spare = flush.frames;
        if !planted(Bug::AckBeforeSync) {
            self.events.push_back(LogEvent::Durable(FlushId(flush.number)));
        }
        self.cache.shrink(self.durable);
        self.put_checkpoints();
        if removals {
            self.finish_removals();
        }
    }

    /// By durable state: no flush below it is needed to recover any group.
    pub(crate) fn floor_now(&self) -> u64 {
        let needs = self.groups.values().map(|group| group.needs_from(self.durable));
        needs.min().unwrap_or(u64::MAX).min(self.durable + 1)
    }
}
