//! The host: the groups led by this shard, their queues, and who is served next.

mod apply;
mod changes;
mod checkpoint;
mod entries;
mod evacuation;
mod fill;
mod group;
mod log;
mod metadata;
mod questions;
mod reclaiming;

use base::{Map, map};
use model::{GroupId, OpSequence, QueueId, ShardId};

use crate::parcel::Ticket;
pub(crate) use checkpoint::Checkpointing;
pub(crate) use group::{Asked, GroupLog, QueueGroup};
pub(crate) use log::Logs;
pub(crate) use metadata::MetadataHost;
pub(crate) use reclaiming::Freed;

/// Who waits for the answer of an operation.
#[derive(Debug)]
pub(crate) enum HostWaits {
    /// A purge: where to and under which number the count goes.
    Purge(ShardId, Ticket),
    /// A change of the topology that this group takes part in.
    Change {
        number: u64,
        /// Whether the answer is a number of messages to be told.
        counts: bool,
    },
}

/// This shard's host.
#[derive(Debug)]
pub(crate) struct Host {
    pub groups: Vec<QueueGroup>,
    pub by_group: Map<GroupId, usize>,
    /// The metadata group, on the shard that hosts it.
    pub metadata: Option<MetadataHost>,
    /// What waits for the answer of an operation of this shard's origin.
    pub waits: Map<(GroupId, OpSequence), HostWaits>,
    /// Changes of the topology that wait for this shard's groups: operations missing, messages deleted.
    pub changes: Map<u64, (u32, u64)>,
    pub checkpointing: Option<Checkpointing>,
    /// When it is looked what checkpoints would give back.
    pub reclaim_at_us: Option<u64>,
    pub logs: Logs,
}

impl Host {
    pub(crate) fn new(seed: u64) -> Host {
        Host {
            groups: Vec::new(),
            by_group: map(seed),
            metadata: None,
            waits: map(seed),
            changes: map(seed),
            checkpointing: None,
            reclaim_at_us: None,
            logs: Logs::new(seed),
        }
    }

    /// Adds a group; its queues are as its machine has them.
    pub(crate) fn add(&mut self, group: QueueGroup) {
        self.by_group.insert(group.id, self.groups.len());
        self.groups.push(group);
    }

    pub(crate) fn group(&mut self, group: GroupId) -> Option<&mut QueueGroup> {
        let at = *self.by_group.get(&group)?;
        self.groups.get_mut(at)
    }

    /// Whether somebody here could take messages of one of these queues: then they may be handed out as soon as
    /// they are committed, without asking again. Not known of queues hosted elsewhere.
    #[inline]
    pub(crate) fn has_takers(&self, group: GroupId, queues: &[QueueId]) -> bool {
        let Some(group) = self.by_group.get(&group).map(|at| &self.groups[*at]) else { return false };
        queues.iter().any(|queue| group.takers.contains_key(queue))
    }

    /// The logged groups hosted here.
    pub(crate) fn queue_groups(&self) -> Vec<GroupId> {
        self.groups.iter().map(|group| group.id).filter(|id| id.memory_shard().is_none()).collect()
    }
}
