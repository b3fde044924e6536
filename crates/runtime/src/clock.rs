//! The clock: read once per turn, given to everything below as [`Now`].

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base::Now;

/// A monotonic clock with a start, shared by all threads of a node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The present.
    pub fn now(&self) -> Now {
        // A machine whose clock stands before 1970 is told so by its timestamps of 0.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_us: self.start.elapsed().as_micros() as u64, wall_ms: wall.as_millis() as u64 }
    }
}
