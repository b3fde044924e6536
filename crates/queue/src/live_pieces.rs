//! Which bytes of an entry are still needed, for whoever moves entries to where less room is taken.
//!
//! Per append: of a queue the rows from the first to the last unsettled one, cut where many settled ones lie between;
//! of a log the whole batch. What several queues need, or several logs, is one piece of the log 0; queues and logs
//! never share, since they ask for a batch by different places. Parts that are held are whole. An entry that does not
//! decode is needed whole: who knows what is in it.

use model::entry::PARTS;
use model::rewrite::REWRITE_HEADER;
use model::{Entry, Index, Operation, OperationKind, QueueId, Replaced, batch};

use crate::origins::Piece;
use crate::queue_state::{IN_PARTS, Run};
use crate::rows::row_len;
use crate::{GroupMachine, QueueState};

/// Settled rows of more bytes than this are left out between unsettled ones; few, where tests are to meet that.
const GAP: u32 = if cfg!(test) { 100 } else { 4 << 10 };

/// Bytes of an entry that are still needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivePiece {
    /// The queue or log that needs them; 0 where there are several, and for parts of a row.
    pub log: QueueId,
    /// What the batch is asked for by: for a queue where its first row begins, for a log where its header does; for
    /// a part where that begins.
    pub at: u32,
    /// Rows of the batch in front of these that are left out.
    pub ordinal: u32,
    /// Where in the entry they begin.
    pub start: u32,
    /// How many.
    pub length: u32,
}

/// A queue's need of a batch.
type Need<'a> = (QueueId, &'a QueueState, Run);

impl GroupMachine {
    /// Appends the pieces of the entry at `index`, whose bytes are `entry`, that are still needed: one behind the
    /// other per log and batch.
    pub fn live_pieces(&self, index: Index, entry: &[u8], out: &mut Vec<LivePiece>) {
        let Some(held) = self.live.count(index.0) else { return };
        let before = out.len();
        let explained = self.batches(index, entry, out);
        if explained.is_some_and(|explained| explained == held) {
            return;
        }
        if explained.is_none_or(|explained| explained > held) || !add_parts(entry, out) {
            out.truncate(before);
            let length = entry.len() as u32;
            out.push(LivePiece { log: QueueId(0), at: 0, ordinal: 0, start: 0, length });
        }
    }

    /// Which of these batches of logs (by log, and where their headers begin) the entry at `index` is still needed for,
    /// if it is for nothing else; `None` where only its bytes tell.
    pub fn live_batches(
        &self,
        index: Index,
        batches: impl Iterator<Item = (QueueId, u32)>,
    ) -> Option<Vec<bool>> {
        let held = self.live.count(index.0).unwrap_or(0);
        let mut explained = 0;
        let mut chunks = |(id, at)| {
            let chunks = self.log(id).map_or(0, |log| log.chunks_of(index, at));
            explained += chunks;
            chunks > 0
        };
        let live = batches.map(&mut chunks).collect();
        (explained == held).then_some(live)
    }

    /// Whether a queue or log still needs what it asked for by that place: a row of a batch, a batch, or a part of a row.
    /// What was asked for may have been settled, and its space given back, before it came.
    pub fn needs_piece(&self, id: QueueId, index: Index, at: u32, ordinal: u32) -> bool {
        let is_it = |piece: &Piece| piece.index == index.0 && piece.at == at;
        if let Some(queue) = self.queue(id) {
            let row = |run: &Run| queue.is_live_in(run, run.first + u64::from(ordinal));
            return queue.runs_of(index, at).any(|run| row(&run))
                || queue.pieces.values().any(|pieces| pieces.iter().any(is_it));
        }
        let Some(log) = self.log(id) else { return false };
        log.needs_batch(index, at) || log.pieces.values().any(|pieces| pieces.iter().any(is_it))
    }

    /// Adds what is needed of batches and returns how often they are held; `None` where the entry does not decode.
    fn batches(&self, index: Index, entry: &[u8], out: &mut Vec<LivePiece>) -> Option<u64> {
        let mut held = 0;
        let mut needs = Vec::new();
        for operation in Entry::decode(entry).ok()?.operations() {
            let operation = operation.ok()?;
            if operation.kind == OperationKind::Append && operation.flags & PARTS == 0 {
                held += self.batch(index, entry, &operation, &mut needs, out)?;
            } else if operation.kind == OperationKind::Rewrite {
                held += self.rewritten_batch(index, &operation, out)?;
            }
        }
        Some(held)
    }

    fn rewritten_batch(
        &self,
        index: Index,
        operation: &Operation<'_>,
        out: &mut Vec<LivePiece>,
    ) -> Option<u64> {
        let (replaced, _) = Replaced::decode(operation.body).ok()?;
        let (at, log) = ((operation.at + REWRITE_HEADER) as u32, operation.object);
        let is_needed = self.log(log).is_some_and(|log| log.is_rewritten_at(replaced.first, index, at));
        if is_needed {
            let length = (operation.body.len() - REWRITE_HEADER) as u32;
            out.push(LivePiece { log, at, ordinal: 0, start: at, length });
        }
        Some(u64::from(is_needed))
    }

    fn batch<'a>(
        &'a self,
        index: Index,
        entry: &[u8],
        operation: &Operation<'_>,
        needs: &mut Vec<Need<'a>>,
        out: &mut Vec<LivePiece>,
    ) -> Option<u64> {
        let (queues, batch) = operation.append().ok()?;
        let (at, batch) = batch?;
        let (at, end) = (at as u32, (at + batch::HEADER + batch.body.len()) as u32);
        let mut logs = 0;
        needs.clear();
        for id in queues.iter() {
            if let Some(queue) = self.queue(id) {
                let runs = queue.runs_of(index, at + batch::HEADER as u32);
                needs.extend(runs.map(|run| (id, queue, run)));
            } else if let Some(chunks) = self.log(id).map(|log| log.chunks_of(index, at)).filter(|n| *n > 0) {
                logs += chunks;
                let whole = LivePiece { log: id, at, ordinal: 0, start: at, length: end - at };
                match out.last_mut().filter(|_| logs > 1) {
                    Some(shared) => shared.log = QueueId(0),
                    None => out.push(whole),
                }
            }
        }
        add_rows(&entry[..end as usize], needs, out);
        Some(logs + needs.iter().map(|(_, _, run)| u64::from(run.live)).sum::<u64>())
    }
}

/// Adds the rows that one of these queues needs.
fn add_rows(entry: &[u8], needs: &[Need<'_>], out: &mut Vec<LivePiece>) {
    let Some((id, _, run)) = needs.first() else { return };
    let log = if needs.len() > 1 { QueueId(0) } else { *id };
    let all = LivePiece { log, at: run.at, ordinal: 0, start: run.at, length: entry.len() as u32 - run.at };
    let before = out.len();
    let is_whole = needs.iter().any(|(_, _, run)| run.live == run.count);
    if is_whole || add_some_rows(entry, all, needs, out).is_none() {
        out.truncate(before);
        out.push(all);
    }
}

/// Walks the rows of a batch and adds those that are needed; `None` where they do not decode.
fn add_some_rows(entry: &[u8], all: LivePiece, needs: &[Need<'_>], out: &mut Vec<LivePiece>) -> Option<()> {
    let mut open: Option<LivePiece> = None;
    let mut start = all.start;
    for ordinal in 0..needs.first()?.2.count {
        let length = row_len(entry.get(start as usize..)?)?;
        if needs.iter().any(|(_, queue, run)| queue.is_live_in(run, run.first + u64::from(ordinal))) {
            match &mut open {
                Some(piece) if start - (piece.start + piece.length) <= GAP => {
                    piece.length = start + length - piece.start;
                }
                _ => out.extend(open.replace(LivePiece { ordinal, start, length, ..all })),
            }
        }
        start += length;
    }
    out.extend(open);
    Some(())
}

/// Adds every part in the entry; false where there is none.
fn add_parts(entry: &[u8], out: &mut Vec<LivePiece>) -> bool {
    let before = out.len();
    let operations = Entry::decode(entry).into_iter().flat_map(|entry| entry.operations());
    for operation in operations.flatten().filter(|operation| operation.kind == OperationKind::Part) {
        let (at, length) = (operation.at as u32, operation.body.len() as u32);
        if length > 0 {
            out.push(LivePiece { log: QueueId(0), at, ordinal: 0, start: at, length });
        }
    }
    out.len() > before
}

impl QueueState {
    /// The run of a batch by its place: one, as long as no append names a queue twice.
    fn runs_of(&self, index: Index, at: u32) -> impl Iterator<Item = Run> {
        let first = self.runs.partition(|run| run.index < index.0).map_or(u64::MAX, |run| run.first);
        let of_entry = self.runs.from(first).take_while(move |run| run.index == index.0);
        of_entry.filter(move |run| run.at == at && run.at != IN_PARTS).copied()
    }
}
