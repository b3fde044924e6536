//! Whether an entry that a log claims to have stands on its disk in a whole frame of a whole flush: looked for
//! without the log's own code.

use base::crc32c;
use model::{GroupId, Index, Term};

use crate::MemoryDisk;
use crate::seal::{flush_crc, frame_crc, u32_at, u64_at};

/// Whether a frame of this group, index and term with that payload stands anywhere.
pub fn is_framed(disk: &MemoryDisk, group: GroupId, index: Index, term: Term, payload: &[u8]) -> bool {
    let crc = crc32c(payload);
    let says_so = |header: &[u8]| {
        header[8] == 1
            && u32_at(header, 4) == crc
            && u32_at(header, 12) == group.0
            && u64_at(header, 16) == term.0
            && u64_at(header, 24) == index.0
            && u32_at(header, 32) as usize == payload.len()
    };
    disk.0.values().any(|file| flushes(file).any(|flush| has_frame(file, flush, says_so)))
}

/// The places of all flush headers whose checksum is right.
fn flushes(file: &[u8]) -> impl Iterator<Item = usize> {
    (4096..file.len()).step_by(4096).filter(|at| {
        let header = &file[*at..];
        header.len() >= 64
            && header.starts_with(b"WSFL")
            && u32_at(header, 4) == flush_crc(header, u32_at(file, 52), *at)
    })
}

/// Whether the head of a flush has a frame header with the right checksum that says so.
fn has_frame(file: &[u8], flush: usize, says_so: impl Fn(&[u8]) -> bool) -> bool {
    let end = file.len().min(flush + u32_at(file, flush + 44) as usize).saturating_sub(47);
    let (generation, number) = (u64_at(file, flush + 8), u64_at(file, flush + 16));
    let is_whole = |at: usize| u32_at(file, at) == frame_crc(&file[at..], generation, number, at);
    (flush + 64..end).step_by(8).any(|at| says_so(&file[at..]) && is_whole(at))
}
