//! Checkpoints from asked for to durable, and the end of groups.

use model::{GroupId, Index, Term};

use base::{Bug, planted};

use crate::checkpoint::{self, CheckpointFile, Waiting, Way};
use crate::disk::DiskOp;
use crate::frame::{Frame, Kind};
use crate::group::HardState;
use crate::log::{CommitLog, FlushId, LogEvent, UnderWay};

impl CommitLog {
    /// Stores `state` as that of the group at `index`; once it is durable, entries at or below `index` that are not in
    /// `kept` (inclusive ranges, ascending, of entries held, in the ring or in runs) are forgotten.
    ///
    /// An index or term that the group's log does not have replaces the whole log; then nothing may be appended to
    /// the group before [`LogEvent::Checkpointed`].
    pub fn checkpoint(
        &mut self,
        group: GroupId,
        index: Index,
        term: Term,
        state: Vec<Vec<u8>>,
        kept: Vec<(Index, Index)>,
    ) {
        let newest = self.newest_flush();
        let entry = self.groups.entry(group).or_default();
        assert!(entry.removed == 0, "a removed group has no state");
        let before = entry.checkpoints.back().map_or(entry.index, |waiting| waiting.index);
        assert!(index >= before, "a checkpoint does not go back");
        let known = index == entry.index || entry.at(index).is_some_and(|at| at.term == term);
        // A wrong term for an entry that is committed would throw the log away by mistake.
        assert!(known || index > entry.hard_state.commit, "a committed entry has one term");
        let jump = !known || entry.jumping;
        entry.jumping = jump;
        entry.bytes_since = 0;
        entry.asked_in = self.ring.generations;
        entry.is_urged = false;
        let way = Way::Waiting;
        entry.checkpoints.push_back(Waiting { index, term, state, kept, after: newest, jump, way });
        self.checkpoints_waiting += 1;
        self.put_checkpoints();
    }

    /// The group wants a checkpoint soon, if there is anything above its last one.
    pub fn urge(&mut self, group: GroupId) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.urge();
        }
    }

    /// The group that most holds back the oldest segment, or that has appended a segment's worth since its last
    /// checkpoint; not one whose checkpoint is under way.
    pub fn wants_checkpoint(&self) -> Option<GroupId> {
        let wanting = self.groups.iter().filter_map(|(id, group)| {
            let from = group.entries.front()?.flush;
            let holds = from < self.tail.first_before && group.asked_in < self.ring.generations;
            let large = group.bytes_since >= self.config.segment_bytes;
            let can = group.checkpoints.is_empty() && group.removed == 0;
            (can && (holds || large || group.is_urged)).then_some((from, *id))
        });
        wanting.min().map(|(_, group)| group)
    }

    /// Forgets a group: durably once the flush is; its space is free after that.
    pub fn remove_group(&mut self, group: GroupId) -> FlushId {
        let open = self.open.back_mut().expect("a flush is always open");
        let number = open.number;
        let Some(state) = self.groups.get_mut(&group) else { return FlushId(number) };
        state.removed = number;
        let waiting = state.checkpoints.len();
        state.checkpoints.retain(|checkpoint| checkpoint.way != Way::Waiting);
        self.checkpoints_waiting -= waiting - state.checkpoints.len();
        let gathered = self.evacuation.forget(group);
        self.delete_runs(gathered);
        let open = self.open.back_mut().expect("a flush is always open");
        let (term, index, commit) = (Term(0), Index(0), Index(0));
        let (kind, length, payload_crc) = (Kind::Removed, 0, 0);
        open.push(Frame { kind, group, term, index, commit, length, payload_crc, apart: None });
        FlushId(number)
    }

    /// The newest flush that has something in it.
    fn newest_flush(&self) -> u64 {
        let open = self.open.iter().rev().find(|open| !open.is_empty());
        open.map_or(self.tail.link.number, |open| open.number)
    }

    /// Writes the checkpoints whose entries are durable.
    pub(crate) fn put_checkpoints(&mut self) {
        if self.checkpoints_waiting == 0 || self.failed {
            return;
        }
        let ready = self.groups.iter().filter(|(_, group)| {
            let first = group.checkpoints.front();
            let ready = |waiting: &Waiting| waiting.way == Way::Waiting && waiting.after <= self.durable;
            first.is_some_and(ready) && !group.is_cutting(self.durable)
        });
        let ready: Vec<GroupId> = ready.map(|(id, _)| *id).collect();
        ready.into_iter().for_each(|group| self.put(group));
    }

    fn put(&mut self, id: GroupId) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let others = self.groups.iter().filter(|(other, _)| **other != id);
        let others = others.map(|(_, group)| group.needs_from(self.durable)).min().unwrap_or(u64::MAX);
        let open = self.open.back().expect("a flush is always open");
        let next = (open.number, open.ordinal());
        let group = self.groups.get_mut(&id).expect("the group of a waiting checkpoint");
        let waiting = group.checkpoints.front_mut().expect("its checkpoint");
        let (index, term, jump) = (waiting.index, waiting.term, waiting.jump);
        let state = std::mem::take(&mut waiting.state);
        let kept = std::mem::take(&mut waiting.kept);
        let above = group.entry_above(index, jump).map(|at| (at.flush, at.ordinal));
        let needs = above.map_or(u64::MAX, |(flush, _)| flush);
        let floor = needs.min(others).min(self.durable + 1).max(self.floor);
        // The file must not know a commit index of entries that a crash could still take away.
        let durable = group.entries.partition_point(|at| at.flush <= self.durable) as u64;
        let commit = group.hard_state.commit.min(Index(group.index.0 + durable)).max(index);
        let file = CheckpointFile {
            shard: self.config.shard,
            group: id,
            sequence,
            index,
            term,
            hard_state: HardState { commit, ..group.hard_state },
            replay_from: above.unwrap_or(next),
            floor,
            manifest: self.runs.durable,
            kept: group.held(index, &kept, self.runs.moved(id)),
        };
        let waiting = group.checkpoints.front_mut().expect("its checkpoint");
        waiting.kept = kept;
        waiting.way = Way::Put { sequence, floor, saved: group.saved_durable };
        let name = checkpoint::file_name(self.config.shard, id, sequence);
        let content = file.encode(state);
        let length = content.iter().map(|part| part.len() as u64).sum::<u64>();
        self.stats.bytes_written += length;
        self.stats.checkpoint_bytes_written += length;
        self.operations.ask(UnderWay::Put(id), |op| DiskOp::Put { id: op, file: name, content });
        if planted(Bug::RecycleOnUnsyncedSettle) {
            self.floor = self.floor.max(floor);
        }
    }

    pub(crate) fn checkpointed(&mut self, id: GroupId) {
        let group = self.groups.get_mut(&id).filter(|_| !self.failed);
        let Some(group) = group else { return };
        let done = group.checkpoints.pop_front().expect("the checkpoint that was put");
        let Way::Put { sequence, floor, saved } = done.way else { unreachable!("it was put") };
        let ring = &mut self.ring;
        let (from, to) = (group.index.0, group.last().0);
        let moved = self.runs.moved(id);
        group.advance((done.index, done.term), (&done.kept, moved), done.jump, |at, begins| {
            let segment = ring.slot_mut(at.slot);
            if begins { segment.kept += 1 } else { segment.kept -= 1 }
        });
        if group.saved_durable == saved {
            group.saved_durable = 0;
        }
        group.jumping = group.checkpoints.iter().any(|waiting| waiting.jump);
        let old = std::mem::replace(&mut group.file, sequence);
        group.floor = floor;
        self.forget_cached(id, from, to);
        self.checkpoints_waiting -= 1;
        self.stats.checkpoints += 1;
        self.floor = self.floor.max(floor);
        if old != 0 {
            let file = checkpoint::file_name(self.config.shard, id, old);
            self.operations.ask(UnderWay::Delete(None), |op| DiskOp::Delete { id: op, file });
        }
        self.events.push_back(LogEvent::Checkpointed { group: id, index: done.index });
        self.put_checkpoints();
        self.finish_removals();
    }

    /// Entries of that range that are not held any more leave the memory.
    fn forget_cached(&mut self, id: GroupId, from: u64, to: u64) {
        let group = &self.groups[&id];
        for index in (from + 1..=to).map(Index) {
            if group.at(index).is_none() {
                self.cache.remove((id, index));
            }
        }
    }

    /// Deletes the checkpoints of groups whose removal is durable, when no manifest names runs of theirs any more.
    pub(crate) fn finish_removals(&mut self) {
        let durable = self.durable;
        let removed = self.groups.iter().filter(|(_, group)| {
            let is_free = group.checkpoints.is_empty() && !group.is_leaving;
            // The floor by which segments were deleted must not go with it.
            let is_named = group.file == 0 || self.deleted_below <= self.named_floor();
            group.removed != 0 && group.removed <= durable && is_free && is_named
        });
        let removed: Vec<(GroupId, u64)> = removed.map(|(id, group)| (*id, group.file)).collect();
        for (id, file) in removed {
            self.runs.remove(id);
            if self.is_named(id) {
                continue;
            }
            if let Some(group) = self.groups.get_mut(&id) {
                group.is_leaving = true;
            }
            if file == 0 {
                self.removed(id);
                continue;
            }
            let file = checkpoint::file_name(self.config.shard, id, file);
            self.operations.ask(UnderWay::Delete(Some(id)), |op| DiskOp::Delete { id: op, file });
        }
        self.put_manifest();
    }

    /// Nothing on disk speaks of the group any more but frames that its removal cuts.
    pub(crate) fn removed(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else { return };
        group.kept.iter().for_each(|(_, at)| self.ring.slot_mut(at.slot).kept -= 1);
        let held = group.kept.iter().map(|(index, _)| index.0);
        let held = held.chain(group.index.0 + 1..=group.last().0);
        held.for_each(|index| self.cache.remove((id, Index(index))));
    }
}
