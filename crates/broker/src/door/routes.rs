//! Remembered routes, so that a publisher does not have its exchange and key looked up for every message.
//!
//! A table of sets of slots that grows with its routes; where a set is full a route takes the slot of another. Small, the
//! table itself stays in the processor's cache. Every change of the topology makes all routes old.

use std::hash::BuildHasher;

use base::Map;
use model::{GroupId, QueueId};
use smallvec::SmallVec;

/// Slots of the table at first, and at most.
const SLOTS_MIN: usize = 256;
const SLOTS_MAX: usize = 65_536;
/// Slots in which a route may stand.
const SET: usize = 4;

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

/// What a queue takes of messages. Only topics ask for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Terms {
    /// Whether they get the time of the log instead of the writer's.
    pub log_time: bool,
    /// Bytes of the largest.
    pub bytes_max: usize,
}

impl Terms {
    /// What queues ask for.
    pub(crate) const NONE: Terms = Terms { log_time: false, bytes_max: usize::MAX };
}

/// Queues of one group that ask for the same.
#[derive(Debug)]
pub(crate) struct Target {
    /// The group's place among the door's outgoing ones.
    pub at: usize,
    pub group: GroupId,
    pub queues: SmallVec<[QueueId; 1]>,
    /// What the queues take of a message.
    pub terms: Terms,
}

/// Equality that never compares empty texts: their pointers point nowhere, and the vector instructions of memcmp
/// pay for looking there, even at no byte, more than for everything else a publish costs.
#[inline]
fn same(a: &[u8], b: &str) -> bool {
    a.len() == b.len() && (a.is_empty() || a == b.as_bytes())
}

/// Room for a route. The hash tells most others apart without a look at them.
#[derive(Debug, Default)]
struct Slot {
    hash: u64,
    route: Option<Box<Route>>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Routes {
    slots: Vec<Slot>,
    used: usize,
    hasher: Map<(), ()>,
    newest: usize,
    /// Whether the last search began anew.
    varies: bool,
}

impl Routes {
    pub(crate) fn new(seed: u64) -> Routes {
        Routes { slots: empty(SLOTS_MIN), used: 0, hasher: base::map(seed), newest: 0, varies: false }
    }

    /// The slot of a route and whether it is there and still true.
    #[inline]
    pub(crate) fn find(&mut self, version: u64, vhost: &str, exchange: &str, key: &str) -> (usize, bool) {
        let is =
            |slot: &Slot| slot.route.as_ref().is_some_and(|route| route.is(version, vhost, exchange, key));
        self.varies = !is(&self.slots[self.newest]);
        if !self.varies {
            return (self.newest, true);
        }
        self.newest = self.slot_of(self.hash(exchange.as_bytes(), key.as_bytes()));
        (self.newest, is(&self.slots[self.newest]))
    }

    #[inline]
    pub(crate) fn vary(&self) -> bool {
        self.varies
    }

    #[inline]
    fn hash(&self, exchange: &[u8], key: &[u8]) -> u64 {
        self.hasher.hasher().hash_one((exchange, key))
    }

    /// Asks for the memory of the route that these bytes have if they are names.
    #[inline]
    pub(crate) fn prefetch(&self, exchange: &[u8], key: &[u8]) {
        let slot = self.slot_of(self.hash(exchange, key));
        self.slots[slot].route.iter().for_each(|route| base::prefetch(&**route));
    }

    /// Where the route of this hash is, or would be put.
    #[inline]
    fn slot_of(&self, hash: u64) -> usize {
        let start = (hash as usize & (self.slots.len() - 1)) / SET * SET;
        let set = &self.slots[start..start + SET];
        let found = set.iter().position(|slot| slot.hash == hash && slot.route.is_some());
        let place = found.or_else(|| set.iter().position(|slot| slot.route.is_none()));
        start + place.unwrap_or((hash >> 60) as usize % SET)
    }

    /// The route in a slot that `find` found.
    #[inline]
    pub(crate) fn at(&self, slot: usize) -> &[Target] {
        self.slots[slot].route.as_ref().map_or(&[], |route| &route.targets)
    }

    /// Empties a slot: its route depended on more than exchange and key.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.used -= usize::from(self.slots[slot].route.take().is_some());
    }

    /// Puts a route into the slot that `find` found, or where the table grows into its new one, and returns that.
    pub(crate) fn remember(
        &mut self,
        mut slot: usize,
        version: u64,
        (vhost, exchange, key): (&str, &str, &str),
        targets: Targets,
    ) -> usize {
        let hash = self.hash(exchange.as_bytes(), key.as_bytes());
        if 2 * self.used >= self.slots.len() && self.slots.len() < SLOTS_MAX {
            self.grow();
            slot = self.slot_of(hash);
            self.newest = slot;
        }
        let (vhost_len, exchange_len) = (vhost.len(), exchange.len());
        let names = [vhost, exchange, key].into_iter().flat_map(str::bytes).collect();
        let route = Some(Box::new(Route { version, names, vhost_len, exchange_len, targets }));
        let before = std::mem::replace(&mut self.slots[slot], Slot { hash, route });
        self.used += usize::from(before.route.is_none());
        slot
    }

    fn grow(&mut self) {
        let twice = empty(2 * self.slots.len());
        let before = std::mem::replace(&mut self.slots, twice);
        for slot in before.into_iter().filter(|slot| slot.route.is_some()) {
            let place = self.slot_of(slot.hash);
            self.slots[place] = slot;
        }
        self.used = self.slots.iter().filter(|slot| slot.route.is_some()).count();
    }
}

fn empty(slots: usize) -> Vec<Slot> {
    (0..slots).map(|_| Slot::default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found_while_the_table_grows_and_are_old_after_a_change() {
        let mut routes = Routes::new(3);
        let key = |n: usize| format!("key-{n}");
        for n in 0..10 * SLOTS_MIN {
            let (slot, known) = routes.find(1, "/", "", &key(n));
            assert!(!known);
            let slot = routes.remember(slot, 1, ("/", "", &key(n)), Targets::new());
            assert_eq!(routes.find(1, "/", "", &key(n)), (slot, true));
        }
        let found = (0..10 * SLOTS_MIN).filter(|n| routes.find(1, "/", "", &key(*n)).1).count();
        assert!(found > 9 * SLOTS_MIN, "{found} are still there");
        assert_eq!(routes.used, routes.slots.iter().filter(|slot| slot.route.is_some()).count());
        assert!(routes.slots.len() > 2 * SLOTS_MIN);
        let n = (0..).find(|n| routes.find(1, "/", "", &key(*n)).1).unwrap();
        assert!(!routes.find(2, "/", "", &key(n)).1 && !routes.find(1, "other", "", &key(n)).1);
        let (slot, _) = routes.find(1, "/", "", &key(n));
        routes.forget(slot);
        assert!(!routes.find(1, "/", "", &key(n)).1);
    }
}
