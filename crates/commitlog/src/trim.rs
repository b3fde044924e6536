//! Dropping what is dead: blocks of runs nothing of which is needed, and runs without blocks.

use model::{GroupId, Index, QueueId};

use crate::log::CommitLog;

impl CommitLog {
    /// Asks of the next some thousand blocks of the group's runs whether anything is still needed of that log (0:
    /// of any log) in the entries from `first` to `last`, and drops those of which nothing is. To be called when a
    /// checkpoint of the group is durable, until it says that it is through: true if there are blocks left to ask
    /// about.
    pub fn trim(&mut self, _group: GroupId, _live: &mut dyn FnMut(QueueId, Index, Index) -> bool) -> bool {
        false
    }
}
