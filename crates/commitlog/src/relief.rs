//! A nearly full disk: segments that nobody needs are deleted instead of being kept to be written again.
//!
//! In: the owner's word that the disk is nearly full, repeated while it is. Out: checkpoints wanted of every group
//! that has moved, eager evacuation, deleted segments; a few are left, so that the log itself can go on. Never: what
//! the law of reuse does not allow.
//!
//! A segment that is written again names the floor that allowed it in its new header. One that is deleted leaves
//! nothing behind, so the floor must stand in a file that stays: the newest header, or a checkpoint of a group that
//! is not on its way out.

use crate::disk::DiskOp;
use crate::log::{CommitLog, UnderWay};
use crate::segment::{Segment, State};

/// Segments left to be written next.
const SPARE: usize = 2;

impl CommitLog {
    /// Whether the disk is nearly full. To be repeated every now and then while it is: each time, every group that has
    /// entries above its checkpoint wants another one, and what failed for want of room is tried again at once.
    pub fn set_scarce(&mut self, is_scarce: bool) {
        self.is_scarce = is_scarce;
        if is_scarce {
            self.groups.values_mut().for_each(|group| group.is_urged = !group.entries.is_empty());
            self.evacuation.hurry();
            self.give_back_dead();
        }
    }

    /// Deletes segments that could be written again, but for a few.
    pub(crate) fn give_back(&mut self) {
        // A header under way may not be there after a crash, and then the one before is the newest.
        let is_named = self.named_floor() >= self.floor;
        if !self.is_scarce || !self.in_flight.is_empty() || !is_named {
            return;
        }
        let newest = self.tail.link.generation;
        let reusable = |segment: &&Segment| segment.reusable(self.floor, newest);
        let ready = |segment: &&Segment| matches!(segment.state, State::Coming | State::Fresh);
        let mut old: Vec<(u64, u32)> =
            self.ring.segments.iter().filter(reusable).map(|segment| (segment.bytes, segment.slot)).collect();
        let spare = SPARE.saturating_sub(self.ring.segments.iter().filter(ready).count());
        // Larger ones go first: they were made for one large flush.
        old.sort_unstable();
        old.drain(..spare.min(old.len()));
        for (_, slot) in old {
            let file = self.ring.slot(slot).file.clone();
            self.ring.segments.retain(|segment| segment.slot != slot);
            self.deleted_below = self.floor;
            self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Delete { id, file });
        }
    }

    /// The highest floor named by a durable file that is to stay.
    pub(crate) fn named_floor(&self) -> u64 {
        let stays = self.groups.values().filter(|group| group.removed == 0);
        stays.map(|group| group.floor).max().unwrap_or(0).max(self.header_floor)
    }
}
