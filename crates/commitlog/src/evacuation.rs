//! Evacuation: what old segments of the ring still hold is copied into runs, so that the ring stays bounded.
//!
//! In: a ring that holds more than it should, and the owner's word which bytes of an entry are still needed. Out:
//! reads of old entries, runs, a manifest that names them. Never on the way of a confirm, and never longer than a
//! few milliseconds at once.
//!
//! A *batch* is some segments, the oldest that only kept entries hold back: their entries are read a window at a time
//! and shown to the owner, the pieces that it names are gathered, one run per group is put, then a manifest that
//! names them. Only then do the entries leave the ring. A batch that fails leaves nothing but files that no manifest
//! names, and is tried again later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Block, Bug, PAGE, crc32c, planted};
use model::{GroupId, Index, QueueId};

use crate::disk::DiskOp;
use crate::gathered::{Assembly, Gathered};
use crate::group::At;
use crate::log::{CommitLog, LogEvent, UnderWay};
use crate::run::{Identity, OWN_FILE};
use crate::runs::Run;
use crate::segment::{Segment, State};

/// Bytes read at once, unless one entry is larger.
const WINDOW: u32 = if cfg!(test) { 16 << 10 } else { 1 << 20 };
/// Entries shown to the owner at once.
const WINDOW_ENTRIES: usize = 128;
/// Bytes that nobody wants between two entries of a window.
const GAP: u32 = 128 << 10;
/// Bytes of pieces held in memory.
const BATCH_MAX: u64 = 64 << 20;
/// Entries of a batch, which leave the ring at once.
const BATCH_ENTRIES: usize = 32 << 10;
/// A batch with fewer bytes goes on with the next segment, up to so many.
const BATCH_ENOUGH: u64 = if cfg!(test) { 32 << 10 } else { 8 << 20 };
const BATCH_SEGMENTS: usize = 8;
/// Bytes assembled at once.
const SLICE: usize = 2 << 20;
/// Calls of [`CommitLog::work`] before something that failed is tried again.
const PAUSE: u32 = if cfg!(test) { 20 } else { 1000 };
/// The least average of payloads and pieces in a segment that is adopted.
const ADOPT_MIN: u64 = if cfg!(test) { 1 << 10 } else { 32 << 10 };
/// The least share of its segment that they take, in percent.
const ADOPT_PERCENT: u64 = if cfg!(test) { 40 } else { 90 };

/// Bytes of pieces that one batch copies at most, with segments of this size: so much must be free for it.
pub fn evacuation_bytes_max(segment_bytes: u64) -> u64 {
    BATCH_MAX.min(BATCH_ENOUGH.saturating_add(segment_bytes))
}

/// Bytes of an entry that are still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PiecePlan {
    /// The log they belong to; 0 when several logs share them.
    pub log: QueueId,
    /// The place in the entry by which their owner knows them, whatever is left out: of the batch, or of the part.
    pub at: u32,
    /// Rows of that batch in front of them that are left out or in an earlier piece.
    pub ordinal: u32,
    /// Where in the entry they begin.
    pub start: u32,
    /// How many; at least one.
    pub length: u32,
}

/// Bytes of an entry that may be needed for long, with what they must be: an entry of which all of these are known
/// can be adopted unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotedPiece {
    /// The bytes.
    pub piece: PiecePlan,
    /// Their checksum, CRC-32C.
    pub crc: u32,
}

/// What is known of an entry that is shown to its owner.
#[derive(Debug)]
enum Shown {
    Read(Block),
    Noted(Arc<[NotedPiece]>),
}

impl Shown {
    /// Whether a piece can be taken from it.
    fn has(&self, piece: &PiecePlan) -> bool {
        match self {
            Shown::Read(entry) => {
                piece.length > 0 && piece.start as usize + piece.length as usize <= entry.len()
            }
            Shown::Noted(noted) => noted.iter().any(|noted| noted.piece == *piece),
        }
    }

    fn crc(&self, piece: &PiecePlan) -> u32 {
        match self {
            Shown::Read(entry) => crc32c(&entry.as_slice()[piece.start as usize..][..piece.length as usize]),
            Shown::Noted(noted) => {
                let known = noted.iter().find(|noted| noted.piece == *piece);
                known.expect("only what was noted is taken from an entry that was not read").crc
            }
        }
    }
}

/// An entry of the ring.
pub(crate) type Place = (GroupId, Index, At);

/// Evacuation, under way or not.
#[derive(Debug, Default)]
pub(crate) struct Evacuation {
    enabled: bool,
    batch: Option<Batch>,
    batches: u64,
    /// Calls to let pass first.
    pause: u32,
    /// When it was last seen that there is nothing to do: generations, checkpoints, floor.
    idle_since: Option<(u64, u64, u64)>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    /// Segments it takes from, each pinned; the last one is the one being read.
    slots: Vec<u32>,
    /// The segment becomes the run.
    adopts: bool,
    /// Entries to be read.
    waiting: VecDeque<Place>,
    is_reading: bool,
    /// Entries shown to the owner and not answered.
    shown: VecDeque<(Place, Shown)>,
    entries: usize,
    groups: BTreeMap<GroupId, Gathered>,
    phase: Phase,
    assembly: Option<Assembly>,
    /// Runs being put.
    puts: usize,
    has_failed: bool,
    runs: Vec<Run>,
    /// What leaves the ring.
    ranges: Vec<(GroupId, Index, Index)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gathering,
    Assembling,
    /// A manifest of that sequence number or a higher one must be durable.
    Naming(u64),
}

impl Batch {
    fn bytes(&self) -> u64 {
        self.groups.values().map(|group| group.bytes).sum()
    }

    fn is_full(&self) -> bool {
        !self.adopts && (self.bytes() >= BATCH_MAX || self.entries >= BATCH_ENTRIES)
    }
}

impl Evacuation {
    /// Something failed: it is tried again later.
    pub fn pause(&mut self) {
        self.pause = PAUSE;
    }

    /// What failed is tried again at once, and it is looked again whether there is something to do.
    pub fn hurry(&mut self) {
        self.pause = 0;
        self.idle_since = None;
    }

    /// A group goes away: what was gathered of it does too. Returns its runs.
    pub fn forget(&mut self, group: GroupId) -> Vec<Run> {
        let Some(batch) = &mut self.batch else { return Vec::new() };
        batch.waiting.retain(|(of, _, _)| *of != group);
        batch.shown.retain(|((of, _, _), _)| *of != group);
        batch.groups.remove(&group);
        batch.ranges.retain(|(of, _, _)| *of != group);
        batch.assembly.take_if(|assembly| assembly.identity.group == group);
        batch.runs.extract_if(.., |run| run.identity.group == group).collect()
    }
}

impl CommitLog {
    /// From now on the owner answers [`LogEvent::Evacuating`] and looks below the ring for old entries; without this
    /// nothing is ever evacuated.
    pub fn enable_evacuation(&mut self) {
        self.evacuation.enabled = true;
    }

    /// Goes on with evacuation a little way, for a millisecond or so: to be called once per turn, after which events
    /// and operations are to be collected. True if there is more to do at once.
    pub fn work(&mut self) -> bool {
        if self.failed {
            return false;
        }
        self.give_back();
        self.evacuation.pause = self.evacuation.pause.saturating_sub(1);
        if self.evacuation.pause > 0 {
            return false;
        }
        self.put_manifest();
        let Some(mut batch) = self.evacuation.batch.take() else {
            self.begin_batch();
            return false;
        };
        let more = match batch.phase {
            Phase::Gathering => self.gather(&mut batch),
            Phase::Assembling => self.assemble(&mut batch),
            Phase::Naming(_) => false,
        };
        if batch.has_failed && batch.puts == 0 {
            self.abandon(batch);
        } else {
            self.evacuation.batch = Some(batch);
        }
        more
    }

    /// Answers [`LogEvent::Evacuating`]: `pieces` are the bytes of the entry that are still needed, by what has been
    /// applied; what they leave out is forgotten. No two may have the same log, place and ordinal. An entry that is
    /// not asked about any more, since its group was removed, needs no answer.
    pub fn evacuate(&mut self, group: GroupId, index: Index, pieces: &[PiecePlan]) {
        let Some(batch) = &mut self.evacuation.batch else { return };
        let shown = batch.shown.iter().position(|((of, shown, _), _)| (*of, *shown) == (group, index));
        let Some(((_, _, at), entry)) = shown.and_then(|place| batch.shown.remove(place)) else { return };
        let mut plan = pieces.to_vec();
        let key = |piece: &PiecePlan| (piece.log, piece.at, piece.ordinal);
        plan.sort_unstable_by_key(key);
        assert!(plan.is_sorted_by(|a, b| key(a) < key(b)), "pieces of an entry can be told apart");
        assert!(plan.iter().all(|piece| entry.has(piece)), "pieces are within their entry");
        let gathered = batch.groups.entry(group).or_default();
        match entry {
            Shown::Read(entry) if !batch.adopts => gathered.copy(index, entry.as_slice(), &plan),
            entry => gathered.adopt(index, &plan, at.payload, |piece| entry.crc(piece)),
        }
    }

    /// Answers [`LogEvent::Adopting`]: what was noted of the entry does not say which of its bytes are needed, so it
    /// is read and shown.
    pub fn show(&mut self, group: GroupId, index: Index) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.noted.remove(&index);
        }
        let Some(batch) = &mut self.evacuation.batch else { return };
        let shown = batch.shown.iter().position(|((of, shown, _), _)| (*of, *shown) == (group, index));
        let place = shown.and_then(|place| batch.shown.remove(place));
        batch.waiting.extend(place.map(|(place, _)| place));
    }

    /// Whether noting an entry of so many bytes in so many pieces is worth it.
    pub fn is_worth_noting(&self, bytes: usize, pieces: usize) -> bool {
        self.evacuation.enabled && bytes as u64 >= pieces as u64 * ADOPT_MIN
    }

    /// Remembers what an entry consists of, while the ring has it: nobody will ever need other bytes of it. It is
    /// committed, so that no other takes its index.
    pub fn note(&mut self, group: GroupId, index: Index, pieces: Vec<NotedPiece>) {
        if let Some(group) = self.groups.get_mut(&group).filter(|group| group.at(index).is_some()) {
            group.noted.insert(index, pieces.into());
        }
    }

    /// Looks whether the ring holds too much, and what could be moved.
    fn begin_batch(&mut self) {
        let now = (self.ring.generations, self.stats.checkpoints, self.floor);
        if !self.evacuation.enabled || self.evacuation.idle_since == Some(now) {
            return;
        }
        let newest = self.tail.link.generation;
        let holding = |s: &&Segment| matches!(s.state, State::Used { .. }) && !s.reusable(self.floor, newest);
        let held: u64 = self.ring.segments.iter().filter(holding).map(|segment| segment.bytes).sum();
        let enough = self.ring_enough();
        // What is on its way out goes away by itself.
        let is_settled = self.groups.values().all(|group| group.removed == 0);
        let oldest = if held > enough { self.movable(0) } else { None };
        let Some(slot) = oldest.filter(|_| is_settled) else {
            self.evacuation.idle_since = is_settled.then_some(now);
            return;
        };
        self.evacuation.batches += 1;
        let mut batch = Batch {
            number: self.evacuation.batches,
            slots: Vec::new(),
            adopts: self.is_adoptable(slot),
            waiting: VecDeque::new(),
            is_reading: false,
            shown: VecDeque::new(),
            entries: 0,
            groups: BTreeMap::new(),
            phase: Phase::Gathering,
            assembly: None,
            puts: 0,
            has_failed: false,
            runs: Vec::new(),
            ranges: Vec::new(),
        };
        self.take_on(&mut batch, slot);
        self.gather(&mut batch);
        self.evacuation.batch = Some(batch);
    }

    /// Bytes of segments in use that are not too many.
    pub(crate) fn ring_enough(&self) -> u64 {
        let most = if self.is_scarce { 0 } else { self.config.ring_bytes_max };
        most.max(4 * self.config.segment_bytes)
    }

    /// The oldest segment above generation `above` that only kept entries hold back. None behind a younger one that
    /// must stay, unless the search begins: runs of a group must not overlap.
    fn movable(&self, above: u64) -> Option<u32> {
        let newest = self.tail.link.generation;
        let mut held: Vec<(u64, u64, &Segment)> = Vec::new();
        for segment in &self.ring.segments {
            if let State::Used { generation, last } = segment.state
                && generation > above
                && segment.kept > 0
            {
                held.push((generation, last, segment));
            }
        }
        held.sort_unstable_by_key(|(generation, _, _)| *generation);
        let can = |(generation, last, segment): &&(u64, u64, &Segment)| {
            // What recovery sees as the log's end stays in the ring: a younger segment may still be on its way.
            let is_behind = *last < self.floor.min(self.durable) && *generation != newest;
            is_behind && !segment.is_stuck
        };
        let found = if above == 0 { held.iter().find(can) } else { held.first().filter(can) };
        found.map(|(_, _, segment)| segment.slot)
    }

    /// Whether moving the segment's entries would mean to copy almost all of it.
    fn is_adoptable(&self, slot: u32) -> bool {
        let segment = self.ring.slot(slot);
        let kept = self.groups.values().flat_map(|group| &group.kept);
        let bytes: u64 = kept.filter(|(_, at)| at.slot == slot).map(|(_, at)| u64::from(at.length)).sum();
        !segment.is_copied && is_worth_adopting(bytes, segment.kept, segment.bytes)
    }

    /// Whether a run of one of the batch's groups has entries between those of the batch and those of the segment:
    /// an old segment that was damaged is moved after younger ones, once it is whole again.
    fn is_beyond_runs(&self, batch: &Batch, slot: u32) -> bool {
        batch.groups.iter().any(|(id, gathered)| {
            let kept = self.groups.get(id).into_iter().flat_map(|group| &group.kept);
            let last = kept.filter(|(_, at)| at.slot == slot).map(|(index, _)| *index).max();
            let (Some((first, _)), Some(last), Some(runs)) =
                (gathered.entries, last, self.runs.groups.get(id))
            else {
                return false;
            };
            let behind = runs.runs.partition_point(|run| run.first <= first);
            runs.runs.get(behind).is_some_and(|run| run.first < last)
        })
    }

    /// Adds a segment to the batch.
    fn take_on(&mut self, batch: &mut Batch, slot: u32) {
        self.ring.slot_mut(slot).pins += 1;
        batch.slots.push(slot);
        let mut places: Vec<Place> = Vec::new();
        for (id, group) in self.groups.iter().filter(|(_, group)| group.removed == 0) {
            let here = group.kept.iter().filter(|(_, at)| at.slot == slot);
            places.extend(here.map(|(index, at)| (*id, *index, *at)));
        }
        places.sort_unstable_by_key(|(_, _, at)| at.frame);
        batch.waiting.extend(places);
    }

    /// Reads the next window when the one before is answered, or ends the gathering.
    fn gather(&mut self, batch: &mut Batch) -> bool {
        if batch.is_reading || !batch.shown.is_empty() {
            return false;
        }
        if !batch.is_full() {
            if batch.adopts && self.show_noted(batch) {
                return true;
            }
            if self.read_window(batch) {
                return false;
            }
            let last = batch.slots.last().map_or(0, |slot| self.ring.slot(*slot).generation());
            let goes_on = !batch.adopts && batch.bytes() < BATCH_ENOUGH && batch.slots.len() < BATCH_SEGMENTS;
            let fits =
                |next: &u32| goes_on && !self.is_adoptable(*next) && !self.is_beyond_runs(batch, *next);
            if let Some(next) = self.movable(last).filter(fits) {
                self.take_on(batch, next);
                return true;
            }
        }
        let pieces: usize = batch.groups.values().map(Gathered::adopted).sum();
        if batch.adopts {
            let segment = self.ring.slot_mut(batch.slots[0]);
            if !is_worth_adopting(batch.bytes(), pieces as u64, segment.bytes) {
                segment.is_copied = true;
                batch.has_failed = true;
                return true;
            }
        }
        batch.phase = Phase::Assembling;
        true
    }

    /// Shows the next entries to the owner as far as they need not be read; false if the next one must be.
    fn show_noted(&mut self, batch: &mut Batch) -> bool {
        while batch.shown.len() < WINDOW_ENTRIES
            && let Some(place) = batch.waiting.front().copied()
        {
            let (id, index, _) = place;
            let noted = self.groups.get(&id).and_then(|group| group.noted.get(&index));
            let Some(noted) = noted.filter(|_| self.is_kept(&place)).cloned() else { break };
            batch.waiting.pop_front();
            batch.entries += 1;
            self.events.push_back(LogEvent::Adopting { group: id, index, noted: noted.clone() });
            batch.shown.push_back((place, Shown::Noted(noted)));
        }
        !batch.shown.is_empty()
    }

    /// Asks for the next entries; false if there are none.
    fn read_window(&mut self, batch: &mut Batch) -> bool {
        let mut window: Vec<Place> = Vec::new();
        let (mut from, mut to) = (u32::MAX, 0);
        while let Some((group, index, at)) = batch.waiting.front().copied() {
            let start = at.payload - at.payload % PAGE as u32;
            let end = at.payload + at.length;
            let (low, high) = (from.min(start), to.max(end));
            let fits =
                high - low <= WINDOW && window.len() < WINDOW_ENTRIES && start <= to.saturating_add(GAP);
            if !window.is_empty() && !fits {
                break;
            }
            batch.waiting.pop_front();
            batch.entries += 1;
            if at.length == 0 {
                batch.groups.entry(group).or_default().copy(index, &[], &[]);
            } else if self.is_kept(&(group, index, at)) {
                (from, to) = (low, high);
                window.push((group, index, at));
            }
        }
        let Some((_, _, at)) = window.first() else { return false };
        let file = self.ring.slot(at.slot).file.clone();
        let (offset, bytes) = (u64::from(from), (to - from) as usize);
        batch.is_reading = true;
        let what = UnderWay::Window { batch: batch.number, from, window };
        self.operations.ask(what, |id| DiskOp::Read { id, file, offset, bytes });
        true
    }

    fn is_kept(&self, (group, index, at): &Place) -> bool {
        let group = self.groups.get(group).filter(|group| group.removed == 0 && *index <= group.index);
        group.is_some_and(|group| group.at(*index) == Some(at))
    }

    /// Entries have been read: they are shown to the owner.
    pub(crate) fn window_read(
        &mut self,
        number: u64,
        from: u32,
        window: Vec<Place>,
        result: Result<Block, String>,
    ) {
        let Some(mut batch) = self.evacuation.batch.take_if(|batch| batch.number == number) else { return };
        batch.is_reading = false;
        for place in window {
            let (group, index, at) = place;
            if !self.is_kept(&place) {
                continue;
            }
            let entry = result.as_ref().ok().and_then(|read| self.entry_in(read, from, &at));
            let Some(entry) = entry else {
                // It stays where it is, and whoever reads it is told of the damage.
                self.ring.slot_mut(at.slot).is_stuck = true;
                return self.abandon(batch);
            };
            self.events.push_back(LogEvent::Evacuating { group, index, entry: entry.clone() });
            batch.shown.push_back((place, Shown::Read(entry)));
        }
        self.evacuation.batch = Some(batch);
    }

    fn entry_in(&self, read: &Block, from: u32, at: &At) -> Option<Block> {
        let start = (at.payload - from) as usize;
        let payload = read.as_slice().get(start..)?.get(..at.length as usize)?;
        if !at.is_whole(payload) {
            return None;
        }
        Some(if payload.len() == read.len() { read.clone() } else { self.config.pool.block(payload) })
    }

    /// Makes a slice of the next run; true if there is more.
    fn assemble(&mut self, batch: &mut Batch) -> bool {
        if batch.has_failed {
            return false;
        }
        if batch.assembly.is_none() {
            let Some((group, gathered)) = batch.groups.pop_first() else {
                if batch.puts > 0 && !(batch.adopts && planted(Bug::AdoptWithoutIndexSync)) {
                    return false;
                }
                self.name(batch);
                return true;
            };
            batch.ranges.extend(gathered.entries.map(|(first, last)| (group, first, last)));
            if gathered.is_empty() {
                return true;
            }
            let number = self.runs.next_run;
            self.runs.next_run += 1;
            let slot = if batch.adopts { batch.slots[0] } else { OWN_FILE };
            let identity = Identity { shard: self.config.shard, group, number, slot };
            batch.assembly = Some(Assembly::new(identity, gathered));
        }
        if let Some(mut assembly) = batch.assembly.take() {
            if assembly.go_on(SLICE) {
                self.put_run(batch, assembly);
            } else {
                batch.assembly = Some(assembly);
            }
        }
        true
    }

    fn put_run(&mut self, batch: &mut Batch, assembly: Assembly) {
        let (identity, bytes) = (assembly.identity, assembly.bytes());
        let (content, blocks, (first, last)) = assembly.finish();
        let file = identity.file_name();
        let segment = identity.is_adopted().then(|| self.ring.slot(identity.slot).file.clone());
        let data = segment.unwrap_or_else(|| file.clone());
        let length = content.iter().map(|part| part.len() as u64).sum();
        self.stats.bytes_written += length;
        self.stats.run_bytes_written += length;
        self.stats.evacuated_bytes += bytes;
        batch.puts += 1;
        batch.runs.push(Run { identity, file: file.clone(), data, first, last, length, blocks });
        let what = UnderWay::PutRun { batch: batch.number };
        self.operations.ask(what, |id| DiskOp::Put { id, file, content });
    }

    pub(crate) fn run_put(&mut self, number: u64, result: Result<Block, String>) {
        let Some(batch) = self.evacuation.batch.as_mut().filter(|batch| batch.number == number) else {
            return;
        };
        batch.puts -= 1;
        batch.has_failed |= result.is_err();
        if result.is_err() {
            self.evacuation.pause();
        }
    }

    /// All runs are durable: the next manifest names them.
    fn name(&mut self, batch: &mut Batch) {
        for run in batch.runs.drain(..) {
            self.runs.groups.entry(run.identity.group).or_default().add(run);
        }
        for (id, first, last) in &batch.ranges {
            let Some(group) = self.groups.get(id) else { continue };
            let still = |a: Index, b: Index| {
                let behind = group.kept.partition_point(|(index, _)| *index <= a);
                group.kept.get(behind).is_some_and(|(index, _)| *index < b)
            };
            self.runs.groups.entry(*id).or_default().moves((*first, *last), still);
        }
        self.runs.is_stale = true;
        batch.phase = Phase::Naming(self.runs.next_manifest);
    }

    /// A manifest is durable: what it names leaves the ring.
    pub(crate) fn named(&mut self, sequence: u64) {
        let is_named = |batch: &mut Batch| matches!(batch.phase, Phase::Naming(from) if from <= sequence);
        let Some(batch) = self.evacuation.batch.take_if(is_named) else { return };
        for (group, first, last) in batch.ranges.iter().copied() {
            self.leave_ring(group, first, last);
        }
        for slot in batch.slots {
            let segment = self.ring.slot_mut(slot);
            segment.pins -= 1;
            self.stats.evacuated_segments += u64::from(segment.kept == 0);
            if batch.adopts {
                segment.state = State::Adopted { generation: segment.generation() };
                self.stats.adopted_segments += 1;
            }
        }
        self.evacuation.idle_since = None;
    }

    fn leave_ring(&mut self, id: GroupId, first: Index, last: Index) {
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.removed == 0) else { return };
        let from = group.kept.partition_point(|(index, _)| *index < first);
        let to = group.kept.partition_point(|(index, _)| *index <= last);
        for (index, at) in group.kept.drain(from..to) {
            self.ring.slot_mut(at.slot).kept -= 1;
            self.cache.remove((id, index));
            group.noted.remove(&index);
        }
    }

    /// Gives a batch up: the ring has everything still.
    fn abandon(&mut self, batch: Batch) {
        for slot in batch.slots {
            self.ring.slot_mut(slot).pins -= 1;
        }
        self.delete_runs(batch.runs);
        self.evacuation.idle_since = None;
    }
}

/// Whether so many bytes in so many pieces are almost all of a segment, and large.
fn is_worth_adopting(bytes: u64, pieces: u64, segment: u64) -> bool {
    bytes >= segment / 100 * ADOPT_PERCENT && bytes >= pieces * ADOPT_MIN
}
