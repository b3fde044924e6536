//! The metadata group on the shard that hosts it: every committed change goes to all shards, and whoever asked is
//! told when the last one has it.

use std::collections::BTreeMap;

use model::{Entry, GroupId, OpSequence, Operation, Origin, ShardId};
use replica::{Committed, Replica};
use topology::Command;

use crate::Broker;
use crate::broker::Notice;
use crate::parcel::Content;

/// A change on its way through the shards.
#[derive(Debug)]
struct Spreading {
    origin: Origin,
    sequence: OpSequence,
    missing: u16,
    value: u64,
}

/// The metadata group.
#[derive(Debug)]
pub(crate) struct MetadataHost {
    pub replica: Replica,
    next: u64,
    spreading: BTreeMap<u64, Spreading>,
    /// Shards that wait for a snapshot.
    pub waiting: Vec<ShardId>,
}

impl MetadataHost {
    pub(crate) fn new(replica: Replica) -> MetadataHost {
        MetadataHost { replica, next: 1, spreading: BTreeMap::new(), waiting: Vec::new() }
    }
}

impl Broker {
    /// Applies committed changes; returns whether there were any.
    pub(crate) fn apply_metadata(&mut self) -> bool {
        let mut any = false;
        while let Some(committed) = self.next_change() {
            any = true;
            self.spread_entry(&committed);
            if let Some(metadata) = &mut self.host.metadata
                && let Err(halted) = metadata.replica.applied(committed.index, committed.term)
            {
                self.notices.push_back(Notice::Halt(halted.0));
            }
            // The topology keeps its own state: no entry is needed once it is applied.
            self.log.release(GroupId::METADATA, committed.index);
        }
        any
    }

    fn next_change(&mut self) -> Option<Committed> {
        let metadata = self.host.metadata.as_mut()?;
        if let Err(halted) = metadata.replica.advance(&mut self.log) {
            self.notices.push_back(Notice::Halt(halted.0));
        }
        metadata.replica.poll_committed()
    }

    fn spread_entry(&mut self, committed: &Committed) {
        if committed.block.is_empty() {
            return;
        }
        let operations = match Entry::decode(committed.block.as_slice()) {
            Ok(entry) => entry.operations(),
            Err(damaged) => return self.halt_metadata(committed, damaged.0),
        };
        for operation in operations {
            match operation {
                Ok(operation) => self.spread(&operation),
                Err(damaged) => return self.halt_metadata(committed, damaged.0),
            }
        }
    }

    fn halt_metadata(&mut self, committed: &Committed, why: &str) {
        let text = format!("the metadata group halted at entry {}: {why}", committed.index);
        self.notices.push_back(Notice::Halt(text));
    }

    fn spread(&mut self, operation: &Operation<'_>) {
        let shards = self.settings.shards;
        let Some(metadata) = &mut self.host.metadata else { return };
        let number = metadata.next;
        metadata.next += 1;
        let (origin, sequence) = (operation.origin, operation.sequence);
        metadata.spreading.insert(number, Spreading { origin, sequence, missing: shards, value: 0 });
        for shard in self.spread_order(operation.body) {
            let command = operation.body.to_vec();
            self.post.send(shard, Content::Changed { number, origin, sequence, command });
        }
        self.changed(number, origin, sequence, operation.body);
        if origin.boot() == self.origin.boot() {
            self.post.send(origin.shard(), Content::Applied { group: GroupId::METADATA, sequence });
        }
    }

    /// The other shards, those first that may host what the change creates: mail keeps its order, so they know a
    /// queue before anybody who learns of it can publish to it.
    fn spread_order(&self, command: &[u8]) -> Vec<ShardId> {
        if self.settings.shards == 1 {
            return Vec::new();
        }
        let mut first = Vec::new();
        if let Ok(Command::Change(change)) = Command::decode(command) {
            let (group, owner) = (change.group, change.owner);
            first.extend(self.door.by_group.get(&group).map(|at| self.door.outgoing[*at].host));
            first.extend(owner.map(|owner| owner.origin.shard()));
        }
        let mut order: Vec<ShardId> = (1..self.settings.shards).map(ShardId).collect();
        order.sort_by_key(|shard| !first.contains(shard));
        order
    }

    /// A shard has applied a change and carried it out.
    pub(crate) fn change_applied(&mut self, number: u64, value: u64) {
        let Some(metadata) = &mut self.host.metadata else { return };
        let Some(spreading) = metadata.spreading.get_mut(&number) else { return };
        spreading.missing -= 1;
        spreading.value += value;
        if spreading.missing > 0 {
            return;
        }
        let (origin, sequence, value) = (spreading.origin, spreading.sequence, spreading.value);
        metadata.spreading.remove(&number);
        if origin.boot() == self.origin.boot() {
            self.post.send(origin.shard(), Content::ChangeDone { sequence, value });
        }
    }

    /// Sends this shard's copy of the topology to those that wait for it.
    pub(crate) fn send_snapshots(&mut self) {
        let Some(metadata) = &mut self.host.metadata else { return };
        for shard in std::mem::take(&mut metadata.waiting) {
            let mut bytes = Vec::new();
            self.topology.encode(&mut bytes);
            self.post.send(shard, Content::Snapshot { bytes });
        }
    }
}
