//! Time on a connection: the bound until somebody has come in, and how long one may stay silent.
//!
//! In: the time at each tick. Out: whether the connection must go. Never: reads a clock.

use base::{Now, SendBuffer};

use super::{Session, Stage, Step};

/// Microseconds of silence after which a connection with nothing under way is closed, as the protocol's own brokers do.
const IDLE_US: u64 = 600_000_000;
/// Microseconds that what is under way has once the connection is ending.
const ENDING_US: u64 = 10_000_000;

#[derive(Debug)]
pub(super) struct Clock {
    started_us: u64,
    handshake_us: u64,
    /// When the current span of silence would be too long; 0: not begun.
    check_us: u64,
    /// When an ending connection is closed at the latest; `None`: not timed yet.
    end_by_us: Option<u64>,
    pub(super) heard: bool,
}

impl Clock {
    pub(super) fn new(now: Now, handshake_ms: u64) -> Clock {
        Clock {
            started_us: now.mono_us,
            handshake_us: handshake_ms.saturating_mul(1000),
            check_us: 0,
            end_by_us: None,
            heard: false,
        }
    }
}

impl Session {
    /// The input of this connection is left unread on purpose: its silence says nothing.
    pub fn excuse_silence(&mut self) {
        self.clock.heard = true;
    }

    /// When [`Session::tick`] has something to do next, in microseconds of the monotonic clock.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.stage {
            Stage::Ended => None,
            Stage::Ending => Some(self.clock.end_by_us.unwrap_or(0)),
            Stage::Open => Some(self.clock.check_us),
            _ => Some(self.clock.started_us.saturating_add(self.clock.handshake_us)),
        }
    }

    /// Does what has become due by `now`: [`Step::End`] when the connection must go, else [`Step::More`].
    pub fn tick(&mut self, now: Now, _out: &mut SendBuffer) -> Step<'static> {
        let is_over = match self.stage {
            Stage::Ended => true,
            Stage::Ending => {
                let by = *self.clock.end_by_us.get_or_insert(now.mono_us.saturating_add(ENDING_US));
                now.mono_us >= by
            }
            Stage::Open => self.is_idle(now),
            _ => now.mono_us >= self.clock.started_us.saturating_add(self.clock.handshake_us),
        };
        if is_over {
            self.end();
            return Step::End;
        }
        Step::More
    }

    fn is_idle(&mut self, now: Now) -> bool {
        let clock = &mut self.clock;
        let is_silent = clock.check_us > 0 && !clock.heard && self.queue.is_empty();
        if clock.check_us > now.mono_us {
            return false;
        }
        clock.check_us = now.mono_us.saturating_add(IDLE_US).max(1);
        clock.heard = false;
        is_silent
    }
}
