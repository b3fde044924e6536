//! The runs of a shard in memory: per group where each begins and ends, with one row per block, and which entries have
//! left the ring.
//!
//! Positions of a group's entries ascend with their indexes, and segments are evacuated from the oldest on, so the
//! runs of a group never overlap.

use std::collections::BTreeMap;

use model::{GroupId, Index, QueueId, ShardId};

use crate::disk::FileName;
use crate::manifest::{Manifest, NamedRun};
use crate::run::{BlockRow, Identity};

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub identity: Identity,
    /// Where its index is.
    pub file: FileName,
    /// Where its blocks are.
    pub data: FileName,
    pub first: Index,
    pub last: Index,
    /// Of the file with the index.
    pub length: u64,
    /// Sorted by key; those with length 0 are dropped.
    pub blocks: Vec<BlockRow>,
}

impl Run {
    /// The last block that begins at or before that piece; no other can have it.
    pub fn block_of(&self, log: QueueId, index: Index, at: u32, ordinal: u32) -> Option<usize> {
        let behind = self.blocks.partition_point(|block| block.key() <= (log, index, at, ordinal));
        let block = behind.checked_sub(1)?;
        let row = &self.blocks[block];
        (row.log == log && row.length > 0 && row.last >= index).then_some(block)
    }

    /// Bytes of its blocks.
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.length)).sum()
    }
}

/// What one group has in runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupRuns {
    /// Ascending, apart.
    pub runs: Vec<Run>,
    /// Entries that have left the ring, ascending; what lies in them and in no run was not needed any more.
    pub moved: Vec<(Index, Index)>,
    /// How far [`crate::CommitLog::trim`] has come: the index behind the last run asked about whole, and blocks of
    /// the next one.
    pub trimmed: (Index, usize),
}

impl GroupRuns {
    /// The run that may have pieces of that entry.
    pub fn run_of(&self, index: Index) -> Option<&Run> {
        let behind = self.runs.partition_point(|run| run.first <= index);
        self.runs[..behind].last().filter(|run| run.last >= index)
    }

    /// Whether all entries from `first` to `last` have left the ring.
    pub fn has_moved(&self, first: Index, last: Index) -> bool {
        has_moved(&self.moved, first, last)
    }

    /// Entries from `first` to `last` have left the ring; `still` tells whether one in between is still there.
    pub fn moves(&mut self, (first, last): (Index, Index), still: impl Fn(Index, Index) -> bool) {
        let place = self.moved.partition_point(|(_, end)| *end < first);
        self.moved.insert(place, (first, last));
        let joins = |a: &(Index, Index), b: &(Index, Index)| !still(a.1, b.0);
        for left in [place, place.wrapping_sub(1)] {
            if let Some([a, b]) = self.moved.get(left..).and_then(|rest| rest.first_chunk()).copied()
                && joins(&a, &b)
            {
                self.moved[left] = (a.0, b.1);
                self.moved.remove(left + 1);
            }
        }
    }

    /// Adds a run.
    pub fn add(&mut self, run: Run) {
        let place = self.runs.partition_point(|other| other.first < run.first);
        let before = self.runs[..place].last().is_none_or(|other| other.last < run.first);
        let behind = self.runs.get(place).is_none_or(|other| run.last < other.first);
        assert!(before && behind, "runs of a group never overlap");
        self.runs.insert(place, run);
    }
}

/// Whether some range has all from `first` to `last`.
pub(crate) fn has_moved(moved: &[(Index, Index)], first: Index, last: Index) -> bool {
    let place = moved.partition_point(|(_, end)| *end < first);
    moved.get(place).is_some_and(|(begin, end)| *begin <= first && last <= *end)
}

/// All of them, with the manifests that name them.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    pub groups: BTreeMap<GroupId, GroupRuns>,
    pub next_run: u64,
    pub next_manifest: u64,
    /// The newest durable manifest, 0 if there is none.
    pub durable: u64,
    /// Manifests that may be on disk besides the one under way.
    pub manifests: Vec<u64>,
    /// What the newest manifest says is not true any more.
    pub is_stale: bool,
    /// Groups that are no more, until a manifest without them is durable.
    pub removed: Vec<GroupId>,
    /// Runs that are no more, whose files go when a manifest without them is durable.
    pub dropped: Vec<Run>,
}

impl Runs {
    /// What a manifest has to say now.
    pub fn manifest(&self, shard: ShardId, sequence: u64) -> Manifest {
        let mut manifest = Manifest { shard, sequence, next_run: self.next_run, ..Manifest::default() };
        for (group, runs) in &self.groups {
            manifest.runs.extend(runs.runs.iter().map(|run| NamedRun {
                group: *group,
                slot: run.identity.slot,
                number: run.identity.number,
                first: run.first,
                last: run.last,
                length: run.length,
            }));
            manifest.moved.extend(runs.moved.iter().map(|(first, last)| (*group, *first, *last)));
        }
        manifest
    }

    /// Forgets a group.
    pub fn remove(&mut self, group: GroupId) {
        if let Some(runs) = self.groups.remove(&group) {
            self.is_stale = true;
            self.removed.push(group);
            self.dropped.extend(runs.runs);
        }
    }

    /// Entries of a group that have left the ring.
    pub fn moved(&self, group: GroupId) -> &[(Index, Index)] {
        self.groups.get(&group).map_or(&[], |runs| &runs.moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_left_join_unless_something_between_is_still_there() {
        let mut runs = GroupRuns::default();
        let range = |first, last| (Index(first), Index(last));
        runs.moves(range(10, 20), |_, _| true);
        runs.moves(range(1, 3), |_, _| true);
        assert_eq!(runs.moved, [range(1, 3), range(10, 20)]);
        assert!(runs.has_moved(Index(10), Index(20)) && !runs.has_moved(Index(3), Index(10)));
        runs.moves(range(5, 6), |from, to| from < Index(7) && to > Index(7));
        assert_eq!(runs.moved, [range(1, 6), range(10, 20)]);
        runs.moves(range(7, 7), |_, _| false);
        assert_eq!(runs.moved, [range(1, 20)]);
        runs.moves(range(30, 31), |_, _| false);
        assert_eq!(runs.moved, [range(1, 31)]);
    }
}
