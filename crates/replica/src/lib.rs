//! One replicated group: the consensus library over the shard's commit log.
//!
//! Floor 3. In: sealed entries to propose, flushes that became durable. Out: committed entries, in order, each
//! once, to be applied by whoever owns the group's machine. Nothing above this crate sees the library; nothing in
//! it knows what an entry means. It never decodes the library's own wire format.

mod replica;
mod tail;
#[cfg(test)]
mod tests;

pub use replica::{Committed, Halted, Replica, Role};
