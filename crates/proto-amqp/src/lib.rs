//! AMQP 0-9-1 with RabbitMQ's extensions: bytes of one connection in, requests out; events in, bytes out.
//!
//! Floor 2. `wire` turns bytes into frames and methods and back, `session` holds one connection, `map` says which
//! reply code a refusal becomes. Does no IO and reads no clock; knows nothing of queues beyond their names.

pub mod map;
mod session;
pub mod wire;

pub use session::{Product, Session, Step, coming_publish};
