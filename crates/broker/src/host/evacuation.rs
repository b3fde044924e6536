//! What leaves the ring and what leaves the runs: the log asks, the machines know.

use base::{Block, Pool, crc32c, crc32c_joined};
use commitlog::{NotedPiece, Piece, PiecePlan};
use model::batch::{self, Encoding};
use model::{Entry, GroupId, Index, OperationKind, QueueId};
use queue::{Fetched, LivePiece, Wanted};

use crate::Broker;
use crate::broker::Notice;
use crate::host::entries::fetched;
use crate::host::group::{GroupLog, QueueGroup};

/// How many times as large as its piece a block may be that is kept for it.
const SPARSE: usize = 4;

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

    /// An entry of large batches is remembered by them, so that it can leave the ring without being read again.
    pub(crate) fn note_batches(&mut self, at: usize, index: Index, entry: &Block) {
        let group = &self.host.groups[at];
        let is_replicated = matches!(group.log, GroupLog::Replicated(_));
        let decoded = Entry::decode(entry.as_slice()).ok().filter(|_| is_replicated);
        let Some(decoded) = decoded else { return };
        if self.log.is_worth_noting(entry.len(), decoded.count as usize)
            && let Some(noted) = batches_of(&decoded, entry.as_slice())
        {
            self.log.note(group.id, index, noted);
        }
    }

    /// An entry is about to leave the ring unread: the log is told which of its batches are still needed.
    pub(crate) fn adopting(&mut self, group: GroupId, index: Index, noted: &[NotedPiece]) {
        let batches = noted.iter().map(|noted| (noted.piece.log, noted.piece.at));
        let live = match self.host.group(group) {
            Some(group) => group.machine.live_batches(index, batches),
            None => Some(Vec::new()),
        };
        let Some(live) = live else { return self.log.show(group, index) };
        let needed = noted.iter().zip(live).filter(|(_, is_live)| *is_live);
        let plan: Vec<PiecePlan> = needed.map(|(noted, _)| noted.piece).collect();
        self.log.evacuate(group, index, &plan);
    }

    /// A piece came from disk, or cannot.
    pub(crate) fn loaded_piece(
        &mut self,
        group: GroupId,
        log: QueueId,
        (index, at, ordinal): (Index, u32, u32),
        piece: Result<Piece, String>,
    ) {
        let is_needed = |group: &QueueGroup| group.machine.needs_piece(log, index, at, ordinal);
        let piece = match piece {
            Ok(piece) => piece,
            // What was settled while it was read may have been given back before it came.
            Err(_) if !self.host.group(group).as_deref().is_some_and(is_needed) => {
                return self.wake_readers();
            }
            // What is damaged is unknown, not absent: nothing behind it is served past it.
            Err(why) => {
                let text = format!("entry {index} of group {group} cannot be read: {why}");
                self.notices.push_back(Notice::Halt(text));
                return;
            }
        };
        let pool = self.pool.clone();
        if let Some(group) = self.host.group(group) {
            let wanted = Wanted { index, at, ordinal: piece.wanted };
            group.loaded.insert_piece(log, wanted, alone(fetched(piece), &pool));
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

/// A small piece in a block of its own: what is read for a message in many pieces must not hold a whole block of a run
/// for each of them, or the bound of what is held would never let all of them be there at once.
fn alone(piece: Fetched, pool: &Pool) -> Fetched {
    let (start, length) = (piece.start as usize, piece.length as usize);
    match piece.block.capacity() > SPARSE * length.max(1) {
        true => {
            Fetched { block: pool.block(&piece.block.as_slice()[start..start + length]), start: 0, ..piece }
        }
        false => piece,
    }
}

fn plan_of(piece: LivePiece) -> PiecePlan {
    let LivePiece { log, at, ordinal, start, length } = piece;
    PiecePlan { log, at, ordinal, start, length }
}

/// The batches that came as they are, with their checksums, if the entry holds nothing else that may be needed. A batch
/// brings the checksum of most of its bytes along, so that only its front is read.
fn batches_of(entry: &Entry<'_>, bytes: &[u8]) -> Option<Vec<NotedPiece>> {
    let mut noted = Vec::with_capacity(entry.count as usize);
    for operation in entry.operations() {
        let operation = operation.ok()?;
        match operation.kind {
            OperationKind::Append if operation.is_native_append() => {
                let (at, batch) = operation.append().ok()?.1?;
                let front = batch::HEADER + batch::KAFKA_COVERED;
                let length = batch::HEADER + batch.body.len();
                if batch.summary.encoding != Encoding::KafkaV2 || length < front {
                    return None;
                }
                let head = crc32c(&bytes[at..at + front]);
                let crc = crc32c_joined(head, batch.checksum, (length - front) as u64);
                debug_assert_eq!(crc, crc32c(&bytes[at..at + length]), "a batch matches its own checksum");
                let (start, length) = (at as u32, length as u32);
                let piece = PiecePlan { log: operation.object, at: start, ordinal: 0, start, length };
                noted.push(NotedPiece { piece, crc });
            }
            OperationKind::Append | OperationKind::Part | OperationKind::Rewrite => return None,
            _ => {}
        }
    }
    Some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_piece_does_not_hold_the_block_it_came_in() {
        let pool = Pool::default();
        let block = pool.block(&[7; 60_000]);
        let piece = |start, length| Fetched { start, length, ..Fetched::entry(block.clone()) };
        let small = alone(piece(500, 8_000), &pool);
        assert!(4 * small.block.capacity() <= block.capacity(), "{}", small.block.capacity());
        assert_eq!((small.start, small.length, small.block.as_slice()), (0, 8_000, &[7; 8_000][..]));
        let large = alone(piece(500, 30_000), &pool);
        assert_eq!((large.start, large.block.capacity()), (500, block.capacity()));
    }
}
