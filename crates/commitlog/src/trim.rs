//! Dropping what is dead: blocks of runs nothing of which is needed, and runs without blocks.
//!
//! No manifest says which blocks are dead: after a restart they are found again. Their space is not given back at once
//! but when there is more of it than half of the ring: where entries die in the order in which they came, the whole file
//! is dead by then. While the disk is nearly full it is given back at once.

use std::collections::BTreeSet;

use base::{Bug, PAGE, planted};
use model::{GroupId, Index, QueueId};

use crate::dead_space::Hole;
use crate::disk::DiskOp;
use crate::log::{CommitLog, UnderWay};
use crate::runs::Run;

/// Blocks asked about at once.
const SLICE: usize = 2048;

impl CommitLog {
    /// Asks of the next some thousand blocks of the group's runs whether anything is still needed of that log (0:
    /// of any log) in the entries from `first` to `last`, and drops those of which nothing is. To be called when a
    /// checkpoint of the group is durable, until it says that it is through: true if there are blocks left to ask
    /// about. What that checkpoint needs must be called live.
    pub fn trim(&mut self, group: GroupId, live: &mut dyn FnMut(QueueId, Index, Index) -> bool) -> bool {
        let Some(runs) = self.runs.groups.get_mut(&group).filter(|_| !self.failed) else { return false };
        let (from, mut block) = std::mem::take(&mut runs.trimmed);
        let mut place = runs.runs.partition_point(|run| run.first < from);
        let (mut left, mut gone) = (SLICE, Vec::new());
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
            let holes = ask(run, block..end, live);
            self.dead.add(&run.data, holes);
            block = if is_last { 0 } else { end };
            if !is_last {
                continue;
            }
            run.blocks.retain(|block| block.length > 0);
            if run.blocks.is_empty() {
                gone.push(runs.runs.remove(place));
            } else {
                place += 1;
            }
        }
        self.drop_runs(gone);
        self.give_back_dead();
        self.put_manifest();
        !is_through
    }

    /// Whether the group has anything in runs.
    pub fn has_runs(&self, group: GroupId) -> bool {
        self.runs.groups.get(&group).is_some_and(|runs| !runs.runs.is_empty())
    }

    /// Bytes of the blocks that the group has in runs. Walks them all.
    pub fn run_bytes(&self, group: GroupId) -> u64 {
        self.runs.groups.get(&group).map_or(0, |runs| runs.runs.iter().map(Run::bytes).sum())
    }

    /// Runs without blocks go. A file that no other run points into goes as a whole: none of it is given back before.
    fn drop_runs(&mut self, gone: Vec<Run>) {
        if gone.is_empty() {
            return;
        }
        let runs = self.runs.groups.values().flat_map(|group| &group.runs);
        let adopted = runs.filter(|run| run.identity.is_adopted());
        let slots: BTreeSet<u32> = adopted.map(|run| run.identity.slot).collect();
        for run in gone.iter().filter(|run| !slots.contains(&run.identity.slot)) {
            self.dead.forget(&run.data);
        }
        self.runs.is_stale = true;
        self.runs.dropped.extend(gone);
    }

    /// Gives the oldest of the dead space back, as far as there is too much of it.
    pub(crate) fn give_back_dead(&mut self) {
        let most = if self.is_scarce { 0 } else { self.ring_enough() / 2 };
        while let Some((file, holes)) = self.dead.beyond(most) {
            if let Some(segment) = self.ring.segments.iter_mut().find(|segment| segment.file == file) {
                segment.has_holes = true;
            }
            for (offset, bytes) in holes {
                let file = file.clone();
                self.stats.punched_bytes += bytes;
                self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Punch { id, file, offset, bytes });
            }
        }
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
            Some((offset, bytes)) if *offset + *bytes == start => *bytes += end.saturating_sub(start),
            _ if start < end => holes.push((start, end - start)),
            _ => {}
        }
    }
    holes
}
