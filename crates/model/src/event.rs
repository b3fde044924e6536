//! What the broker tells a session.

use base::Block;
use smallvec::SmallVec;

use crate::{ConsumerId, Lane, LogAnswer, Protocol, QueueId, Refusal, Seq};

/// One event of a connection.
#[derive(Clone, Debug)]
pub enum Event {
    /// The user is who they say.
    Admitted,
    /// The virtual host is entered.
    Entered,
    /// A request was refused: on its lane, or the connection's own (none). Nothing was changed.
    Refused(Option<Lane>, Refusal),
    /// A publish was refused, and what follows on its lane is not taken either: the lane must be closed.
    PublishRefused(Lane, Refusal),
    /// The lane has ended and its settlements are durable.
    LaneClosed(Lane),
    /// Publishes `first..=last` of the lane are durable on a majority in every queue they were routed to.
    Confirmed(Lane, u64, u64),
    /// Publishes `first..=last` of the lane were not taken (or may have been, when the group failed).
    Rejected(Lane, u64, u64),
    /// A mandatory publish found no queue. Its confirm follows.
    Unroutable(Lane, Box<OwnedRecord>),
    /// Done, where nothing more is to be said.
    Done(Lane),
    /// The queue exists now (or did): its name, ready messages, consumers.
    Declared(Lane, String, u64, u32),
    /// Messages removed by a purge.
    Purged(Lane, u64),
    /// Messages that went with a queue.
    Deleted(Lane, u64),
    /// The consumer is there.
    Subscribed(Lane, ConsumerId),
    /// The consumer is gone, as it asked.
    Unsubscribed(Lane, ConsumerId),
    /// The consumer is gone because its queue is.
    Revoked(Lane, ConsumerId),
    /// Messages for a consumer.
    Delivered(Delivered),
    /// The message asked for, and how many are ready behind it.
    Got(Delivered, u64),
    /// There was no message to get.
    Empty(Lane),
    /// The answer to the `Log` request of this token.
    Log(u64, Box<LogAnswer>),
    /// Publishing is held back, and why.
    Blocked(&'static str),
    /// Publishing goes on.
    Unblocked,
    /// The connection's orderly end is complete.
    Closed,
    /// The node is going away.
    ShuttingDown,
}

/// Messages of one queue for one consumer, all in one block.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The lane.
    pub lane: Lane,
    /// The consumer; meaningless in `Got`.
    pub consumer: ConsumerId,
    /// The queue.
    pub queue: QueueId,
    /// Where the rows are.
    pub block: Block,
    /// The messages in order.
    pub items: Items,
    /// Whether they are settled by being sent: then they do not go back, whoever is there to take them.
    pub settled: bool,
    /// Whether the queue is a stream: places are offsets that readers come back to, and settling ends nothing.
    pub stream: bool,
}

/// Delivered messages; a single one, as in queues that keep up, needs no allocation.
pub type Items = SmallVec<[Item; 1]>;

/// One delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place in the queue.
    pub seq: Seq,
    /// Where its row begins in the block.
    pub at: u32,
    /// Failed deliveries so far.
    pub count: u32,
    /// Whether it may have been handed to anybody before.
    pub redelivered: bool,
}

/// A message that goes back to its publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // As in Record.
pub struct OwnedRecord {
    pub protocol: Protocol,
    pub exchange: String,
    pub routing_key: String,
    pub prefix: Vec<u8>,
    pub body: Vec<u8>,
}

/// What a shard tells about itself to metrics and health checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Whether clients can be served.
    pub ready: bool,
    /// Why not, for a person.
    pub reason: Option<String>,
    /// Counters that only rise: Prometheus name without prefix, value.
    pub counters: Vec<(&'static str, u64)>,
    /// Values that rise and fall.
    pub gauges: Vec<(&'static str, f64)>,
    /// Per queue: name, ready, unsettled in flight, consumers, published, settled, delivered.
    pub queues: Vec<QueueStatus>,
    /// Per partition that this shard hosts.
    pub partitions: Vec<PartitionStatus>,
    /// Offsets that consumer groups committed to this shard, for partitions anywhere.
    pub committed: Vec<CommittedStatus>,
}

/// One partition's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PartitionStatus {
    pub vhost: String,
    pub topic: String,
    pub partition: u32,
    /// The first offset there is.
    pub start: u64,
    /// The offset behind the last.
    pub end: u64,
    pub bytes: u64,
    /// Consumers of the stream; readers by offset are not known by number.
    pub consumers: u64,
}

/// How far a consumer group has come in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CommittedStatus {
    pub group: String,
    pub vhost: String,
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
}

/// One queue's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct QueueStatus {
    pub vhost: String,
    pub name: String,
    pub ready: u64,
    pub unacked: u64,
    pub consumers: u64,
    pub published: u64,
    pub delivered: u64,
    pub settled: u64,
}
