//! What the topology remembers of each thing, as others may see it.
//!
//! In: nothing. Out: plain records. Never: indexes, which are derived from these and live beside them.

use model::{Arguments, ConnId, Entity, GroupId, NodeId, Origin, QueueId, Refusal, ShardId};

/// An exchange; given once, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// A binding; given once, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindingId(pub u64);

/// One connection of one start of one shard: who holds an exclusive queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The start of the shard that the connection belongs to.
    pub origin: Origin,
    /// The connection.
    pub conn: ConnId,
}

/// What a queue record stands for; the number is part of the checkpoint format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QueueKind {
    /// Messages leave when they are settled.
    #[default]
    Queue = 1,
    /// A log that is read by offset: one partition of a topic.
    Stream = 2,
    /// The committed offsets of some consumer groups; no client can name it.
    Coordinator = 3,
}

impl QueueKind {
    pub(crate) fn from_byte(byte: u8) -> Option<QueueKind> {
        [QueueKind::Queue, QueueKind::Stream, QueueKind::Coordinator]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A queue, a stream or a coordinator.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueRecord {
    /// Never reused, so it tells a queue from a later one of the same name.
    pub id: QueueId,
    /// What it is.
    pub kind: QueueKind,
    /// Its virtual host; empty for a coordinator.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Where its messages are; a memory group for queues that are not logged.
    pub group: GroupId,
    /// As declared; an exclusive queue is never durable.
    pub durable: bool,
    /// The only connection that may use it.
    pub exclusive: Option<Owner>,
    /// Whether it goes when its last consumer does.
    pub auto_delete: bool,
    /// As declared.
    pub arguments: Arguments,
    /// The start of the shard in whose memory it lives; `None` for a logged queue.
    pub home: Option<Origin>,
}

impl QueueRecord {
    /// Whether it lives in one shard's memory and is not logged.
    pub fn in_memory(&self) -> bool {
        self.home.is_some()
    }

    /// Where messages for it go.
    pub fn target(&self) -> Target {
        Target { queue: self.id, group: self.group, kind: self.kind }
    }

    /// Refuses every connection but the owner of an exclusive queue.
    pub fn check_access(&self, owner: Option<Owner>) -> Result<(), Refusal> {
        match self.exclusive {
            Some(holder) if Some(holder) != owner => Err(Refusal::Locked(self.name.clone())),
            _ => Ok(()),
        }
    }
}

/// Where one message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The queue.
    pub queue: QueueId,
    /// The group it belongs to.
    pub group: GroupId,
    /// What it is.
    pub kind: QueueKind,
}

/// How an exchange routes; the number is part of the checkpoint format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExchangeKind {
    /// By equality of keys.
    Direct = 1,
    /// To every destination.
    Fanout = 2,
    /// By patterns over the words of the key.
    Topic = 3,
    /// By the message's headers.
    Headers = 4,
}

impl ExchangeKind {
    /// The kind that clients call `name`.
    pub fn from_name(name: &str) -> Option<ExchangeKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What clients call it.
    pub fn name(self) -> &'static str {
        match self {
            ExchangeKind::Direct => "direct",
            ExchangeKind::Fanout => "fanout",
            ExchangeKind::Topic => "topic",
            ExchangeKind::Headers => "headers",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<ExchangeKind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    const ALL: [ExchangeKind; 4] =
        [ExchangeKind::Direct, ExchangeKind::Fanout, ExchangeKind::Topic, ExchangeKind::Headers];
}

/// An exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeRecord {
    /// Never reused.
    pub id: ExchangeId,
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Whether it outlives the start of the shard that declared it.
    pub durable: bool,
    /// Whether it goes with the last binding it is the source of.
    pub auto_delete: bool,
    /// Whether only other exchanges may send to it.
    pub internal: bool,
    /// As declared.
    pub arguments: Arguments,
    /// The start of the shard that declared it, unless it is durable.
    pub home: Option<Origin>,
}

impl ExchangeRecord {
    /// The exchange that takes what this one cannot route.
    pub fn alternate(&self) -> Option<&str> {
        self.arguments.get("alternate-exchange")?.as_str()
    }
}

/// Where a binding leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// To a queue.
    Queue(QueueId),
    /// To another exchange.
    Exchange(ExchangeId),
}

impl Destination {
    pub(crate) fn entity(self) -> Entity {
        match self {
            Destination::Queue(_) => Entity::Queue,
            Destination::Exchange(_) => Entity::Exchange,
        }
    }
}

/// A binding.
#[derive(Clone, Debug, PartialEq)]
pub struct BindingRecord {
    /// Never reused.
    pub id: BindingId,
    /// The exchange that messages come from.
    pub source: ExchangeId,
    /// Where they go.
    pub destination: Destination,
    /// The key or pattern.
    pub key: String,
    /// As given; what a headers exchange matches.
    pub arguments: Arguments,
}

/// One replica of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// The node.
    pub node: NodeId,
    /// The shard of that node.
    pub shard: ShardId,
}
