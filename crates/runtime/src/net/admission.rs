//! How many connections the node has, and whether one more may come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The count of a node's connections.
#[derive(Clone, Debug)]
pub struct Admission {
    taken: Arc<AtomicU32>,
    most: u32,
}

impl Admission {
    /// Room for `most` connections.
    pub fn new(most: u32) -> Admission {
        Admission { taken: Arc::default(), most }
    }

    /// A seat for one more connection, unless all are taken.
    pub fn seat(&self) -> Option<Seat> {
        let free = |taken: u32| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, free).ok()?;
        Some(Seat { taken: self.taken.clone() })
    }

    /// Connections now.
    pub fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }
}

/// The right to be connected; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    taken: Arc<AtomicU32>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_has_room_again_when_somebody_leaves() {
        let admission = Admission::new(2);
        let first = admission.seat();
        let second = admission.seat();
        assert!(first.is_some() && second.is_some() && admission.seat().is_none());
        drop(first);
        assert_eq!(admission.taken(), 1);
        assert!(admission.seat().is_some());
    }
}
