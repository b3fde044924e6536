//! What the files of a shard say after a start: which flushes are the log, where it ends, and what each group has.
//!
//! 1. The newest checkpoint of each group and the header page of each segment are read. The highest floor any of them
//!    names is durable truth: no flush below it is needed.
//! 2. From the newest segment backwards by its `previous` links to the one that holds the floor: the chain.
//! 3. Every segment of the chain but the last ends exactly where the next one says; anything broken before is
//!    damage. In the last one the chain of flushes is followed as far as it goes. Broken bytes there are a torn tail
//!    unless a valid flush of the same generation stands behind them: one flush is under way at a time, so that one
//!    would prove them synced.
//! 4. Frames are replayed in order, a frame of an index cutting what is at and above it.
//!
//! What was torn can never come back: a flush counts only as a whole and only by its link to the one before. If the
//! torn flush still shows its header, the log goes on in another segment, whose header says where this one ends, and
//! those bytes are never touched; if not, there is nothing a link could lead to. Flush numbers go on above every
//! number seen anywhere, checkpoints included, so that a position in a checkpoint never names two frames.

use std::collections::BTreeMap;

use base::{Bug, PAGE, planted};
use model::{GroupId, Index, ShardId, Term};

use crate::checkpoint::{self, CheckpointFile, Unusable};
use crate::disk::{Disk, FileName};
use crate::error::OpenError;
use crate::flush::{self, Broken, FlushHeader};
use crate::frame::{Frame, Kind};
use crate::group::{At, Group, HardState};
use crate::log::{Config, Tail};
use crate::segment::{self, FIRST_FLUSH, HeaderPage, Link, Ring, Segment, SegmentHeader, State};

/// The state of a group at an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The index.
    pub index: Index,
    /// The term of the entry there.
    pub term: Term,
    /// What [`crate::CommitLog::checkpoint`] was given.
    pub state: Vec<u8>,
}

/// A group as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Which.
    pub group: GroupId,
    /// Its newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Its newest hard state.
    pub hard_state: HardState,
    /// The entries above the checkpoint, contiguous, with their terms.
    pub entries: Vec<(Index, Term)>,
}

/// What the log goes on from.
pub(crate) struct Found {
    pub groups: BTreeMap<GroupId, Group>,
    pub ring: Ring,
    pub tail: Tail,
    pub next_number: u64,
    pub floor: u64,
    pub next_sequence: u64,
    /// Files to delete.
    pub stale: Vec<FileName>,
}

struct SegmentFile {
    slot: u32,
    name: FileName,
    bytes: u64,
    header: Option<SegmentHeader>,
}

struct Recovery<'a> {
    shard: ShardId,
    disk: &'a dyn Disk,
    groups: BTreeMap<GroupId, Group>,
    states: BTreeMap<GroupId, Vec<u8>>,
    replay_from: BTreeMap<GroupId, (u64, u32)>,
    /// Entries that do not follow what is known of their group, because what they followed stands below the floor:
    /// fine if a later frame cuts them or removes the group, else damage.
    gaps: BTreeMap<GroupId, OpenError>,
    floor: u64,
    segments: Vec<SegmentFile>,
    /// The highest generation, flush number and checkpoint sequence seen, valid or not.
    generation: u64,
    number: u64,
    sequence: u64,
    /// The last flush of the log.
    last: Link,
    stale: Vec<FileName>,
}

/// Reads everything below the shard's directory.
pub(crate) fn recover(config: &Config, disk: &dyn Disk) -> Result<(Found, Vec<RecoveredGroup>), OpenError> {
    let files = disk.list(&segment::directory(config.shard)).map_err(OpenError::Failed)?;
    let mut recovery = Recovery {
        shard: config.shard,
        disk,
        groups: BTreeMap::new(),
        states: BTreeMap::new(),
        replay_from: BTreeMap::new(),
        gaps: BTreeMap::new(),
        floor: 0,
        segments: Vec::new(),
        generation: 0,
        number: 0,
        sequence: 0,
        last: Link::default(),
        stale: Vec::new(),
    };
    recovery.read_checkpoints(&files)?;
    recovery.read_headers(&files)?;
    let chain = recovery.chain()?;
    let mut used = Vec::new();
    let mut tail = Tail::default();
    for (place, slot) in chain.iter().enumerate() {
        let next = chain.get(place + 1).map(|next| recovery.header(*next).previous);
        let goes_on = recovery.scan(*slot, next)?;
        let header = recovery.header(*slot);
        if recovery.last.generation == header.generation {
            used.push((*slot, recovery.last.number));
            (tail.slot, tail.salt) = (goes_on.then_some(*slot), header.previous.crc);
            (tail.first_before, tail.first) = (tail.first, header.first);
        }
    }
    tail.link = recovery.last;
    recovery.look_for_lost_segments(&chain)?;
    recovery.check_end()?;
    recovery.finish(config, tail, &used)
}

impl Recovery<'_> {
    fn read_checkpoints(&mut self, files: &[(String, u64)]) -> Result<(), OpenError> {
        let mut newest: BTreeMap<GroupId, (u64, u64)> = BTreeMap::new();
        for (name, length) in files {
            let Some((group, sequence)) = checkpoint::named(self.shard, name) else { continue };
            self.sequence = self.sequence.max(sequence);
            let best = newest.entry(group).or_default();
            if sequence > best.0 {
                let old = std::mem::replace(best, (sequence, *length)).0;
                self.forget_file(group, old);
            } else {
                self.forget_file(group, sequence);
            }
        }
        for (group, (sequence, length)) in newest {
            self.read_checkpoint(group, sequence, length)?;
        }
        Ok(())
    }

    fn forget_file(&mut self, group: GroupId, sequence: u64) {
        if sequence != 0 {
            self.stale.push(checkpoint::file_name(self.shard, group, sequence));
        }
    }

    fn read_checkpoint(&mut self, group: GroupId, sequence: u64, length: u64) -> Result<(), OpenError> {
        let name = checkpoint::file_name(self.shard, group, sequence);
        let bytes = self.bytes_of(&name, 0, length)?;
        let damaged = |what: &str, offset| OpenError::Damaged {
            what: format!("{what} (the state of group {group})"),
            file: name.to_string(),
            offset,
            lost: Vec::new(),
        };
        let (file, state) = match CheckpointFile::decode(&bytes, self.shard) {
            Ok(found) => found,
            Err(Unusable::Newer(version)) => {
                return Err(OpenError::Newer { file: name.to_string(), version });
            }
            Err(Unusable::Damaged(what, offset)) => return Err(damaged(what, offset)),
        };
        if (file.group, file.sequence) != (group, sequence) {
            return Err(damaged("the checkpoint is another one than its name says", 0));
        }
        self.floor = self.floor.max(file.floor);
        self.number = self.number.max(file.replay_from.0);
        self.replay_from.insert(group, file.replay_from);
        self.states.insert(group, state);
        let found = Group {
            index: file.index,
            term: file.term,
            file: sequence,
            kept: file.kept,
            hard_state: file.hard_state,
            ..Group::default()
        };
        self.groups.insert(group, found);
        Ok(())
    }

    fn read_headers(&mut self, files: &[(String, u64)]) -> Result<(), OpenError> {
        for (name, length) in files {
            let Some(slot) = segment::slot_of(self.shard, name) else { continue };
            let name = segment::file_name(self.shard, slot);
            let page = self.bytes_of(&name, 0, PAGE as u64)?;
            let header = match SegmentHeader::decode(&page, slot, self.shard) {
                HeaderPage::Valid(header) => Some(header),
                HeaderPage::Invalid => None,
                HeaderPage::Newer(version) => {
                    return Err(OpenError::Newer { file: name.to_string(), version });
                }
            };
            // Offsets are 32 bits; no file is written beyond.
            let bytes = (*length).min((1 << 32) - PAGE as u64) / PAGE as u64 * PAGE as u64;
            if let Some(header) = header {
                self.floor = self.floor.max(header.floor);
                self.generation = self.generation.max(header.generation);
                self.number = self.number.max(header.first);
            }
            let twin = header.and_then(|header| self.of_generation(header.generation));
            if let Some(twin) = twin {
                let what = format!("it is the same segment as {}", self.segments[twin].name);
                return Err(damaged(&name, 0, what));
            }
            self.segments.push(SegmentFile { slot, name, bytes, header });
        }
        self.segments.sort_by_key(|segment| segment.slot);
        Ok(())
    }

    fn of_generation(&self, generation: u64) -> Option<usize> {
        let of = |segment: &SegmentFile| segment.header.is_some_and(|header| header.generation == generation);
        self.segments.iter().position(of)
    }

    fn segment(&self, slot: u32) -> &SegmentFile {
        let place = self.segments.binary_search_by_key(&slot, |segment| segment.slot);
        &self.segments[place.expect("a slot that was found")]
    }

    fn header(&self, slot: u32) -> SegmentHeader {
        self.segment(slot).header.expect("segments of the chain have headers")
    }

    /// The slots of the segments to replay, oldest first.
    fn chain(&self) -> Result<Vec<u32>, OpenError> {
        let newest = self.segments.iter().filter(|segment| segment.header.is_some());
        let newest = newest.max_by_key(|segment| segment.header.map(|header| header.generation));
        let Some(mut segment) = newest else { return Ok(Vec::new()) };
        let mut chain = vec![segment.slot];
        loop {
            let header = self.header(segment.slot);
            let previous = header.previous;
            if header.first <= self.floor || previous.number < self.floor || previous.generation == 0 {
                break;
            }
            // Generations only fall on the way, whatever a header claims.
            let place =
                self.of_generation(previous.generation).filter(|_| previous.generation < header.generation);
            let Some(place) = place else {
                let what = format!(
                    "the segment before it (generation {}, up to flush {}) is missing or its header is unreadable",
                    previous.generation, previous.number
                );
                return Err(damaged(&segment.name, 0, what));
            };
            segment = &self.segments[place];
            chain.push(segment.slot);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Replays a segment, which ends at `next` if another follows. True if the log may go on behind its last flush.
    fn scan(&mut self, slot: u32, next: Option<Link>) -> Result<bool, OpenError> {
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

    /// Flushes newer than the log in files that are no part of it: at most the first of a segment whose header was
    /// torn off. More means that a header was lost that was durable. Such a segment followed the log as it is now,
    /// so its salt is known.
    fn look_for_lost_segments(&mut self, chain: &[u32]) -> Result<(), OpenError> {
        let newest = self.last.generation;
        for segment in self.segments.iter().filter(|segment| !chain.contains(&segment.slot)) {
            let first = self.bytes_of(&segment.name, u64::from(FIRST_FLUSH), PAGE as u64)?;
            let first =
                FlushHeader::decode(&first, self.shard, FIRST_FLUSH, self.last.crc).map(|(header, _)| header);
            let young = first.filter(|header| header.generation > newest);
            self.number = self.number.max(young.map_or(0, |header| header.number));
            self.generation = self.generation.max(young.map_or(0, |header| header.generation));
            if segment.header.is_some() && young.is_none() {
                continue;
            }
            let bytes = self.bytes_of(&segment.name, 0, segment.bytes)?;
            for at in (2 * PAGE..bytes.len()).step_by(PAGE) {
                let header = FlushHeader::decode(&bytes[at..], self.shard, at as u32, self.last.crc)
                    .map(|(header, _)| header);
                let Some(header) = header.filter(|header| header.generation > newest) else { continue };
                if header.number > self.last.number && !planted(Bug::DamageTakenForTornTail) {
                    let what = format!("the header of a segment that holds flush {} is lost", header.number);
                    return Err(damaged(&segment.name, at as u64, what));
                }
            }
        }
        Ok(())
    }

    /// What the floor says was durable must be there.
    fn check_end(&mut self) -> Result<(), OpenError> {
        if self.last.number + 1 < self.floor {
            let what = format!(
                "the log ends with flush {}, but flush {} was durable",
                self.last.number,
                self.floor - 1
            );
            let newest =
                self.segments.iter().max_by_key(|segment| segment.header.map(|header| header.generation));
            let file =
                newest.map_or_else(|| segment::file_name(self.shard, 0), |segment| segment.name.clone());
            return Err(damaged(&file, u64::from(self.last.end), what));
        }
        match self.gaps.pop_first() {
            Some((_, gap)) => Err(gap),
            None => Ok(()),
        }
    }

    fn finish(
        mut self,
        config: &Config,
        tail: Tail,
        used: &[(u32, u64)],
    ) -> Result<(Found, Vec<RecoveredGroup>), OpenError> {
        let mut ring = Ring { generations: self.generation, ..Ring::default() };
        for file in &self.segments {
            ring.slots = ring.slots.max(file.slot + 1);
            let last = used.iter().find(|(slot, _)| *slot == file.slot).map_or(0, |(_, last)| *last);
            let state = match file.header {
                Some(header) => State::Used { generation: header.generation, last },
                None => State::Fresh,
            };
            if state == State::Fresh && file.bytes < config.segment_bytes {
                // The log is whole without it: a preparation that was cut short.
                self.stale.push(file.name.clone());
                continue;
            }
            ring.segments.push(Segment::new(self.shard, file.slot, file.bytes, state));
        }
        let mut recovered = Vec::new();
        for (id, group) in &mut self.groups {
            for (index, at) in &mut group.kept {
                let Some(segment) = ring.of_generation(at.generation) else {
                    let what = format!("the segment of generation {} is gone", at.generation);
                    let file = checkpoint::file_name(self.shard, *id, group.file);
                    return Err(OpenError::Damaged {
                        what,
                        file: file.to_string(),
                        offset: 0,
                        lost: vec![(*id, *index, *index)],
                    });
                };
                segment.kept += 1;
                at.slot = segment.slot;
            }
            if group.removed != 0 {
                continue;
            }
            group.hard_state.commit = group.hard_state.commit.max(group.index);
            recovered.push(recovered_group(*id, group, self.states.remove(id)));
        }
        let next_number = self.number.max(self.floor).max(self.last.number) + 1;
        let found = Found {
            groups: self.groups,
            ring,
            tail,
            next_number,
            floor: self.floor,
            next_sequence: self.sequence + 1,
            stale: self.stale,
        };
        Ok((found, recovered))
    }

    /// Up to `length` bytes of a file; fewer if it ends.
    fn bytes_of(&self, name: &FileName, offset: u64, length: u64) -> Result<Vec<u8>, OpenError> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| too_large(name))?];
        let mut filled = 0;
        while filled < bytes.len() {
            let at = offset + filled as u64;
            let read = self.disk.read(name, at, &mut bytes[filled..]);
            let read = read.map_err(|why| OpenError::Failed(format!("{name}: {why}")))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

fn recovered_group(group: GroupId, state: &Group, checkpoint: Option<Vec<u8>>) -> RecoveredGroup {
    let (index, term) = (state.index, state.term);
    let checkpoint = checkpoint.map(|state| Checkpoint { index, term, state });
    let entries = state.entries.iter().zip(index.0 + 1..);
    let entries = entries.map(|(at, index)| (Index(index), at.term)).collect();
    RecoveredGroup { group, checkpoint, hard_state: state.hard_state, entries }
}

fn damaged(file: &FileName, offset: u64, what: String) -> OpenError {
    OpenError::Damaged { what, file: file.to_string(), offset, lost: Vec::new() }
}

fn too_large(name: &FileName) -> OpenError {
    OpenError::Failed(format!("{name} is too large for this machine's memory"))
}
