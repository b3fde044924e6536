//! Answers on their way out, and which group each waiting request belongs to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use model::LogRefusal;
use model::membership::{GroupAnswer, Joined, Synced};

/// What one step of a group needs besides the group.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    answers: VecDeque<(u64, GroupAnswer)>,
    waiting: BTreeMap<u64, Arc<str>>,
}

impl Outbox {
    /// A request will be answered later.
    pub(crate) fn waits(&mut self, ticket: u64, group: &Arc<str>) {
        self.waiting.insert(ticket, group.clone());
    }

    pub(crate) fn answer(&mut self, ticket: u64, answer: GroupAnswer) {
        self.waiting.remove(&ticket);
        self.answers.push_back((ticket, answer));
    }

    pub(crate) fn joined(&mut self, ticket: u64, result: Result<Joined, LogRefusal>) {
        self.answer(ticket, GroupAnswer::Joined(result));
    }

    pub(crate) fn synced(&mut self, ticket: u64, result: Result<Synced, LogRefusal>) {
        self.answer(ticket, GroupAnswer::Synced(result));
    }

    /// Nobody wants the answer any more; returns the group that the request waits in.
    pub(crate) fn forget(&mut self, ticket: u64) -> Option<Arc<str>> {
        self.waiting.remove(&ticket)
    }

    pub(crate) fn take(&mut self) -> Option<(u64, GroupAnswer)> {
        self.answers.pop_front()
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
