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
        /// How many of it were unsettled.
        messages: u64,
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
    /// The answer of the append of a batch as it came, also when it is a repeat; in place of `Answered`.
    Appended {
        /// The log.
        log: QueueId,
        /// Who numbered it.
        origin: Origin,
        /// Its number.
        sequence: OpSequence,
        /// What became of the batch.
        answer: Result<AppendOutcome, AppendRefusal>,
    },
    /// A log has more records than before.
    Grown {
        /// The log.
        log: QueueId,
    },
    /// Records of a log are gone: at its start, or removed one by one.
    Trimmed {
        /// The log.
        log: QueueId,
    },
    /// A batch of a log stands elsewhere now, without what was removed of it.
    Rewritten {
        /// The log.
        log: QueueId,
        /// The bytes it had.
        before: u32,
        /// The bytes it has.
        after: u32,
    },
    /// Nothing of this entry is needed any more.
    Freed(Index),
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// The offset of its first record.
    pub base: u64,
    /// The offset behind its last.
    pub end: u64,
    /// Whether its producer had sent it before: it is there once.
    pub repeat: bool,
}

/// Why a batch was not stored, or what cannot be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRefusal {
    /// There is no such log.
    NoLog = 1,
    /// Not the number that follows the producer's last.
    OutOfSequence = 2,
    /// The producer's epoch was superseded.
    StaleProducer = 3,
    /// A repeat of an operation so old that its answer is no longer known: stored or refused back then.
    Forgotten = 5,
}

/// A remembered answer is a number: the base offset with this bit for a producer's repeat, or a refusal.
const REPEAT: u64 = 1 << 62;
const REFUSED: u64 = 1 << 63;

pub(crate) fn remembered(answer: Result<AppendOutcome, AppendRefusal>) -> u64 {
    match answer {
        Ok(outcome) => outcome.base | if outcome.repeat { REPEAT } else { 0 },
        Err(refusal) => REFUSED | refusal as u64,
    }
}

/// The answer of the append of a batch of `span` offsets, from what was remembered of it.
pub(crate) fn recalled(value: Option<u64>, span: u32) -> Result<AppendOutcome, AppendRefusal> {
    use AppendRefusal::*;
    let value = value.ok_or(Forgotten)?;
    if value & REFUSED != 0 {
        let all = [NoLog, OutOfSequence, StaleProducer];
        return Err(all.into_iter().find(|refusal| REFUSED | *refusal as u64 == value).unwrap_or(Forgotten));
    }
    let base = value & !REPEAT;
    Ok(AppendOutcome { base, end: base.saturating_add(u64::from(span)), repeat: value & REPEAT != 0 })
}

/// Why a group cannot go on: an entry this version does not understand. Its state is as before the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halt(pub &'static str);

impl From<Damaged> for Halt {
    fn from(damaged: Damaged) -> Halt {
        Halt(damaged.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_recalled_as_it_was() {
        use AppendRefusal::*;
        for answer in [
            Ok(AppendOutcome { base: 0, end: 3, repeat: false }),
            Ok(AppendOutcome { base: (1 << 62) - 4, end: (1 << 62) - 1, repeat: true }),
            Err(NoLog),
            Err(OutOfSequence),
            Err(StaleProducer),
        ] {
            assert_eq!(recalled(Some(remembered(answer)), 3), answer);
        }
        assert_eq!(recalled(None, 3), Err(Forgotten));
        assert_eq!(recalled(Some(u64::MAX), 3), Err(Forgotten));
    }
}
