//! When which connection wants to be looked at, without touching every connection at every turn.
//!
//! A connection's own deadline moves with everything it sends and receives; here it stands once, with a time that
//! may be too early. When that comes the connection is asked again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use model::ConnId;

/// Deadlines in microseconds of the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, ConnId)>>,
}

impl Timers {
    /// The connection wants to be looked at then.
    pub(crate) fn set(&mut self, at_us: u64, conn: ConnId) {
        self.heap.push(Reverse((at_us, conn)));
    }

    /// A connection whose time has come.
    pub(crate) fn due(&mut self, now_us: u64) -> Option<ConnId> {
        let Reverse((at, conn)) = *self.heap.peek()?;
        if at > now_us {
            return None;
        }
        self.heap.pop();
        Some(conn)
    }

    /// The earliest.
    pub(crate) fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_only_when_it_is_due() {
        let mut timers = Timers::default();
        for (at, conn) in [(30, 3), (10, 1), (20, 2)] {
            timers.set(at, ConnId(conn));
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.due(9), None);
        assert_eq!(timers.due(20), Some(ConnId(1)));
        assert_eq!(timers.due(20), Some(ConnId(2)));
        assert_eq!(timers.due(20), None);
    }
}
