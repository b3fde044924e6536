//! Whether entries are still needed, for whoever drops what is not.

use model::{Index, QueueId};

use crate::{GroupMachine, View};

impl GroupMachine {
    /// Entries of which something is needed.
    pub fn live_entries(&self) -> u64 {
        self.live.len()
    }

    /// Whether anything that belongs to that queue or log (0: to any) in the entries from `first` to `last` is needed.
    pub fn needs(&self, log: QueueId, first: Index, last: Index) -> bool {
        let within = |index: Option<u64>| index.is_some_and(|index| index <= last.0);
        if log.0 == 0 {
            return within(self.live.next(first.0));
        }
        if let Some(queue) = self.queue(log) {
            return within(queue.runs.partition(|run| run.index < first.0).map(|run| run.index));
        }
        self.log(log).is_some_and(|log| log.needs_entries(first, last))
    }
}

impl View {
    /// As [`GroupMachine::needs`], of the state as it was.
    pub fn needs(&self, log: QueueId, first: Index, last: Index) -> bool {
        self.machine.needs(log, first, last)
    }
}
