//! The end of a pass of compaction: batches that lost at least half of what they had are rewritten without it.
//!
//! In: a log from which records were removed. Out: proposals, each a smaller batch for the place of one that is there.
//! One batch per turn, and only so many bytes before the group has applied what was proposed: publishers have the same
//! way to the disk. What gives space back needs some first: while publishing is held back nothing is rewritten, and
//! the log has its turn later. Never: rewrites rows, or what nothing more was removed from since it was rewritten.

use base::{Bug, planted};
use model::batch::{Encoding, HEADER, Summary};
use model::{Batch, QueueId, Replaced};

use super::pass::Pass;
use super::reading::Chunk;
use crate::door::outgoing::Turn;
use crate::{Broker, OPENED_BYTES_MAX};

/// Batches looked at at once for one that is worth it.
const LOOKS: usize = 512;
/// Bytes proposed before what was proposed must have been applied.
const WINDOW: usize = 256 << 10;

/// A batch that is smaller than the one it is for.
struct Thinned {
    summary: Summary,
    body: Vec<u8>,
}

impl Broker {
    /// Goes on with a pass that rewrites, by one batch.
    pub(super) fn rewrite_next(&mut self, mut pass: Pass, at: usize) {
        let machine = &self.host.groups[at].machine;
        let compaction = &mut self.host.logs.compaction;
        pass.waits_for_group = machine.last_sequence(self.origin) < pass.awaited;
        if pass.waits_for_group {
            compaction.pass = Some(pass);
            return;
        }
        if self.alarm.is_some() {
            compaction.put_off.insert(pass.log);
            return;
        }
        let Some(state) = machine.log(pass.log) else { return };
        let Some((sparse, end)) = next_sparse(state, &pass) else { return };
        if sparse.is_none_or(|chunk| self.rewrite_chunk(&mut pass, at, &chunk)) {
            pass.next = end;
        }
        self.host.logs.compaction.pass = Some(pass);
    }

    /// Proposes what is left of a batch in its place, where that is little enough; false while it must be read.
    fn rewrite_chunk(&mut self, pass: &mut Pass, at: usize, chunk: &Chunk) -> bool {
        let found = self.chunk_bytes(at, pass.log, chunk);
        self.read_ahead(at, pass.log, (chunk.first, chunk.first), found.is_none());
        let Some(found) = found else {
            self.host.logs.compaction.waits_for_disk = true;
            return false;
        };
        // What cannot be opened here is left as it is; its readers will be told.
        let Ok((block, range)) = found else { return true };
        let Some(thinned) = self.thinned(at, pass.log, chunk, &block.as_slice()[range]) else { return true };
        if 2 * (HEADER + thinned.body.len()) > chunk.bytes {
            return true;
        }
        let left_out = u32::try_from(chunk.removed).expect("no more offsets are removed than a batch has");
        let replaced = Replaced { first: chunk.first, index: chunk.index, at: chunk.at, left_out };
        let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now: self.now };
        let Some(outgoing) = self.door.outgoing(pass.group) else { return true };
        let sequence = outgoing.rewrite(turn, pass.log, &replaced, (&thinned.summary, &thinned.body));
        pass.rewritten_bytes += thinned.body.len();
        if pass.rewritten_bytes >= WINDOW {
            (pass.awaited, pass.rewritten_bytes) = (sequence, 0);
        }
        true
    }

    /// A stored batch without what was removed of it; `None` for rows, and where it cannot be opened.
    fn thinned(&self, at: usize, log: QueueId, chunk: &Chunk, stored: &[u8]) -> Option<Thinned> {
        let batch = Batch::decode(stored).ok().filter(|batch| batch.summary.encoding == Encoding::KafkaV2)?;
        let state = self.host.groups[at].machine.log(log)?;
        let place = state.chunk(chunk.first)?;
        let mut left = 0;
        let keep = |record: &recordbatch::KafkaRecord<'_>| {
            let is_there = !state.is_removed(&place, chunk.first + record.offset_delta as u64);
            left += u32::from(is_there);
            // The planted bug loses the second record that is still there.
            is_there && !(left == 2 && planted(Bug::RewriteDropsLive))
        };
        let body = recordbatch::retain(batch.body, OPENED_BYTES_MAX, keep).ok()??;
        let header = recordbatch::Header::read(&body).ok()?;
        let summary = Summary {
            count: u32::try_from(header.count).ok()?,
            timestamp_max: header.max_timestamp,
            ..batch.summary
        };
        Some(Thinned { summary, body })
    }
}

/// The next batch that is worth rewriting, if it is among those looked at, and the offset behind them; `None` where the
/// pass is through.
fn next_sparse(state: &queue::LogState, pass: &Pass) -> Option<(Option<Chunk>, u64)> {
    let mut end = None;
    let next = state.chunks_from(pass.next.max(state.start())).take(LOOKS);
    for chunk in next.take_while(|chunk| chunk.first < pass.limit) {
        end = Some(chunk.end());
        if is_sparse(state, &chunk) {
            return Some((Some(Chunk::of(state, &chunk)), chunk.end()));
        }
    }
    Some((None, end?))
}

/// Whether at least half of the records that the bytes of a batch have were removed, as far as their number tells.
fn is_sparse(state: &queue::LogState, chunk: &queue::ChunkAt<'_>) -> bool {
    let removed = state.removed_of(chunk);
    let (records, left_out) = (u64::from(chunk.records), u64::from(chunk.left_out));
    let left = records.saturating_sub(removed);
    chunk.parts.is_empty() && removed > left_out && 2 * left <= records.saturating_sub(left_out)
}
