//! The connections of one run, as the loop drives them: what publishers and consumers of all protocols have in common.
//!
//! In: the time and what arrived. Out: publishes, what consumers say, and the account of the deliveries. When each
//! connection has its turn, when a run is drained and what counts as lost is said here; what bytes they are, and what
//! is owed of single messages, is said by a [`Protocol`]. Never knows one.

use crate::drive::{Counts, Latencies, Load};
use crate::error::Result;
use crate::latency::Latency;
use crate::load::Flaws;
use crate::load::body::{STAMP, pattern};
use crate::socket::Socket;

/// What the runs of one protocol are made of.
pub(crate) trait Protocol: Sized {
    /// What is to be done.
    type Plan: Plan;
    /// A connection that publishes.
    type Publisher: Publisher<Self::Plan>;
    /// A connection that consumes.
    type Consumer: Consumer<Self>;
    /// The account of what consumers got.
    type Ledger: Ledger<Self>;
}

/// What a plan says, whatever the protocol.
pub(crate) trait Plan {
    /// Bytes of a body.
    fn size(&self) -> usize;
    /// How often each message is delivered.
    fn copies(&self) -> u64;
    /// Whether the server confirms what it keeps.
    fn confirms(&self) -> bool;
}

/// Messages of one publisher.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// Sent.
    pub(crate) published: u64,
    /// Confirmed.
    pub(crate) confirmed: u64,
    /// Refused.
    pub(crate) refused: u64,
}

/// A connection that publishes. It never waits: what does not fit stays for the next turn.
pub(crate) trait Publisher<P> {
    /// Its socket.
    fn socket(&mut self) -> &mut Socket;
    /// Messages so far.
    fn sent(&self) -> Sent;
    /// Whether something may be sent now.
    fn may_send(&self, plan: &P, now_ns: u64) -> bool;
    /// When the next message is due, if there is a rate.
    fn due_ns(&self, plan: &P) -> Option<u64>;
    /// Whether all it was to send by count is sent.
    fn is_done(&self, plan: &P) -> bool;
    /// Whether nothing awaits the socket or a confirm.
    fn is_settled(&self) -> bool;
    /// Prepares what may be sent.
    fn fill(&mut self, plan: &P, now_ns: u64);
    /// Notes how many messages it has sent into each of its streams.
    fn note_published(&self, published: &mut [u64]);
    /// Reads once and takes what the server says.
    fn receive(&mut self, now_ns: u64, latency: &mut Latency) -> Result<()>;
}

/// A connection that consumes.
pub(crate) trait Consumer<P: Protocol> {
    /// Its socket.
    fn socket(&mut self) -> &mut Socket;
    /// Deliveries taken.
    fn delivered(&self) -> u64;
    /// Prepares what keeps deliveries coming, and at the end of publishing what settles the last of them.
    fn ask(&mut self, plan: &P::Plan, publishes: bool);
    /// Reads once and takes the deliveries that are there in full.
    fn receive(&mut self, taking: &mut Taking<'_, P>) -> Result<()>;
}

/// What every consumer needs while it takes deliveries.
pub(crate) struct Taking<'a, P: Protocol> {
    /// The run.
    pub(crate) plan: &'a P::Plan,
    /// What bodies look like.
    pub(crate) pattern: &'a [u8],
    /// How many messages were sent into each stream.
    pub(crate) published: &'a [u64],
    /// Where deliveries are noted.
    pub(crate) ledger: &'a mut P::Ledger,
    /// Where their latency goes.
    pub(crate) latency: &'a mut Latency,
    /// When they arrived.
    pub(crate) now_ns: u64,
}

/// An account of what consumers got.
pub(crate) trait Ledger<P: Protocol> {
    /// How many streams there are: messages that one publisher numbers.
    fn streams(&self) -> usize;
    /// Deliveries of messages that had not arrived before.
    fn distinct(&self) -> u64;
    /// What went wrong.
    fn flaws(&mut self) -> &mut Flaws;
    /// Counts what is missing of each stream, as far as its publisher says that it is owed.
    fn close(&mut self, plan: &P::Plan, publishers: &[P::Publisher], published: &[u64]);
}

/// Publishers and consumers with what they have in common.
pub(crate) struct Clients<'a, P: Protocol> {
    plan: &'a P::Plan,
    /// Who publishes; another run may go on with them.
    pub(crate) publishers: Vec<P::Publisher>,
    consumers: Vec<P::Consumer>,
    /// The account of the deliveries.
    pub(crate) ledger: P::Ledger,
    pattern: Vec<u8>,
    /// Messages sent into each stream, as consumers check them.
    published: Vec<u64>,
}

impl<'a, P: Protocol> Clients<'a, P> {
    /// Connections that are set up, and an empty account.
    pub(crate) fn new(
        plan: &'a P::Plan,
        publishers: Vec<P::Publisher>,
        consumers: Vec<P::Consumer>,
        ledger: P::Ledger,
    ) -> Clients<'a, P> {
        let published = vec![0; ledger.streams()];
        Clients { plan, publishers, consumers, ledger, pattern: pattern(plan.size()), published }
    }

    /// Messages that the server refused.
    pub(crate) fn refused(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.sent().refused).sum()
    }
}

impl<P: Protocol> Load for Clients<'_, P> {
    fn sockets(&self) -> usize {
        self.publishers.len() + self.consumers.len()
    }

    fn socket(&mut self, index: usize) -> &mut Socket {
        match index.checked_sub(self.publishers.len()) {
            None => self.publishers[index].socket(),
            Some(index) => self.consumers[index].socket(),
        }
    }

    fn counts(&self) -> Counts {
        let sent = || self.publishers.iter().map(P::Publisher::sent);
        Counts {
            published: sent().map(|sent| sent.published).sum(),
            confirmed: sent().map(|sent| sent.confirmed).sum(),
            delivered: self.consumers.iter().map(P::Consumer::delivered).sum(),
        }
    }

    fn waiting(&self, counts: Counts) -> u64 {
        (counts.published * self.plan.copies()).saturating_sub(counts.delivered)
    }

    fn is_published(&self) -> bool {
        self.publishers.iter().all(|publisher| publisher.is_done(self.plan))
    }

    fn is_drained(&self) -> bool {
        let expected = (self.counts().published - self.refused()) * self.plan.copies();
        self.publishers.iter().all(P::Publisher::is_settled)
            && (self.consumers.is_empty() || self.ledger.distinct() >= expected)
    }

    fn send(&mut self, now_ns: u64, publishes: bool) -> Result<()> {
        for publisher in &mut self.publishers {
            if publishes {
                publisher.fill(self.plan, now_ns);
            }
            publisher.note_published(&mut self.published);
            publisher.socket().flush()?;
        }
        for consumer in &mut self.consumers {
            consumer.ask(self.plan, publishes);
            consumer.socket().flush()?;
        }
        Ok(())
    }

    fn has_more(&mut self, now_ns: u64, publishes: bool) -> bool {
        let more = |publisher: &mut P::Publisher| {
            let Socket { readable, writable, .. } = *publisher.socket();
            readable || (publishes && writable && publisher.may_send(self.plan, now_ns))
        };
        self.publishers.iter_mut().any(more) || self.consumers.iter_mut().any(|c| c.socket().readable)
    }

    fn due_ns(&self, now_ns: u64) -> Option<u64> {
        let open = self.publishers.iter().filter(|publisher| !publisher.is_done(self.plan));
        open.filter_map(|publisher| publisher.due_ns(self.plan)).filter(|due| *due > now_ns).min()
    }

    fn receive(&mut self, now_ns: u64, latencies: &mut Latencies) -> Result<()> {
        for publisher in &mut self.publishers {
            if publisher.socket().readable {
                publisher.receive(now_ns, &mut latencies.confirm)?;
            }
        }
        let mut taking = Taking {
            plan: self.plan,
            pattern: &self.pattern,
            published: &self.published,
            ledger: &mut self.ledger,
            latency: &mut latencies.delivery,
            now_ns,
        };
        for consumer in &mut self.consumers {
            if consumer.socket().readable {
                consumer.receive(&mut taking)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, end: Counts) {
        if self.consumers.is_empty() {
            return;
        }
        if self.plan.size() >= STAMP {
            return self.ledger.close(self.plan, &self.publishers, &self.published);
        }
        // Bodies too small for a stamp are only counted.
        let (distinct, copies) = (self.ledger.distinct(), self.plan.copies());
        let owed = if self.plan.confirms() { end.confirmed } else { end.published };
        let flaws = self.ledger.flaws();
        flaws.lost = (owed * copies).saturating_sub(distinct);
        flaws.duplicated = distinct.saturating_sub(end.published * copies);
    }
}
