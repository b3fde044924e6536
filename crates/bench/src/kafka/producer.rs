//! One writing connection: requests under way, filled from templates and emptied by answers.
//!
//! In: the time and the server's answers. Out: requests, latencies, and which records were confirmed. Never waits:
//! what does not fit stays for the next turn. What the server refuses is counted and not sent again.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use super::batch::Template;
use super::link::Link;
use super::plan::Plan;
use super::wire::{Answer, error_name};
use crate::clients::{self, Sent};
use crate::error::{Error, Result};
use crate::latency::Latency;
use crate::load::body::Stamp;
use crate::socket::Socket;

/// Bytes of requests prepared per turn.
const TURN_BYTES: usize = 1 << 20;

/// A partition that this producer writes to.
pub(crate) struct Target {
    /// The number of the stream.
    pub(crate) stream: u16,
    /// Its requests.
    pub(crate) template: Template,
    /// Records sent.
    pub(crate) written: u64,
    /// Records the server refused, as ranges in order.
    refused: Vec<Range<u64>>,
    /// Records below were answered.
    answered: u64,
}

impl Target {
    /// A partition nothing was written to yet.
    pub(crate) fn new(stream: u16, template: Template) -> Target {
        Target { stream, template, written: 0, refused: Vec::new(), answered: 0 }
    }

    /// Whether the server promised to keep this record.
    fn is_owed(&self, plan: &Plan, sequence: u64) -> bool {
        let is_refused = self.refused.iter().any(|range| range.contains(&sequence));
        (plan.acks == 0 || sequence < self.answered) && !is_refused
    }
}

struct UnderWay {
    target: usize,
    first: u64,
    sent_ns: u64,
}

/// A connection that writes.
pub(crate) struct Producer {
    link: Link,
    number: u16,
    each: usize,
    targets: Vec<Target>,
    batches: u64,
    under_way: VecDeque<UnderWay>,
    correlation: i32,
    /// Records sent.
    written: u64,
    /// Records the server confirmed.
    confirms: u64,
    /// Records the server refused.
    refused: u64,
    /// The last reason for that.
    reason: Option<i16>,
}

impl Producer {
    /// A producer whose batches have `each` records.
    pub(crate) fn new(link: Link, number: u16, each: usize, targets: Vec<Target>) -> Producer {
        Producer {
            link,
            number,
            each,
            targets,
            batches: 0,
            under_way: VecDeque::new(),
            correlation: 0,
            written: 0,
            confirms: 0,
            refused: 0,
            reason: None,
        }
    }

    /// Whether the server promised to keep this record; `None` for a stream of another producer.
    pub(crate) fn is_owed(&self, plan: &Plan, stream: usize, sequence: u64) -> Option<bool> {
        let target = self.targets.iter().find(|target| usize::from(target.stream) == stream)?;
        Some(target.is_owed(plan, sequence))
    }

    /// Says what the server refused.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.reason.map(|code| format!("{} records were refused: {}", self.refused, error_name(code)))
    }
}

impl clients::Publisher<Plan> for Producer {
    fn socket(&mut self) -> &mut Socket {
        &mut self.link.socket
    }

    fn sent(&self) -> Sent {
        Sent { published: self.written, confirmed: self.confirms, refused: self.refused }
    }

    fn is_done(&self, plan: &Plan) -> bool {
        plan.quota(self.number, self.each).is_some_and(|quota| self.batches >= quota)
    }

    fn is_settled(&self) -> bool {
        self.under_way.is_empty() && self.link.socket.is_flushed()
    }

    fn due_ns(&self, plan: &Plan) -> Option<u64> {
        plan.due_ns(self.number, self.batches, self.each)
    }

    fn may_send(&self, plan: &Plan, now_ns: u64) -> bool {
        let has_room = match plan.acks {
            0 => self.link.socket.out.len() < TURN_BYTES,
            _ => self.under_way.len() < plan.pipeline && self.link.socket.out.len() < TURN_BYTES,
        };
        has_room && !self.is_done(plan) && self.due_ns(plan).is_none_or(|due| due <= now_ns)
    }

    fn fill(&mut self, plan: &Plan, now_ns: u64) {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        while self.may_send(plan, now_ns) {
            let sent_ns = self.due_ns(plan).unwrap_or(now_ns);
            let at = (self.batches % self.targets.len() as u64) as usize;
            let target = &mut self.targets[at];
            let first = Stamp { publisher: target.stream, sequence: target.written, sent_ns };
            self.correlation = self.correlation.wrapping_add(1);
            target.template.put(&mut self.link.socket.out, self.correlation, first, now_ms);
            if plan.acks != 0 {
                self.under_way.push_back(UnderWay { target: at, first: first.sequence, sent_ns });
            }
            target.written += self.each as u64;
            self.written += self.each as u64;
            self.batches += 1;
        }
    }

    fn receive(&mut self, now_ns: u64, latency: &mut Latency) -> Result<()> {
        self.link.read()?;
        while let Some(mut answer) = self.link.next_answer()? {
            let correlation = answer.i32()?;
            let behind = self.under_way.len() as i32;
            let expected = self.correlation.wrapping_sub(behind).wrapping_add(1);
            let Some(request) = self.under_way.pop_front().filter(|_| correlation == expected) else {
                return Err(Error::new("the server answered what was not asked"));
            };
            let code = produced(&mut answer)?;
            let target = &mut self.targets[request.target];
            let end = request.first + self.each as u64;
            target.answered = end;
            if code == 0 {
                self.confirms += self.each as u64;
                latency.record(request.sent_ns, now_ns);
            } else {
                self.refused += self.each as u64;
                self.reason = Some(code);
                target.refused.push(request.first..end);
            }
        }
        Ok(())
    }

    fn note_published(&self, written: &mut [u64]) {
        for target in &self.targets {
            written[usize::from(target.stream)] = target.written;
        }
    }
}

/// The error of the one partition of a produce answer.
fn produced(answer: &mut Answer<'_>) -> Result<i16> {
    let mut found = None;
    answer.list(|answer| {
        answer.text()?;
        answer.list(|answer| {
            answer.i32()?;
            found = Some(answer.i16()?);
            answer.bytes(24).map(drop)
        })
    })?;
    found.ok_or_else(|| Error::new("the server's answer to a batch names no partition"))
}
