//! One thread's world as one state machine: connections, sessions, broker, group replicas and their log.
//!
//! Floor 5. The only crate that names every protocol: one enum, one match. In: what happened (bytes, completions,
//! mail, time). Out: what is to be done and bytes to send. The simulator runs exactly this, from raw client bytes.

mod connection;
mod disk_alarm;
mod shard;
#[cfg(test)]
mod tests;
mod timers;

pub use auth::User;
pub use connection::Door;
pub use disk_alarm::{Counted, DiskAlarm};
pub use shard::{AuthJob, Config, LogLevel, Mail, Output, Shard};
