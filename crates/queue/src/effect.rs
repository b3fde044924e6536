//! What applying an entry tells its surroundings.
//!
//! Effects speak of ranges, never of single messages. They are the same on every replica; only the leader has use
//! for most of them.

use model::{Damaged, Index, OpSequence, Origin, QueueId, Seq};

/// One consequence of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Messages were added to a queue; its handed-out bound may have risen with them.
    Enqueued {
        /// The queue.
        queue: QueueId,
        /// The place of the first.
        first: Seq,
        /// How many.
        count: u32,
    },
    /// Every message of this range is settled now; some may have been before.
    Settled {
        /// The queue.
        queue: QueueId,
        /// The first place.
        first: Seq,
        /// The last place.
        last: Seq,
    },
    /// Whatever of this range is unsettled is ready again.
    Returned {
        /// The queue.
        queue: QueueId,
        /// The first place.
        first: Seq,
        /// The last place.
        last: Seq,
    },
    /// The queue's handed-out bound rose.
    HandedOut {
        /// The queue.
        queue: QueueId,
    },
    /// The queue was created or its configuration replaced.
    Configured {
        /// The queue.
        queue: QueueId,
    },
    /// The queue is gone.
    Deleted {
        /// The queue.
        queue: QueueId,
        /// How many unsettled messages went with it.
        messages: u64,
    },
    /// The answer of one operation, also when it is a repeat.
    Answered {
        /// Who numbered it.
        origin: Origin,
        /// Its number.
        sequence: OpSequence,
        /// The answer.
        value: u64,
    },
    /// Every operation of this origin up to this one is applied.
    Applied {
        /// Who numbers them.
        origin: Origin,
        /// The last applied.
        sequence: OpSequence,
    },
    /// An operation was refused because those before it are missing.
    Gap {
        /// Who numbered it.
        origin: Origin,
        /// Its number.
        sequence: OpSequence,
        /// The number that would have been taken.
        expected: OpSequence,
    },
    /// An operation was refused because its origin's place has started anew since.
    Superseded {
        /// The older origin.
        origin: Origin,
        /// The operation's number.
        sequence: OpSequence,
    },
    /// Nothing of this entry is needed any more.
    Freed(Index),
}

/// Why a group cannot go on: an entry this version does not understand. Its state is as before the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt(pub &'static str);

impl From<Damaged> for Halt {
    fn from(damaged: Damaged) -> Halt {
        Halt(damaged.0)
    }
}
