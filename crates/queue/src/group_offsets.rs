//! The committed offsets of the consumer groups of one coordinator.
//!
//! A commit replaces what was there and is never refused: who may commit is decided before it is proposed. What is
//! idle is told by [`GroupOffsets::idle`] and goes when the leader, which knows who has members, proposes so. A
//! commit of nothing says that somebody is, or was just now, in the group: it is idle from then on.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Bug, planted};
use model::QueueId;
use model::commit::{Commit, Forget, Forgotten};

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: u64,
    /// The leader epoch of the record before it.
    pub epoch: Option<u32>,
    /// Whatever the client wants to remember.
    pub metadata: Arc<str>,
    /// When it was committed, by the group's time, milliseconds.
    pub time_ms: u64,
}

/// What one consumer group committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerGroup {
    pub(crate) offsets: BTreeMap<QueueId, Committed>,
    pub(crate) touched_ms: u64,
}

impl ConsumerGroup {
    /// The offset committed for a log.
    pub fn offset(&self, log: QueueId) -> Option<&Committed> {
        self.offsets.get(&log)
    }

    /// All offsets by log; at least one.
    pub fn offsets(&self) -> impl Iterator<Item = (QueueId, &Committed)> {
        self.offsets.iter().map(|(log, committed)| (*log, committed))
    }

    /// When it last committed something or was known to have members, by the group's time, milliseconds.
    pub fn touched_ms(&self) -> u64 {
        self.touched_ms
    }
}

/// The consumer groups of one coordinator that committed something.
#[derive(Clone, Debug)]
pub struct GroupOffsets {
    pub(crate) config: Arc<[u8]>,
    pub(crate) groups: BTreeMap<Arc<str>, Arc<ConsumerGroup>>,
}

impl GroupOffsets {
    pub(crate) fn new(config: &[u8]) -> GroupOffsets {
        GroupOffsets { config: config.into(), groups: BTreeMap::new() }
    }

    /// The configuration as it came.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// What a consumer group committed.
    pub fn group(&self, name: &str) -> Option<&ConsumerGroup> {
        self.groups.get(name).map(Arc::as_ref)
    }

    /// All groups by name.
    pub fn groups(&self) -> impl Iterator<Item = (&str, &ConsumerGroup)> {
        self.groups.iter().map(|(name, group)| (name.as_ref(), group.as_ref()))
    }

    /// The groups that were not touched for longer than `idle_ms`, by name.
    pub fn idle(&self, now_ms: u64, idle_ms: u64) -> impl Iterator<Item = (&str, &ConsumerGroup)> {
        self.groups().filter(move |(_, group)| now_ms.saturating_sub(group.touched_ms) > idle_ms)
    }

    pub(crate) fn commit(&mut self, commit: &Commit<'_>, now_ms: u64) {
        if commit.offsets.is_empty() && !self.groups.contains_key(commit.group) {
            return;
        }
        let group = match self.groups.get_mut(commit.group) {
            Some(group) => group,
            None => self.groups.entry(commit.group.into()).or_default(),
        };
        let group = Arc::make_mut(group);
        group.touched_ms = now_ms;
        for new in &commit.offsets {
            // The planted bug goes by the time, and the clock may have gone back.
            let is_older = |known: &Committed| known.time_ms >= now_ms;
            if planted(Bug::CommitByTime) && group.offsets.get(&new.log).is_some_and(is_older) {
                continue;
            }
            let committed = Committed {
                offset: new.offset,
                epoch: new.epoch,
                metadata: new.metadata.into(),
                time_ms: now_ms,
            };
            group.offsets.insert(new.log, committed);
        }
    }

    pub(crate) fn forget(&mut self, forget: &Forget<'_>) {
        let Some(group) = self.groups.get_mut(forget.group) else { return };
        let gone = match &forget.what {
            Forgotten::UnlessSince(time_ms) => *time_ms == u64::MAX || group.touched_ms < *time_ms,
            Forgotten::Logs(logs) => {
                let group = Arc::make_mut(group);
                logs.iter().for_each(|log| drop(group.offsets.remove(log)));
                group.offsets.is_empty()
            }
        };
        if gone {
            self.groups.remove(forget.group);
        }
    }
}
