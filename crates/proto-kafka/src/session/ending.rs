//! Endings: the connection broke, something cannot be answered, or the node goes away.
//!
//! In: what ends it. Out: what must be called off. Never: drops an append that was handed over.

use base::SendBuffer;
use model::membership::GroupAnswer;
use model::topic::LogRefusal;
use model::{LogAnswer, LogRequest};

use super::pending::Kind;
use super::{Due, Session, Stage};
use crate::wire::api;

impl Session {
    /// Nothing more is read or answered.
    pub(super) fn end(&mut self) {
        if self.stage == Stage::Ended {
            return;
        }
        self.call_off();
        self.stage = Stage::Ended;
        self.queue.clear();
        (self.appending, self.long) = (None, None);
        self.fetching.clear();
    }

    /// Nothing more is read; what was asked before is still answered.
    pub(super) fn end_after_due(&mut self) {
        if matches!(self.stage, Stage::Fresh | Stage::Admitting | Stage::Entering | Stage::Open) {
            self.stage = Stage::Ending;
            self.drop_long();
        }
    }

    /// Calls off what waits for others; what changes something is left to happen.
    fn call_off(&mut self) {
        let mut called_off = Vec::new();
        for pending in self.queue.iter_mut() {
            let waits = match &pending.kind {
                Kind::Fetch(_) => true,
                Kind::Produce(_) => false,
                Kind::Other(_) => matches!(pending.api.key, api::JOIN_GROUP | api::SYNC_GROUP),
            };
            if waits {
                called_off.extend(pending.open_tokens());
            }
        }
        for token in called_off {
            self.outbox.push_back(Due::Log(self.queue.tokens(1), LogRequest::Cancel { token }));
        }
    }

    /// The connection died: what waits for others is called off. To be polled for as ever.
    pub fn abandon(&mut self) {
        self.end();
        self.outbox.retain(|due| matches!(due, Due::Log(..)));
    }

    /// The node is going away: nothing more is read, waiting members are told to ask again, waiting fetches are
    /// answered as they stand, and the connection ends when what is under way is answered.
    pub fn shutdown(&mut self, out: &mut SendBuffer) {
        if matches!(self.stage, Stage::Ended | Stage::Ending) {
            return;
        }
        self.call_off();
        let gone = || LogRefusal::Unavailable("the node is going away".to_owned(), false);
        for pending in self.queue.iter_mut() {
            match (&pending.kind, pending.api.key) {
                (Kind::Fetch(_), _) => pending.fill(|| LogAnswer::Fetched(Vec::new())),
                (_, api::JOIN_GROUP) => pending.fill(|| LogAnswer::Group(GroupAnswer::Joined(Err(gone())))),
                (_, api::SYNC_GROUP) => pending.fill(|| LogAnswer::Group(GroupAnswer::Synced(Err(gone())))),
                _ => {}
            }
        }
        self.stage = Stage::Ending;
        self.drop_long();
        self.settle(out);
    }
}
