//! Dropping what is dead: blocks of runs nothing of which is needed, and runs without blocks.
//!
//! No manifest says which blocks are dead: after a restart they are found again.

use base::{Bug, PAGE, planted};
use model::{GroupId, Index, QueueId};

use crate::disk::{DiskOp, FileName};
use crate::log::{CommitLog, UnderWay};
use crate::runs::Run;

/// Blocks asked about at once.
const SLICE: usize = 2048;

/// Space to give back: file, offset, bytes.
type Hole = (FileName, u64, u64);

impl CommitLog {
    /// Asks of the next some thousand blocks of the group's runs whether anything is still needed of that log (0:
    /// of any log) in the entries from `first` to `last`, and drops those of which nothing is. To be called when a
    /// checkpoint of the group is durable, until it says that it is through: true if there are blocks left to ask
    /// about. What that checkpoint needs must be called live.
    pub fn trim(&mut self, group: GroupId, live: &mut dyn FnMut(QueueId, Index, Index) -> bool) -> bool {
        let Some(runs) = self.runs.groups.get_mut(&group).filter(|_| !self.failed) else { return false };
        let (from, mut block) = std::mem::take(&mut runs.trimmed);
        let mut place = runs.runs.partition_point(|run| run.first < from);
        let (mut left, mut holes) = (SLICE, Vec::new());
        let mut is_through = true;
        while let Some(run) = runs.runs.get_mut(place) {
            if left == 0 {
                runs.trimmed = (run.first, block);
                is_through = false;
                break;
            }
            let end = run.blocks.len().min(block + left);
            left -= end - block;
            let is_last = end == run.blocks.len();
            let dead = ask(run, block..end, live);
            block = if is_last { 0 } else { end };
            if !is_last {
                holes.extend(dead);
                continue;
            }
            run.blocks.retain(|block| block.length > 0);
            if run.blocks.is_empty() {
                self.runs.dropped.push(runs.runs.remove(place));
                self.runs.is_stale = true;
            } else {
                holes.extend(dead);
                place += 1;
            }
        }
        for (file, offset, bytes) in holes {
            self.stats.punched_bytes += bytes;
            self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Punch { id, file, offset, bytes });
        }
        self.put_manifest();
        !is_through
    }
}

/// Drops the dead ones of those blocks; returns the whole pages between live ones.
fn ask(
    run: &mut Run,
    blocks: std::ops::Range<usize>,
    live: &mut dyn FnMut(QueueId, Index, Index) -> bool,
) -> Vec<Hole> {
    let mut holes: Vec<Hole> = Vec::new();
    for block in &mut run.blocks[blocks] {
        let last = if planted(Bug::TrimUnsettled) { block.first } else { block.last };
        if block.length == 0 || live(block.log, block.first, last) {
            continue;
        }
        let (from, to) = (u64::from(block.offset), u64::from(block.offset) + u64::from(block.length));
        block.length = 0;
        // The pages of a block of its own are its alone; in a segment only those that it fills are.
        let end =
            if run.identity.is_adopted() { to - to % PAGE as u64 } else { to.next_multiple_of(PAGE as u64) };
        let start = from.next_multiple_of(PAGE as u64);
        match holes.last_mut() {
            Some((_, offset, bytes)) if *offset + *bytes == start => *bytes += end.saturating_sub(start),
            _ if start < end => holes.push((run.data.clone(), start, end - start)),
            _ => {}
        }
    }
    holes
}
