//! What the standard library lacks and every floor above needs: byte readers and writers, checksums, aligned
//! recycled blocks, send buffers, deterministic maps, seeded randomness and the two kinds of time.
//!
//! Floor 0. Knows nothing of brokers, does no IO, reads no clock.

mod ahead;
pub mod block;
mod bytes_in;
mod bytes_out;
mod checksum;
mod map;
mod pages;
pub mod planted;
mod prng;
mod send;
mod table;
mod time;

pub use ahead::prefetch;
pub use block::{Block, BlockBuilder, PAGE, Pool};
pub use bytes_in::{Reader, Short};
pub use bytes_out::Put;
pub use checksum::{crc32c, crc32c_joined, crc32c_seeded};
pub use map::{Map, Set, map, set};
pub use planted::{Bug, planted};
pub use prng::Prng;
pub use send::SendBuffer;
pub use table::{Number, Table};
pub use time::Now;
