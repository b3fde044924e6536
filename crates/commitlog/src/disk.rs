//! What the log asks of a disk, as values. The runtime does it to real files, the simulator to imagined ones.
//!
//! Names are relative to the data directory and use `/`. Operations of one file are carried out in the order in
//! which they were asked for, but reads overtake each other; those of different files in any order. But writes, of
//! whatever files: each is begun when the one asked for before it is durable, and none after one that failed.

use std::sync::Arc;

use base::Block;

/// The number of an operation; its completion carries it. Unique within one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A file's name.
pub type FileName = Arc<str>;

/// Something to be done. What a completion promises is durable: it survives a power cut at once after it.
#[derive(Clone, Debug)]
pub enum DiskOp {
    /// Makes an empty file of `bytes` length with its directory entry durable; its blocks are not written
    /// (cheap now, dearer at each sync).
    Create {
        /// Carried by the completion.
        id: OpId,
        /// The file; must not exist.
        file: FileName,
        /// Its length.
        bytes: u64,
    },
    /// Makes a file of `bytes` zeros in the background: may take seconds. The log can go on where it fails.
    Prepare {
        /// Carried by the completion.
        id: OpId,
        /// The file; must not exist.
        file: FileName,
        /// Its length.
        bytes: u64,
        /// Whether the zeros are really written, so that each sync is cheap.
        written: bool,
    },
    /// Writes the padded bytes of the blocks, one behind the other, from `offset` (a multiple of the page) on,
    /// and syncs. A crash before completion leaves any subset of the sectors written.
    Write {
        /// Carried by the completion.
        id: OpId,
        /// The file.
        file: FileName,
        /// Where.
        offset: u64,
        /// What.
        blocks: Vec<Block>,
    },
    /// Reads exactly `bytes` bytes.
    Read {
        /// Carried by the completion.
        id: OpId,
        /// The file.
        file: FileName,
        /// From where.
        offset: u64,
        /// How many.
        bytes: usize,
    },
    /// Makes the file hold exactly `content`, all or nothing (temporary file, sync, rename, sync of the directory).
    Put {
        /// Carried by the completion.
        id: OpId,
        /// The file; replaced if it exists.
        file: FileName,
        /// Its content, in pieces.
        content: Vec<Vec<u8>>,
    },
    /// Removes the file, durably.
    Delete {
        /// Carried by the completion.
        id: OpId,
        /// The file.
        file: FileName,
    },
    /// Gives the space of that range (whole pages) back; it reads as zeros or as before, and nobody asks again.
    /// Nothing is lost if it cannot be done.
    Punch {
        /// Carried by the completion.
        id: OpId,
        /// The file.
        file: FileName,
        /// Where.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// What became of an operation.
#[derive(Clone, Debug)]
pub struct DiskDone {
    /// Which.
    pub id: OpId,
    /// The bytes of a read (empty for everything else), or why it failed, for a person.
    pub result: Result<Block, String>,
}

/// The blocking door used while starting, before there is a loop: only reads.
///
/// What it shows must be durable: an adapter over a page cache syncs each file before it is read here for the first
/// time, since after the kill of a process a file may show writes that a power cut would still take back, and what
/// recovery has seen is built upon.
pub trait Disk {
    /// Every file below `directory`, by full name, with its length.
    fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String>;
    /// Reads up to `into.len()` bytes from `offset`; fewer only at the end of the file.
    fn read(&self, file: &str, offset: u64, into: &mut [u8]) -> Result<usize, String>;
}
