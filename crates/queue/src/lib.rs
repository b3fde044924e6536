//! Queues, logs and committed offsets: the replicated state of one group, and the delivery of its queues on the
//! group's leader.
//!
//! Floor 2. Two machines side by side. [`GroupMachine`] is replicated and deterministic: `apply` reads the entry and
//! its own state, nothing else. [`Delivery`] lives on the leader only and is rebuilt from [`QueueState`] after a
//! restart or a change of leader. Neither knows where entries are stored: one says which are no longer needed, the
//! other asks for the bytes of one by its index.

mod bits;
mod checkpoint;
mod chunks;
mod consumers;
mod delivery;
mod effect;
mod group_offsets;
mod live_pieces;
mod liveness;
mod log_apply;
mod log_checkpoint;
mod log_state;
mod machine;
mod needed;
mod objects;
mod offsets_checkpoint;
mod origins;
mod producers;
mod queue_state;
mod rewritten;
mod rows;
mod seq_set;
#[cfg(test)]
mod tests;

pub use checkpoint::View;
pub use consumers::{ConsumerKey, ExclusiveUse, Subscription};
pub use delivery::{Delivery, Filled, Got, Handed};
pub use effect::{AppendOutcome, AppendRefusal, Effect, Halt};
pub use group_offsets::{Committed, ConsumerGroup, GroupOffsets};
pub use live_pieces::LivePiece;
pub use log_state::{ChunkAt, LogState};
pub use machine::GroupMachine;
pub use origins::Piece;
pub use queue_state::{Counters, QueueState};
pub use rows::{Fetched, Wanted};
