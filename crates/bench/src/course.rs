//! How a run goes: how fast, until when, when its figures begin and when it gives up. The same for every protocol.

use std::time::Duration;

/// When publishing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// After this time, not counting the warm-up.
    Elapsed(Duration),
    /// After this many messages of all publishers together.
    Published(u64),
}

/// How fast a run publishes, and when it measures, stops and gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Course {
    /// Messages per second of all publishers together; `None` is as fast as the plan's bounds allow.
    pub(crate) rate: Option<u64>,
    /// When to stop publishing.
    pub(crate) until: Until,
    /// Time before the figures begin.
    pub(crate) warmup: Duration,
    /// How long nothing may move after the last publish before what is missing counts as lost.
    pub(crate) patience: Duration,
    /// One line per second on stderr.
    pub(crate) progress: bool,
}

impl Default for Course {
    fn default() -> Course {
        Course {
            rate: None,
            until: Until::Elapsed(Duration::from_secs(10)),
            warmup: Duration::from_secs(1),
            patience: Duration::from_secs(10),
            progress: true,
        }
    }
}

impl Course {
    /// When the message is due that so many of all publishers are in front of, in nanoseconds since the start; `None`
    /// without a rate.
    pub(crate) fn due_ns(&self, before: u128) -> Option<u64> {
        self.rate.map(|rate| (before * 1_000_000_000 / u128::from(rate)) as u64)
    }

    /// When it ends, in words; `unit` is what is published.
    pub(crate) fn end(&self, unit: &str) -> String {
        match self.until {
            Until::Elapsed(time) => format!("{} s", time.as_secs_f64()),
            Until::Published(count) => format!("{count} {unit}"),
        }
    }

    /// How fast it publishes, in words.
    pub(crate) fn pace(&self) -> String {
        self.rate.map_or("as fast as possible".to_owned(), |rate| format!("{rate}/s"))
    }
}
