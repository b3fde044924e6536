//! What the two halves of a broker tell each other, on one shard or between shards.

use std::collections::VecDeque;
use std::sync::Arc;

use base::Block;
use model::{
    GroupId, Items, Lane, OpSequence, Origin, QueueId, Refusal, Seq, ShardId, StreamFilter, StreamStart,
};
use queue::{ConsumerKey, Handed, Subscription};
use topology::Target;

use crate::log_parcel::{AppendAnswer, CoordinatorQuestion, LogQuestion, LogReply, ReadRequest};

/// The number under which a door waits for an answer.
pub(crate) type Ticket = u64;

/// A question about one queue, asked behind the writes of the asking shard.
#[derive(Debug)]
pub(crate) enum Question {
    /// How many messages and consumers?
    Count,
    /// Drop what is ready; how many were there?
    Purge,
    /// One message for this lane.
    Get(Lane),
    /// Start a consumer.
    Subscribe(Subscription),
    /// Start a consumer of a stream.
    Follow(Subscription, StreamStart, Option<Arc<StreamFilter>>),
}

/// The answer to a [`Question`].
#[derive(Debug)]
pub(crate) enum Answer {
    Counted { ready: u64, held: u64, consumers: u32 },
    Purged(u64),
    Got(Option<(Handed, u64)>),
    Subscribed,
    Refused(Refusal),
}

/// One message between a door and a host.
#[derive(Debug)]
pub struct Parcel(pub(crate) Content);

#[derive(Debug)]
pub(crate) enum Content {
    // To a host.
    Propose {
        group: GroupId,
        block: Block,
    },
    Ask {
        group: GroupId,
        queue: QueueId,
        origin: Origin,
        after: OpSequence,
        ticket: Ticket,
        question: Question,
    },
    Unsubscribe {
        group: GroupId,
        queue: QueueId,
        key: ConsumerKey,
    },
    Grant {
        group: GroupId,
        queue: QueueId,
        key: ConsumerKey,
        messages: u32,
        bytes: u32,
    },
    /// Handed out and passed on to nobody.
    TakeBack {
        group: GroupId,
        queue: QueueId,
        items: Items,
    },
    /// Returned without counting: nothing that is replicated changes.
    Return {
        group: GroupId,
        queue: QueueId,
        range: (Seq, Seq),
    },
    /// Read by offset.
    Read {
        ticket: Ticket,
        request: ReadRequest,
    },
    /// Answer a read with what there is.
    HurryRead {
        ticket: Ticket,
    },
    /// Nobody waits for the reply any more.
    CancelLog {
        ticket: Ticket,
    },
    AskLog {
        group: GroupId,
        log: QueueId,
        ticket: Ticket,
        question: LogQuestion,
    },
    Coordinate {
        target: Target,
        ticket: Ticket,
        question: Box<CoordinatorQuestion>,
    },
    // To a door.
    /// What became of one append to a log, ahead of the `Applied` that covers it.
    Appended {
        group: GroupId,
        sequence: OpSequence,
        answer: AppendAnswer,
    },
    LogReplied {
        ticket: Ticket,
        reply: Box<LogReply>,
    },
    Applied {
        group: GroupId,
        sequence: OpSequence,
    },
    Replied {
        ticket: Ticket,
        answer: Answer,
    },
    Handed {
        group: GroupId,
        queue: QueueId,
        handed: Handed,
    },
    Revoked {
        key: ConsumerKey,
    },
    // Topology: the metadata host to every shard, and back.
    Changed {
        number: u64,
        origin: Origin,
        sequence: OpSequence,
        command: Vec<u8>,
    },
    ChangeApplied {
        number: u64,
        value: u64,
    },
    ChangeDone {
        sequence: OpSequence,
        value: u64,
    },
    Snapshot {
        bytes: Vec<u8>,
    },
    WantSnapshot,
}

/// Where parcels are put: delivered on this shard within the same turn, or mailed.
#[derive(Debug)]
pub(crate) struct Post {
    here: ShardId,
    local: VecDeque<Content>,
    remote: VecDeque<(ShardId, Parcel)>,
}

impl Post {
    pub(crate) fn new(here: ShardId) -> Post {
        Post { here, local: VecDeque::new(), remote: VecDeque::new() }
    }

    #[inline]
    pub(crate) fn send(&mut self, to: ShardId, content: Content) {
        if to == self.here {
            self.local.push_back(content);
        } else {
            self.remote.push_back((to, Parcel(content)));
        }
    }

    #[inline]
    pub(crate) fn next_local(&mut self) -> Option<Content> {
        self.local.pop_front()
    }

    /// The parcel that comes so many after the next local one.
    #[inline]
    pub(crate) fn coming(&self, after: usize) -> Option<&Content> {
        self.local.get(after)
    }

    pub(crate) fn has_local(&self) -> bool {
        !self.local.is_empty()
    }

    pub(crate) fn next_remote(&mut self) -> Option<(ShardId, Parcel)> {
        self.remote.pop_front()
    }
}

/// Ranges that come in the order of their firsts, with those that touch or overlap made one.
pub(crate) fn merged(sorted: impl Iterator<Item = (Seq, Seq)>) -> impl Iterator<Item = (Seq, Seq)> {
    let mut sorted = sorted.peekable();
    std::iter::from_fn(move || {
        let (first, mut last) = sorted.next()?;
        while let Some((_, next)) = sorted.next_if(|(next, _)| next.0 <= last.0.saturating_add(1)) {
            last = last.max(next);
        }
        Some((first, last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        let mut ranges = [(5, 6), (7, 7), (1, 2), (3, 3), (10, 12), (11, 11), (14, 14)];
        ranges.sort_unstable();
        let merged: Vec<_> = merged(ranges.iter().map(|(first, last)| (Seq(*first), Seq(*last)))).collect();
        assert_eq!(merged, [(1, 3), (5, 7), (10, 12), (14, 14)].map(|(a, b)| (Seq(a), Seq(b))));
    }
}
