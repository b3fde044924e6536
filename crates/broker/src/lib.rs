//! Requests in, events out: what every protocol's front end may ask of the queues.
//!
//! Floor 4. A broker has two halves that speak only in [`Parcel`]s, whether they sit on the same shard or not:
//! the *door* knows connections, routing and who waits for which answer; the *host* knows the groups that are
//! led here, their queues and who is served next. A request takes the same path whether its queue is hosted on
//! this shard or on another one.
//!
//! It never sees a protocol's frame, a socket or a clock, and never asks whether a disk is fast.

mod broker;
mod door;
mod host;
mod log_parcel;
mod parcel;
mod start;
mod status;
#[cfg(test)]
mod tests;

pub use broker::{Broker, Notice, ReadBlock, Settings, WriteBlock};
pub use parcel::Parcel;

/// Bytes a compressed batch may become when it is opened, whoever looks into it.
pub(crate) const OPENED_BYTES_MAX: usize = 64 << 20;
