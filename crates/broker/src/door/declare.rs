//! Changes of the topology: what can be answered from this shard's copy is; the rest is proposed to the metadata
//! group and answered when every shard has it.

use model::{Change, ConnId, Entity, Event, GroupId, Lane, OperationKind, QueueId, REPLY_PREFIX, Refusal};
use topology::{Command, Owner, QueueKind};

use super::{Pending, PendingChange};
use crate::Broker;
use crate::parcel::{Answer, Question};

impl Broker {
    /// A change asked for by a connection.
    pub(crate) fn change(&mut self, conn: ConnId, lane: Lane, change: Change) {
        let outcome = match &change {
            Change::DeclareExchange(declaration) if declaration.passive => {
                self.passive_exchange(conn, lane, &declaration.name)
            }
            Change::DeclareQueue(declaration) if declaration.passive => {
                self.passive_queue(conn, lane, &declaration.name)
            }
            Change::PurgeQueue { name } => self.purge(conn, lane, name),
            Change::DeleteQueue { name, if_unused, if_empty } if *if_unused || *if_empty => {
                let name = name.clone();
                self.delete_if(conn, lane, &name, change)
            }
            _ => {
                self.propose_change(conn, lane, change);
                Ok(())
            }
        };
        if let Err(refusal) = outcome {
            self.refuse(conn, Some(lane), refusal);
        }
    }

    fn passive_exchange(&mut self, conn: ConnId, lane: Lane, name: &str) -> Result<(), Refusal> {
        let vhost = self.door.connections.get(&conn).and_then(|c| c.vhost.as_deref()).unwrap_or_default();
        self.topology.passive_exchange(vhost, name)?;
        self.events.push_back((conn, Event::Done(lane)));
        Ok(())
    }

    fn passive_queue(&mut self, conn: ConnId, lane: Lane, name: &str) -> Result<(), Refusal> {
        if name.starts_with(REPLY_PREFIX) && self.is_locked_queue(conn, name) {
            self.events.push_back((conn, Event::Declared(lane, name.to_owned(), 0, 1)));
            return Ok(());
        }
        let (queue, group) = self.find_queue(conn, name).map(|queue| (queue.id, queue.group))?;
        self.count_declared(conn, lane, name.to_owned(), queue, group);
        Ok(())
    }

    /// Whether there is such a queue and it is another connection's.
    fn is_locked_queue(&self, conn: ConnId, name: &str) -> bool {
        matches!(self.find_queue(conn, name), Err(Refusal::Locked(_)))
    }

    /// Answers a declaration with the queue's counts.
    pub(crate) fn count_declared(
        &mut self,
        conn: ConnId,
        lane: Lane,
        name: String,
        queue: QueueId,
        group: GroupId,
    ) {
        self.ask(group, queue, Pending::Declared { conn, lane, name }, Question::Count);
    }

    fn purge(&mut self, conn: ConnId, lane: Lane, name: &str) -> Result<(), Refusal> {
        let queue = self.find_queue(conn, name)?;
        if queue.kind == QueueKind::Stream {
            return Err(Refusal::NotImplemented(format!("stream '{name}' cannot be purged")));
        }
        let (queue, group) = (queue.id, queue.group);
        self.ask(group, queue, Pending::Purged { conn, lane }, Question::Purge);
        Ok(())
    }

    fn delete_if(&mut self, conn: ConnId, lane: Lane, name: &str, change: Change) -> Result<(), Refusal> {
        match self.find_queue(conn, name).map(|queue| (queue.id, queue.group)) {
            Ok((queue, group)) => {
                self.ask(group, queue, Pending::Delete { conn, lane, change }, Question::Count);
                Ok(())
            }
            // Deleting what is not there is answered like deleting it.
            Err(Refusal::NotFound(..)) => {
                self.events.push_back((conn, Event::Deleted(lane, 0)));
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// A queue's counts, asked for before it may be deleted.
    pub(crate) fn delete_counted(&mut self, conn: ConnId, lane: Lane, change: Change, answer: &Answer) {
        let Change::DeleteQueue { name, if_unused, if_empty } = &change else { return };
        let Answer::Counted { ready, held, consumers } = answer else { return };
        if *if_unused && *consumers > 0 {
            return self.refuse(conn, Some(lane), Refusal::InUse(Entity::Queue, name.clone()));
        }
        if *if_empty && ready + held > 0 {
            return self.refuse(conn, Some(lane), Refusal::NotEmpty(name.clone()));
        }
        self.propose_change(conn, lane, change);
    }

    /// Who a connection is to the queues it declares exclusively.
    pub(crate) fn owner(&self, conn: ConnId) -> Owner {
        Owner { origin: self.origin, conn }
    }

    fn propose_change(&mut self, conn: ConnId, lane: Lane, mut change: Change) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let vhost = connection.vhost.as_deref().unwrap_or_default().to_owned();
        if matches!(&change, Change::DeclareQueue(declaration) if declaration.exclusive) {
            connection.has_exclusive_queues = true;
        }
        if matches!(&change, Change::DeclareQueue(_)) {
            // Other changes take no turn, or queues that are each bound at once would all share one group.
            self.next_group = self.next_group.wrapping_add(1);
        }
        let prefix = self.choose_prefix(&mut change);
        let command = Command::Change(topology::Change {
            vhost,
            change,
            owner: Some(self.owner(conn)),
            group: self.group_for_new_queue(),
            name: self.random_queue_name(prefix),
        });
        self.propose_command(&command, PendingChange::Client { conn, lane });
    }

    /// Proposes a command to the metadata group.
    pub(crate) fn propose_command(&mut self, command: &Command, pending: PendingChange) {
        let bytes = command.to_bytes();
        if let Some(at) = self.door.by_group.get(&GroupId::METADATA) {
            let outgoing = &mut self.door.outgoing[*at];
            let sequence = outgoing.operation(&self.pool, OperationKind::Topology, QueueId(0), &bytes);
            if let PendingChange::Client { conn, lane } = pending {
                self.door.waits(conn, lane);
            }
            self.door.changes.insert(sequence, pending);
        }
    }

    /// New queues go to groups hosted here, in turn, so that their usual publisher meets them on its own shard.
    fn group_for_new_queue(&self) -> GroupId {
        let groups = self.host.queue_groups();
        match groups.len() {
            0 => GroupId(1),
            n => groups[self.next_group % n],
        }
    }

    /// What a name chosen by the broker begins with; a reply queue asks for one of its own.
    fn choose_prefix(&self, change: &mut Change) -> &'static str {
        match change {
            Change::DeclareQueue(declaration) if declaration.name == REPLY_PREFIX => {
                declaration.name.clear();
                REPLY_PREFIX
            }
            _ => "amq.gen-",
        }
    }

    fn random_queue_name(&mut self, prefix: &str) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let letters = (0..22).map(|_| char::from(LETTERS[self.prng.below(64) as usize]));
        std::iter::once(prefix).flat_map(str::chars).chain(letters).collect()
    }
}
