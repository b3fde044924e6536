//! Compaction: of every key the last record stays, where it was, with the offset it had.
//!
//! One log at a time, one batch per turn. A *pass* first walks what was appended since the last one and notes the last
//! offset of each key, then walks the log from its start and has the machine remove what is older. A deleted key's
//! last record goes once readers had the time its topic gives them, and only behind everything older of that key: the
//! removals of a pass are proposed in the order of offsets. What of a batch was removed is not shown to any reader
//! any more; its bytes go when the pass rewrites what little is left of a batch (see `rewriting`), or with the batch.
//!
//! Here a pass is begun where most is to gain, and gets its batches; what it makes of them is its own (see `pass`).

use std::collections::BTreeSet;

use base::{Map, map};
use model::{OperationKind, QueueId};
use queue::{ChunkAt, LogState};
use topology::TopicSettings;

use super::closing::Closed;
use super::pass::{Pass, Phase, Visited};
use super::reading::Chunk;
use crate::Broker;

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

    /// Closes what of a log is to be closed, and says what a pass over it would be for; `None` where it is not worth it.
    fn dirty(
        &mut self,
        log: QueueId,
        state: &LogState,
        settings: &TopicSettings,
        now_ms: i64,
    ) -> Option<Dirty> {
        let closed = self.closed.entry(log).or_default();
        closed.advance(state, settings, now_ms);
        let from = self.cleaned.get(&log).copied().unwrap_or(0).max(state.start());
        Dirty::of(state, settings, (from, closed), now_ms)
    }
}

/// The part of a log that may be compacted and was not yet.
struct Dirty {
    from: u64,
    limit: u64,
    /// How much it is of all that may be compacted, in thousandths.
    permille: u64,
}

impl Dirty {
    fn of(
        state: &LogState,
        settings: &TopicSettings,
        (from, closed): (u64, &Closed),
        now_ms: i64,
    ) -> Option<Dirty> {
        let age = |chunk: &ChunkAt<'_>| now_ms.saturating_sub(chunk.timestamp_max);
        let lag_ms = settings.min_compaction_lag_ms;
        let lags = |chunk: &ChunkAt<'_>| lag_ms > 0 && age(chunk) < lag_ms as i64;
        let mut chunks = state.chunks_from(from).take_while(|chunk| chunk.end() <= closed.below()).peekable();
        let is_overdue = |first: &ChunkAt<'_>| age(first) > settings.max_compaction_lag_ms as i64;
        let overdue = chunks.peek().is_some_and(|first| !lags(first) && is_overdue(first));
        let (mut bytes, mut limit) = (0, from);
        while let Some(chunk) = chunks.next_if(|chunk| !lags(chunk)) {
            bytes += u64::from(chunk.bytes);
            limit = chunk.end();
        }
        let lagging: u64 = chunks.map(|chunk| u64::from(chunk.bytes)).sum();
        let cleanable = state.bytes().saturating_sub(closed.open_bytes() + lagging);
        let permille = bytes * 1000 / cleanable.max(1);
        let worth = permille >= u64::from(settings.min_dirty_permille) || overdue;
        (limit > from && worth).then_some(Dirty { from, limit, permille })
    }
}

impl Broker {
    /// Begins a pass unless one is under way: over the log that has most to gain, or else one that was put off.
    pub(super) fn begin_compaction(&mut self) {
        if self.host.logs.compaction.pass.is_none() {
            let pass = self.most_worthy_pass().or_else(|| self.put_off_pass());
            self.host.logs.compaction.pass = pass;
        }
    }

    /// A pass over the log of which the largest part was not compacted yet.
    fn most_worthy_pass(&mut self) -> Option<Pass> {
        let compaction = &mut self.host.logs.compaction;
        let now_ms = self.now.wall_ms as i64;
        let mut best: Option<(u64, Pass)> = None;
        for group in &self.host.groups {
            for (log, state) in group.machine.logs() {
                let Some((topic, _)) = self.topology.topic_of(log) else { continue };
                let settings = topic.settings();
                if !settings.compact {
                    continue;
                }
                let Some(dirty) = compaction.dirty(log, state, &settings, now_ms) else { continue };
                if best.as_ref().is_some_and(|(most, _)| dirty.permille <= *most) {
                    continue;
                }
                let offsets = (dirty.from, dirty.limit);
                best = Some((dirty.permille, Pass::new((group.id, log), settings, offsets, compaction.seed)));
            }
        }
        best.map(|(_, pass)| pass)
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
        let mut pass = Pass::new((group.id, log), settings, offsets, seed);
        pass.turn_to(Phase::Rewriting, state.start());
        Some(pass)
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
        match chunk.filter(|chunk| chunk.first < pass.limit) {
            Some(chunk) => self.visit(&mut pass, at, (&chunk, start)),
            None => self.end_phase(&mut pass, start),
        }
        self.host.logs.compaction.pass = Some(pass);
    }

    /// Shows a batch to the pass, as soon as it can be read.
    fn visit(&mut self, pass: &mut Pass, at: usize, (chunk, start): (&Chunk, u64)) {
        let found = self.batch_of(at, pass.log, chunk);
        self.read_ahead(at, pass.log, (chunk.first, chunk.first), found.is_none());
        let Some(found) = found else {
            self.host.logs.compaction.waits_for_disk = true;
            return;
        };
        pass.next = chunk.end;
        // What cannot be opened here is left as it is; its readers will be told.
        let Ok((block, range)) = found else { return };
        let visited = Visited { chunk, batch: &block.as_slice()[range], start };
        match pass.phase {
            Phase::Noting => pass.note(&visited),
            _ => self.remove_over(pass, &visited),
        }
    }

    /// Has the records of a batch removed that are over.
    fn remove_over(&mut self, pass: &mut Pass, visited: &Visited<'_>) {
        let over = pass.over(visited, self.now.wall_ms as i64);
        if let Some(outgoing) = self.door.outgoing(pass.group).filter(|_| !over.is_empty()) {
            pass.awaited = outgoing.ranges(&self.pool, OperationKind::Drop, pass.log, over);
        }
    }

    fn end_phase(&mut self, pass: &mut Pass, start: u64) {
        if pass.phase == Phase::Noting {
            return pass.turn_to(Phase::Removing, start);
        }
        let compaction = &mut self.host.logs.compaction;
        compaction.cleaned.insert(pass.log, pass.limit);
        pass.forget_keys(compaction.seed);
        pass.turn_to(Phase::Rewriting, start);
    }
}
