//! Remembered routes, so that a publisher does not have its exchange and key looked up for every message.
//!
//! A direct-mapped table: a colliding route takes the slot. Every change of the topology makes all of them old.

use std::hash::BuildHasher;

use base::Map;
use model::{GroupId, QueueId};
use smallvec::SmallVec;

/// Slots of the table.
const SLOTS: usize = 16_384;

/// Where messages of one exchange and key go. Mostly one allocation for all of it: a publisher that goes through many
/// queues in turn finds none of this in the processor's cache.
#[derive(Debug, Default)]
pub(crate) struct Route {
    version: u64,
    /// Virtual host, exchange and key, one behind the other.
    names: SmallVec<[u8; 24]>,
    vhost_len: usize,
    exchange_len: usize,
    targets: Targets,
}

impl Route {
    fn is(&self, version: u64, vhost: &str, exchange: &str, key: &str) -> bool {
        if self.version != version
            || (self.vhost_len, self.exchange_len) != (vhost.len(), exchange.len())
            || self.names.len() != vhost.len() + exchange.len() + key.len()
        {
            return false;
        }
        let (in_front, own_key) = self.names.split_at(vhost.len() + exchange.len());
        let (own_vhost, own_exchange) = in_front.split_at(vhost.len());
        same(own_key, key) && same(own_exchange, exchange) && same(own_vhost, vhost)
    }
}

/// Where a route leads: almost always to one group.
pub(crate) type Targets = SmallVec<[Target; 1]>;

/// Queues of one group.
#[derive(Debug)]
pub(crate) struct Target {
    /// The group's place among the door's outgoing ones.
    pub at: usize,
    pub group: GroupId,
    pub queues: SmallVec<[QueueId; 1]>,
}

/// Equality that never compares empty texts: their pointers point nowhere, and the vector instructions of memcmp
/// pay for looking there, even at no byte, more than for everything else a publish costs.
#[inline]
fn same(a: &[u8], b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b.as_bytes())
}

/// The table.
#[derive(Debug)]
pub(crate) struct Routes {
    slots: Vec<Option<Box<Route>>>,
    hasher: Map<(), ()>,
    newest: usize,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Routes {
        Routes { slots: (0..SLOTS).map(|_| None).collect(), hasher: base::map(seed), newest: 0 }
    }

    /// The slot of a route and whether it is there and still true.
    #[inline]
    pub(crate) fn find(&mut self, version: u64, vhost: &str, exchange: &str, key: &str) -> (usize, bool) {
        let is = |slot: &Option<Box<Route>>| {
            slot.as_ref().is_some_and(|route| route.is(version, vhost, exchange, key))
        };
        if !is(&self.slots[self.newest]) {
            self.newest = self.hasher.hasher().hash_one((exchange, key)) as usize % SLOTS;
        }
        (self.newest, is(&self.slots[self.newest]))
    }

    /// The route in a slot that `find` found.
    #[inline]
    pub(crate) fn at(&self, slot: usize) -> &[Target] {
        self.slots[slot].as_ref().map_or(&[], |route| &route.targets)
    }

    /// Empties a slot: its route depended on more than exchange and key.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// Puts a route into its slot.
    pub(crate) fn remember(
        &mut self,
        slot: usize,
        version: u64,
        (vhost, exchange, key): (&str, &str, &str),
        targets: Targets,
    ) {
        let (vhost_len, exchange_len) = (vhost.len(), exchange.len());
        let names = [vhost, exchange, key].into_iter().flat_map(str::bytes).collect();
        self.slots[slot] = Some(Box::new(Route { version, names, vhost_len, exchange_len, targets }));
    }
}
