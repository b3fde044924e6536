//! The waist: the words in which every protocol above and every engine below speak.
//!
//! Floor 1. Ids, records and their encoding, requests and events, refusals, limits. No behaviour beyond encoding
//! itself, and no protocol's own terms: a front end translates at its own door.

pub mod batch;
pub mod commit;
pub mod entry;
mod event;
mod ids;
mod limits;
pub mod membership;
mod properties;
mod record;
mod refusal;
mod request;
pub mod rewrite;
pub mod topic;
mod value;

pub use batch::Batch;
pub use entry::{Entry, EntryBuilder, Operation, OperationKind};
pub use event::{
    CommittedStatus, Delivered, Event, Item, Items, OwnedRecord, PartitionStatus, QueueStatus, Status,
};
pub use ids::{
    ConnId, ConsumerId, GroupId, Index, Lane, NodeId, OpSequence, Origin, Protocol, QueueId, Seq, ShardId,
    Term,
};
pub use limits::Limits;
pub use properties::Properties;
pub use record::{Damaged, Record};
pub use refusal::{Entity, Refusal};
pub use request::{
    Change, ExchangeDeclaration, HeadersOf, Outcome, Peer, Publish, QueueDeclaration, REPLY_PREFIX, Request,
    Settlement, StreamFilter, StreamStart, Subscribe,
};
pub use rewrite::Replaced;
pub use topic::{LogAnswer, LogRefusal, LogRequest, TopicId};
pub use value::{Arguments, Value};
