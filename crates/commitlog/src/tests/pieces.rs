//! Entries as their owner sees them: rows of logs, some of which are dead, and what must be readable of them.

use model::{GroupId, Index, QueueId};

use super::virtual_disk::{VirtualDisk, file_of};
use crate::disk::DiskOp;
use crate::{CommitLog, LogEvent, Piece, PieceLookup, PiecePlan};

/// Some bytes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub index: u64,
    /// 0: several share it.
    pub log: QueueId,
    pub at: u32,
    pub ordinal: u32,
    pub start: u32,
    pub length: u32,
}

/// The rows of an entry of that length, with their numbers: three thirds, sometimes of two batches.
pub fn rows(index: u64, length: usize) -> Vec<(u32, Row)> {
    let log = QueueId(if index.is_multiple_of(5) { 0 } else { 1 + index % 2 });
    let bound = |third: u32| (length * third as usize / 3) as u32;
    let row = |number: u32| {
        let (at, ordinal) = match (index % 4, number) {
            (1, 0) => (0, 0),
            (1, number) => (100, number - 1),
            (_, number) => (8, number),
        };
        let start = bound(number);
        (number, Row { index, log, at, ordinal, start, length: bound(number + 1) - start })
    };
    (0..3).map(row).filter(|(_, row)| row.length > 0).collect()
}

/// Pieces of rows, one for neighbours.
pub fn plan(rows: &[Row]) -> Vec<PiecePlan> {
    let mut plan: Vec<PiecePlan> = Vec::new();
    for row in rows {
        let Row { log, at, ordinal, start, length, .. } = *row;
        match plan.last_mut() {
            Some(last) if last.at == at && last.start + last.length == start => last.length += length,
            _ => plan.push(PiecePlan { log, at, ordinal, start, length }),
        }
    }
    plan.reverse();
    plan
}

pub fn is_of_runs(file: &str) -> bool {
    file.contains("/run-") || file.contains("/manifest-")
}

impl Row {
    /// The log it is asked for by: one of those that share it, which may have pieces of its own or not.
    pub fn asked(&self) -> QueueId {
        match self.log {
            QueueId(0) if self.index.is_multiple_of(3) => QueueId(9),
            QueueId(0) => QueueId(1 + self.index % 2),
            own => own,
        }
    }

    pub fn ask(&self, log: &mut CommitLog, group: u32) -> PieceLookup {
        log.read_piece(GroupId(group), self.asked(), Index(self.index), self.at, self.ordinal)
    }

    pub fn check(&self, payload: &[u8], piece: &Piece) {
        assert!(piece.ordinal <= self.ordinal && piece.entry_at <= self.start, "{self:?} {piece:?}");
        assert!(self.start + self.length <= piece.entry_at + piece.length, "{self:?} {piece:?}");
        let bytes = &piece.block.as_slice()[piece.start as usize..][..piece.length as usize];
        let stood = &payload[piece.entry_at as usize..][..piece.length as usize];
        assert_eq!(bytes, stood, "{self:?}");
    }
}

/// Reads a row at once, doing nothing but reads; events of other kinds are dropped.
pub fn fetch(log: &mut CommitLog, disk: &mut VirtualDisk, group: u32, row: &Row) -> Result<Piece, String> {
    loop {
        match row.ask(log, group) {
            PieceLookup::Ready(piece) => return Ok(piece),
            PieceLookup::Gone => panic!("group {group} {row:?} is gone"),
            PieceLookup::Pending => {}
        }
        disk.under_way.extend(std::iter::from_fn(|| log.poll_op()));
        let reads = |op: &DiskOp| matches!(op, DiskOp::Read { .. }) && !file_of(op).is_empty();
        while let Some(place) = disk.under_way.iter().position(reads) {
            let done = disk.complete(place).expect("nothing of that file is before it");
            log.completed(done);
        }
        while let Some(event) = log.poll_event() {
            if let LogEvent::LoadedPiece { index, at, piece, .. } = event
                && (index.0, at) == (row.index, row.at)
                && piece.as_ref().map_or(true, |piece| piece.wanted == row.ordinal)
            {
                return piece;
            }
        }
    }
}
