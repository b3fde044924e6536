//! Time on a connection: the handshake's bound, heartbeats both ways, and how long a close may take.
//!
//! Heartbeats go out at half the interval when nothing else did. A peer that stays silent for two intervals is
//! gone; time in which its input was not read on purpose does not count.

use base::{Now, SendBuffer};

use super::{Session, Stage, Step};
use crate::wire::frame::HEARTBEAT_FRAME;

/// Microseconds that the other side has for its `close-ok`, or the broker for tidying up.
const CLOSE_US: u64 = 10_000_000;
/// Half intervals of silence after which the peer is gone.
const SILENT_MAX: u8 = 4;

#[derive(Debug)]
pub(super) struct Clock {
    started_us: u64,
    handshake_us: u64,
    /// Half of the heartbeat interval; 0: no heartbeats.
    half_us: u64,
    /// When the current half interval ends.
    beat_us: u64,
    heard: bool,
    spoke: bool,
    silent: u8,
    /// A close was sent or asked for, not yet timed.
    closing: bool,
    close_by_us: Option<u64>,
}

impl Clock {
    pub(super) fn new(now: Now, handshake_ms: u64) -> Clock {
        Clock {
            started_us: now.mono_us,
            handshake_us: handshake_ms.saturating_mul(1000),
            half_us: 0,
            beat_us: 0,
            heard: false,
            spoke: false,
            silent: 0,
            closing: false,
            close_by_us: None,
        }
    }

    pub(super) fn beat_every(&mut self, interval_s: u16) {
        self.half_us = u64::from(interval_s) * 500_000;
    }

    pub(super) fn note(&mut self, heard: bool, spoke: bool) {
        self.heard |= heard;
        self.spoke |= spoke;
    }

    pub(super) fn excuse(&mut self) {
        self.heard = true;
    }

    pub(super) fn closing(&mut self) {
        self.closing = true;
    }
}

impl Session {
    /// The input of this connection is left unread on purpose: its silence says nothing.
    pub fn excuse_silence(&mut self) {
        self.clock.excuse();
    }

    /// When [`Session::tick`] has something to do next, in microseconds of the monotonic clock.
    pub fn next_deadline(&self) -> Option<u64> {
        let clock = &self.clock;
        match self.stage {
            Stage::Ended => None,
            Stage::Closing | Stage::Failed => Some(clock.close_by_us.unwrap_or(0)),
            Stage::Open => (clock.half_us > 0).then_some(clock.beat_us),
            _ => Some(clock.started_us.saturating_add(clock.handshake_us)),
        }
    }

    /// Does what has become due by `now`: [`Step::End`] when the connection must go, else [`Step::More`].
    pub fn tick(&mut self, now: Now, out: &mut SendBuffer) -> Step<'static> {
        let is_over = match self.stage {
            Stage::Ended => true,
            Stage::Closing | Stage::Failed => self.is_close_overdue(now),
            Stage::Open => self.beat(now, out),
            _ => now.mono_us >= self.clock.started_us.saturating_add(self.clock.handshake_us),
        };
        if is_over {
            self.stage = Stage::Ended;
            return Step::End;
        }
        Step::More
    }

    fn is_close_overdue(&mut self, now: Now) -> bool {
        if std::mem::take(&mut self.clock.closing) || self.clock.close_by_us.is_none() {
            self.clock.close_by_us = Some(now.mono_us.saturating_add(CLOSE_US));
        }
        self.clock.close_by_us.is_some_and(|by| now.mono_us >= by)
    }

    /// Returns whether the peer is gone.
    fn beat(&mut self, now: Now, out: &mut SendBuffer) -> bool {
        let clock = &mut self.clock;
        if clock.half_us == 0 || now.mono_us < clock.beat_us {
            return false;
        }
        if clock.beat_us == 0 {
            (clock.heard, clock.spoke) = (true, true);
        }
        clock.beat_us = now.mono_us.saturating_add(clock.half_us);
        clock.silent = if std::mem::take(&mut clock.heard) { 0 } else { clock.silent + 1 };
        if !std::mem::take(&mut clock.spoke) {
            out.tail().extend_from_slice(&HEARTBEAT_FRAME);
        }
        clock.silent >= SILENT_MAX
    }
}
