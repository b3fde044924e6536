//! Reading what has left the ring: from a piece's identity to the block of a run that has it.

use base::Block;
use model::{GroupId, Index, QueueId};

use crate::log::CommitLog;

/// Some bytes of an entry that has left the ring.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What they stand in; more than them.
    pub block: Block,
    /// Where in the block they begin.
    pub start: u32,
    /// Where in the entry they began.
    pub entry_at: u32,
    /// Rows of their batch in front of them.
    pub ordinal: u32,
    /// How many.
    pub length: u32,
}

/// The answer to [`CommitLog::read_piece`].
#[derive(Clone, Debug)]
pub enum PieceLookup {
    /// Here it is.
    Ready(Piece),
    /// A [`crate::LogEvent::LoadedPiece`] brings it.
    Pending,
    /// Too much is being read already: ask again after the next [`crate::LogEvent::LoadedPiece`] or
    /// [`crate::LogEvent::Loaded`].
    OverBudget,
    /// No run has it: it was not needed when its entry left the ring, or trimmed since.
    Gone,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// [`CommitLog::read`] has it.
    Ring,
    /// [`CommitLog::read_piece`] has what was still needed of it.
    Runs,
    /// Nothing is held of it.
    Gone,
}

impl CommitLog {
    /// Where an entry is now; it moves from the ring into runs at any [`CommitLog::completed`].
    pub fn location(&self, group: GroupId, index: Index) -> Location {
        let state = self.groups.get(&group).filter(|group| group.removed == 0);
        if state.is_some_and(|state| state.at(index).is_some()) { Location::Ring } else { Location::Gone }
    }

    /// The piece of that log, entry and place with the greatest ordinal that is not above `ordinal`, else the one
    /// that several logs share; now or later.
    pub fn read_piece(
        &mut self,
        _group: GroupId,
        _log: QueueId,
        _index: Index,
        _at: u32,
        _ordinal: u32,
    ) -> PieceLookup {
        PieceLookup::Gone
    }
}
