//! Events become responses: each answer meets the request that asked, and what is complete leaves in order.
//!
//! In: events. Out: bytes of responses. Never: an answer out of the order of requests.

use base::SendBuffer;
use model::{Event, LogAnswer};

use super::pending::{Kind, Pending};
use super::reply::Answers;
use super::{Session, Stage};
use crate::wire::{api, put_response};

impl Session {
    pub(super) fn take_event(&mut self, event: &Event, out: &mut SendBuffer) {
        match event {
            Event::Log(token, answer) => self.answered(*token, answer, out),
            Event::Admitted => self.admitted(),
            Event::Entered => self.entered(out),
            Event::Refused(None, refusal) => self.turned_away(refusal, out),
            Event::ShuttingDown => self.shutdown(out),
            // Of what goes by lanes this session asks nothing, and readers by offset are not held back by alarms.
            _ => {}
        }
    }

    fn answered(&mut self, token: u64, answer: &LogAnswer, out: &mut SendBuffer) {
        if self.stage == Stage::Ended {
            return;
        }
        if self.queue.completes_head(token)
            && let LogAnswer::Fetched(found) = answer
        {
            // The way of most bytes: what was found is sent from where it is.
            let head = self.queue.pop().expect("the head was just seen");
            self.is_stuck = false;
            self.fetched(head, found, out);
        } else if !self.queue.answer(token, answer) && matches!(answer, LogAnswer::Appended(Err(_))) {
            // A producer that wants no answers learns of a refusal by losing its connection.
            self.end_after_due();
        }
        self.settle(out);
    }

    /// Sends every response whose turn has come.
    pub(super) fn settle(&mut self, out: &mut SendBuffer) {
        while let Some(pending) = self.queue.pop_ready() {
            self.is_stuck = false;
            self.respond(pending, out);
        }
        if self.stage == Stage::Ending && self.queue.is_empty() {
            self.end();
        }
    }

    fn respond(&mut self, mut pending: Pending, out: &mut SendBuffer) {
        let answers = pending.take_answers();
        let (api, version, correlation) = (pending.api, pending.version, pending.correlation);
        let flexible = api.is_flexible(version);
        // The response that tells versions must be readable without knowing any.
        let header_tags = flexible && api.key != api::API_VERSIONS;
        match pending.kind {
            Kind::Fetch(_) => match answers.first() {
                Some(LogAnswer::Fetched(found)) => self.fetched(pending, found, out),
                _ => self.fetched(pending, &[], out),
            },
            Kind::Produce(plan) => put_response(out.tail(), correlation, header_tags, flexible, |fields| {
                plan.write(version, answers, fields);
            }),
            Kind::Other(respond) => put_response(out.tail(), correlation, header_tags, flexible, |fields| {
                respond.write(fields, Answers::new(answers));
            }),
        }
    }
}
