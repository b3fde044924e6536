//! The Kafka protocol: bytes of one connection in, requests out; events in, bytes out.
//!
//! Floor 2. `wire` turns bytes into frames and fields and back, `session` holds one connection, `map` says which
//! error code a refusal becomes. Does no IO and reads no clock; knows nothing of logs beyond their names.

pub mod map;
mod session;
pub mod wire;

pub use session::{Product, Session, Step};
