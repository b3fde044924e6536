//! Requests under way: each keeps its place until all its answers are there, and responses leave in the order in
//! which the requests came.
//!
//! In: answers by token, in any order. Out: requests whose responses are due. Never: what a response says.

use std::collections::VecDeque;

use model::LogAnswer;

use super::fetch;
use super::produce;
use super::reply::Respond;
use crate::wire::Api;

/// How the response of a request is made.
#[derive(Debug)]
pub(super) enum Kind {
    Produce(produce::Plan),
    Fetch(fetch::Plan),
    Other(Respond),
}

/// One request under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub api: &'static Api,
    pub version: i16,
    pub correlation: i32,
    pub kind: Kind,
    /// Bytes of its frame.
    pub bytes: usize,
    /// More questions may be asked for it: it is not ready.
    pub is_open: bool,
    /// The token of its first question; the others follow.
    first: u64,
    answers: Vec<Option<LogAnswer>>,
    missing: usize,
}

impl Pending {
    /// A request with `questions` for the broker.
    pub(super) fn new(
        api: &'static Api,
        version: i16,
        correlation: i32,
        kind: Kind,
        first: u64,
        questions: usize,
    ) -> Pending {
        let answers = std::iter::repeat_with(|| None).take(questions).collect();
        Pending {
            api,
            version,
            correlation,
            kind,
            bytes: 0,
            is_open: false,
            first,
            answers,
            missing: questions,
        }
    }

    /// Tokens of the questions that are not answered.
    pub(super) fn open_tokens(&self) -> impl Iterator<Item = u64> {
        let open = self.answers.iter().zip(self.first..).filter(|(answer, _)| answer.is_none());
        open.map(|(_, token)| token)
    }

    /// All answers, once none is missing.
    pub(super) fn take_answers(&mut self) -> Vec<LogAnswer> {
        self.answers.drain(..).flatten().collect()
    }

    /// Fills what is missing.
    pub(super) fn fill(&mut self, mut answer: impl FnMut() -> LogAnswer) {
        self.answers.iter_mut().filter(|slot| slot.is_none()).for_each(|slot| *slot = Some(answer()));
        self.missing = 0;
    }
}

/// All requests of a connection that are under way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: VecDeque<Pending>,
    bytes: usize,
    next_token: u64,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Bytes of the frames they came in.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes tokens for so many questions and returns the first.
    pub(super) fn tokens(&mut self, questions: usize) -> u64 {
        let first = self.next_token;
        self.next_token += questions as u64;
        first
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.requests.push_back(pending);
    }

    /// Takes an answer in; false where nobody waits for it.
    pub(super) fn answer(&mut self, token: u64, answer: &LogAnswer) -> bool {
        let Some(pending) = self.asker(token) else { return false };
        let slot = (token - pending.first) as usize;
        match pending.answers.get_mut(slot) {
            Some(slot @ None) => *slot = Some(answer.clone()),
            _ => return false,
        }
        pending.missing -= 1;
        true
    }

    /// One more question was asked for the newest request, which is open: its token was the last one taken.
    pub(super) fn grow(&mut self) {
        let open = self.requests.back_mut().filter(|newest| newest.is_open).expect("it is open");
        open.answers.push(None);
        open.missing += 1;
    }

    /// No more questions come for the newest request.
    pub(super) fn close(&mut self, kind: Kind) {
        let open = self.requests.back_mut().filter(|newest| newest.is_open).expect("it is open");
        (open.is_open, open.kind) = (false, kind);
    }

    /// Forgets the newest request if it is open.
    pub(super) fn drop_open(&mut self) {
        if let Some(open) = self.requests.pop_back_if(|newest| newest.is_open) {
            self.bytes -= open.bytes;
        }
    }

    fn asker(&mut self, token: u64) -> Option<&mut Pending> {
        let behind = self.requests.partition_point(|pending| pending.first <= token);
        // Requests without questions share their first token with the one behind them.
        let before = self.requests.range_mut(..behind).rev();
        before.into_iter().find(|pending| !pending.answers.is_empty())
    }

    /// Whether the answer to `token` is all that the oldest request waits for.
    pub(super) fn completes_head(&self, token: u64) -> bool {
        self.requests
            .front()
            .is_some_and(|head| head.first == token && head.missing == 1 && head.answers.len() == 1)
    }

    /// The oldest request, if all its answers are there.
    pub(super) fn pop_ready(&mut self) -> Option<Pending> {
        let is_ready = self.requests.front().is_some_and(|head| head.missing == 0 && !head.is_open);
        if is_ready { self.pop() } else { None }
    }

    /// The oldest request.
    pub(super) fn pop(&mut self) -> Option<Pending> {
        let head = self.requests.pop_front()?;
        self.bytes -= head.bytes;
        Some(head)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.requests.iter_mut()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.bytes = 0;
    }
}
