//! The Kafka connections of one run, as the loop drives them.
//!
//! In: the time and what arrived. Out: batches, fetches and the account of what was read.

use std::time::{SystemTime, UNIX_EPOCH};

use super::consumer::{Consumer, Taking};
use super::ledger::Ledger;
use super::plan::{Plan, Stream};
use super::producer::Producer;
use crate::drive::{Counts, Latencies, Load};
use crate::error::Result;
use crate::load::body::{STAMP, pattern};
use crate::socket::Socket;

/// Producers and consumers with what they have in common.
pub(crate) struct Clients<'a> {
    plan: &'a Plan,
    names: &'a [String],
    /// Who writes; another run may go on with them.
    pub(crate) producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    /// The account of what was read.
    pub(crate) ledger: Ledger,
    pattern: Vec<u8>,
    /// Records sent into each stream, as readers check them.
    written: Vec<u64>,
}

impl<'a> Clients<'a> {
    /// Connections that are set up.
    pub(crate) fn new(
        plan: &'a Plan,
        names: &'a [String],
        streams: &[Stream],
        producers: Vec<Producer>,
        consumers: Vec<Consumer>,
    ) -> Clients<'a> {
        let (ledger, written) = (Ledger::new(streams), vec![0; streams.len()]);
        Clients { plan, names, producers, consumers, ledger, pattern: pattern(plan.size), written }
    }
}

impl Load for Clients<'_> {
    fn sockets(&self) -> usize {
        self.producers.len() + self.consumers.len()
    }

    fn socket(&mut self, index: usize) -> &mut Socket {
        match index.checked_sub(self.producers.len()) {
            None => &mut self.producers[index].link.socket,
            Some(index) => &mut self.consumers[index].link.socket,
        }
    }

    fn counts(&self) -> Counts {
        Counts {
            published: self.producers.iter().map(|p| p.written).sum(),
            confirmed: self.producers.iter().map(|p| p.confirms).sum(),
            delivered: self.consumers.iter().map(|c| c.delivered).sum(),
        }
    }

    fn waiting(&self, counts: Counts) -> u64 {
        counts.published.saturating_sub(counts.delivered)
    }

    fn is_published(&self) -> bool {
        self.producers.iter().all(|producer| producer.is_done(self.plan))
    }

    fn is_drained(&self) -> bool {
        let expected: u64 = self.producers.iter().map(|p| p.written - p.refused).sum();
        self.producers.iter().all(Producer::is_settled)
            && (self.consumers.is_empty() || self.ledger.distinct >= expected)
    }

    fn send(&mut self, now_ns: u64, publishes: bool) -> Result<()> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        for producer in &mut self.producers {
            if publishes {
                producer.fill(self.plan, now_ns, now_ms);
            }
            producer.report(&mut self.written);
            producer.link.socket.flush()?;
        }
        for consumer in &mut self.consumers {
            consumer.ask(self.plan, self.names);
            consumer.link.socket.flush()?;
        }
        Ok(())
    }

    fn has_more(&self, now_ns: u64, publishes: bool) -> bool {
        let more = |producer: &Producer| {
            let socket = &producer.link.socket;
            socket.readable || (publishes && socket.writable && producer.may_send(self.plan, now_ns))
        };
        self.producers.iter().any(more) || self.consumers.iter().any(|c| c.link.socket.readable)
    }

    fn due_ns(&self, now_ns: u64) -> Option<u64> {
        let open = self.producers.iter().filter(|producer| !producer.is_done(self.plan));
        open.filter_map(|producer| producer.due_ns(self.plan)).filter(|due| *due > now_ns).min()
    }

    fn receive(&mut self, now_ns: u64, latencies: &mut Latencies) -> Result<()> {
        for producer in &mut self.producers {
            if producer.link.socket.readable {
                producer.receive(now_ns, &mut latencies.confirm)?;
            }
        }
        let mut taking = Taking {
            plan: self.plan,
            pattern: &self.pattern,
            written: &self.written,
            ledger: &mut self.ledger,
            latency: &mut latencies.delivery,
            now_ns,
        };
        for consumer in &mut self.consumers {
            if consumer.link.socket.readable {
                consumer.receive(&mut taking, self.names)?;
            }
        }
        Ok(())
    }

    fn close(&mut self, end: Counts) {
        let (plan, producers) = (self.plan, &self.producers);
        if !self.consumers.is_empty() && plan.size >= STAMP {
            let owed = |stream, sequence| {
                producers.iter().find_map(|p| p.is_owed(plan, stream, sequence)).unwrap_or(false)
            };
            self.ledger.close(&self.written, owed);
        } else if !self.consumers.is_empty() {
            let owed = if plan.acks == 0 { end.published } else { end.confirmed };
            self.ledger.flaws.lost = owed.saturating_sub(self.ledger.distinct);
            self.ledger.flaws.duplicated = self.ledger.distinct.saturating_sub(end.published);
        }
    }
}
