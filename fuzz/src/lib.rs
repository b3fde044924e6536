//! What several fuzz targets need: decisions drawn from bytes, a broker of a few lines behind a session, a counting
//! allocator, a disk in memory and a small log on it.
//!
//! In: the fuzzer's bytes. Out: calls of the crates under test. Never: clocks, randomness, files: the same bytes do
//! the same again.

pub mod broker;
pub mod client;
pub mod disk;
pub mod draws;
pub mod entries;
pub mod framed;
pub mod kafka;
pub mod log;
pub mod memory;
pub mod seal;
pub mod talk;

pub use disk::MemoryDisk;
pub use draws::Draws;
pub use talk::Talk;
