//! The door: connections and their lanes, what each waits for, and the operations this shard sends to each group.

pub(crate) mod connection;
pub(crate) mod log;
pub(crate) mod outgoing;
pub(crate) mod routes;

mod consume;
mod declare;
mod lifecycle;
mod parked;
mod publish;
mod replies;
mod settle;
mod stream;

use base::{Map, Table, map};
use model::{Change, ConnId, ConsumerId, GroupId, Lane, OpSequence, QueueId};

use crate::parcel::{Content, Ticket};
use connection::Connection;
use log::{Gather, Part, Partitions};
use outgoing::Outgoing;
pub(crate) use replies::PendingChange;
use routes::Routes;

/// What a door asked a host and whom the answer is for.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Counts, to answer a declaration of this name.
    Declared { conn: ConnId, lane: Lane, name: String },
    /// Counts, to decide whether a queue may be deleted.
    Delete { conn: ConnId, lane: Lane, change: Change },
    /// A purge.
    Purged { conn: ConnId, lane: Lane },
    /// A message.
    Got { conn: ConnId, lane: Lane, queue: QueueId, group: GroupId, settled: bool },
    /// A consumer.
    Subscribed { conn: ConnId, lane: Lane, consumer: ConsumerId, queue: QueueId, group: GroupId },
    /// Everything sent so far must be applied: this many groups (and changes) still are not.
    Barrier { conn: ConnId, lane: Option<Lane>, missing: u32 },
}

impl Pending {
    /// The lane that waits for the answer; none for barriers, which are no answers.
    fn lane(&self) -> Option<(ConnId, Lane)> {
        match self {
            Pending::Declared { conn, lane, .. }
            | Pending::Delete { conn, lane, .. }
            | Pending::Purged { conn, lane }
            | Pending::Got { conn, lane, .. }
            | Pending::Subscribed { conn, lane, .. } => Some((*conn, *lane)),
            Pending::Barrier { .. } => None,
        }
    }
}

/// This shard's door.
#[derive(Debug)]
pub(crate) struct Door {
    pub connections: Map<ConnId, Connection>,
    pub outgoing: Vec<Outgoing>,
    pub by_group: Map<GroupId, usize>,
    pub routes: Routes,
    pub pending: Map<Ticket, Pending>,
    pub changes: Map<OpSequence, PendingChange>,
    /// Where settlements go. Streams are not here: settling their messages ends nothing.
    pub group_of: Table<QueueId, GroupId>,
    /// Publishes routed to several groups: how many have not applied them yet.
    pub spread: Map<(ConnId, Lane, u64), u32>,
    /// Partitions that were looked up.
    pub partitions: Partitions,
    /// Answers that are being put together.
    pub gathers: Map<u64, Gather>,
    pub next_gather: u64,
    /// The questions asked for them.
    pub parts: Map<Ticket, Part>,
    /// Producer ids given out since the start.
    pub producers: u64,
    next_ticket: Ticket,
}

impl Door {
    pub(crate) fn new(seed: u64) -> Door {
        Door {
            connections: map(seed),
            outgoing: Vec::new(),
            by_group: map(seed),
            routes: Routes::new(seed),
            pending: map(seed),
            changes: map(seed),
            group_of: Table::new(seed),
            spread: map(seed),
            partitions: Partitions::new(seed),
            gathers: map(seed),
            next_gather: 1,
            parts: map(seed),
            producers: 0,
            next_ticket: 1,
        }
    }

    /// Asks for the memory of the consumer that a parcel is for.
    #[inline]
    pub(crate) fn prefetch(&self, coming: &Content) {
        if let Content::Handed { handed, .. } = coming
            && let Some(connection) = self.connections.get(&handed.key.conn)
        {
            connection.consumers.prefetch(&handed.key.consumer);
        }
    }

    /// A number for something that is asked.
    pub(crate) fn draw_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    pub(crate) fn ticket(&mut self, pending: Pending) -> Ticket {
        let ticket = self.draw_ticket();
        if let Some((conn, lane)) = pending.lane() {
            self.waits(conn, lane);
        }
        self.pending.insert(ticket, pending);
        ticket
    }

    /// The lane waits for one more answer.
    pub(crate) fn waits(&mut self, conn: ConnId, lane: Lane) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.lanes.entry(lane).or_default().unanswered += 1;
        }
    }

    /// Where this shard's operations for a group are gathered.
    #[inline]
    pub(crate) fn outgoing(&mut self, group: GroupId) -> Option<&mut Outgoing> {
        let at = *self.by_group.get(&group)?;
        self.outgoing.get_mut(at)
    }

    /// Starts gathering operations for a group.
    pub(crate) fn add_outgoing(&mut self, outgoing: Outgoing) {
        if !self.by_group.contains_key(&outgoing.group) {
            self.by_group.insert(outgoing.group, self.outgoing.len());
            self.outgoing.push(outgoing);
        }
    }
}
