//! The one budget of a shard's reads: how many bytes are under way, and who waits for room, in the order of asking.
//!
//! Nobody overtakes who waits: beside steady small reads a large one would else never find room. What is read ahead
//! takes half of the budget at most, and does not wait: it is asked for when it is needed.

use std::collections::VecDeque;

use model::{GroupId, Index};

use crate::pieces::Reading;

/// A read that waits for room.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Entry(GroupId, Index),
    Block(Reading),
}

/// Bytes under way, and the line.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    bytes: usize,
    /// Of those, the ones that nobody waited for when they were asked for.
    ahead_bytes: usize,
    pub line: VecDeque<Asked>,
}

impl Budget {
    pub fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, bytes: 0, ahead_bytes: 0, line: VecDeque::new() }
    }

    /// Whether so many bytes may be read for the first in line; one read is always allowed.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= self.bytes_max
    }

    /// Whether so many bytes may be read for somebody who comes now.
    pub fn takes(&self, bytes: usize) -> bool {
        self.line.is_empty() && self.has_room(bytes)
    }

    /// Whether so many bytes may be read that nobody waits for, of which `bytes_max` may be under way.
    pub fn takes_ahead(&self, bytes: usize, bytes_max: usize) -> bool {
        let ahead = self.ahead_bytes + bytes;
        self.line.is_empty()
            && self.bytes + bytes <= self.bytes_max
            && ahead <= bytes_max.min(self.bytes_max / 2)
    }

    pub fn begin(&mut self, bytes: usize, is_ahead: bool) {
        self.bytes += bytes;
        self.ahead_bytes += if is_ahead { bytes } else { 0 };
    }

    pub fn end(&mut self, bytes: usize, is_ahead: bool) {
        self.bytes -= bytes;
        self.ahead_bytes -= if is_ahead { bytes } else { 0 };
    }
}
