//! The account of what was delivered: nothing lost, doubled, misordered, misrouted, invented or changed.
//!
//! In: each delivery's queue and stamp. Out: the flaws, counted. It believes only the publishers' own counters.

use super::Amqp;
use super::body::Stamp;
use super::plan::Plan;
use super::publisher::Publisher;
use super::seen::Seen;
use crate::clients;

/// Everything that must not happen to a message, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flaws {
    /// Confirmed, routed to a queue and never delivered from it.
    pub(crate) lost: u64,
    /// Delivered again without the redelivered flag.
    pub(crate) duplicated: u64,
    /// Delivered after a later message of the same publisher, queue and consumer.
    pub(crate) misordered: u64,
    /// Not byte for byte what was published, or never published.
    pub(crate) corrupt: u64,
    /// Delivered from a queue it was not sent to.
    pub(crate) misrouted: u64,
}

impl Flaws {
    /// Whether there are none.
    pub(crate) fn none(&self) -> bool {
        *self == Flaws::default()
    }
}

/// The deliveries of a run.
pub(crate) struct Ledger {
    /// Per queue and publisher the positions that arrived.
    seen: Vec<Seen>,
    publishers: usize,
    /// Deliveries of messages that had not arrived before.
    pub(crate) distinct: u64,
    /// Deliveries that carried the redelivered flag.
    pub(crate) redelivered: u64,
    /// What went wrong.
    pub(crate) flaws: Flaws,
}

impl Ledger {
    /// An empty account for `plan`.
    pub(crate) fn new(plan: &Plan) -> Ledger {
        let publishers = usize::from(plan.publishers);
        Ledger {
            seen: vec![Seen::default(); plan.queues as usize * publishers],
            publishers,
            distinct: 0,
            redelivered: 0,
            flaws: Flaws::default(),
        }
    }

    /// Notes one intact delivery; `published` says how many messages each publisher has sent, `last` is the position
    /// after the last one this consumer had from the same queue and publisher.
    pub(crate) fn note(
        &mut self,
        plan: &Plan,
        queue: u32,
        stamp: Stamp,
        redelivered: bool,
        published: &[u64],
        last: &mut [u64],
    ) {
        let publisher = usize::from(stamp.publisher);
        if published.get(publisher).is_none_or(|count| stamp.sequence >= *count) {
            self.flaws.corrupt += 1;
            return;
        }
        let Some(position) = plan.position(queue, stamp.publisher, stamp.sequence) else {
            self.flaws.misrouted += 1;
            return;
        };
        if self.seen[queue as usize * self.publishers + publisher].insert(position) {
            self.distinct += 1;
        } else if !redelivered {
            self.flaws.duplicated += 1;
        }
        if !redelivered {
            self.flaws.misordered += u64::from(position < last[publisher]);
            last[publisher] = last[publisher].max(position + 1);
        }
    }

    /// Counts what is missing of each publisher's messages, as far as `owed` says that they were confirmed.
    fn count_lost(&mut self, plan: &Plan, published: &[u64], owed: impl Fn(u16, u64) -> bool) {
        for queue in 0..plan.queues {
            for (publisher, count) in (0..plan.publishers).zip(published) {
                let share = plan.share(queue, publisher, *count);
                let seen = &self.seen[queue as usize * self.publishers + usize::from(publisher)];
                let lost = seen.missing(share).filter(|at| owed(publisher, plan.sequence(queue, *at)));
                self.flaws.lost += lost.count() as u64;
            }
        }
    }
}

impl clients::Ledger<Amqp> for Ledger {
    fn streams(&self) -> usize {
        self.publishers
    }

    fn distinct(&self) -> u64 {
        self.distinct
    }

    fn flaws(&mut self) -> &mut Flaws {
        &mut self.flaws
    }

    fn close(&mut self, plan: &Plan, publishers: &[Publisher], published: &[u64]) {
        let owed = |publisher, sequence| publishers[usize::from(publisher)].is_owed(plan, sequence);
        self.count_lost(plan, published, owed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plan::Routing;
    use crate::url::Url;

    struct Desk {
        plan: Plan,
        ledger: Ledger,
        last: Vec<u64>,
    }

    impl Desk {
        fn new(routing: Routing) -> Desk {
            let plan =
                Plan { routing, publishers: 2, queues: 2, ..Plan::new(Url::parse("amqp://").unwrap()) };
            Desk { ledger: Ledger::new(&plan), plan, last: vec![0; 2] }
        }

        fn note(&mut self, queue: u32, publisher: u16, sequence: u64, redelivered: bool) -> Flaws {
            let stamp = Stamp { publisher, sequence, sent_ns: 0 };
            self.ledger.note(&self.plan, queue, stamp, redelivered, &[10, 10], &mut self.last);
            self.ledger.flaws
        }
    }

    #[test]
    fn a_clean_run_has_no_flaws_and_a_hole_is_a_loss_if_confirmed() {
        let mut desk = Desk::new(Routing::Own);
        for sequence in [0, 1, 3, 4] {
            assert!(desk.note(1, 1, sequence, false).none());
        }
        desk.ledger.count_lost(&desk.plan, &[0, 5], |_, sequence| sequence != 2);
        assert!(desk.ledger.flaws.none());
        desk.ledger.count_lost(&desk.plan, &[0, 6], |_, _| true);
        assert_eq!(desk.ledger.flaws.lost, 2);
        assert_eq!(desk.ledger.distinct, 4);
    }

    #[test]
    fn a_second_delivery_is_a_duplicate_unless_it_says_so() {
        let mut desk = Desk::new(Routing::Own);
        desk.note(0, 0, 0, false);
        assert!(desk.note(0, 0, 0, true).none());
        let flaws = desk.note(0, 0, 0, false);
        assert_eq!((flaws.duplicated, flaws.misordered), (1, 1));
    }

    #[test]
    fn order_routes_and_inventions_are_checked() {
        let mut desk = Desk::new(Routing::Spread);
        desk.note(0, 0, 4, false);
        assert_eq!(desk.note(0, 0, 2, false).misordered, 1);
        assert_eq!(desk.note(0, 0, 3, false).misrouted, 1);
        assert_eq!(desk.note(0, 0, 10, false).corrupt, 1);
        assert_eq!(desk.note(0, 2, 0, false).corrupt, 2);
    }
}
