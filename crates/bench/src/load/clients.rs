//! The AMQP connections of one run, as the loop drives them.
//!
//! In: the time and what arrived. Out: publishes, acks and the account of the deliveries.

use super::body::{STAMP, pattern};
use super::consumer::{Consumer, Taking};
use super::ledger::Ledger;
use super::plan::Plan;
use super::publisher::Publisher;
use crate::drive::{Counts, Latencies, Load};
use crate::error::Result;
use crate::socket::Socket;

/// Publishers and consumers with what they have in common.
pub(crate) struct Clients<'a> {
    plan: &'a Plan,
    publishers: Vec<Publisher>,
    consumers: Vec<Consumer>,
    /// The account of the deliveries.
    pub(crate) ledger: Ledger,
    pattern: Vec<u8>,
    /// Messages sent by each publisher, as consumers check them.
    published: Vec<u64>,
}

impl<'a> Clients<'a> {
    /// Connections that are set up.
    pub(crate) fn new(plan: &'a Plan, publishers: Vec<Publisher>, consumers: Vec<Consumer>) -> Clients<'a> {
        Clients {
            plan,
            published: vec![0; publishers.len()],
            publishers,
            consumers,
            ledger: Ledger::new(plan),
            pattern: pattern(plan.size),
        }
    }

    /// Messages refused with a nack.
    pub(crate) fn refused(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.refused).sum()
    }
}

impl Load for Clients<'_> {
    fn sockets(&self) -> usize {
        self.publishers.len() + self.consumers.len()
    }

    fn socket(&mut self, index: usize) -> &mut Socket {
        match index.checked_sub(self.publishers.len()) {
            None => &mut self.publishers[index].link.socket,
            Some(index) => &mut self.consumers[index].link.socket,
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            published: self.publishers.iter().map(|p| p.published).sum(),
            confirmed: self.publishers.iter().map(|p| p.confirms).sum(),
            delivered: self.consumers.iter().map(|c| c.delivered).sum(),
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
        self.publishers.iter().all(Publisher::is_settled)
            && (self.consumers.is_empty() || self.ledger.distinct >= expected)
    }

    fn send(&mut self, now_ns: u64, publishes: bool) -> Result<()> {
        for (publisher, published) in self.publishers.iter_mut().zip(&mut self.published) {
            if publishes {
                publisher.fill(self.plan, now_ns);
                *published = publisher.published;
            }
            publisher.link.socket.flush()?;
        }
        let batch = if publishes { self.plan.ack_batch() } else { 1 };
        for consumer in &mut self.consumers {
            consumer.acknowledge(self.plan, batch);
            consumer.link.socket.flush()?;
        }
        Ok(())
    }

    fn has_more(&self, now_ns: u64, publishes: bool) -> bool {
        let more = |publisher: &Publisher| {
            let socket = &publisher.link.socket;
            socket.readable || (publishes && socket.writable && publisher.may_send(self.plan, now_ns))
        };
        self.publishers.iter().any(more) || self.consumers.iter().any(|c| c.link.socket.readable)
    }

    fn due_ns(&self, now_ns: u64) -> Option<u64> {
        let open = self.publishers.iter().filter(|publisher| !publisher.is_done(self.plan));
        open.filter_map(|publisher| publisher.due_ns(self.plan)).filter(|due| *due > now_ns).min()
    }

    fn receive(&mut self, now_ns: u64, latencies: &mut Latencies) -> Result<()> {
        for publisher in &mut self.publishers {
            if publisher.link.socket.readable {
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
            if consumer.link.socket.readable {
                consumer.receive(&mut taking)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, end: Counts) {
        let (plan, publishers) = (self.plan, &self.publishers);
        if plan.consumers > 0 && plan.size >= STAMP {
            let owed = |publisher: u16, sequence| publishers[usize::from(publisher)].is_owed(plan, sequence);
            self.ledger.close(plan, &self.published, owed);
        } else if plan.consumers > 0 {
            let owed = if plan.confirms { end.confirmed } else { end.published };
            self.ledger.flaws.lost = (owed * plan.copies()).saturating_sub(self.ledger.distinct);
            self.ledger.flaws.duplicated = self.ledger.distinct.saturating_sub(end.published * plan.copies());
        }
    }
}
