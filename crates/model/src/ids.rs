//! Numbers that must not be mixed up.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $t:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $t);

        impl base::Number for $name {
            #[inline]
            fn number(self) -> u64 {
                self.0.into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// One connection of one shard; never reused while the process lives.
    ConnId, u64
);
id!(
    /// A consumer within one connection, chosen by its session; never reused within the connection.
    ConsumerId, u32
);
id!(
    /// One Raft group. 0 is the metadata group; see [`GroupId::memory`] for the unlogged ones.
    GroupId, u32
);
id!(
    /// A Raft index: the place of an entry in its group's log, from 1.
    Index, u64
);
id!(
    /// A sub-conversation of a connection that keeps its own order: an AMQP channel, 0 where there is only one.
    Lane, u16
);
id!(
    /// A node of the cluster, from 1.
    NodeId, u16
);
id!(
    /// The number of an operation among those of one origin for one group, from 1, without gaps.
    OpSequence, u64
);
id!(
    /// Who numbers operations: one shard in one start of its node. See [`Origin::new`].
    Origin, u64
);
id!(
    /// A queue or log; given once, never reused.
    QueueId, u64
);
id!(
    /// The place of a message in its queue, from 0, given when the enqueue is applied; never reused.
    Seq, u64
);
id!(
    /// One thread's world on one node, from 0.
    ShardId, u16
);
id!(
    /// A Raft term.
    Term, u64
);

impl GroupId {
    /// The group of topology, users and placement.
    pub const METADATA: GroupId = GroupId(0);

    const MEMORY: u32 = 1 << 31;

    /// The group of queues that live in one shard's memory and are never logged.
    pub fn memory(shard: ShardId) -> GroupId {
        GroupId(Self::MEMORY | u32::from(shard.0))
    }

    /// The shard of a memory group, `None` for a logged one.
    pub fn memory_shard(self) -> Option<ShardId> {
        (self.0 & Self::MEMORY != 0).then_some(ShardId(self.0 as u16))
    }
}

impl Origin {
    /// The origin of `shard` of `node` in its start number `boot`.
    pub fn new(node: NodeId, shard: ShardId, boot: u32) -> Origin {
        Origin(u64::from(node.0) << 48 | u64::from(shard.0) << 32 | u64::from(boot))
    }

    /// Node and shard: a newer boot of the same place supersedes an older one.
    pub fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The shard within its node.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 32) as u16)
    }

    /// The start number of the node.
    pub fn boot(self) -> u32 {
        self.0 as u32
    }
}

/// The protocol a record was written with; part of the disk format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// AMQP 0-9-1; a record's prefix is its property block (flags and list) as received.
    Amqp091 = 1,
    /// Kafka; a record's prefix is its headers: varint count, then per header varint length, key, varint length
    /// (-1 null), value, as in a record of a v2 batch.
    Kafka = 2,
}

impl Protocol {
    /// The protocol of a stored byte.
    pub fn from_byte(byte: u8) -> Option<Protocol> {
        [Protocol::Amqp091, Protocol::Kafka].into_iter().find(|protocol| *protocol as u8 == byte)
    }
}
