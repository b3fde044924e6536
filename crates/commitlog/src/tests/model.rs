//! What the log promised, kept the simple way, and a driver that does random things to both.

mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Pool, Prng, crc32c};
use model::{GroupId, Index, ShardId, Term};

use super::pieces::{self, Row};
use super::virtual_disk::{VirtualDisk, file_of, is_write};
use crate::disk::DiskOp;
use crate::{CommitLog, Config, FlushId, HardState, Location, LogEvent, Lookup, NotedPiece, OpenError};
use crate::{Piece, PieceLookup, PiecePlan, RecoveredGroup};

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    log: BTreeMap<u64, (u64, Vec<u8>)>,
    ballot: (u64, u64),
}

impl State {
    fn last(&self, base: u64) -> u64 {
        self.log.last_key_value().map_or(base, |(index, _)| (*index).max(base))
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(index, term, payload) => {
                self.log.split_off(index);
                self.log.insert(*index, (*term, payload.clone()));
            }
            Op::Save(term, vote) => self.ballot = (*term, *vote),
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(u64, u64, Vec<u8>),
    Save(u64, u64),
}

#[derive(Clone, Debug, Default)]
struct Snapshot {
    index: u64,
    term: u64,
    state: Vec<u8>,
    kept: BTreeSet<u64>,
    exists: bool,
    /// It replaces the log.
    jump: bool,
}

#[derive(Clone, Debug, Default)]
struct GroupModel {
    durable: State,
    pending: VecDeque<(u64, Op)>,
    now: State,
    commit: u64,
    checkpoint: Snapshot,
    /// Asked for and not known to be durable.
    checkpoints: VecDeque<Snapshot>,
    /// The flush that removes the group.
    removed: Option<u64>,
    /// Rows of entries at or below a durable checkpoint that nobody needs any more.
    dead: BTreeSet<(u64, u32)>,
    /// A checkpoint became durable, and its dead blocks are not dropped yet.
    to_trim: bool,
}

/// How a run is mixed.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub steps: u64,
    pub crashes: bool,
    pub failures: bool,
    pub flips: bool,
    /// Old segments are evacuated.
    pub evacuates: bool,
}

pub struct Driver {
    prng: Prng,
    pub disk: VirtualDisk,
    pub log: CommitLog,
    config: Config,
    groups: BTreeMap<u32, GroupModel>,
    durable: u64,
    /// The last flush that was durable at the crash, even if that was not told.
    landed: u64,
    loading: BTreeSet<(u32, u64)>,
    loading_pieces: BTreeMap<(u32, u64, u64, u32), Row>,
    evacuates: bool,
    failed: bool,
    stamp: u64,
    pub reused: u64,
    pub damage_found: u64,
    pub torn: u64,
    /// Flushes that were sealed behind one under way.
    pub queued: u64,
    pub reads: u64,
    pub pieces_read: u64,
    pub evacuated: u64,
    pub adopted: u64,
    pub adopted_reused: u64,
    /// Entries that left the ring unread.
    pub unread: u64,
    pub punched: u64,
}

pub fn small_config() -> Config {
    Config {
        segment_bytes: 64 << 10,
        cache_bytes_max: 16 << 10,
        read_bytes_max: 64 << 10,
        flush_bytes_max: 48 << 10,
        ring_bytes_max: 0,
        ..Config::new(ShardId(0), Pool::default())
    }
}

impl Driver {
    pub fn new(seed: u64) -> Driver {
        let config = small_config();
        let disk = VirtualDisk { pool: config.pool.clone(), ..VirtualDisk::default() };
        let (log, recovered) = CommitLog::open(config.clone(), &disk).unwrap();
        assert!(recovered.is_empty());
        let groups = (1..=4).map(|group| (group, GroupModel::default())).collect();
        Driver {
            prng: Prng::new(seed),
            disk,
            log,
            config,
            groups,
            durable: 0,
            landed: 0,
            loading: BTreeSet::new(),
            loading_pieces: BTreeMap::new(),
            evacuates: false,
            failed: false,
            stamp: 0,
            reused: 0,
            damage_found: 0,
            torn: 0,
            queued: 0,
            reads: 0,
            pieces_read: 0,
            evacuated: 0,
            adopted: 0,
            adopted_reused: 0,
            unread: 0,
            punched: 0,
        }
    }

    pub fn run(&mut self, mix: Mix) {
        self.evacuates = mix.evacuates;
        self.enable();
        for _ in 0..mix.steps {
            match self.prng.below(100) {
                0..25 => self.append(),
                25..29 => self.cut(),
                29..34 => self.save(),
                34..50 => drop(self.log.flush()),
                50..53 => self.checkpoint_any(),
                53..58 => self.checkpoint_wanted(),
                58..63 => self.read(),
                63..64 if mix.crashes => {
                    if !mix.evacuates || self.prng.chance(1, 3) {
                        self.crash(mix.flips);
                    }
                }
                64..65 if mix.failures => self.fail(),
                65..66 if !mix.evacuates || self.prng.chance(1, 8) => self.jump_or_remove(),
                66..69 if mix.evacuates => self.settle_rows(),
                69..72 if mix.evacuates => self.trim(),
                72..73 if mix.evacuates && mix.failures => self.fail_run(),
                73..74 if self.prng.chance(1, 4) => self.log.set_scarce(self.prng.chance(1, 3)),
                _ => self.complete(),
            }
            let _ = self.log.work();
            self.collect();
        }
        self.crash(mix.flips);
    }

    /// Mostly the first group, so that others are idle for long.
    fn group(&mut self) -> u32 {
        [1, 1, 1, 1, 1, 1, 1, 2, 3, 4][self.prng.below(10) as usize]
    }

    /// Whether the group takes entries now.
    fn is_open(&self, group: u32) -> bool {
        let model = &self.groups[&group];
        model.removed.is_none() && !model.checkpoints.iter().any(|waiting| waiting.jump)
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = match self.prng.below(40) {
            0 => 0,
            1 => 32_768 + self.prng.below(9000),
            2 if self.prng.chance(1, 4) => 70_000 + self.prng.below(9000),
            3..10 => self.prng.below(9000),
            _ => self.prng.below(300),
        };
        self.stamp += 1;
        let mut payload = vec![self.stamp as u8; length as usize];
        for (byte, stamp) in payload.iter_mut().zip(self.stamp.to_le_bytes()) {
            *byte = stamp;
        }
        payload
    }

    fn append(&mut self) {
        let group = self.group();
        if !self.is_open(group) {
            return;
        }
        let model = &self.groups[&group];
        let index = model.now.last(model.checkpoint.index) + 1;
        self.append_at(group, index);
    }

    fn append_at(&mut self, group: u32, index: u64) {
        let payload = self.payload();
        let model = self.groups.get_mut(&group).unwrap();
        let term = model.now.ballot.0;
        let block = self.config.pool.block(&payload);
        let FlushId(flush) = self.log.append(GroupId(group), Term(term), Index(index), block);
        let op = Op::Append(index, term, payload);
        model.now.apply(&op);
        model.pending.push_back((flush, op));
    }

    fn cut(&mut self) {
        let group = self.group();
        if !self.is_open(group) {
            return;
        }
        let model = &self.groups[&group];
        let last = model.now.last(model.checkpoint.index);
        if last == model.commit {
            return;
        }
        let index = model.commit + 1 + self.prng.below(last - model.commit);
        self.vote(group);
        self.append_at(group, index);
    }

    fn vote(&mut self, group: u32) {
        let vote = self.prng.below(3);
        let model = self.groups.get_mut(&group).unwrap();
        let term = model.now.ballot.0 + 1;
        let state = HardState { term: Term(term), vote, commit: Index(model.commit) };
        let FlushId(flush) = self.log.save(GroupId(group), state);
        let op = Op::Save(term, vote);
        model.now.apply(&op);
        model.pending.push_back((flush, op));
    }

    fn save(&mut self) {
        let group = 1 + self.prng.below(4) as u32;
        if !self.is_open(group) {
            return;
        }
        if self.prng.chance(1, 3) {
            return self.vote(group);
        }
        let model = self.groups.get_mut(&group).unwrap();
        let last = model.now.last(model.checkpoint.index);
        let before = model.commit;
        model.commit += self.prng.below(last - model.commit + 1);
        let (term, vote, commit) = (model.now.ballot.0, model.now.ballot.1, model.commit);
        self.log.save(GroupId(group), HardState { term: Term(term), vote, commit: Index(commit) });
        self.note(group, before + 1..=commit);
    }

    fn checkpoint_wanted(&mut self) {
        if let Some(group) = self.log.wants_checkpoint() {
            let model = &self.groups[&group.0];
            assert!(model.checkpoints.is_empty(), "one is under way");
            self.checkpoint(group.0);
        }
    }

    fn checkpoint_any(&mut self) {
        let group = self.group();
        self.checkpoint(group);
    }

    fn checkpoint(&mut self, group: u32) {
        if !self.is_open(group) {
            return;
        }
        let (prng, model) = (&mut self.prng, self.groups.get_mut(&group).unwrap());
        let before = model.checkpoints.back().unwrap_or(&model.checkpoint).clone();
        let index = model.commit - prng.below((model.commit - before.index).min(3) + 1);
        let keep = *prng.pick(if self.evacuates { &[2, 7, 9, 10] } else { &[0, 0, 1, 8] });
        let mut kept = BTreeSet::new();
        for held in model.now.log.keys().take_while(|held| **held <= index) {
            if (*held > before.index || before.kept.contains(held)) && prng.chance(keep, 10) {
                kept.insert(*held);
            }
        }
        let term = match model.now.log.get(&index) {
            Some((term, _)) => *term,
            None => before.term,
        };
        let state = vec![prng.below(256) as u8; prng.below(3000) as usize];
        let pieces = state.chunks(1000).map(<[u8]>::to_vec).collect();
        self.log.checkpoint(GroupId(group), Index(index), Term(term), pieces, ranges(&kept));
        let exists = true;
        model.checkpoints.push_back(Snapshot { index, term, state, kept, exists, jump: false });
    }

    /// A snapshot from elsewhere replaces a group's log, or the last group goes away.
    fn jump_or_remove(&mut self) {
        let group = self.group();
        if !self.is_open(group) {
            return;
        }
        let model = self.groups.get_mut(&group).unwrap();
        if group == 4 && self.prng.chance(1, 4) {
            let FlushId(flush) = self.log.remove_group(GroupId(group));
            model.removed = Some(flush);
            return;
        }
        let index = model.now.last(model.checkpoint.index) + 1 + self.prng.below(5);
        let term = model.now.ballot.0;
        let state = vec![7; self.prng.below(100) as usize];
        self.log.checkpoint(GroupId(group), Index(index), Term(term), vec![state.clone()], Vec::new());
        let (kept, exists, jump) = (BTreeSet::new(), true, true);
        model.checkpoints.push_back(Snapshot { index, term, state, kept, exists, jump });
    }

    fn read(&mut self) {
        let group = self.group();
        let model = &self.groups[&group];
        if model.removed.is_some() {
            return;
        }
        let mut index = 1 + self.prng.below(model.now.last(model.checkpoint.index) + 1);
        if self.evacuates && self.prng.chance(1, 2) {
            let kept = model.now.log.keys().find(|kept| **kept >= index / 2);
            index = kept.copied().unwrap_or(index);
        }
        let expected = model.now.log.get(&index);
        if self.log.location(GroupId(group), Index(index)) == Location::Runs {
            return self.read_row(group, index);
        }
        if self.prng.chance(1, 4) {
            self.log.prefetch(GroupId(group), Index(index));
            return;
        }
        match self.log.read(GroupId(group), Index(index)) {
            Lookup::Ready(block) => {
                // A released or forgotten entry may linger in memory; a wrong one never.
                if let Some((_, payload)) = expected {
                    assert_eq!(block.as_slice(), payload, "group {group} entry {index}");
                }
            }
            Lookup::Pending => {
                assert!(expected.is_some());
                self.loading.insert((group, index));
            }
            Lookup::Gone => assert!(expected.is_none(), "group {group} entry {index} is gone"),
        }
    }

    fn complete(&mut self) {
        self.take_ops();
        if !self.disk.under_way.is_empty() {
            let place = self.prng.below(self.disk.under_way.len() as u64) as usize;
            if let Some(done) = self.disk.complete(place) {
                self.log.completed(done);
            }
        }
    }

    fn fail(&mut self) {
        self.take_ops();
        let writes = |op: &DiskOp| {
            matches!(op, DiskOp::Write { .. } | DiskOp::Put { .. }) && !pieces::is_of_runs(file_of(op))
        };
        let Some(place) = self.disk.under_way.iter().position(writes) else { return };
        if let Some(done) = self.disk.fail(place, &mut self.prng) {
            self.log.completed(done);
            self.failed = true;
        }
    }

    fn take_ops(&mut self) {
        while let Some(op) = self.log.poll_op() {
            let writes = matches!(op, DiskOp::Write { .. } | DiskOp::Put { .. });
            assert!(!(self.failed && writes), "a failed log writes {}", file_of(&op));
            if is_write(&op) {
                let flights = self.disk.under_way.iter().filter(|op| is_write(op)).count();
                assert!(flights < 2, "three flushes are under way");
                self.queued += flights as u64;
            }
            self.disk.under_way.push_back(op);
        }
    }

    fn collect(&mut self) {
        self.take_ops();
        while let Some(event) = self.log.poll_event() {
            match event {
                LogEvent::Durable(FlushId(flush)) => self.durable(flush),
                LogEvent::Loaded { group, index, block } => self.loaded(group.0, index.0, block),
                LogEvent::Left { group, index } => drop(self.loading.remove(&(group.0, index.0))),
                LogEvent::Checkpointed { group, index } => {
                    assert!(!self.failed, "a checkpoint after a failure");
                    let model = self.groups.get_mut(&group.0).unwrap();
                    let done = model.checkpoints.pop_front().unwrap();
                    assert_eq!(done.index, index.0);
                    model.checkpointed(done);
                    model.to_trim = true;
                }
                LogEvent::Failed(_) => assert!(self.failed),
                LogEvent::Evacuating { group, index, entry } => self.evacuating(group.0, index.0, &entry),
                LogEvent::Adopting { group, index, noted } => self.adopting(group.0, index.0, &noted),
                LogEvent::Dropped { group, log, index, at } => {
                    self.dropped((group.0, log.0, index.0, at));
                }
                LogEvent::LoadedPiece { group, log, index, at, ordinal, piece } => {
                    self.loaded_piece((group.0, log.0, index.0, at), ordinal, piece);
                }
            }
        }
    }

    fn durable(&mut self, flush: u64) {
        assert!(!self.failed, "flush {flush} is durable after a failure");
        assert!(flush > self.durable);
        self.durable = flush;
        for model in self.groups.values_mut() {
            while model.pending.front().is_some_and(|(of, _)| *of <= flush) {
                let (_, op) = model.pending.pop_front().unwrap();
                model.durable.apply(&op);
            }
        }
    }

    fn loaded(&mut self, group: u32, index: u64, block: Result<base::Block, String>) {
        assert!(self.loading.remove(&(group, index)), "one answer to one question");
        self.reads += 1;
        let model = &self.groups[&group];
        let Some((_, payload)) = model.now.log.get(&index).filter(|_| model.removed.is_none()) else {
            return;
        };
        assert_eq!(block.unwrap().as_slice(), payload);
    }

    fn crash(&mut self, flips: bool) {
        self.take_ops();
        let stats = self.log.stats();
        self.reused += stats.segments_reused;
        self.evacuated += stats.evacuated_segments;
        self.adopted += stats.adopted_segments;
        self.adopted_reused += stats.adopted_reused;
        self.punched += stats.punched_bytes;
        self.landed = self.log.durable;
        self.disk.crash(&mut self.prng);
        if flips && self.prng.chance(1, 2) {
            self.flip();
        }
        let (log, recovered) = CommitLog::open(self.config.clone(), &self.disk).unwrap();
        self.log = log;
        self.loading.clear();
        self.loading_pieces.clear();
        self.check(&recovered, false);
        self.enable();
        self.failed = false;
    }

    /// Flips a bit on a copy of the disk and looks what becomes of it.
    fn flip(&mut self) {
        let mut disk = self.disk.clone();
        let names: Vec<String> =
            disk.files.keys().filter(|name| !disk.files[*name].is_empty()).cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.prng.pick(&names).clone();
        let content = disk.files.get_mut(&name).unwrap();
        // Most bytes of a segment may be unused: mostly hit where something stands.
        let used: Vec<usize> = (0..content.len()).filter(|at| content[*at] != 0).collect();
        let at = if used.is_empty() { 0 } else { *self.prng.pick(&used) };
        content[at] ^= 1 << self.prng.below(8);
        // What stands there cannot be told from a torn flush, unless a later one proves it.
        let last = &self.disk.last_writes;
        let in_last =
            last.is_empty() || last.iter().any(|(file, offset)| *file == name && at as u64 >= *offset);
        match CommitLog::open(self.config.clone(), &disk) {
            Ok((log, recovered)) => {
                let log = std::mem::replace(&mut self.log, log);
                let intact = std::mem::replace(&mut self.disk, disk);
                let before = self.groups.clone();
                if !in_last {
                    self.check(&recovered, true);
                }
                (self.log, self.disk, self.groups) = (log, intact, before);
            }
            Err(OpenError::Damaged { file, .. }) => {
                self.damage_found += 1;
                assert!(!file.is_empty());
            }
            Err(other) => assert!(matches!(other, OpenError::Newer { .. }), "{other}"),
        }
    }

    /// Compares what was recovered with what was promised, and goes on from there.
    fn check(&mut self, recovered: &[RecoveredGroup], damaged: bool) {
        let pending = |model: &GroupModel| {
            let removal = model.removed.filter(|flush| *flush > self.durable);
            model.pending.iter().map(|(flush, _)| *flush).chain(removal).collect::<Vec<u64>>()
        };
        let mut candidates: Vec<u64> = self.groups.values().flat_map(pending).collect();
        candidates.push(self.durable);
        candidates.sort_unstable();
        candidates.dedup();
        // Of the two that may have been under way, none may have landed, the first, or both.
        let landed = candidates.partition_point(|flush| *flush <= self.landed).saturating_sub(1);
        candidates.drain(..landed);
        candidates.truncate(3);
        let outcomes = candidates.iter().map(|flush| self.matches(recovered, *flush));
        let outcomes: Vec<_> = outcomes.collect();
        let Some(place) = outcomes.iter().position(Result::is_ok) else { panic!("{outcomes:?}") };
        let landed = candidates[place];
        self.torn += u64::from(place == 0 && candidates.len() > 1);
        let mut in_runs = Vec::new();
        for (group, model) in &mut self.groups {
            let found = recovered.iter().find(|found| found.group.0 == *group);
            model.adopt(found, landed);
            if model.removed.is_some() {
                continue;
            }
            let held: Vec<u64> = model.now.log.keys().copied().collect();
            for index in held {
                if self.log.location(GroupId(*group), Index(index)) == Location::Runs {
                    in_runs.push((*group, index));
                    continue;
                }
                let loaded = self.log.load(&self.disk, GroupId(*group), Index(index));
                match loaded {
                    Ok(block) => assert_eq!(block.as_slice(), model.now.log[&index].1),
                    Err(OpenError::Damaged { .. }) if damaged => {}
                    Err(other) => panic!("group {group} entry {index}: {other}"),
                }
            }
        }
        for (group, index) in in_runs {
            self.check_rows(group, index, damaged);
        }
        self.durable = landed;
    }

    fn matches(&self, recovered: &[RecoveredGroup], flush: u64) -> Result<(), String> {
        for found in recovered {
            if !self.groups.contains_key(&found.group.0) {
                return Err(format!("group {} was never heard of", found.group));
            }
        }
        for (group, model) in &self.groups {
            let found = recovered.iter().find(|found| found.group.0 == *group);
            model.matches(found, flush).map_err(|why| format!("group {group} at flush {flush}: {why}"))?;
        }
        Ok(())
    }
}

impl GroupModel {
    /// The rows of an entry that are still needed.
    fn rows(&self, index: u64) -> Vec<Row> {
        let Some((_, payload)) = self.now.log.get(&index) else { return Vec::new() };
        let rows = pieces::rows(index, payload.len()).into_iter();
        rows.filter(|(number, _)| !self.dead.contains(&(index, *number))).map(|(_, row)| row).collect()
    }

    fn checkpointed(&mut self, done: Snapshot) {
        let keep = |index: &u64| *index > done.index || done.kept.contains(index);
        self.now.log.retain(|index, _| keep(index));
        self.durable.log.retain(|index, _| keep(index));
        self.commit = self.commit.max(done.index);
        self.checkpoint = done;
    }

    fn at_flush(&self, flush: u64) -> State {
        let mut state = self.durable.clone();
        self.pending.iter().filter(|(of, _)| *of <= flush).for_each(|(_, op)| state.apply(op));
        state
    }

    fn snapshot_found(&self, found: &RecoveredGroup) -> Result<Snapshot, String> {
        let Some(checkpoint) = &found.checkpoint else {
            return if self.checkpoint.exists {
                Err("no checkpoint".into())
            } else {
                Ok(Snapshot::default())
            };
        };
        let mut known =
            std::iter::once(&self.checkpoint).chain(&self.checkpoints).filter(|known| known.exists);
        let same = |known: &&Snapshot| {
            (known.index, known.term, &known.state)
                == (checkpoint.index.0, checkpoint.term.0, &checkpoint.state)
        };
        known.find(same).cloned().ok_or_else(|| "a checkpoint of old".into())
    }

    fn matches(&self, found: Option<&RecoveredGroup>, flush: u64) -> Result<(), String> {
        let nothing = RecoveredGroup {
            group: GroupId(0),
            checkpoint: None,
            hard_state: HardState::default(),
            entries: Vec::new(),
        };
        if self.removed.is_some_and(|removed| removed <= flush) {
            return if found.is_none() { Ok(()) } else { Err("it was removed".into()) };
        }
        let found = found.unwrap_or(&nothing);
        let snapshot = self.snapshot_found(found)?;
        let state = self.at_flush(flush);
        let above = state.log.range(snapshot.index + 1..);
        let expected: Vec<_> = above.map(|(index, (term, _))| (Index(*index), Term(*term))).collect();
        if found.entries != expected {
            return Err(format!("entries {:?} instead of {expected:?}", found.entries));
        }
        let ballot = (found.hard_state.term.0, found.hard_state.vote);
        let later = self.pending.iter().filter_map(|(_, op)| match op {
            Op::Save(term, vote) => Some((*term, *vote)),
            Op::Append(..) => None,
        });
        // A checkpoint may carry a newer ballot than the log.
        let known =
            ballot == state.ballot || snapshot.exists && later.into_iter().any(|later| later == ballot);
        if !known || ballot < state.ballot {
            return Err(format!("ballot {ballot:?} instead of {:?}", state.ballot));
        }
        let commit = found.hard_state.commit.0;
        let known = self.commit.max(snapshot.index);
        let last = found.entries.last().map_or(snapshot.index, |(index, _)| index.0);
        let known = known.min(last);
        if commit < snapshot.index || commit > known {
            return Err(format!("commit {commit} instead of {}..={known}", snapshot.index));
        }
        Ok(())
    }

    fn adopt(&mut self, found: Option<&RecoveredGroup>, flush: u64) {
        if self.removed.is_some_and(|removed| removed <= flush) {
            return;
        }
        self.removed = None;
        let mut state = self.at_flush(flush);
        if let Some(found) = found {
            let snapshot = self.snapshot_found(found).unwrap();
            state.ballot = (found.hard_state.term.0, found.hard_state.vote);
            state.log.retain(|index, _| *index > snapshot.index || snapshot.kept.contains(index));
            self.checkpoint = snapshot;
            self.commit = found.hard_state.commit.0;
        } else {
            self.commit = 0;
        }
        self.checkpoints.clear();
        self.pending.clear();
        (self.now, self.durable) = (state.clone(), state);
    }
}

fn ranges(indexes: &BTreeSet<u64>) -> Vec<(Index, Index)> {
    let mut ranges: Vec<(Index, Index)> = Vec::new();
    for index in indexes.iter().copied() {
        match ranges.last_mut() {
            Some((_, last)) if last.0 + 1 == index => last.0 = index,
            _ => ranges.push((Index(index), Index(index))),
        }
    }
    ranges
}
