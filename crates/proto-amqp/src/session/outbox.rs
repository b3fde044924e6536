//! Requests that are due: gathered while input and events are taken in, lent one by one.
//!
//! Settlements of one lane that come in a row are one request; grants follow the settlements that allowed them.

use std::collections::VecDeque;

use model::{ConsumerId, Lane, Outcome, Record, Request, Settlement, Subscribe};
use smallvec::{SmallVec, smallvec};

use super::inbound::Turn;
use super::settle::Held;
use super::{Session, Step};
use crate::wire::properties;

/// Grants that a further one may join.
const JOINED_MAX: usize = 4;

/// A request that owns its texts.
#[derive(Debug)]
pub(super) enum Due {
    /// Rare ones; boxed, because settlements, which are as many as messages, are moved at their size.
    Plain(Box<Request<'static>>),
    Settle(Lane, SmallVec<[Settlement; 1]>),
    Authenticate {
        user: String,
        password: Vec<u8>,
    },
    Enter {
        vhost: String,
    },
    Subscribe {
        queue: String,
        with: Box<Subscribe<'static>>,
    },
    Get {
        lane: Lane,
        queue: String,
        settled: bool,
    },
    /// The content that the channel has assembled.
    Publish {
        lane: Lane,
        token: u64,
    },
}

impl Due {
    /// Whether it still matters when the connection is gone.
    pub(super) fn ends_something(&self) -> bool {
        match self {
            Due::Plain(request) => matches!(**request, Request::CloseLane { .. } | Request::Close),
            Due::Settle(..) => true,
            _ => false,
        }
    }
}

/// Adds the end of one delivery, to the last request where that is one of settlements of its lane.
pub(super) fn settle(outbox: &mut VecDeque<Due>, on: Lane, held: &Held, outcome: Outcome) {
    let one = Settlement { queue: held.queue, first: held.seq, last: held.seq, outcome };
    match outbox.back_mut() {
        Some(Due::Settle(lane, settlements)) if *lane == on => match settlements.last_mut() {
            Some(newest) if continues(newest, &one) => newest.last = one.last,
            _ => settlements.push(one),
        },
        _ => outbox.push_back(Due::Settle(on, smallvec![one])),
    }
}

fn continues(newest: &Settlement, one: &Settlement) -> bool {
    (newest.queue, newest.outcome) == (one.queue, one.outcome) && newest.last.0 + 1 == one.first.0
}

impl Session {
    pub(super) fn due(&mut self, request: Request<'static>) {
        self.outbox.push_back(Due::Plain(Box::new(request)));
    }

    pub(super) fn is_due(&self) -> bool {
        !self.outbox.is_empty() || !self.grants.is_empty()
    }

    /// Notes that a consumer may be sent one more message, once the settlements due have gone.
    pub(super) fn grant(&mut self, consumer: ConsumerId) {
        // Only the latest ones are looked through: joining them saves requests, and need not be perfect.
        match self.grants.iter_mut().rev().take(JOINED_MAX).find(|(other, _)| *other == consumer) {
            Some((_, messages)) => *messages += 1,
            // Perhaps it was cancelled meanwhile: then the grant finds nobody, which is cheaper than to look first.
            None => self.grants.push((consumer, 1)),
        }
    }

    pub(super) fn step<'a>(&'a mut self, turn: Turn<'a>) -> Step<'a> {
        match turn {
            Turn::Due => Step::Request(self.lend()),
            Turn::Publish(lane, token, prefix, body) => {
                Step::Request(self.publish_request(lane, token, prefix, body))
            }
            Turn::More => Step::More,
            Turn::Waiting => Step::Waiting,
            Turn::End => Step::End,
        }
    }

    /// The next request due; there must be one.
    pub(super) fn lend(&mut self) -> Request<'_> {
        let Some(due) = self.outbox.pop_front() else {
            self.lent_grants.clear();
            std::mem::swap(&mut self.grants, &mut self.lent_grants);
            return Request::Grant(&self.lent_grants);
        };
        self.lent = Some(due);
        let this = &*self;
        match this.lent.as_ref().expect("a request was just put there") {
            Due::Publish { lane, token } => {
                let (lane, token) = (*lane, *token);
                this.assembled_request(lane, token)
            }
            Due::Plain(request) => (**request).clone(),
            Due::Settle(lane, settlements) => Request::Settle { lane: *lane, settlements },
            Due::Authenticate { user, password } => Request::Authenticate { user, password },
            Due::Enter { vhost } => Request::Enter { vhost },
            Due::Subscribe { queue, with } => Request::Subscribe(Subscribe { queue, ..(**with).clone() }),
            Due::Get { lane, queue, settled } => Request::Get { lane: *lane, queue, settled: *settled },
        }
    }

    fn assembled_request(&self, lane: Lane, token: u64) -> Request<'_> {
        let channel = self.channels.get(&lane.0).expect("due publishes go with their channel");
        self.publish_request(lane.0, token, &channel.content.prefix, &channel.content.body)
    }

    fn publish_request<'a>(&'a self, lane: u16, token: u64, prefix: &'a [u8], body: &'a [u8]) -> Request<'a> {
        let channel = self.channels.get(&lane).expect("a message arises on a channel that is there");
        Request::Publish(model::Publish {
            lane: Lane(lane),
            token,
            mandatory: channel.memo.mandatory,
            record: Record {
                priority: self.checked.priority,
                timestamp_ms: self.checked.timestamp_ms,
                exchange: &channel.memo.exchange,
                routing_key: &channel.memo.routing_key,
                prefix,
                body: Some(body),
                ..Record::bare(model::Protocol::Amqp091)
            },
            also: &channel.content.copies,
            headers: properties::headers,
        })
    }
}
