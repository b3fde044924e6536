//! Evacuation: what old segments of the ring still hold is copied into runs, so that the ring stays bounded.
//!
//! In: a ring that holds more than it should, and the owner's word which bytes of an entry are still needed. Out:
//! reads of old entries, runs, a manifest that names them. Never on the way of a confirm, and never longer than a
//! few milliseconds at once.

use model::{GroupId, Index, QueueId};

use crate::log::CommitLog;

/// Bytes of an entry that are still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PiecePlan {
    /// The log they belong to; 0 when several logs share them.
    pub log: QueueId,
    /// The place in the entry by which their owner knows them, whatever is left out: of the batch, or of the part.
    pub at: u32,
    /// Rows of that batch in front of them that are left out or in an earlier piece.
    pub ordinal: u32,
    /// Where in the entry they begin.
    pub start: u32,
    /// How many.
    pub length: u32,
}

impl CommitLog {
    /// From now on the owner answers [`crate::LogEvent::Evacuating`] and looks below the ring for old entries;
    /// without this nothing is ever evacuated.
    pub fn enable_evacuation(&mut self) {}

    /// Goes on with evacuation a little way, for a millisecond or so: to be called once per turn, after which events
    /// and operations are to be collected. True if there is more to do at once.
    pub fn work(&mut self) -> bool {
        false
    }

    /// Answers [`crate::LogEvent::Evacuating`]: `pieces` are the bytes of the entry that are still needed, by what has
    /// been applied; what they leave out is forgotten. No two may have the same log, place and ordinal.
    pub fn evacuate(&mut self, _group: GroupId, _index: Index, _pieces: &[PiecePlan]) {}
}
