//! Consumer groups: members that share partitions under generations, and the offsets they commit.

use crate::topic::{LogRefusal, PartitionRef};

/// A request to the coordinator of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRequest {
    /// Enters the group, or enters it anew; waits for the others. Answer: `Joined`.
    Join(Join),
    /// The leader brings the assignments, the others wait for theirs. Answer: `Synced`.
    Sync(Sync),
    /// Still there. Answer: `Done`.
    Heartbeat(Membership),
    /// Leaves. Answer: `Left`, one result per member.
    Leave {
        /// The group.
        group: String,
        /// Member ids (empty when only the instance is known) and instance ids.
        members: Vec<(String, Option<String>)>,
    },
    /// Commits offsets. Answer: `Committed`, one result per offset.
    Commit(Commit),
    /// Asks for committed offsets; `None`: all of the group. Answer: `Offsets`.
    Offsets {
        /// The group.
        group: String,
        /// Of which partitions.
        partitions: Option<Vec<PartitionRef>>,
    },
    /// Forgets offsets of a group. Answer: `Committed`, one result per partition.
    DeleteOffsets {
        /// The group.
        group: String,
        /// Of which partitions.
        partitions: Vec<PartitionRef>,
    },
    /// Deletes groups without members. Answer: `Deleted`, one result per group.
    Delete(Vec<String>),
    /// Asks which groups there are. Answer: `Groups`.
    List,
    /// Describes groups. Answer: `Groups`, one per name; an unknown one is dead.
    Describe(Vec<String>),
}

/// Who speaks, and of which generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The generation; -1 for whoever only commits offsets.
    pub generation: i32,
    /// The member id; empty for whoever only commits offsets.
    pub member: String,
    /// The lasting name of a static member.
    pub instance: Option<String>,
}

/// A member that wants to enter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: String,
    /// Its member id; empty the first time.
    pub member: String,
    /// The lasting name of a static member.
    pub instance: Option<String>,
    /// What it calls itself.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// Milliseconds without a heartbeat after which it is taken for dead.
    pub session_timeout_ms: u32,
    /// Milliseconds it may take to join again.
    pub rebalance_timeout_ms: u32,
    /// What kind of group: `consumer`, `connect`, …; opaque.
    pub protocol_type: String,
    /// Ways of sharing it knows, dearest first, with its opaque metadata for each.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// A new member is first given an id and told to come again with it.
    pub id_required: bool,
    /// The leader of a generation that did not change may skip the assignment.
    pub can_skip_assignment: bool,
}

/// A member that wants its assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    /// Who.
    pub who: Membership,
    /// What the member believes of the group, checked where given.
    pub protocol_type: Option<String>,
    /// Likewise.
    pub protocol: Option<String>,
    /// From the leader: assignments by member id.
    pub assignments: Vec<(String, Vec<u8>)>,
}

/// Offsets to be committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Who.
    pub who: Membership,
    /// Offsets.
    pub offsets: Vec<(PartitionRef, CommittedOffset)>,
}

/// One committed offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read. What a client committed below 0 is here with the same bits: beyond every log.
    pub offset: u64,
    /// The leader epoch of the record before it.
    pub epoch: Option<u32>,
    /// Whatever the client wants to remember.
    pub metadata: String,
}

/// The answer of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum GroupAnswer {
    Joined(Result<Joined, LogRefusal>),
    Synced(Result<Synced, LogRefusal>),
    Done(Result<(), LogRefusal>),
    Left(Result<Vec<Result<(), LogRefusal>>, LogRefusal>),
    Committed(Vec<Result<(), LogRefusal>>),
    /// Topic name, partition, offset; `None`: nothing is committed.
    Offsets(Result<Vec<(PartitionRef, Option<CommittedOffset>)>, LogRefusal>),
    Deleted(Vec<Result<(), LogRefusal>>),
    Groups(Vec<GroupDescription>),
}

/// What a member learns when everybody is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    /// The leader's member id.
    pub leader: String,
    /// Its own member id.
    pub member: String,
    /// The leader need not assign.
    pub skip_assignment: bool,
    /// For the leader only.
    pub members: Vec<MemberMetadata>,
}

/// One member as the leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MemberMetadata {
    pub member: String,
    pub instance: Option<String>,
    pub metadata: Vec<u8>,
}

/// A member's assignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Vec<u8>,
}

/// Where a group is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupPhase {
    /// There is no such group.
    #[default]
    Dead,
    /// Nothing but committed offsets.
    Empty,
    /// Members are joining.
    PreparingRebalance,
    /// The leader is assigning.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
}

/// A group as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GroupDescription {
    pub group: String,
    pub phase: GroupPhase,
    pub protocol_type: String,
    pub protocol: String,
    pub members: Vec<MemberDescription>,
}

/// A member as an operator sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MemberDescription {
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Vec<u8>,
    pub assignment: Vec<u8>,
}
