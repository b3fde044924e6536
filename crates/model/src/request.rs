//! What a session asks of the broker.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{Arguments, ConsumerId, Lane, LogRequest, QueueId, Record, Seq};

/// Where a connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address and port, for messages.
    pub address: String,
    /// Address and port of this end: how the peer reached this node.
    pub local: String,
    /// Whether it is this machine's loopback.
    pub loopback: bool,
}

/// One request of a connection. Requests of one lane are answered in order.
#[derive(Clone, Debug)]
pub enum Request<'a> {
    /// A name and password, however the protocol carried them. Answer: `Admitted` or `Refused` without a lane.
    Authenticate {
        /// The name.
        user: &'a str,
        /// The password.
        password: &'a [u8],
    },
    /// Comes in without a name, where that is allowed (from this machine). Answer as to `Authenticate`.
    Anonymous,
    /// Enters a virtual host. Answer: `Entered` or `Refused` without a lane.
    Enter {
        /// Its name.
        vhost: &'a str,
    },
    /// Ends a lane: its consumers go, what they held returns, its settlements become durable.
    /// Answer: `LaneClosed`, once that is true.
    CloseLane {
        /// The lane.
        lane: Lane,
    },
    /// A message to be routed. With `confirm` the answer is `Confirmed` or `Rejected`.
    Publish(Publish<'a>),
    /// Ends the delivery of messages. No answer.
    Settle {
        /// The lane they were delivered on.
        lane: Lane,
        /// Which, in the order in which their deliveries ended.
        settlements: &'a [Settlement],
    },
    /// Starts a consumer. Answer: `Subscribed` or `Refused`; deliveries may follow at once.
    Subscribe(Subscribe<'a>),
    /// Ends a consumer. What it holds stays held by the lane. Answer: `Unsubscribed`.
    Unsubscribe {
        /// The lane.
        lane: Lane,
        /// The consumer.
        consumer: ConsumerId,
    },
    /// More messages may be delivered to these consumers: how many more to each.
    Grant(&'a [(ConsumerId, u32)]),
    /// Bounds what all consumers of a lane started from now on hold together; `None` lifts the bound.
    Window {
        /// The lane.
        lane: Lane,
        /// The bound in messages.
        messages: Option<u32>,
    },
    /// One message, now. Answer: `Got`, `Empty` or `Refused`.
    Get {
        /// The lane.
        lane: Lane,
        /// The queue's name.
        queue: &'a str,
        /// Whether it is settled by being sent.
        settled: bool,
    },
    /// A change of, or question about, the topology. Answer: `Done`, `Declared`, `Purged`, `Deleted` or `Refused`.
    Change {
        /// The lane.
        lane: Lane,
        /// What.
        change: Change,
    },
    /// A request of a reader by offset. Answer: `Log` with the same token.
    Log {
        /// Chosen by the session, unique in its connection.
        token: u64,
        /// What.
        request: LogRequest<'a>,
    },
    /// The connection ends in an orderly way; answer: `Closed` when every lane is.
    Close,
}

/// Neighbouring messages of one queue whose delivery ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The queue.
    pub queue: QueueId,
    /// The first place.
    pub first: Seq,
    /// The last place; everything between was delivered to this lane too.
    pub last: Seq,
    /// How.
    pub outcome: Outcome,
}

/// What becomes of delivered messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done: never delivered again.
    Accept,
    /// Back to their places; with `failed` each one's delivery count rises.
    Return {
        /// Whether it counts as a failed delivery.
        failed: bool,
    },
    /// Not wanted: dead-lettered where the queue says so, else dropped.
    Reject,
}

/// A message on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// The lane.
    pub lane: Lane,
    /// The number of this publish in its lane, from 1 without gaps, when confirms are on; else 0.
    pub token: u64,
    /// Whether an unroutable message comes back as `Unroutable` (before its confirm).
    pub mandatory: bool,
    /// The message.
    pub record: Record<'a>,
    /// Further routing keys: it goes where any of them or its own leads, to each queue once.
    pub also: &'a [String],
    /// Called only where routing needs the headers.
    pub headers: HeadersOf,
}

/// Reads the headers out of a native prefix; `None` where they are not readable.
pub type HeadersOf = fn(prefix: &[u8]) -> Option<Arguments>;

/// A consumer to be started.
#[derive(Clone, Debug)]
pub struct Subscribe<'a> {
    /// The lane.
    pub lane: Lane,
    /// The id that deliveries will carry.
    pub consumer: ConsumerId,
    /// The queue's name.
    pub queue: &'a str,
    /// Whether messages are settled by being sent.
    pub settled: bool,
    /// Whether it must be the only consumer.
    pub exclusive: bool,
    /// Higher ones are served first.
    pub priority: i32,
    /// How many messages may be delivered before the first `Grant`; `None`: no bound in messages.
    pub credit: Option<u32>,
    /// Where to begin in a stream; `None`: with what comes from now on.
    pub start: Option<StreamStart>,
    /// Which messages of a stream are wanted; `None`: all.
    pub filter: Option<Arc<StreamFilter>>,
}

/// Which messages of a stream a consumer wants, by the values that their writers gave them to be filtered by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFilter {
    /// Messages with one of these.
    pub values: BTreeSet<Vec<u8>>,
    /// Messages without a value as well.
    pub unfiltered: bool,
}

impl StreamFilter {
    /// Whether a message with this value is wanted.
    pub fn takes(&self, value: Option<&[u8]>) -> bool {
        value.map_or(self.unfiltered, |value| self.values.contains(value))
    }
}

/// Where a consumer of a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStart {
    /// With the oldest message there is.
    First,
    /// With the first message of what was appended last.
    Last,
    /// With what comes from now on.
    Next,
    /// With this offset, or the oldest where that is higher. What is not there yet is waited for.
    Offset(u64),
    /// With the first append that has a message of this time or later, seconds since 1970.
    Timestamp(u64),
    /// Likewise, so many milliseconds ago.
    Interval(u64),
}

/// A change of the topology, or a question about it.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The fields are AMQP's, which are the routing model's.
pub enum Change {
    DeclareExchange(ExchangeDeclaration),
    DeleteExchange { name: String, if_unused: bool },
    BindExchange { source: String, destination: String, key: String, arguments: Arguments },
    UnbindExchange { source: String, destination: String, key: String, arguments: Arguments },
    DeclareQueue(QueueDeclaration),
    DeleteQueue { name: String, if_unused: bool, if_empty: bool },
    BindQueue { exchange: String, queue: String, key: String, arguments: Arguments },
    UnbindQueue { exchange: String, queue: String, key: String, arguments: Arguments },
    PurgeQueue { name: String },
}

/// An exchange to be declared.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct ExchangeDeclaration {
    pub name: String,
    /// `direct`, `fanout`, `topic`, `headers`, or what the client asked for.
    pub kind: String,
    /// Only ask whether it exists.
    pub passive: bool,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    pub arguments: Arguments,
}

/// Declaring a queue of this name makes the broker choose a name that begins with it and that nobody can guess: the
/// queue is its connection's address for replies, which others may ask for but not use otherwise.
pub const REPLY_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// A queue to be declared.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct QueueDeclaration {
    /// Empty: the broker chooses the name.
    pub name: String,
    /// Only ask whether it exists.
    pub passive: bool,
    pub durable: bool,
    pub exclusive: bool,
    pub auto_delete: bool,
    pub arguments: Arguments,
}
