//! What leaves the ring and what leaves the runs: the log asks, the machines know.

use base::Block;
use commitlog::{Piece, PiecePlan};
use model::{GroupId, Index, QueueId};
use queue::{LivePiece, Wanted};

use crate::Broker;
use crate::broker::Notice;
use crate::host::entries::fetched;

impl Broker {
    /// An entry is about to leave the ring: the log is told what of it is still needed.
    pub(crate) fn evacuating(&mut self, group: GroupId, index: Index, entry: &Block) {
        let mut pieces = Vec::new();
        // The metadata group keeps its own state: it needs no entry that is applied.
        if let Some(group) = self.host.group(group) {
            group.machine.live_pieces(index, entry.as_slice(), &mut pieces);
        }
        let plan: Vec<PiecePlan> = pieces.into_iter().map(plan_of).collect();
        self.log.evacuate(group, index, &plan);
    }

    /// A piece came from disk, or cannot.
    pub(crate) fn loaded_piece(
        &mut self,
        group: GroupId,
        (log, index, at): (QueueId, Index, u32),
        piece: Result<Piece, String>,
    ) {
        let piece = match piece {
            Ok(piece) => piece,
            // What is damaged is unknown, not absent: nothing behind it is served past it.
            Err(why) => {
                let text = format!("entry {index} of group {group} cannot be read: {why}");
                self.notices.push_back(Notice::Halt(text));
                return;
            }
        };
        if let Some(group) = self.host.group(group) {
            let wanted = Wanted { index, at, ordinal: piece.wanted };
            group.loaded.insert_piece(log, wanted, fetched(piece));
        }
        self.wake_readers();
    }

    /// Goes on with what keeps the ring bounded and the runs free of what nobody needs.
    pub(crate) fn move_old_entries(&mut self) {
        self.evacuating_more = self.log.work();
        self.pass_log_events();
        for group in &mut self.host.groups {
            let Some(view) = &group.trimming else { continue };
            let more = self.log.trim(group.id, &mut |log, first, last| view.needs(log, first, last));
            if !more {
                group.trimming = None;
            }
        }
    }

    /// Whether old entries wait to be moved without anything else happening.
    pub(crate) fn is_moving(&self) -> bool {
        self.evacuating_more || self.host.groups.iter().any(|group| group.trimming.is_some())
    }
}

fn plan_of(piece: LivePiece) -> PiecePlan {
    let LivePiece { log, at, ordinal, start, length } = piece;
    PiecePlan { log, at, ordinal, start, length }
}
