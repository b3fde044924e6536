//! Checkpoints for the sake of the space they give back: what runs hold is dropped only as far as a durable checkpoint
//! does not need it, and a group that is quiet once a topic was deleted or a queue purged would have no other.
//!
//! In: how many entries nothing needs any more. Out: the wish for a checkpoint. Never one for little: it writes the
//! whole state of the group.

use super::QueueGroup;
use crate::Broker;

/// How long after something was freed it is looked what a checkpoint would give back, microseconds.
const LOOK_AFTER_US: u64 = 10_000_000;
/// A checkpoint is worth it when for so many entries that are needed one was freed since the last one.
const NEEDED_PER_FREED: u64 = 4;

/// What was freed of a group since its last checkpoint was begun.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Freed {
    /// Entries that nothing points to any more.
    entries: u64,
    /// As many when it was last looked.
    seen: u64,
}

impl Freed {
    /// Another one.
    #[inline]
    pub(crate) fn count(&mut self) {
        self.entries += 1;
    }

    fn is_news(&self) -> bool {
        self.entries > self.seen
    }
}

impl Broker {
    /// Asks for a checkpoint of each group whose runs hold much of what nothing needs.
    pub(crate) fn reclaim(&mut self) {
        let Some(due_us) = self.host.reclaim_at_us else {
            let log = &self.log;
            if self.host.groups.iter().any(|group| group.freed.is_news() && log.has_runs(group.id)) {
                self.host.reclaim_at_us = Some(self.now.mono_us + LOOK_AFTER_US);
            }
            return;
        };
        if self.now.mono_us < due_us {
            return;
        }
        self.host.reclaim_at_us = None;
        let run_bytes_min = self.settings.segment_bytes;
        for group in &mut self.host.groups {
            group.freed.seen = group.freed.entries;
            if is_worth_it(group) && self.log.run_bytes(group.id) >= run_bytes_min {
                self.log.urge(group.id);
            }
        }
    }
}

fn is_worth_it(group: &QueueGroup) -> bool {
    group.freed.entries > 0
        && group.freed.entries.saturating_mul(NEEDED_PER_FREED) >= group.machine.live_entries()
}
