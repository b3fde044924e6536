//! How long records stay: what has become too old or too much is trimmed, as each topic says, and so are offsets
//! of groups that nobody has been in for long.
//!
//! Decided here, by the leader and its clock, and carried out by every replica at the same place of the log.

use model::commit::{Forget, Forgotten};
use model::{GroupId, OperationKind, QueueId};
use queue::LogState;
use topology::TopicSettings;

use crate::Broker;
use crate::host::QueueGroup;

/// How often logs are looked at, microseconds.
const EVERY_US: u64 = 1_000_000;
/// How long offsets outlive the last member of their group, milliseconds.
const OFFSETS_RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// A record stays at least so long after it came, whatever time its writer gave it, unless its topic keeps nothing as
/// long: this is how often Kafka looks for what has become old. Milliseconds.
const ARRIVED_MS: u64 = 300_000;
/// Batches of one log trimmed at once: applying a trim is the work of one turn.
const CHUNKS_MAX: usize = 1 << 17;
/// Groups forgotten at once.
const FORGET_MAX: usize = 64;

impl Broker {
    /// Looks at every log hosted here, now and then.
    pub(crate) fn keep_logs(&mut self) {
        if !self.ready || self.now.mono_us < self.host.logs.keep_at_us {
            return;
        }
        if !self.has_logs() {
            self.host.logs.keep_at_us = 0;
            return;
        }
        self.host.logs.keep_at_us = self.now.mono_us + EVERY_US;
        for (group, log, below) in self.overdue() {
            if let Some(outgoing) = self.door.outgoing(group) {
                outgoing.operation(&self.pool, OperationKind::Trim, log, &below.to_le_bytes());
            }
        }
        self.forget_old_groups();
        self.begin_compaction();
    }

    /// Whether anything hosted here could become too old.
    fn has_logs(&self) -> bool {
        let keeps = |group: &QueueGroup| {
            group.machine.logs().next().is_some()
                || group.machine.coordinators().any(|(_, offsets)| offsets.groups().next().is_some())
        };
        self.host.groups.iter().any(keeps)
    }

    fn overdue(&self) -> Vec<(GroupId, QueueId, u64)> {
        let now_ms = i64::try_from(self.now.wall_ms).unwrap_or(i64::MAX);
        let mut overdue = Vec::new();
        for group in &self.host.groups {
            for (log, state) in group.machine.logs() {
                let Some((topic, _)) = self.topology.topic_of(log) else { continue };
                if let Some(below) = keep_from(&topic.settings(), state, now_ms) {
                    overdue.push((group.id, log, below));
                }
            }
        }
        overdue
    }

    fn forget_old_groups(&mut self) {
        let mut forgotten = Vec::new();
        for target in self.topology.coordinators() {
            let Some(at) = self.host.by_group.get(&target.group) else { continue };
            let machine = &self.host.groups[*at].machine;
            let Some(offsets) = machine.coordinator(target.queue) else { continue };
            let coordinator = self.host.logs.coordinators.get(&target.queue);
            let now_ms = machine.time_ms();
            let old = offsets.expired(now_ms, OFFSETS_RETENTION_MS, FORGET_MAX);
            let old = old.into_iter().filter(|group| !coordinator.is_some_and(|c| c.exists(group)));
            forgotten.extend(old.map(|group| (*target, group, now_ms.saturating_sub(OFFSETS_RETENTION_MS))));
        }
        for (target, group, since_ms) in forgotten {
            let mut body = Vec::new();
            Forget { group: &group, what: Forgotten::UnlessSince(since_ms) }.encode(&mut body);
            if let Some(outgoing) = self.door.outgoing(target.group) {
                outgoing.operation(&self.pool, OperationKind::Forget, target.queue, &body);
            }
        }
    }
}

/// The offset below which nothing need be kept, where that is above the log's start.
fn keep_from(settings: &TopicSettings, state: &LogState, now_ms: i64) -> Option<u64> {
    if !settings.delete {
        return None;
    }
    // An age that reaches back beyond all times is none.
    let before = settings.retention_ms.and_then(|age| {
        let arrived = age.min(settings.segment_ms).min(ARRIVED_MS);
        Some((now_ms.checked_sub_unsigned(age)?, now_ms.checked_sub_unsigned(arrived)?))
    });
    let bound = state.retention_bound(settings.retention_bytes, before, CHUNKS_MAX);
    (bound > state.start()).then_some(bound)
}
