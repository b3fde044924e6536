//! How much fits on the disk: what others leave of it may become little, and more again.
//!
//! In: how much is to be free. Out: how much is, and whether an operation finds room. Files count whole, even where
//! something was punched out of them.

use commitlog::disk::DiskOp;

use super::VirtualDisk;

impl VirtualDisk {
    /// Others write or delete, so that so many bytes are free.
    pub fn leave_free(&mut self, bytes: u64) {
        self.capacity = Some(self.used() + bytes);
    }

    /// Bytes that are free; `None`: nobody counts them.
    pub fn free(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used()))
    }

    fn used(&self) -> u64 {
        self.files.values().map(|content| content.len() as u64).sum()
    }

    /// Whether the operation finds no room; that is noted.
    pub(super) fn lacks_room(&mut self, op: &DiskOp) -> bool {
        let needed = match op {
            DiskOp::Create { bytes, .. } | DiskOp::Prepare { bytes, .. } => *bytes,
            DiskOp::Put { content, .. } => content.iter().map(|part| part.len() as u64).sum(),
            _ => return false,
        };
        let lacks = self.free().is_some_and(|free| free < needed);
        self.has_run_out |= lacks;
        lacks
    }
}

#[cfg(test)]
mod tests {
    use base::{Pool, Prng};
    use commitlog::disk::OpId;

    use super::*;
    use crate::disk::Pace;

    #[test]
    fn what_does_not_fit_fails_and_what_is_deleted_makes_room() {
        let pace = Pace { most_us: 1, slow_one_in: 0 };
        let (mut disk, mut prng) = (VirtualDisk::new(1, pace, Pool::default()), Prng::new(1));
        let mut ask = |disk: &mut VirtualDisk, op| {
            disk.submit(0, op, 0, &mut prng);
            disk.complete(0, 10, &mut prng).remove(0).result.is_ok()
        };
        let (id, bytes) = (OpId(1), 8192);
        let prepare = |name: &str| DiskOp::Prepare { id, file: name.into(), bytes, written: false };
        disk.leave_free(bytes);
        assert!(ask(&mut disk, prepare("one")) && disk.free() == Some(0) && !disk.has_run_out);
        assert!(!ask(&mut disk, prepare("two")) && disk.has_run_out);
        disk.leave_free(0);
        assert!(ask(&mut disk, DiskOp::Delete { id, file: "one".into() }));
        assert!(disk.free() >= Some(bytes) && ask(&mut disk, prepare("three")));
    }
}
