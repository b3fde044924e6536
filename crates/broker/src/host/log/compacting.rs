//! Compaction: of every key the last record stays, where it was, with the offset it had.
//!
//! One log at a time, one batch per turn. A *pass* first walks what was appended since the last one and notes the last
//! offset of each key, then walks the log from its start and has the machine remove what is older. A deleted key's
//! last record goes once readers had the time its topic gives them, and only behind everything older of that key: the
//! removals of a pass are proposed in the order of offsets. What of a batch was removed is not shown to any reader
//! any more; its bytes go when the pass rewrites what little is left of a batch (see `rewriting`), or with the batch.

use std::collections::BTreeSet;

use base::{Bug, Map, map, planted};
use model::{GroupId, LogRefusal, OpSequence, OperationKind, QueueId, Seq};
use topology::TopicSettings;

use super::closing::Closed;
use super::reading::Chunk;
use crate::{Broker, OPENED_BYTES_MAX};

/// Bytes of keys that a pass remembers; what does not fit is for the next pass.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// What a key costs beside its bytes.
const KEY_BYTES: usize = 48;

/// A pass over one log.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(super) group: GroupId,
    pub(super) log: QueueId,
    settings: TopicSettings,
    phase: Phase,
    /// The next offset to look at.
    pub(super) next: u64,
    /// Nothing from here on is looked at.
    pub(super) limit: u64,
    /// The operation that must be applied before batches are rewritten: it removes some of their records, or enough
    /// of them is being rewritten already.
    pub(super) awaited: OpSequence,
    /// That operation is not applied yet.
    pub(super) waits_for_group: bool,
    /// Bytes rewritten behind that operation.
    pub(super) rewritten_bytes: usize,
    /// The last offset of each key that was appended since the last pass.
    latest: Map<Vec<u8>, u64>,
    keys_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Noting,
    Removing,
    Rewriting,
}

/// Where compaction of this host's logs is.
#[derive(Debug)]
pub(crate) struct Compaction {
    pub(super) pass: Option<Pass>,
    /// The batch that is next must come from disk first.
    pub waits_for_disk: bool,
    /// Logs whose batches wait to be rewritten until the disk has room for them.
    pub(super) put_off: BTreeSet<QueueId>,
    /// Up to where each log was compacted.
    cleaned: Map<QueueId, u64>,
    /// Up to where each log may be compacted.
    closed: Map<QueueId, Closed>,
    seed: u64,
}

impl Compaction {
    pub(crate) fn new(seed: u64) -> Compaction {
        Compaction {
            pass: None,
            waits_for_disk: false,
            put_off: BTreeSet::new(),
            cleaned: map(seed),
            closed: map(seed),
            seed,
        }
    }

    /// Whether it would go on at once.
    pub(crate) fn is_busy(&self) -> bool {
        !self.waits_for_disk && self.pass.as_ref().is_some_and(|pass| !pass.waits_for_group)
    }
}

impl Broker {
    /// Begins a pass over the log that has most to gain, unless one is under way.
    pub(super) fn begin_compaction(&mut self) {
        if self.host.logs.compaction.pass.is_some() {
            return;
        }
        let now_ms = self.now.wall_ms as i64;
        let mut best: Option<(u64, Pass)> = None;
        for group in &self.host.groups {
            for (log, state) in group.machine.logs() {
                let Some((topic, _)) = self.topology.topic_of(log) else { continue };
                let settings = topic.settings();
                if !settings.compact {
                    continue;
                }
                let from = self.host.logs.compaction.cleaned.get(&log).copied().unwrap_or(0);
                let closed = self.host.logs.compaction.closed.entry(log).or_default();
                closed.advance(state, &settings, now_ms);
                let from = from.max(state.start());
                let Some((limit, permille)) = dirty(state, (from, closed), &settings, now_ms) else {
                    continue;
                };
                if best.as_ref().is_none_or(|(most, _)| permille > *most) {
                    let seed = self.host.logs.compaction.seed;
                    best = Some((permille, Pass::new((group.id, log), settings, (from, limit), seed)));
                }
            }
        }
        let pass = best.map(|(_, pass)| pass);
        self.host.logs.compaction.pass = pass.or_else(|| self.put_off_pass());
    }

    /// A pass that only rewrites, over a log that could not be rewritten when it was its turn.
    fn put_off_pass(&mut self) -> Option<Pass> {
        if self.alarm.is_some() {
            return None;
        }
        let log = self.host.logs.compaction.put_off.pop_first()?;
        let group = self.host.groups.iter().find(|group| group.machine.log(log).is_some())?;
        let state = group.machine.log(log)?;
        let settings = self.topology.topic_of(log)?.0.settings();
        let (offsets, seed) = ((state.start(), state.end()), self.host.logs.compaction.seed);
        Some(Pass { phase: Phase::Rewriting, ..Pass::new((group.id, log), settings, offsets, seed) })
    }

    /// Goes on with the pass under way by one batch.
    pub(crate) fn compact(&mut self) {
        let compaction = &mut self.host.logs.compaction;
        if compaction.waits_for_disk {
            return;
        }
        let Some(mut pass) = compaction.pass.take() else { return };
        let Some(at) = self.host.by_group.get(&pass.group).copied() else { return };
        let Some(state) = self.host.groups[at].machine.log(pass.log) else { return };
        let start = state.start();
        if pass.phase == Phase::Rewriting {
            return self.rewrite_next(pass, at);
        }
        let chunk = state.chunk(pass.next.max(start)).map(|chunk| Chunk::of(state, &chunk));
        let Some(chunk) = chunk.filter(|chunk| chunk.first < pass.limit) else {
            return self.end_of_phase(pass, start);
        };
        let found = self.batch_of(at, pass.log, &chunk);
        self.read_ahead(at, pass.log, (chunk.first, chunk.first), found.is_none());
        match found {
            None => self.host.logs.compaction.waits_for_disk = true,
            Some(Err(_)) => {
                // What cannot be opened here is left as it is; its readers will be told.
                pass.next = chunk.end;
            }
            Some(Ok((block, range))) => {
                let ranges = pass.walk(&block.as_slice()[range], &chunk, (start, self.now.wall_ms as i64));
                pass.next = chunk.end;
                self.remove_records(&mut pass, ranges.unwrap_or_default());
            }
        }
        self.host.logs.compaction.pass = Some(pass);
    }

    fn remove_records(&mut self, pass: &mut Pass, ranges: Vec<(Seq, Seq)>) {
        if let Some(outgoing) = self.door.outgoing(pass.group).filter(|_| !ranges.is_empty()) {
            pass.awaited = outgoing.ranges(&self.pool, OperationKind::Drop, pass.log, ranges);
        }
    }

    fn end_of_phase(&mut self, mut pass: Pass, start: u64) {
        match pass.phase {
            Phase::Noting => {
                (pass.phase, pass.next) = (Phase::Removing, start);
                self.host.logs.compaction.pass = Some(pass);
            }
            Phase::Removing => {
                self.host.logs.compaction.cleaned.insert(pass.log, pass.limit);
                (pass.phase, pass.next) = (Phase::Rewriting, start);
                pass.latest = map(self.host.logs.compaction.seed);
                self.host.logs.compaction.pass = Some(pass);
            }
            Phase::Rewriting => {}
        }
    }
}

impl Pass {
    fn new(
        (group, log): (GroupId, QueueId),
        settings: TopicSettings,
        (next, limit): (u64, u64),
        seed: u64,
    ) -> Pass {
        Pass {
            group,
            log,
            settings,
            phase: Phase::Noting,
            next,
            limit,
            awaited: OpSequence(0),
            waits_for_group: false,
            rewritten_bytes: 0,
            latest: map(seed),
            keys_bytes: 0,
        }
    }

    /// Looks at one batch from the log's start on: notes its keys, or returns what of it goes.
    fn walk(
        &mut self,
        batch: &[u8],
        chunk: &Chunk,
        (start, now_ms): (u64, i64),
    ) -> Result<Vec<(Seq, Seq)>, LogRefusal> {
        let opened = recordbatch::open(batch, OPENED_BYTES_MAX)?;
        let mut ranges: Vec<(Seq, Seq)> = Vec::new();
        for record in opened.records() {
            let record = record?;
            let offset = chunk.first + record.offset_delta as u64;
            let Some(key) = record.key.filter(|_| offset >= start) else { continue };
            match self.phase {
                Phase::Noting => self.note(key, offset),
                Phase::Removing
                    if self.is_over(
                        key,
                        offset,
                        record.value.is_none(),
                        record.timestamp.max(chunk.taken_ms),
                        now_ms,
                    ) =>
                {
                    match ranges.last_mut() {
                        Some(last) if last.1.0 + 1 == offset => last.1 = Seq(offset),
                        _ => ranges.push((Seq(offset), Seq(offset))),
                    }
                }
                Phase::Removing | Phase::Rewriting => {}
            }
        }
        if self.phase == Phase::Noting && self.keys_bytes > KEYS_BYTES_MAX {
            self.limit = chunk.end;
        }
        Ok(ranges)
    }

    fn note(&mut self, key: &[u8], offset: u64) {
        match self.latest.get_mut(key) {
            Some(latest) => *latest = offset,
            None => {
                self.keys_bytes += key.len() + KEY_BYTES;
                self.latest.insert(key.to_vec(), offset);
            }
        }
    }

    /// Whether a record goes: there is a later one of its key, or it deletes its key and everybody had time to see.
    fn is_over(&self, key: &[u8], offset: u64, deletes: bool, since_ms: i64, now_ms: i64) -> bool {
        if offset >= self.limit {
            return false;
        }
        let latest = self.latest.get(key).copied();
        // The planted bugs take the last record of a key too, and a mark but not what it deletes.
        let later = match (planted(Bug::CompactNewest), planted(Bug::DropMarkBeforeValue)) {
            (true, _) => latest.is_some(),
            (_, true) => deletes && latest.is_some_and(|latest| latest > offset),
            _ => latest.is_some_and(|latest| latest > offset),
        };
        let age = now_ms.saturating_sub(since_ms);
        later || (deletes && age > self.settings.delete_retention_ms as i64)
    }
}

/// Up to where a log may be compacted now and how much of that was not yet, in thousandths; `None` where it is not
/// worth it.
fn dirty(
    state: &queue::LogState,
    (from, closed): (u64, &Closed),
    settings: &TopicSettings,
    now_ms: i64,
) -> Option<(u64, u64)> {
    let (mut bytes, mut limit, mut oldest) = (0, from, None);
    let mut lagging = 0;
    for chunk in state.chunks_from(from).take_while(|chunk| chunk.end() <= closed.below()) {
        let age = now_ms.saturating_sub(chunk.timestamp_max);
        let lags = settings.min_compaction_lag_ms > 0 && age < settings.min_compaction_lag_ms as i64;
        if lags || lagging > 0 {
            lagging += u64::from(chunk.bytes);
            continue;
        }
        oldest.get_or_insert(age);
        bytes += u64::from(chunk.bytes);
        limit = chunk.end();
    }
    let cleanable = state.bytes().saturating_sub(closed.open_bytes() + lagging);
    let permille = bytes * 1000 / cleanable.max(1);
    let overdue = oldest.is_some_and(|age| age > settings.max_compaction_lag_ms as i64);
    let worth = permille >= u64::from(settings.min_dirty_permille) || overdue;
    (limit > from && worth).then_some((limit, permille))
}
