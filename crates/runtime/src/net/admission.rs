//! How many connections the node has, and whether one more may come.
//!
//! Descriptors are kept free for the log's own files: a log that cannot open one has failed, a client that must wait
//! has not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::{Resource, Rlimit};

/// Descriptors that connections may not take.
const KEPT_FREE: u64 = 256;

/// Raises the process's bound of open files as far as it may, and returns how many connections fit below it.
pub fn room_for_connections() -> u32 {
    let bound = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: bound.maximum, maximum: bound.maximum };
    let raised = rustix::process::setrlimit(Resource::Nofile, raised).is_ok();
    let files = if raised { bound.maximum } else { bound.current };
    fit(files)
}

fn fit(files: Option<u64>) -> u32 {
    // No bound at all is as good as a very high one.
    let files = files.unwrap_or(u64::MAX);
    let connections = files.saturating_sub(KEPT_FREE).max(files / 2);
    u32::try_from(connections).unwrap_or(u32::MAX)
}

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
    fn some_descriptors_are_never_connections() {
        assert_eq!((fit(Some(1024)), fit(Some(60)), fit(None)), (768, 30, u32::MAX));
    }

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
