//! What one run does: who publishes where, who consumes what, for how long. Pure: no sockets, no clock.

use crate::clients;
use crate::course::{Course, Until};
use crate::error::{Error, Result};
use crate::url::Url;

/// All settings of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The server.
    pub(crate) url: Url,
    /// Publishing connections.
    pub(crate) publishers: u16,
    /// Consuming connections.
    pub(crate) consumers: u16,
    /// Durable queues.
    pub(crate) queues: u32,
    /// How publishes find queues.
    pub(crate) routing: Routing,
    /// Bytes of a body.
    pub(crate) size: usize,
    /// Unconfirmed publishes per publisher; `None` is no bound.
    pub(crate) window: Option<u64>,
    /// Unacknowledged deliveries per consumer; 0 is no bound.
    pub(crate) prefetch: u16,
    /// How fast, until when, and when to give up.
    pub(crate) course: Course,
    /// Delivery mode 2.
    pub(crate) persistent: bool,
    /// Consumers need not acknowledge.
    pub(crate) auto_ack: bool,
    /// Publishers ask for confirms.
    pub(crate) confirms: bool,
    /// Processes of the server; empty means to look for the listener.
    pub(crate) server_pids: Vec<u32>,
    /// Where the server shows `waystation_*` counters.
    pub(crate) metrics_url: Option<String>,
}

/// How publishes find queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routing {
    /// Publisher i uses queue i mod queues, by the default exchange.
    Own,
    /// Every publisher goes through all queues in turn.
    Spread,
    /// One fanout exchange copies each message to all queues.
    Fanout,
}

impl Plan {
    /// A plan for `url` with one publisher, one consumer and one queue.
    pub(crate) fn new(url: Url) -> Plan {
        Plan {
            url,
            publishers: 1,
            consumers: 1,
            queues: 1,
            routing: Routing::Own,
            size: 1024,
            window: Some(1000),
            prefetch: 1000,
            course: Course::default(),
            persistent: true,
            auto_ack: false,
            confirms: true,
            server_pids: Vec::new(),
            metrics_url: None,
        }
    }

    /// Refuses combinations that mean nothing.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |sentence: &str| Err(Error::new(sentence));
        if self.publishers == 0 || self.queues == 0 {
            return wrong("a run needs at least one publisher and one queue");
        }
        if self.window == Some(0) || self.course.rate == Some(0) {
            return wrong("--window and --rate must not be 0: nothing would ever be sent");
        }
        if self.routing == Routing::Own && self.queues > u32::from(self.publishers) && self.consumers > 0 {
            return wrong("with more queues than publishers some stay empty: use --spread or --fanout");
        }
        if self.size > 128 << 20 {
            return wrong("--size: more than 128 MiB is beyond what servers accept");
        }
        Ok(())
    }

    /// The queues that publisher `publisher` sends to, in turn; empty for a fanout.
    pub(crate) fn targets(&self, publisher: u16) -> Vec<u32> {
        match self.routing {
            Routing::Own => vec![u32::from(publisher) % self.queues],
            Routing::Spread => (0..self.queues).collect(),
            Routing::Fanout => Vec::new(),
        }
    }

    /// The queues that consumer `consumer` reads.
    pub(crate) fn subscriptions(&self, consumer: u16) -> Vec<u32> {
        let (consumer, consumers) = (u32::from(consumer), u32::from(self.consumers));
        if consumers >= self.queues {
            vec![consumer % self.queues]
        } else {
            (0..self.queues).filter(|queue| queue % consumers == consumer).collect()
        }
    }

    /// Position of a publisher's message `sequence` among those it sent to `queue`; `None` if it went elsewhere.
    pub(crate) fn position(&self, queue: u32, publisher: u16, sequence: u64) -> Option<u64> {
        let queues = u64::from(self.queues);
        match self.routing {
            Routing::Own => (u32::from(publisher) % self.queues == queue).then_some(sequence),
            Routing::Spread => (sequence % queues == u64::from(queue)).then_some(sequence / queues),
            Routing::Fanout => Some(sequence),
        }
    }

    /// How many of a publisher's first `published` messages went to `queue`.
    pub(crate) fn share(&self, queue: u32, publisher: u16, published: u64) -> u64 {
        let queues = u64::from(self.queues);
        match self.routing {
            Routing::Own if u32::from(publisher) % self.queues == queue => published,
            Routing::Own => 0,
            Routing::Spread => (published + queues - 1 - u64::from(queue)) / queues,
            Routing::Fanout => published,
        }
    }

    /// The inverse of [`Plan::position`].
    pub(crate) fn sequence(&self, queue: u32, position: u64) -> u64 {
        match self.routing {
            Routing::Own | Routing::Fanout => position,
            Routing::Spread => position * u64::from(self.queues) + u64::from(queue),
        }
    }

    /// How many messages `publisher` sends if the run is bounded by a count.
    pub(crate) fn quota(&self, publisher: u16) -> Option<u64> {
        match self.course.until {
            Until::Elapsed(_) => None,
            Until::Published(all) => {
                let publishers = u64::from(self.publishers);
                Some(all / publishers + u64::from(u64::from(publisher) < all % publishers))
            }
        }
    }

    /// When message `sequence` of `publisher` is due, in nanoseconds after the start; `None` without a rate.
    pub(crate) fn due_ns(&self, publisher: u16, sequence: u64) -> Option<u64> {
        let turn = u128::from(sequence) * u128::from(self.publishers) + u128::from(publisher);
        self.course.due_ns(turn)
    }

    /// After how many unacknowledged deliveries a consumer acknowledges them together.
    pub(crate) fn ack_batch(&self) -> u64 {
        match self.prefetch {
            0 => 100,
            prefetch => u64::from(prefetch / 4).clamp(1, 100),
        }
    }
}

impl clients::Plan for Plan {
    fn size(&self) -> usize {
        self.size
    }

    fn copies(&self) -> u64 {
        if self.routing == Routing::Fanout { u64::from(self.queues) } else { 1 }
    }

    fn confirms(&self) -> bool {
        self.confirms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(routing: Routing, publishers: u16, consumers: u16, queues: u32) -> Plan {
        Plan { routing, publishers, consumers, queues, ..Plan::new(Url::parse("amqp://").unwrap()) }
    }

    #[test]
    fn every_queue_has_a_consumer() {
        for (consumers, queues) in [(1, 1), (4, 1), (1, 10), (3, 10), (4, 4)] {
            let plan = plan(Routing::Spread, 1, consumers, queues);
            let mut all: Vec<u32> = (0..consumers).flat_map(|c| plan.subscriptions(c)).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..queues).collect::<Vec<_>>());
        }
    }

    #[test]
    fn positions_count_up_in_every_queue() {
        for routing in [Routing::Own, Routing::Spread, Routing::Fanout] {
            let plan = plan(routing, 2, 1, 3);
            for (queue, publisher) in [(0, 0), (1, 1), (2, 0), (2, 1)] {
                let positions: Vec<u64> =
                    (0..10).filter_map(|sequence| plan.position(queue, publisher, sequence)).collect();
                assert_eq!(positions, (0..plan.share(queue, publisher, 10)).collect::<Vec<_>>());
                for position in positions {
                    let sequence = plan.sequence(queue, position);
                    assert_eq!(plan.position(queue, publisher, sequence), Some(position));
                }
            }
        }
    }

    #[test]
    fn the_publishers_share_the_rate_and_the_count() {
        let mut plan = plan(Routing::Own, 2, 1, 1);
        plan.course.rate = Some(1000);
        plan.course.until = Until::Published(7);
        assert_eq!((plan.quota(0), plan.quota(1)), (Some(4), Some(3)));
        assert_eq!(
            (plan.due_ns(0, 0), plan.due_ns(1, 0), plan.due_ns(0, 1)),
            (Some(0), Some(1_000_000), Some(2_000_000))
        );
    }

    #[test]
    fn acks_come_well_before_the_prefetch_is_spent() {
        let mut plan = plan(Routing::Own, 1, 1, 1);
        for (prefetch, batch) in [(1, 1), (3, 1), (40, 10), (1000, 100), (0, 100)] {
            plan.prefetch = prefetch;
            assert_eq!(plan.ack_batch(), batch);
        }
    }

    #[test]
    fn senseless_plans_are_refused() {
        assert!(plan(Routing::Own, 1, 1, 2).check().is_err());
        assert!(plan(Routing::Spread, 1, 1, 2).check().is_ok());
        assert!(Plan { window: Some(0), ..plan(Routing::Own, 1, 1, 1) }.check().is_err());
    }
}
