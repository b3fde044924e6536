//! The disk adapter: carries out the log's [`commitlog::disk::DiskOp`]s on real files.
//!
//! In: operations of one shard. Out: completions whose promise is durable. [`Calls`] is the thin layer of system
//! calls everything goes through, so that a crash test can record or fail them. [`Files`] does one operation,
//! [`Adapter`] decides where and in which order. Never: retries a failed write or sync.

mod adapter;
mod calls;
mod files;
mod lane;

pub use adapter::Adapter;
pub use calls::{Access, Calls, OpenFile, System};
pub use files::{Files, remove_unfinished};

#[cfg(test)]
mod tests;
