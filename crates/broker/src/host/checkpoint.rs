//! Checkpoints, so that the log may reuse its segments and a restart has little to replay: one group at a time,
//! from a frozen view, in slices.

use model::{GroupId, Index, Term};
use queue::View;

use super::group::GroupLog;
use super::reclaiming::Freed;
use crate::Broker;

/// Bytes encoded per turn: well under a millisecond.
const SLICE: usize = 64 << 10;

/// A checkpoint being written.
#[derive(Debug)]
pub(crate) struct Checkpointing {
    group: GroupId,
    index: Index,
    term: Term,
    view: View,
    state: Vec<Vec<u8>>,
}

impl Broker {
    /// Goes on with the checkpoint under way, or begins the one the log asks for most.
    pub(crate) fn checkpoint(&mut self) {
        if let Some(checkpointing) = self.host.checkpointing.take() {
            return self.encode_slice(checkpointing);
        }
        let Some(group) = self.log.wants_checkpoint() else { return };
        if group == GroupId::METADATA {
            return self.checkpoint_metadata();
        }
        let Some(at) = self.host.by_group.get(&group).copied() else { return };
        let GroupLog::Replicated(replica) = &self.host.groups[at].log else { return };
        let (index, term) = replica.applied_at();
        let view = self.host.groups[at].machine.freeze();
        self.host.groups[at].freed = Freed::default();
        self.host.checkpointing = Some(Checkpointing { group, index, term, view, state: Vec::new() });
    }

    fn encode_slice(&mut self, mut c: Checkpointing) {
        let mut slice = Vec::new();
        let done = c.view.encode(SLICE, &mut slice);
        c.state.push(slice);
        if done {
            self.log.checkpoint(c.group, c.index, c.term, c.state, c.view.kept_ranges());
            if let Some(group) = self.host.group(c.group) {
                group.checkpointed = Some(c.view);
            }
        } else {
            self.host.checkpointing = Some(c);
        }
    }

    fn checkpoint_metadata(&mut self) {
        let Some(metadata) = &self.host.metadata else { return };
        let (index, term) = metadata.replica.applied_at();
        let mut state = Vec::new();
        self.topology.encode(&mut state);
        self.log.checkpoint(GroupId::METADATA, index, term, vec![state], Vec::new());
    }

    /// A checkpoint is durable.
    pub(crate) fn checkpointed(&mut self, group: GroupId, index: Index) {
        self.counters.checkpoints += 1;
        if group == GroupId::METADATA {
            if let Some(metadata) = &mut self.host.metadata {
                metadata.replica.checkpointed(index);
            }
        } else if let Some(group) = self.host.group(group)
            && let GroupLog::Replicated(replica) = &mut group.log
        {
            replica.checkpointed(index);
            // What this checkpoint does not need, no restart will ask for.
            group.trimming = group.checkpointed.take();
        }
    }
}
