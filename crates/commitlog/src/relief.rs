//! Giving the space of segments back that nobody needs, instead of keeping them to be written again: all but a few while
//! the disk is nearly full, else what a burst left behind.
//!
//! In: the owner's word that the disk is nearly full, repeated while it is. Out: checkpoints wanted of every group
//! that has moved, eager evacuation, deleted segments; a few are left, so that the log itself can go on. Never: what
//! the law of reuse does not allow, and nothing while a flush is under way.
//!
//! A segment that is written again names the floor that allowed it in its new header. One that is deleted leaves
//! nothing behind, so the floor must stand in a file that stays: the newest header, or a checkpoint of a group that
//! is not on its way out.

use crate::disk::DiskOp;
use crate::group::Group;
use crate::log::{CommitLog, UnderWay};
use crate::segment::{Segment, State};

/// Segments left to be written next while the disk is nearly full.
const SPARE: usize = 2;
/// Segments to be written next that are enough.
pub(crate) const FREE_ENOUGH: usize = 4;

impl CommitLog {
    /// Whether the disk is nearly full. To be repeated every now and then while it is: each time, every group that has
    /// entries above its checkpoint wants another one, and what failed for want of room is tried again at once.
    pub fn set_scarce(&mut self, is_scarce: bool) {
        self.is_scarce = is_scarce;
        if is_scarce {
            self.groups.values_mut().for_each(Group::urge);
            self.evacuation.hurry();
            self.give_back_dead();
        }
    }

    /// Deletes segments that could be written again, but for a few, as far as the ring is too large.
    pub(crate) fn give_back(&mut self) {
        if !self.in_flight.is_empty() {
            return;
        }
        let mut held = self.ring.bytes();
        let (most, spare) =
            if self.is_scarce { (0, SPARE) } else { (self.ring_enough() / 2 * 3, FREE_ENOUGH) };
        // A header under way may not be there after a crash, and then the one before is the newest.
        if held <= most || self.named_floor() < self.floor {
            return;
        }
        for (bytes, slot) in self.free_beyond(spare) {
            if held <= most {
                break;
            }
            held -= bytes;
            let file = self.ring.slot(slot).file.clone();
            self.ring.segments.retain(|segment| segment.slot != slot);
            self.deleted_below = self.floor;
            self.operations.ask(UnderWay::Delete(None), |id| DiskOp::Delete { id, file });
        }
    }

    /// Bytes and slots of segments that could be written again, without so many of them and those that are ready. The
    /// largest first: they were made for one large flush, or for many.
    fn free_beyond(&self, spare: usize) -> Vec<(u64, u32)> {
        let newest = self.tail.link.generation;
        let ready = |segment: &&Segment| matches!(segment.state, State::Coming | State::Fresh);
        let spare = spare.saturating_sub(self.ring.segments.iter().filter(ready).count());
        let free = self.ring.segments.iter().filter(|segment| segment.reusable(self.floor, newest));
        let mut free: Vec<(u64, u32)> = free.map(|segment| (segment.bytes, segment.slot)).collect();
        free.sort_unstable();
        free.drain(..spare.min(free.len()));
        free.reverse();
        free
    }

    /// The highest floor named by a durable file that is to stay.
    pub(crate) fn named_floor(&self) -> u64 {
        let stays = self.groups.values().filter(|group| group.removed == 0);
        stays.map(|group| group.floor).max().unwrap_or(0).max(self.header_floor)
    }
}
