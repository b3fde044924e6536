//! How long records stay: what has become too old or too much is trimmed, as each topic says, and so are offsets
//! of groups that nobody has been in for long.
//!
//! Who is in a group only this leader knows, and it knows nobody when it begins. So a group with members is touched
//! now and then, and once more when the last one leaves: from then on its offsets count as unused, over any number of
//! starts. Nothing is forgotten before those who were there have had the time to come back.
//!
//! Decided here, by the leader and its clock, and carried out by every replica at the same place of the log.

use base::{Bug, planted};
use coordinator::Settings;
use model::commit::{Commit, Forget, Forgotten};
use model::{GroupId, OperationKind, QueueId};
use queue::LogState;
use topology::{Target, TopicSettings};

use crate::Broker;
use crate::host::QueueGroup;

/// How often logs are looked at, microseconds.
const EVERY_US: u64 = 1_000_000;
/// A record stays at least so long after it came, whatever time its writer gave it, unless its topic keeps nothing as
/// long: this is how often Kafka looks for what has become old. Milliseconds.
const ARRIVED_MS: u64 = 300_000;
/// Batches of one log trimmed at once: applying a trim is the work of one turn.
const CHUNKS_MAX: usize = 1 << 17;
/// A group with members is touched so often within the time that its offsets are kept without any.
const TOUCHES: u64 = 32;
/// Groups touched or forgotten at once.
const GROUPS_MAX: usize = 64;

impl Broker {
    /// Looks at every log hosted here, now and then.
    pub(crate) fn keep_logs(&mut self) {
        if !self.ready {
            return;
        }
        self.host.logs.joinable_since_us.get_or_insert(self.now.mono_us);
        if self.now.mono_us < self.host.logs.keep_at_us {
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
        self.keep_offsets();
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
                    // The planted bug lets one batch more go.
                    let more = state.chunk(below).filter(|_| planted(Bug::TrimOneMore));
                    overdue.push((group.id, log, more.map_or(below, |chunk| chunk.end())));
                }
            }
        }
        overdue
    }

    /// Touches groups that have members, and forgets those that nobody has been in for too long.
    fn keep_offsets(&mut self) {
        let since_us = self.host.logs.joinable_since_us.unwrap_or(self.now.mono_us);
        // Whoever was a member before this start is one again by then, or its session has ended.
        let all_are_back = self.now.mono_us - since_us > u64::from(Settings::default().session_max_ms) * 1000;
        let retention_ms = self.settings.limits.offsets_retention_ms;
        let mut due = Vec::new();
        for target in self.topology.coordinators() {
            let Some(at) = self.host.by_group.get(&target.group) else { continue };
            let machine = &self.host.groups[*at].machine;
            let Some(offsets) = machine.coordinator(target.queue) else { continue };
            let coordinator = self.host.logs.coordinators.get(&target.queue);
            let now_ms = machine.time_ms();
            let before_ms = now_ms.saturating_sub(retention_ms);
            for (group, known) in offsets.idle(now_ms, retention_ms / TOUCHES) {
                if coordinator.is_some_and(|coordinator| coordinator.has_members(group)) {
                    due.push((*target, group.to_owned(), None));
                } else if all_are_back
                    && known.touched_ms() < before_ms
                    && !coordinator.is_some_and(|coordinator| coordinator.exists(group))
                {
                    due.push((*target, group.to_owned(), Some(before_ms)));
                }
                if due.len() == GROUPS_MAX {
                    break;
                }
            }
        }
        for (target, group, unless_since_ms) in due {
            match unless_since_ms {
                None => self.touch_group(target, &group),
                Some(before_ms) => self.forget_group(target, &group, before_ms),
            }
        }
    }

    /// Takes note, durably, that somebody is in a group or was until now. One without offsets has nothing to keep.
    pub(super) fn touch_group(&mut self, target: Target, group: &str) {
        let mut body = Vec::new();
        Commit { group, offsets: Vec::new() }.encode(&mut body);
        if let Some(outgoing) = self.door.outgoing(target.group) {
            outgoing.operation(&self.pool, OperationKind::Commit, target.queue, &body);
        }
    }

    fn forget_group(&mut self, target: Target, group: &str, before_ms: u64) {
        let mut body = Vec::new();
        Forget { group, what: Forgotten::UnlessSince(before_ms) }.encode(&mut body);
        if let Some(outgoing) = self.door.outgoing(target.group) {
            outgoing.operation(&self.pool, OperationKind::Forget, target.queue, &body);
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
