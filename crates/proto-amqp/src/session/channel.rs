//! One channel: its state, the answer it waits for, what it assembles and what it has delivered.

use std::collections::BTreeMap;

use model::ConsumerId;

use super::confirm::Confirms;
use super::publish::{Content, Memo};
use super::settle::Unacked;

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not open; kept only while frames are parked for it.
    Closed,
    Open,
    /// The client wants to close it and the broker tidies up.
    Closing,
    /// `close` was sent; the broker tidies up and the client's `close-ok` is awaited. Both must come.
    Failed {
        confirmed: bool,
        tidied: bool,
    },
}

/// The answer of the broker that the frames behind must wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    pub reply: Reply,
    /// The client wants no reply.
    pub nowait: bool,
    /// Class and number of the method that asked.
    pub ids: (u16, u16),
}

/// What the client gets when the answer is yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    ExchangeDeclared,
    ExchangeDeleted,
    ExchangeBound,
    ExchangeUnbound,
    QueueDeclared,
    QueueBound,
    QueueUnbound,
    QueuePurged,
    QueueDeleted,
    Consuming(ConsumerId),
    /// The queue behind the reply pseudo-queue is being declared for this consumer tag.
    OwnQueue(String),
    Cancelled(String),
    Got {
        settled: bool,
    },
}

#[derive(Debug)]
pub(super) struct Channel {
    pub state: State,
    pub awaited: Option<Awaited>,
    /// Frames that wait for the answer; the first `replayed` bytes have gone on.
    pub parked: Vec<u8>,
    pub replayed: usize,
    pub memo: Memo,
    pub content: Content,
    pub confirms: Option<Confirms>,
    /// The queue that the empty name stands for.
    pub last_queue: String,
    /// How many messages consumers started from now on may hold; 0: any number.
    pub prefetch: u16,
    pub tags: BTreeMap<String, ConsumerId>,
    /// The queue behind the reply pseudo-queue, and its consumer.
    pub reply_queue: Option<(String, ConsumerId)>,
    pub unacked: Unacked,
    pub last_tag: u64,
}

impl Channel {
    pub(super) fn new() -> Channel {
        Channel {
            state: State::Closed,
            awaited: None,
            parked: Vec::new(),
            replayed: 0,
            memo: Memo::default(),
            content: Content::default(),
            confirms: None,
            last_queue: String::new(),
            prefetch: 0,
            tags: BTreeMap::new(),
            reply_queue: None,
            unacked: Unacked::default(),
            last_tag: 0,
        }
    }

    /// Whether frames of this channel must wait.
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.awaited.is_some()
            || !self.parked.is_empty()
            || matches!(self.state, State::Closing | State::Failed { confirmed: true, .. })
    }

    /// Forgets everything but the parked frames.
    pub(super) fn reset(&mut self, state: State) {
        let (parked, replayed) = (std::mem::take(&mut self.parked), self.replayed);
        *self = Channel { state, parked, replayed, ..Channel::new() };
    }
}
