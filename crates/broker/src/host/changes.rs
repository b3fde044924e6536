//! Changes of the topology as they arrive on each shard, in the same order everywhere.

use model::entry::{COORDINATOR, LOG};
use model::{OpSequence, OperationKind, Origin, QueueId, ShardId};
use topology::{Answer as Changed, Command, QueueKind, QueueRecord};

use super::HostWaits;

use crate::Broker;
use crate::broker::Notice;
use crate::door::PendingChange;
use crate::door::outgoing::Turn;
use crate::parcel::Content;

impl Broker {
    /// Applies a committed change to this shard's copy and carries it out in the groups hosted here.
    pub(crate) fn changed(&mut self, number: u64, origin: Origin, sequence: OpSequence, command: &[u8]) {
        if !self.has_topology {
            // It is part of the snapshot that this shard waits for.
            return self.post.send(ShardId(0), Content::ChangeApplied { number, value: 0 });
        }
        let answer = match self.topology.apply(command) {
            Ok(answer) => answer,
            Err(halt) => {
                let text = format!("the metadata group halted at change {number}: {}", halt.0);
                return self.notices.push_back(Notice::Halt(text));
            }
        };
        self.host.changes.insert(number, (1, 0));
        match &answer {
            Changed::Declared { queue, created: true } => self.create(number, queue),
            Changed::TopicCreated { queues, .. } | Changed::Coordinators { queues } => {
                queues.iter().for_each(|queue| self.create(number, queue));
            }
            Changed::DeletedQueues { queues } | Changed::TopicDeleted { queues, .. } => {
                queues.iter().for_each(|queue| self.delete(number, queue));
            }
            _ => self.start_groups(),
        }
        if origin == self.origin {
            self.change_answered(sequence, answer);
        }
        self.change_step(number, 0);
    }

    fn create(&mut self, number: u64, queue: &QueueRecord) {
        if queue.kind == QueueKind::Queue {
            self.door.group_of.insert(queue.id, queue.group);
        }
        self.carry_out(number, OperationKind::Configure, queue);
    }

    fn delete(&mut self, number: u64, queue: &QueueRecord) {
        self.carry_out(number, OperationKind::Delete, queue);
        self.door.group_of.remove(&queue.id);
    }

    /// Adds the operation to the group's entry, if it is hosted here, in front of whatever this shard or others
    /// send it later: the group knows its queues before anybody can publish to them.
    fn carry_out(&mut self, number: u64, kind: OperationKind, queue: &QueueRecord) {
        let group = queue.group;
        let Some(at) = self.door.by_group.get(&group).filter(|_| self.host.by_group.contains_key(&group))
        else {
            return;
        };
        if let Some((missing, _)) = self.host.changes.get_mut(&number) {
            *missing += 1;
        }
        let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now: self.now };
        let outgoing = &mut self.door.outgoing[*at];
        let flags = if kind == OperationKind::Configure { configured_as(queue.kind) } else { 0 };
        let sequence = outgoing.flagged(&self.pool, kind, flags, queue.id, &[]);
        let counts = kind == OperationKind::Delete;
        self.host.waits.insert((group, sequence), HostWaits::Change { number, counts });
        if self.settings.shards > 1 {
            outgoing.leave(turn, &mut self.post);
        }
    }

    /// A group has done its part of a change, or nothing was to be done.
    pub(crate) fn change_step(&mut self, number: u64, messages: u64) {
        let Some((missing, value)) = self.host.changes.get_mut(&number) else { return };
        *missing -= 1;
        *value += messages;
        if *missing == 0 {
            let value = *value;
            self.host.changes.remove(&number);
            self.post.send(ShardId(0), Content::ChangeApplied { number, value });
        }
    }

    /// The last consumer of a queue has left: an auto-delete queue goes too.
    pub(crate) fn delete_if_auto(&mut self, queue: QueueId) {
        if self.topology.queue_by_id(queue).is_some_and(|record| record.auto_delete) {
            self.propose_command(&Command::UnusedAutoDelete(queue), PendingChange::Nobody);
        }
    }

    /// After a start the groups hosted here are made to agree with the topology, which decides: a crash may have
    /// come between the two.
    pub(crate) fn reconcile(&mut self) {
        let mut operations = Vec::new();
        for group in &self.host.groups {
            let machine = &group.machine;
            let has = |queue: &QueueRecord| match queue.kind {
                QueueKind::Queue => machine.queue(queue.id).is_some(),
                QueueKind::Stream => machine.log(queue.id).is_some(),
                QueueKind::Coordinator => machine.coordinator(queue.id).is_some(),
            };
            let declared = self.topology.queues().filter(|queue| queue.group == group.id);
            let missing = declared.filter(|queue| !has(queue));
            let configure = |queue: &QueueRecord| {
                (group.id, OperationKind::Configure, configured_as(queue.kind), queue.id)
            };
            operations.extend(missing.map(configure));
            let queues = machine.queues().map(|(id, _)| id);
            let all = queues.chain(machine.logs().map(|(id, _)| id));
            let undeclared = all.filter(|id| self.topology.queue_by_id(*id).is_none());
            operations.extend(undeclared.map(|id| (group.id, OperationKind::Delete, 0, id)));
        }
        for (group, kind, flags, queue) in operations {
            if let Some(outgoing) = self.door.outgoing(group) {
                outgoing.flagged(&self.pool, kind, flags, queue, &[]);
            }
        }
    }
}

/// What a group is to make of a queue record.
fn configured_as(kind: QueueKind) -> u8 {
    match kind {
        QueueKind::Queue => 0,
        QueueKind::Stream => LOG,
        QueueKind::Coordinator => COORDINATOR,
    }
}
