//! Which part of a log is closed. Its newest part is *open*: readers that keep up with it see every record, as they do
//! where a log is made of segments and the active one is left alone. A batch is closed when it is older than the
//! topic's `segment.ms`, or when more than `segment.bytes` lie from it to the end. The last batch is never closed, so
//! that a reader who was told of the end gets there.
//!
//! In: a log's state, its topic's settings, the time. Out: an offset. Never: opens what it closed.

use queue::LogState;
use topology::TopicSettings;

/// How far a log is closed. Looks at every batch twice, when it is new and when it is closed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Closed {
    /// Everything below is closed.
    below: u64,
    /// What was appended below is counted.
    counted: u64,
    /// Bytes from `below` to `counted`.
    open_bytes: u64,
}

impl Closed {
    /// Everything below this offset is closed.
    pub fn below(&self) -> u64 {
        self.below
    }

    /// Bytes of what is not closed.
    pub fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    /// Closes what has become old or too much.
    pub fn advance(&mut self, state: &LogState, settings: &TopicSettings, now_ms: i64) {
        if self.below < state.start() {
            // What was trimmed is not known any more, but that nothing else is left than what is open.
            *self = Closed { below: state.start(), counted: state.end(), open_bytes: state.bytes() };
        }
        let new = state.chunks_from(self.counted).map(|chunk| u64::from(chunk.bytes));
        self.open_bytes += new.sum::<u64>();
        self.counted = state.end();
        let age_ms = settings.segment_ms.min(settings.max_compaction_lag_ms);
        let old = now_ms.checked_sub_unsigned(age_ms);
        for chunk in state.chunks_from(self.below) {
            let is_old = old.is_some_and(|old| chunk.taken_ms <= old);
            let is_last = chunk.end() == state.end();
            if is_last || !is_old && self.open_bytes <= settings.segment_bytes {
                break;
            }
            self.open_bytes = self.open_bytes.saturating_sub(u64::from(chunk.bytes));
            self.below = chunk.end();
        }
    }
}
