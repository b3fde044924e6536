//! The commit log of one shard: a ring of segments that holds the entries and hard states of all its Raft groups, so
//! that one write and one sync per step make everything durable, whatever it touched.
//!
//! Floor 2. In: entries, hard states, checkpoints, completions of disk operations. Out: disk operations, and events
//! saying what is durable, read, or failed. Does no IO itself, never retries a sync, never deletes what a group may
//! still need, never knows what is in an entry.
//!
//! The walk of an entry: [`CommitLog::append`] copies it (or, when large, a reference) into the open flush;
//! [`CommitLog::flush`] gives the flush its place and makes it one [`disk::DiskOp::Write`]; its completion makes
//! [`LogEvent::Durable`]. The disk begins a flush when the one before is durable, so a flush on disk proves that
//! the one before was synced: what recovery finds broken at the very end was never durable, what it finds broken elsewhere is damage.

mod budget;
mod cache;
mod checkpoint;
mod checkpointing;
mod dead_space;
pub mod disk;
mod error;
mod evacuation;
mod flush;
mod flushing;
mod frame;
mod gathered;
mod group;
mod log;
mod manifest;
mod naming;
mod open_flush;
mod pieces;
mod reading;
mod recover;
mod recover_runs;
mod relief;
mod replay;
mod run;
mod runs;
mod segment;
#[cfg(test)]
mod tests;
mod trim;

pub use error::OpenError;
pub use evacuation::{NotedPiece, PiecePlan, evacuation_bytes_max};
pub use group::HardState;
pub use log::{CommitLog, Config, FlushId, LogEvent, Stats};
pub use pieces::{Location, Piece, PieceLookup};
pub use reading::{Lookup, Prefetch};
pub use recover::{Checkpoint, RecoveredGroup};
