//! The destinations that one key, pattern or exchange leads to, each once however many bindings say so.
//!
//! In: bindings added and removed. Out: destinations in the order of their ids. Never: a scan to add or remove one, so
//! that thousands of queues behind one key stay cheap to bind and delete.

use std::collections::BTreeMap;

use model::QueueId;

use crate::{Destination, ExchangeId, Target};

/// A destination as routing needs it: a queue with all that a publisher must know of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leads {
    Queue(Target),
    Exchange(ExchangeId),
}

/// Some destinations, each with the number of bindings that lead there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fan {
    queues: BTreeMap<QueueId, (Target, u32)>,
    exchanges: BTreeMap<ExchangeId, u32>,
}

impl Fan {
    /// Counts one binding more.
    pub(crate) fn add(&mut self, to: Leads) {
        match to {
            Leads::Queue(target) => self.queues.entry(target.queue).or_insert((target, 0)).1 += 1,
            Leads::Exchange(exchange) => *self.exchanges.entry(exchange).or_insert(0) += 1,
        }
    }

    /// Counts one binding less.
    pub(crate) fn remove(&mut self, destination: Destination) {
        match destination {
            Destination::Queue(queue) => {
                let (_, count) = self.queues.get_mut(&queue).expect("an indexed binding is in its fan");
                *count -= 1;
                if *count == 0 {
                    self.queues.remove(&queue);
                }
            }
            Destination::Exchange(exchange) => {
                let count = self.exchanges.get_mut(&exchange).expect("an indexed binding is in its fan");
                *count -= 1;
                if *count == 0 {
                    self.exchanges.remove(&exchange);
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.exchanges.is_empty()
    }

    pub(crate) fn targets(&self) -> impl Iterator<Item = Target> {
        self.queues.values().map(|(target, _)| *target)
    }

    pub(crate) fn exchanges(&self) -> impl Iterator<Item = ExchangeId> {
        self.exchanges.keys().copied()
    }
}
