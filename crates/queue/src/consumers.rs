//! Who takes messages from one queue: credit, priority and turns.
//!
//! A consumer waits in the ring of its priority exactly while it has credit. The ring of the highest priority is
//! served first, each consumer in it in turn; turns go on where they stopped. A ring is a list through the consumers
//! themselves, and an only consumer stands in the queue's own memory: see `chunks` for why.

use std::collections::BTreeMap;

use model::{ConnId, ConsumerId, Lane, ShardId};
use smallvec::SmallVec;

/// Up to this many consumers are found without a map.
const FEW: usize = 4;

/// One consumer of the whole cluster's, as its own shard names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerKey {
    /// The shard of its connection.
    pub shard: ShardId,
    /// Its connection.
    pub conn: ConnId,
    /// Its id within the connection.
    pub consumer: ConsumerId,
}

/// How a consumer takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Who.
    pub key: ConsumerKey,
    /// The lane its messages go to.
    pub lane: Lane,
    /// Whether being handed out settles.
    pub settled: bool,
    /// Whether it must be the only one.
    pub exclusive: bool,
    /// Higher ones are served first.
    pub priority: i32,
    /// Messages it may be handed now; `None`: no bound.
    pub messages: Option<u32>,
    /// Bytes it may be handed now; the last message may exceed them.
    pub bytes: i64,
}

/// A consumer that must be alone is not, or would not stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveUse;

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) subscription: Subscription,
    /// Whether it is in its ring.
    waits: bool,
    /// The slot behind it in its ring, or [`NOBODY`].
    next: u32,
    /// The block it was last handed something of, and where in the output that is.
    pub(crate) open: (u64, usize),
}

impl Consumer {
    #[inline]
    fn has_credit(&self) -> bool {
        self.subscription.messages != Some(0) && self.subscription.bytes > 0
    }

    /// Takes one message of `bytes` from its credit; false when that was the last.
    #[inline]
    pub(crate) fn spend(&mut self, bytes: u32) -> bool {
        if let Some(messages) = &mut self.subscription.messages {
            *messages -= 1;
        }
        self.subscription.bytes -= i64::from(bytes);
        self.waits = self.has_credit();
        self.waits
    }
}

/// No slot.
const NOBODY: u32 = u32::MAX;

/// Consumers of one priority in the order of their turns.
#[derive(Debug)]
pub(crate) struct Ring {
    priority: i32,
    head: u32,
    tail: u32,
}

impl Default for Ring {
    fn default() -> Self {
        Ring { priority: 0, head: NOBODY, tail: NOBODY }
    }
}

impl Ring {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NOBODY
    }

    /// The slot whose turn it is.
    #[inline]
    pub(crate) fn head(&self) -> Option<u32> {
        (self.head != NOBODY).then_some(self.head)
    }
}

/// All consumers of a queue.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    slots: SmallVec<[Option<Consumer>; 1]>,
    /// By priority, the highest last; none is empty.
    rings: SmallVec<[Ring; 1]>,
    exclusive: bool,
    free: Vec<u32>,
    by_key: BTreeMap<ConsumerKey, u32>,
}

impl Consumers {
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether anybody has credit.
    pub(crate) fn any_waits(&self) -> bool {
        !self.rings.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (ConsumerKey, Lane)> {
        let slots = self.by_key.values().filter_map(|slot| self.slots[*slot as usize].as_ref());
        slots.map(|consumer| (consumer.subscription.key, consumer.subscription.lane))
    }

    pub(crate) fn add(&mut self, subscription: Subscription) -> Result<(), ExclusiveUse> {
        if self.exclusive || (subscription.exclusive && self.len() > 0) {
            return Err(ExclusiveUse);
        }
        assert!(!self.by_key.contains_key(&subscription.key), "a consumer's key is never reused");
        self.exclusive = subscription.exclusive;
        let consumer = Some(Consumer { subscription, waits: false, next: NOBODY, open: (0, 0) });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = consumer;
                slot
            }
            None => {
                self.slots.push(consumer);
                self.slots.len() as u32 - 1
            }
        };
        self.by_key.insert(subscription.key, slot);
        self.wait(slot);
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: ConsumerKey) -> bool {
        let Some(slot) = self.by_key.remove(&key) else { return false };
        if let Some(consumer) = &self.slots[slot as usize]
            && consumer.waits
            && let Ok(at) = self.ring_of(consumer.subscription.priority)
        {
            self.unlink(at, slot);
        }
        self.slots[slot as usize] = None;
        self.free.push(slot);
        self.exclusive = false;
        true
    }

    /// Takes a slot out of a ring: all others are put into it again.
    fn unlink(&mut self, at: usize, slot: u32) {
        let priority = self.rings[at].priority;
        let mut before = std::mem::replace(&mut self.rings[at], Ring { priority, ..Ring::default() });
        while let Some(other) = self.pop(&mut before) {
            if other != slot {
                self.push(at, other);
            }
        }
        if self.rings[at].is_empty() {
            self.rings.remove(at);
        }
    }

    fn push(&mut self, at: usize, slot: u32) {
        let Ring { priority, head, tail } = self.rings[at];
        self.of_slot(slot).next = NOBODY;
        if head == NOBODY {
            self.rings[at] = Ring { priority, head: slot, tail: slot };
        } else {
            self.of_slot(tail).next = slot;
            self.rings[at].tail = slot;
        }
    }

    /// Takes the slot whose turn it is out of a ring.
    #[inline]
    pub(crate) fn pop(&mut self, ring: &mut Ring) -> Option<u32> {
        let slot = ring.head()?;
        ring.head = self.of_slot(slot).next;
        Some(slot)
    }

    /// Makes it the next one's turn.
    #[inline]
    pub(crate) fn rotate(&mut self, ring: &mut Ring) {
        if ring.head == ring.tail {
            return;
        }
        if let Some(slot) = self.pop(ring) {
            self.of_slot(slot).next = NOBODY;
            self.of_slot(ring.tail).next = slot;
            ring.tail = slot;
        }
    }

    /// Adds to a consumer's credit.
    pub(crate) fn grant(&mut self, key: ConsumerKey, messages: u32, bytes: i64) {
        let Some(slot) = self.slot_of(key) else { return };
        let Some(consumer) = &mut self.slots[slot as usize] else { return };
        let subscription = &mut consumer.subscription;
        subscription.messages = subscription.messages.map(|credit| credit.saturating_add(messages));
        subscription.bytes = subscription.bytes.saturating_add(bytes);
        self.wait(slot);
    }

    fn wait(&mut self, slot: u32) {
        let Some(consumer) = &mut self.slots[slot as usize] else { return };
        if consumer.has_credit() && !consumer.waits {
            consumer.waits = true;
            let priority = consumer.subscription.priority;
            let at = self.ring_of(priority).unwrap_or_else(|at| {
                self.rings.insert(at, Ring { priority, ..Ring::default() });
                at
            });
            self.push(at, slot);
        }
    }

    fn ring_of(&self, priority: i32) -> Result<usize, usize> {
        self.rings.binary_search_by_key(&priority, |ring| ring.priority)
    }

    /// Where few are, looking at them all touches less memory than the map of their keys.
    #[inline]
    fn slot_of(&self, key: ConsumerKey) -> Option<u32> {
        if self.slots.len() > FEW {
            return self.by_key.get(&key).copied();
        }
        let is = |consumer: &Option<Consumer>| consumer.as_ref().is_some_and(|c| c.subscription.key == key);
        self.slots.iter().position(is).map(|slot| slot as u32)
    }

    /// Takes the ring that is served next out, to be given back.
    pub(crate) fn take_ring(&mut self) -> Option<Ring> {
        self.rings.pop()
    }

    /// Gives the ring taken last back.
    pub(crate) fn give_back(&mut self, ring: Ring) {
        if !ring.is_empty() {
            self.rings.push(ring);
        }
    }

    /// The consumer of a slot taken from a ring.
    #[inline]
    pub(crate) fn of_slot(&mut self, slot: u32) -> &mut Consumer {
        self.slots[slot as usize].as_mut().expect("a ring names only consumers that are there")
    }
}
