//! What readers by offset ask: topics, partitions, batches appended as they came, cursors.
//!
//! A topic is a name for an ordered list of logs, its partitions. Every request carries a token that its session
//! chose; the answer carries it back, and answers may come in any order.

use std::ops::Range;

use base::Block;

use crate::membership::{GroupAnswer, GroupRequest};
use crate::{Arguments, QueueId};

/// The lasting identity of a topic: not reused when one of the same name is created later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub u128);

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// One partition as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionRef {
    /// The topic.
    pub topic: TopicRef,
    /// The partition, from 0.
    pub partition: u32,
}

/// A request of a connection that reads and writes by offset.
#[derive(Clone, Debug)]
pub enum LogRequest<'a> {
    /// Appends one batch as it came. Answer: `Appended`.
    Append(AppendBatch<'a>),
    /// Reads from cursors. Answer: `Fetched`.
    Fetch(Fetch),
    /// Asks where offsets are. Answer: `Offsets`, in the order asked.
    Offsets(Vec<(PartitionRef, OffsetAt)>),
    /// Asks where the epochs end. Answer: `EpochEnds`, in the order asked.
    EpochEnds(Vec<(PartitionRef, u32)>),
    /// Asks what topics there are. Answer: `Topics`.
    Topics(TopicsWanted),
    /// Creates topics. Answer: `Changed`, one result per topic.
    CreateTopics {
        /// Which.
        topics: Vec<TopicDeclaration>,
        /// Only say whether it could be done.
        validate_only: bool,
    },
    /// Adds partitions until there are so many. Answer: `Changed`.
    CreatePartitions {
        /// Topics and how many partitions each is to have.
        topics: Vec<(String, u32)>,
        /// Only say whether it could be done.
        validate_only: bool,
    },
    /// Deletes topics with all their records. Answer: `Changed`.
    DeleteTopics(Vec<TopicRef>),
    /// Replaces configurations (`None`: back to the default). Answer: `Changed`.
    AlterTopics {
        /// Topics and what changes.
        topics: Vec<(String, Vec<ConfigChange>)>,
        /// Only say whether it could be done.
        validate_only: bool,
        /// Whether what is not named goes back to its default.
        replace: bool,
    },
    /// Forgets records below an offset (`u64::MAX`: all that are there). Answer: `Trimmed`, the new first offsets.
    Trim(Vec<(PartitionRef, u64)>),
    /// Asks for sizes and producers of partitions; none named: all. Answer: `Partitions`.
    Partitions(Option<Vec<PartitionRef>>),
    /// Asks for a producer id nobody has. Answer: `Producer`.
    Producer,
    /// A request to the coordinator of a consumer group. Answer: `Group`.
    Group(GroupRequest),
    /// What is called off: its answer, if still due, comes now as it stands (a fetch) or never (anything else).
    Cancel {
        /// The token of the earlier request.
        token: u64,
    },
}

/// One batch for one partition.
#[derive(Clone, Copy, Debug)]
pub struct AppendBatch<'a> {
    /// The topic's name; empty when `id` tells.
    pub topic: &'a str,
    /// The topic's id where the client used it.
    pub id: Option<TopicId>,
    /// The partition.
    pub partition: u32,
    /// One Kafka v2 record batch, or several one behind the other, unchecked.
    pub batch: &'a [u8],
    /// How many replicas must have it: 0 none (no answer unless refused), 1 the leader, -1 all that are in sync.
    pub required: i16,
    /// Milliseconds that the answer may take where it is not clear yet whether the batch is taken.
    pub timeout_ms: u32,
}

/// Several cursors read in one go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetch {
    /// Milliseconds to wait for `min_bytes`.
    pub max_wait_ms: u32,
    /// Answer as soon as so many bytes are there, or an error is.
    pub min_bytes: u32,
    /// No more bytes than this, but at least one whole batch.
    pub max_bytes: u32,
    /// From where.
    pub cursors: Vec<Cursor>,
}

/// One reader's place in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of which partition.
    pub at: PartitionRef,
    /// The next offset wanted.
    pub offset: u64,
    /// No more bytes than this, but at least one whole batch where nothing came before it in the answer.
    pub max_bytes: u32,
    /// The leader epoch the reader knows; an older one is refused as fenced, a newer one as unknown.
    pub epoch: Option<u32>,
}

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetAt {
    /// The first there is.
    Earliest,
    /// The one the next record will get.
    Latest,
    /// The first with this timestamp or a later one, milliseconds since 1970.
    Timestamp(i64),
    /// The one with the highest timestamp.
    MaxTimestamp,
}

/// Which topics are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicsWanted {
    /// All.
    All,
    /// These; with `create` missing ones are created with default settings.
    Named {
        /// Which.
        topics: Vec<TopicRef>,
        /// Whether missing ones are to be created.
        create: bool,
    },
}

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDeclaration {
    /// Its name.
    pub name: String,
    /// How many partitions; `None`: the default.
    pub partitions: Option<u32>,
    /// How many replicas; `None`: the default.
    pub replicas: Option<u16>,
    /// Configurations by their Kafka names.
    pub configs: Vec<(String, String)>,
}

/// One change of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ConfigChange {
    Set(String, String),
    Default(String),
    /// Adds to a list.
    Append(String, String),
    /// Takes from a list.
    Subtract(String, String),
}

/// The answer to a [`LogRequest`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum LogAnswer {
    Appended(Result<Appended, LogRefusal>),
    Fetched(Vec<Result<Fetched, LogRefusal>>),
    Offsets(Vec<Result<FoundOffset, LogRefusal>>),
    /// Per question: the epoch asked for or the nearest older one there was, and the offset behind its last record.
    EpochEnds(Vec<Result<(u32, u64), LogRefusal>>),
    Topics(Vec<Result<Topic, (TopicRef, LogRefusal)>>),
    Changed(Vec<Result<Topic, LogRefusal>>),
    Trimmed(Vec<Result<u64, LogRefusal>>),
    Partitions(Vec<Result<PartitionFigures, (PartitionRef, LogRefusal)>>),
    /// A producer id; its epoch is 0.
    Producer(Result<u64, LogRefusal>),
    Group(GroupAnswer),
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record; also for a repeat that was already there.
    pub base_offset: u64,
    /// The time the log gave it, where the topic is configured so.
    pub log_append_ms: Option<i64>,
    /// The first offset of the log.
    pub start: u64,
}

/// What a cursor found.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// The first offset of the log.
    pub start: u64,
    /// The offset behind the last committed record.
    pub end: u64,
    /// Whole Kafka v2 batches in order; the first contains the wanted offset or lies behind it.
    pub batches: Vec<FetchedBatch>,
}

/// One Kafka v2 batch within a block. Its first 8 bytes (base offset) and the 4 at 12 (leader epoch) are to be
/// replaced with what is said here, which its checksum does not cover.
#[derive(Clone, Debug)]
pub struct FetchedBatch {
    /// Where its bytes are.
    pub block: Block,
    /// Which of the block's.
    pub range: Range<usize>,
    /// Its base offset.
    pub base_offset: u64,
    /// Its leader epoch.
    pub epoch: u32,
}

/// A found offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; `None`: no record is as asked.
    pub offset: Option<u64>,
    /// The record's timestamp, where it was asked by time.
    pub timestamp_ms: Option<i64>,
    /// The epoch of that offset.
    pub epoch: u32,
}

/// A topic as clients see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: TopicId,
    /// Its partitions' logs, in order.
    pub partitions: Vec<QueueId>,
    /// What was configured, by Kafka names; what is missing has its default.
    pub configs: Vec<(String, String)>,
    /// As an AMQP client declared it, else empty.
    pub arguments: Arguments,
}

/// Figures of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFigures {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub start: u64,
    /// The offset behind the last.
    pub end: u64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Producers that are remembered.
    pub producers: Vec<ProducerFigures>,
}

/// One producer as a partition remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ProducerFigures {
    pub id: u64,
    pub epoch: i16,
    pub last_sequence: i32,
    pub last_timestamp_ms: i64,
}

/// A record for which its batch is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Which record of the batch, from 0.
    pub number: u32,
    /// What is wrong with it.
    pub text: String,
}

/// Why a request of a reader by offset was not granted: a closed list. Definite unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogRefusal {
    /// No such topic or partition.
    UnknownPartition,
    /// No topic has this id.
    UnknownTopicId,
    /// The topic is being created: ask again.
    NotYet,
    /// The name cannot be a topic's.
    BadName(String),
    /// There is one already.
    Exists(String),
    /// The bytes are no sound batch: checksum or structure.
    CorruptBatch(String),
    /// A batch of a format older than is accepted.
    OldFormat,
    /// Compressed in a way that is not known.
    UnknownCompression,
    /// Sound in form, refused in content: counts, offsets, control bits, keyless record of a compacted topic. With
    /// the records it is about, where it is about single ones.
    InvalidRecord(String, Vec<BadRecord>),
    /// Timestamps are too far from now, or make no sense. With the records that have them, where they are known.
    InvalidTimestamp(Vec<BadRecord>),
    /// Larger than the topic takes.
    TooLarge(String),
    /// Outside the log: its first offset and the one behind its last.
    OutOfRange(u64, u64),
    /// The reader's leader epoch is older than the leader's.
    FencedEpoch,
    /// The reader's leader epoch is newer than the leader's.
    UnknownEpoch,
    /// Not the number that follows the producer's last.
    OutOfSequence,
    /// The producer's epoch was superseded.
    StaleProducer,
    /// A count of partitions that cannot be.
    InvalidPartitions(String),
    /// A count of replicas that cannot be here.
    InvalidReplicas(String),
    /// Partitions assigned to nodes in a way that cannot be here.
    InvalidAssignment(String),
    /// A configuration that cannot be.
    InvalidConfig(String),
    /// Makes no sense otherwise.
    Invalid(String),
    /// Not allowed to this user.
    Denied(String),
    /// A policy forbids it.
    Forbidden(String),
    /// The group's coordinator is not ready: ask again.
    CoordinatorLoading,
    /// The group is at another generation.
    StaleGeneration,
    /// The group does not know this member.
    UnknownMember,
    /// Join again with this member id.
    MemberIdRequired(String),
    /// Another member took over this static member's place.
    FencedMember,
    /// Join again: the group's members change.
    Rebalancing,
    /// The member's protocols and those of the group have nothing in common.
    InconsistentProtocol,
    /// A session timeout outside of the allowed range.
    InvalidSessionTimeout,
    /// An empty or impossible group name.
    InvalidGroup,
    /// No such group.
    UnknownGroup,
    /// The group has members.
    GroupNotEmpty,
    /// The group has as many members as it may have.
    GroupFull(String),
    /// The group reads this topic.
    GroupSubscribed,
    /// The commit's metadata is too large.
    MetadataTooLarge,
    /// Cannot be taken now (disk, leadership); `true` when it may still happen later.
    Unavailable(String, bool),
}
