//! The poll loop of one shard: everything that happens is gathered into turns, and every turn ends in one `finish`.
//!
//! ```text
//! wait → letters → hungry connections → readable sockets (one read each) → finish → outputs → sends → small writes
//! ```
//! The clock is read once per turn. The loop sleeps only when the turn left nothing to be done.

mod connection;
mod connections;
mod inbound;
mod outbound;
mod shard_loop;

pub use shard_loop::{Parts, ShardLoop};
