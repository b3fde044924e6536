//! Following the chain of flushes through a segment, and what their frames say of each group.
//!
//! In: a segment of the chain and where it ends, if that is known. Out: the groups as the frames leave them, the last
//! flush, and whether broken bytes are the torn tail or damage. See `recover` for the whole.

use base::{Bug, PAGE, planted};
use model::Index;

use crate::disk::FileName;
use crate::error::OpenError;
use crate::flush::{self, Broken, FlushHeader};
use crate::frame::{Frame, Kind};
use crate::group::{At, Group, HardState};
use crate::recover::Recovery;
use crate::segment::{FIRST_FLUSH, Link, SegmentHeader};

impl Recovery<'_> {
    /// Replays a segment, which ends at `next` if another follows. True if the log may go on behind its last flush.
    pub fn scan(&mut self, slot: u32, next: Option<Link>) -> Result<bool, OpenError> {
        let header = self.header(slot);
        let (name, bytes) = (self.segment(slot).name.clone(), self.segment(slot).bytes);
        if self.last == Link::default() {
            self.last = header.previous;
        }
        let end = next.map_or(bytes, |next| u64::from(next.end).min(bytes));
        let bytes =
            self.bytes_of(&name, u64::from(FIRST_FLUSH), end.saturating_sub(u64::from(FIRST_FLUSH)))?;
        let mut at = 0;
        let broken = loop {
            let offset = FIRST_FLUSH + at as u32;
            if next.is_some_and(|next| next == self.last && next.end == offset) {
                return Ok(false);
            }
            let Some((flush, crc)) = self.follows(bytes.get(at..).unwrap_or(&[]), &header, offset) else {
                break Broken { what: "a flush header is damaged or missing", offset: 0, frame: None };
            };
            let mut frames = Vec::new();
            let walked =
                flush::walk(&bytes[at..], &flush, slot, offset, |frame, at| frames.push((*frame, at)));
            if let Err(broken) = walked {
                break broken;
            }
            frames.iter().for_each(|(frame, at)| self.replay(frame, *at, &name));
            frames.iter().for_each(|(frame, at)| self.replay_commit(frame, *at));
            at += flush.length as usize;
            let end = FIRST_FLUSH + at as u32;
            self.last = Link { generation: header.generation, number: flush.number, end, crc };
            self.number = self.number.max(flush.number);
        };
        let offset = u64::from(FIRST_FLUSH) + (at + broken.offset) as u64;
        let lost = broken.frame.map(|frame| (frame.group, frame.index, frame.index));
        let damage = |what: String| OpenError::Damaged {
            what,
            file: name.to_string(),
            offset,
            lost: lost.into_iter().collect(),
        };
        if let Some(next) = next {
            return Err(damage(format!("{}, and flush {} was durable", broken.what, next.number)));
        }
        let shows = self.flush_at(&bytes, at, &header);
        if let Some(later) = self.valid_behind(&bytes, at, &header)
            && !planted(Bug::DamageTakenForTornTail)
        {
            return Err(damage(format!("{}, and the later flush {later} is whole", broken.what)));
        }
        self.number = self.number.max(shows.unwrap_or(0));
        Ok(shows.is_none())
    }

    /// The flush header that `bytes` begin with, if it is the next of the chain.
    fn follows(&self, bytes: &[u8], segment: &SegmentHeader, offset: u32) -> Option<(FlushHeader, u32)> {
        let (header, crc) = FlushHeader::decode(bytes, self.shard, offset, segment.previous.crc)?;
        let next = header.previous == self.last.number
            && header.link == self.last.crc
            && header.number > self.last.number
            && header.generation == segment.generation;
        (next || planted(Bug::StaleGenerationAccepted)).then_some((header, crc))
    }

    /// The number of a flush of that segment whose header stands at `at`, newer than the log.
    fn flush_at(&self, bytes: &[u8], at: usize, segment: &SegmentHeader) -> Option<u64> {
        let offset = FIRST_FLUSH + at as u32;
        let (header, _) = FlushHeader::decode(bytes.get(at..)?, self.shard, offset, segment.previous.crc)?;
        (header.generation == segment.generation && header.number > self.last.number).then_some(header.number)
    }

    /// The number of a flush of that segment, newer than the log, that begins behind `at`.
    fn valid_behind(&self, bytes: &[u8], at: usize, segment: &SegmentHeader) -> Option<u64> {
        let later = (at + PAGE..bytes.len()).step_by(PAGE);
        later.into_iter().find_map(|at| self.flush_at(bytes, at, segment))
    }

    fn replay(&mut self, frame: &Frame, at: At, file: &FileName) {
        let from = self.replay_from.get(&frame.group).copied().unwrap_or_default();
        if at.flush < self.floor {
            return;
        }
        let passed = (at.flush, at.ordinal) < from;
        let group = match frame.kind {
            Kind::HardState => self.groups.entry(frame.group).or_default(),
            _ if passed => return,
            _ => self.groups.entry(frame.group).or_default(),
        };
        match frame.kind {
            Kind::HardState => {
                let before = (group.hard_state.term, group.hard_state.vote);
                let (term, vote) = (frame.term, frame.index.0);
                group.hard_state.join(HardState { term, vote, commit: Index(0) });
                if before != (group.hard_state.term, group.hard_state.vote) {
                    group.saved_durable = at.flush;
                }
            }
            Kind::Entry => {
                if group.removed != 0 {
                    let file = std::mem::take(&mut group.file);
                    group.removed = 0;
                    self.forget_file(frame.group, file);
                }
                self.replay_entry(frame, at, file);
            }
            Kind::Removed => {
                let file = group.file;
                *group = Group { removed: at.flush, file, ..Group::default() };
                self.states.remove(&frame.group);
                self.gaps.remove(&frame.group);
            }
        }
    }

    /// A frame may know a commit index of entries that come in a later flush, which may have been lost: here it
    /// counts only as far as the entries that are here, so that it never speaks for others with the same index.
    fn replay_commit(&mut self, frame: &Frame, at: At) {
        let group = self.groups.get_mut(&frame.group).filter(|_| at.flush >= self.floor);
        let Some(group) = group.filter(|group| group.removed == 0) else { return };
        let known = frame.commit.min(group.last());
        group.hard_state.commit = group.hard_state.commit.max(known);
    }

    fn replay_entry(&mut self, frame: &Frame, at: At, file: &FileName) {
        let group = self.groups.entry(frame.group).or_default();
        let last = group.last();
        if group.replay(frame.index, at) {
            // Whatever was missing above it is cut.
            self.gaps.remove(&frame.group);
            return;
        }
        self.gaps.entry(frame.group).or_insert_with(|| OpenError::Damaged {
            what: format!("the log goes from entry {last} of group {} to {}", frame.group, frame.index),
            file: file.to_string(),
            offset: u64::from(at.frame),
            lost: vec![(frame.group, Index(last.0 + 1), Index(frame.index.0 - 1))],
        });
    }
}
