//! What door and host tell each other about logs and consumer groups.
//!
//! A request about many partitions is cut at the door into one question per partition (or, for reads, one per host)
//! and put together again from the replies.

use model::membership::{CommittedOffset, GroupAnswer, Join, Membership, Sync};
use model::topic::{Appended, Fetched, FoundOffset, OffsetAt, ProducerFigures};
use model::{GroupId, LogRefusal, QueueId};

/// A question about one log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LogQuestion {
    /// Where is this?
    Offset(OffsetAt),
    /// Where does this leader epoch end?
    EpochEnd(u32),
    /// Forget what lies below.
    Trim(u64),
    /// How large is it, who produces?
    Figures,
}

/// One cursor of a read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadCursor {
    /// Which cursor of the client's request it is.
    pub position: usize,
    pub group: GroupId,
    pub log: QueueId,
    pub offset: u64,
    pub max_bytes: usize,
    pub epoch: Option<u32>,
}

/// A read of several logs of one host.
#[derive(Clone, Debug)]
pub(crate) struct ReadRequest {
    pub cursors: Vec<ReadCursor>,
    pub min_bytes: usize,
    pub max_bytes: usize,
    /// Answer by then, in microseconds of the monotonic clock.
    pub deadline_us: u64,
}

/// A question to the coordinator of a consumer group.
#[derive(Clone, Debug)]
pub(crate) enum CoordinatorQuestion {
    Join(Join),
    Sync(Sync),
    Heartbeat(Membership),
    Leave {
        group: String,
        members: Vec<(String, Option<String>)>,
    },
    Commit {
        who: Membership,
        offsets: Vec<(QueueId, CommittedOffset)>,
    },
    /// `None`: all of the group.
    Offsets {
        group: String,
        logs: Option<Vec<QueueId>>,
    },
    /// With the topics the logs belong to.
    Forget {
        group: String,
        logs: Vec<(QueueId, String)>,
    },
    Delete(String),
    List,
    Describe(String),
}

/// The answer to one question.
#[derive(Clone, Debug)]
pub(crate) enum LogReply {
    Offset(Result<FoundOffset, LogRefusal>),
    EpochEnd(Result<(u32, u64), LogRefusal>),
    Trimmed(Result<u64, LogRefusal>),
    Figures(Result<LogFigures, LogRefusal>),
    Read(Vec<(usize, Result<Fetched, LogRefusal>)>),
    /// As the client gets it.
    Group(GroupAnswer),
    /// One result for every offset of the request that named a partition.
    Committed(Result<(), LogRefusal>),
    /// One result per partition that was named.
    Forgotten(Vec<Result<(), LogRefusal>>),
    Offsets(Result<Vec<(QueueId, Option<CommittedOffset>)>, LogRefusal>),
}

/// The figures of one log.
#[derive(Clone, Debug)]
pub(crate) struct LogFigures {
    pub start: u64,
    pub end: u64,
    pub bytes: u64,
    pub producers: Vec<ProducerFigures>,
}

/// What became of one append, told before it counts as applied.
pub(crate) type AppendAnswer = Result<Appended, LogRefusal>;
