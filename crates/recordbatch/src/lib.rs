//! Kafka record batches of version 2, one of the encodings of our batches: admitted as they came, opened for readers
//! of other protocols, written for Kafka's readers, thinned out by compaction.
//!
//! Floor 2. In: bytes and a budget. Out: views of them, or new bytes. Never: knows of requests, partitions or
//! offsets beyond those in the bytes; believes a length before its bytes are there.

mod admission;
mod compression;
mod error;
mod fields;
mod header;
pub mod mapping;
mod opened;
mod retain;
mod rules;
#[cfg(test)]
mod tests;
mod varint;
mod writer;

pub use admission::{Checked, check};
pub use compression::Codec;
pub use error::BatchError;
pub use fields::{Headers, KafkaRecord, encode_headers};
pub use header::{HEADER, Header, append_time, batches, place};
pub use opened::{Opened, Records, open};
pub use retain::retain;
pub use rules::Rules;
pub use writer::BatchWriter;
