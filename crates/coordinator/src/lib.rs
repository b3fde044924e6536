//! Who is in which consumer group: members, generations, who leads, who owns what until when.
//!
//! Floor 2. In: joins, syncs, heartbeats and leaves with the time they come at. Out: answers, some of them later. It is
//! kept in memory where the group's coordinator is led, and begins empty after a start or a move: members are then not
//! known, which makes them join again. Never: committed offsets, which are replicated elsewhere, or what the opaque
//! bytes of members and assignments mean, but for the names of topics in a consumer's subscription.

mod coordinator;
mod group;
mod join;
mod member;
mod outbox;
mod questions;
mod rebalance;
mod settings;
mod subscription;
mod sync;

#[cfg(test)]
mod tests;

pub use coordinator::Coordinator;
pub use settings::Settings;
