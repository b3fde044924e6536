//! One publishing connection: a window of unconfirmed messages, filled from the template and emptied by confirms.
//!
//! In: the time and the server's frames. Out: publish frames, confirm latencies, and which messages were confirmed.
//! Never waits: what does not fit stays for the next turn.

use std::collections::VecDeque;

use super::body::{Stamp, Template};
use super::link::Link;
use super::plan::Plan;
use super::seen::Seen;
use crate::client::{CHANNEL, refuse_close, unexpected};
use crate::clients::{self, Sent};
use crate::error::Result;
use crate::frames::{Arguments, BODY, HEADER, HEARTBEAT, PutFrame};
use crate::latency::Latency;
use crate::socket::Socket;

/// Bytes of publishes prepared per turn: enough for one large write, little enough to stay in the cache.
const TURN_BYTES: usize = 256 << 10;
/// Marks an entry of the window whose confirm overtook an older one's.
const CONFIRMED: u64 = 1 << 63;

/// A connection that publishes.
pub(crate) struct Publisher {
    link: Link,
    number: u16,
    template: Template,
    /// Messages sent so far.
    published: u64,
    /// Send times of the messages without a confirm; the first is message `oldest`.
    window: VecDeque<u64>,
    oldest: u64,
    confirmed: Seen,
    /// Messages the server confirmed.
    confirms: u64,
    /// Messages the server refused with a nack.
    refused: u64,
    /// The server asked for a pause.
    paused: bool,
}

impl Publisher {
    /// A publisher on a set-up connection.
    pub(crate) fn new(link: Link, number: u16, template: Template) -> Publisher {
        Publisher {
            link,
            number,
            template,
            published: 0,
            window: VecDeque::new(),
            oldest: 0,
            confirmed: Seen::default(),
            confirms: 0,
            refused: 0,
            paused: false,
        }
    }

    /// Takes one ack or nack.
    fn settle(&mut self, tag: u64, multiple: bool, ack: bool, now_ns: u64, latency: &mut Latency) {
        let end = self.oldest + self.window.len() as u64;
        let last = if multiple && tag == 0 { end } else { tag.min(end) };
        let first = if multiple { self.oldest } else { last.saturating_sub(1).max(self.oldest) };
        for message in first..last {
            let sent = &mut self.window[(message - self.oldest) as usize];
            if *sent & CONFIRMED != 0 {
                continue;
            }
            if ack {
                latency.record(*sent, now_ns);
                self.confirms += 1;
                self.confirmed.insert(message);
            } else {
                self.refused += 1;
            }
            *sent |= CONFIRMED;
        }
        while self.window.front().is_some_and(|sent| sent & CONFIRMED != 0) {
            self.window.pop_front();
            self.oldest += 1;
        }
    }

    /// Whether the server promised to keep message `sequence`.
    pub(crate) fn is_owed(&self, plan: &Plan, sequence: u64) -> bool {
        !plan.confirms || self.confirmed.contains(sequence)
    }
}

impl clients::Publisher<Plan> for Publisher {
    fn socket(&mut self) -> &mut Socket {
        &mut self.link.socket
    }

    fn sent(&self) -> Sent {
        Sent { published: self.published, confirmed: self.confirms, refused: self.refused }
    }

    fn may_send(&self, plan: &Plan, now_ns: u64) -> bool {
        !self.paused
            && plan.window.is_none_or(|window| (self.window.len() as u64) < window)
            && plan.quota(self.number).is_none_or(|quota| self.published < quota)
            && self.due_ns(plan).is_none_or(|due| due <= now_ns)
    }

    fn due_ns(&self, plan: &Plan) -> Option<u64> {
        plan.due_ns(self.number, self.published)
    }

    fn is_done(&self, plan: &Plan) -> bool {
        plan.quota(self.number).is_some_and(|quota| self.published >= quota)
    }

    fn is_settled(&self) -> bool {
        self.link.socket.is_flushed() && self.window.is_empty()
    }

    fn fill(&mut self, plan: &Plan, now_ns: u64) {
        if !self.link.socket.is_flushed() {
            return;
        }
        while self.link.socket.out.len() < TURN_BYTES && self.may_send(plan, now_ns) {
            let sent_ns = self.due_ns(plan).unwrap_or(now_ns);
            let stamp = Stamp { publisher: self.number, sequence: self.published, sent_ns };
            self.template.put(&mut self.link.socket.out, stamp);
            self.published += 1;
            if plan.confirms {
                self.window.push_back(sent_ns);
            }
        }
    }

    fn receive(&mut self, now_ns: u64, latency: &mut Latency) -> Result<()> {
        self.link.read()?;
        while let Some(frame) = self.link.inbox.next_frame()? {
            // A message that comes back as unroutable has a body nobody needs.
            if matches!(frame.kind, HEARTBEAT | HEADER | BODY) {
                continue;
            }
            let Some((class, method, arguments)) = frame.method() else { return Err(unexpected(&frame)) };
            let mut arguments = Arguments(arguments);
            match (class, method) {
                (60, 80 | 120) => {
                    let (tag, bits) = (arguments.u64().unwrap_or(0), arguments.u8().unwrap_or(0));
                    self.settle(tag, bits & 1 == 1, method == 80, now_ns, latency);
                }
                (20, 20) => {
                    let active = arguments.u8().unwrap_or(1);
                    self.paused = active == 0;
                    self.link.socket.out.put_method(CHANNEL, (20, 21), |out| out.push(active));
                }
                (60, 50) => {}
                _ => {
                    refuse_close(&frame)?;
                    return Err(unexpected(&frame));
                }
            }
        }
        Ok(())
    }

    fn note_published(&self, published: &mut [u64]) {
        published[usize::from(self.number)] = self.published;
    }
}
