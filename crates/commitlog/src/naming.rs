//! Manifests from wanted to durable, and what follows: entries leave the ring, files of dropped runs go, segments that
//! were nothing but runs go too or back to the ring, removed groups end.
//!
//! One manifest is under way at most. One that failed may be on disk or not: nothing is built on either before a
//! newer one is durable.

use base::{Block, Bug, planted};
use model::GroupId;

use crate::disk::DiskOp;
use crate::log::{CommitLog, UnderWay};
use crate::manifest;
use crate::relief::FREE_ENOUGH;
use crate::runs::Run;
use crate::segment::{Segment, State};

/// A manifest being put.
#[derive(Debug)]
pub(crate) struct Naming {
    sequence: u64,
    /// Runs that it does not name any more.
    dropped: Vec<Run>,
    /// Groups that it does not name any more.
    removed: Vec<GroupId>,
}

impl CommitLog {
    /// Puts a manifest if what the last one says is not true any more.
    pub(crate) fn put_manifest(&mut self) {
        if !self.runs.is_stale || self.naming.is_some() || self.failed {
            return;
        }
        self.runs.is_stale = false;
        let sequence = self.runs.next_manifest;
        self.runs.next_manifest += 1;
        let content = self.runs.manifest(self.config.shard, sequence).encode();
        self.stats.bytes_written += content.len() as u64;
        self.stats.run_bytes_written += content.len() as u64;
        let dropped = std::mem::take(&mut self.runs.dropped);
        let removed = std::mem::take(&mut self.runs.removed);
        self.naming = Some(Naming { sequence, dropped, removed });
        let file = manifest::file_name(self.config.shard, sequence);
        self.operations.ask(UnderWay::PutManifest, |id| DiskOp::Put { id, file, content: vec![content] });
        if planted(Bug::ReuseBeforeManifest) {
            self.named(sequence);
        }
        if planted(Bug::ReuseAdoptedBeforeManifest) {
            self.leave_adopted();
        }
    }

    /// Whether the newest durable manifest may name runs of a group that is removed.
    pub(crate) fn is_named(&self, group: GroupId) -> bool {
        let naming = self.naming.iter().flat_map(|naming| &naming.removed);
        naming.chain(&self.runs.removed).any(|removed| *removed == group)
    }

    pub(crate) fn manifest_put(&mut self, result: Result<Block, String>) {
        let Some(naming) = self.naming.take() else { return };
        let Naming { sequence, dropped, removed } = naming;
        if result.is_err() {
            self.runs.manifests.push(sequence);
            self.runs.dropped.extend(dropped);
            self.runs.removed.extend(removed);
            self.runs.is_stale = true;
            self.evacuation.pause();
            return;
        }
        if self.failed {
            return;
        }
        self.runs.durable = sequence;
        for old in std::mem::replace(&mut self.runs.manifests, vec![sequence]) {
            let file = manifest::file_name(self.config.shard, old);
            self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Delete { id, file });
        }
        self.named(sequence);
        self.delete_runs(dropped);
        if !removed.is_empty() {
            self.finish_removals();
        }
    }

    /// Deletes the files of runs that no manifest names, and segments that were nothing but runs.
    pub(crate) fn delete_runs(&mut self, runs: Vec<Run>) {
        for run in runs {
            let file = run.file;
            self.dead.forget(&file);
            self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Delete { id, file });
        }
        self.leave_adopted();
    }

    /// Segments that were adopted and to which no run points any more go back to the ring: blocks that were written
    /// before are synced at less cost than new ones. Those with holes are deleted, as the log would have to find room
    /// for them, and those that the ring does not wait for. Reads of them that are under way were asked for before.
    fn leave_adopted(&mut self) {
        let is_adopted = |segment: &Segment| matches!(segment.state, State::Adopted { .. });
        if !self.ring.segments.iter().any(is_adopted) {
            return;
        }
        let runs = self.runs.groups.values().flat_map(|group| &group.runs);
        let dropped = self.runs.dropped.iter().chain(self.naming.iter().flat_map(|naming| &naming.dropped));
        // The durable manifest still names those.
        let dropped = dropped.filter(|_| !planted(Bug::ReuseAdoptedBeforeManifest));
        let slots: Vec<u32> = runs.chain(dropped).map(|run| run.identity.slot).collect();
        let is_dead = |segment: &mut Segment| {
            is_adopted(segment) && segment.pins == 0 && segment.kept == 0 && !slots.contains(&segment.slot)
        };
        let dead: Vec<_> = self.ring.segments.extract_if(.., is_dead).collect();
        for segment in dead {
            self.dead.forget(&segment.file);
            self.leave(segment);
        }
    }

    /// Puts a segment to which no run points back to the ring, or deletes it.
    fn leave(&mut self, mut segment: Segment) {
        let newest = self.tail.link.generation;
        let free = self.ring.segments.iter().filter(|segment| segment.reusable(self.floor, newest)).count();
        if let State::Adopted { generation } = segment.state
            && !(segment.has_holes || self.is_scarce || free >= FREE_ENOUGH)
        {
            // It was adopted because no flush of it was needed any more.
            segment.state = State::Used { generation, last: 0 };
            self.ring.segments.push(segment);
            self.stats.adopted_reused += 1;
            return;
        }
        let file = segment.file;
        self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Delete { id, file });
    }
}
