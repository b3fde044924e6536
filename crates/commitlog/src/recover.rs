//! What the files of a shard say after a start: which flushes are the log, where it ends, and what each group has.
//!
//! 0. The newest manifest, and the indexes of the runs it names, are read.
//! 1. The newest checkpoint of each group and the header page of each segment are read. The highest floor any of them
//!    names is durable truth: no flush below it is needed.
//! 2. From the newest segment backwards by its `previous` links to the one that holds the floor: the chain.
//! 3. Every segment of the chain but the last ends exactly where the next one says; anything broken before is
//!    damage. In the last one the chain of flushes is followed as far as it goes. Broken bytes there are a torn tail
//!    unless a valid flush of the same generation stands behind them: a flush is begun when the one before is
//!    durable, so that one would prove them synced.
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
use crate::flush::FlushHeader;
use crate::flushing::Tail;
use crate::group::{Group, HardState};
use crate::log::Config;
use crate::runs::Runs;
use crate::segment::{self, FIRST_FLUSH, HeaderPage, Link, Ring, Segment, SegmentHeader, State};

/// Bytes of a segment within which its second flush is looked for where its first write may have been lost. A start
/// does not read more of each segment that nobody needs.
const SECOND_FLUSH_WITHIN: u64 = 8 << 20;

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
    pub runs: Runs,
    /// Files to delete.
    pub stale: Vec<FileName>,
}

/// A segment file as found.
pub(crate) struct SegmentFile {
    pub slot: u32,
    pub name: FileName,
    pub bytes: u64,
    pub header: Option<SegmentHeader>,
}

/// Recovery under way.
pub(crate) struct Recovery<'a> {
    pub shard: ShardId,
    pub disk: &'a dyn Disk,
    pub groups: BTreeMap<GroupId, Group>,
    pub states: BTreeMap<GroupId, Vec<u8>>,
    pub replay_from: BTreeMap<GroupId, (u64, u32)>,
    /// Entries that do not follow what is known of their group, because what they followed stands below the floor:
    /// fine if a later frame cuts them or removes the group, else damage.
    pub gaps: BTreeMap<GroupId, OpenError>,
    pub runs: Runs,
    /// Slots of segments that are runs, with the lengths of their files and their generations.
    pub adopted: BTreeMap<u32, (u64, u64)>,
    pub floor: u64,
    pub segments: Vec<SegmentFile>,
    /// The highest generation, flush number and checkpoint sequence seen, valid or not.
    pub generation: u64,
    pub number: u64,
    pub sequence: u64,
    /// The last flush of the log.
    pub last: Link,
    pub stale: Vec<FileName>,
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
        runs: Runs::default(),
        adopted: BTreeMap::new(),
        floor: 0,
        segments: Vec::new(),
        generation: 0,
        number: 0,
        sequence: 0,
        last: Link::default(),
        stale: Vec::new(),
    };
    recovery.read_runs(&files)?;
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

    pub fn forget_file(&mut self, group: GroupId, sequence: u64) {
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
        if file.manifest > self.runs.durable {
            let what = format!("it relies on manifest {}, which is lost", file.manifest);
            return Err(damaged(&what, 0));
        }
        self.floor = self.floor.max(file.floor);
        self.number = self.number.max(file.replay_from.0);
        self.replay_from.insert(group, file.replay_from);
        self.states.insert(group, state);
        let found = Group {
            index: file.index,
            term: file.term,
            file: sequence,
            floor: file.floor,
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
            if let Some((_, generation)) = self.adopted.get_mut(&slot) {
                *generation = header.map_or(0, |header| header.generation);
                continue;
            }
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

    pub fn segment(&self, slot: u32) -> &SegmentFile {
        let place = self.segments.binary_search_by_key(&slot, |segment| segment.slot);
        &self.segments[place.expect("a slot that was found")]
    }

    pub fn header(&self, slot: u32) -> SegmentHeader {
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
            // The header that is there may be that of the segment's life before, where the write of the new one, and of
            // the first flush with it, was lost by the disk. Then the next flush is not far.
            let is_likely = segment.header.is_none() || young.is_some();
            let length = if is_likely { segment.bytes } else { segment.bytes.min(SECOND_FLUSH_WITHIN) };
            let bytes = self.bytes_of(&segment.name, 0, length)?;
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
        for (slot, (bytes, generation)) in &self.adopted {
            let state = State::Adopted { generation: *generation };
            ring.slots = ring.slots.max(slot + 1);
            ring.segments.push(Segment::new(self.shard, *slot, *bytes, state));
        }
        self.leave_moved()?;
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
            runs: self.runs,
            stale: self.stale,
        };
        Ok((found, recovered))
    }

    /// Up to `length` bytes of a file; fewer if it ends.
    pub fn bytes_of(&self, name: &FileName, offset: u64, length: u64) -> Result<Vec<u8>, OpenError> {
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

pub(crate) fn damaged(file: &FileName, offset: u64, what: String) -> OpenError {
    OpenError::Damaged { what, file: file.to_string(), offset, lost: Vec::new() }
}

fn too_large(name: &FileName) -> OpenError {
    OpenError::Failed(format!("{name} is too large for this machine's memory"))
}
