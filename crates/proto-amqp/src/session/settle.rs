//! What a channel has delivered and not settled, in the order of its delivery tags.
//!
//! Tags rise by one per delivery, so the place of a tag is almost always its distance from the first one held;
//! deliveries that need no acknowledgement leave gaps, and then it is found by bisection. What is settled out of
//! order stays as a marked slot until the slots before it go, or until half of them are marked.

use std::collections::VecDeque;

use model::{ConsumerId, Lane, Outcome, QueueId, Seq};

use super::channel::Channel;
use super::{Session, outbox};
use crate::map::Fault;
use crate::wire::ReplyCode;

/// One delivered message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub tag: u64,
    pub queue: QueueId,
    pub seq: Seq,
    /// `None`: it was got, not consumed, or the consumer has no bound.
    pub grants: Option<ConsumerId>,
}

/// Deliveries that await their settlement.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    /// `None` in the second place: settled.
    slots: VecDeque<(u64, Option<Held>)>,
    settled: usize,
}

impl Unacked {
    #[inline]
    pub(super) fn push(&mut self, held: Held) {
        self.slots.push_back((held.tag, Some(held)));
    }

    fn place(&self, tag: u64) -> Option<usize> {
        let first = self.slots.front()?.0;
        let near = usize::try_from(tag.checked_sub(first)?).ok()?;
        match self.slots.get(near) {
            Some((other, _)) if *other == tag => Some(near),
            _ => self.slots.binary_search_by_key(&tag, |(tag, _)| *tag).ok(),
        }
    }

    /// Takes one.
    pub(super) fn take(&mut self, tag: u64) -> Option<Held> {
        let place = self.place(tag)?;
        let held = self.slots[place].1.take()?;
        self.settled += 1;
        self.tidy();
        Some(held)
    }

    /// Takes everything up to and with `tag`, which must be held.
    fn take_through(&mut self, tag: u64) -> Option<Vec<Held>> {
        let place = self.place(tag)?;
        self.slots[place].1?;
        let held: Vec<Held> = self.slots.drain(..=place).filter_map(|(_, held)| held).collect();
        self.settled -= place + 1 - held.len();
        self.tidy();
        Some(held)
    }

    fn take_all(&mut self) -> Vec<Held> {
        std::mem::take(self).into_held().collect()
    }

    pub(super) fn into_held(self) -> impl Iterator<Item = Held> {
        self.slots.into_iter().filter_map(|(_, held)| held)
    }

    fn tidy(&mut self) {
        while self.slots.front().is_some_and(|(_, held)| held.is_none()) {
            self.slots.pop_front();
            self.settled -= 1;
        }
        if self.settled > 64 + self.slots.len() / 2 {
            self.slots.retain(|(_, held)| held.is_some());
            self.settled = 0;
        }
        if self.slots.is_empty() && self.slots.capacity() > 1024 {
            self.slots = VecDeque::new();
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.len()
    }
}

fn unknown_tag(tag: u64) -> Fault {
    Fault::new(ReplyCode::PreconditionFailed, format!("unknown delivery tag {tag}"))
}

impl Session {
    /// Ends one delivery, or with `multiple` all up to it; tag 0 with `multiple` means all there are.
    pub(super) fn settle(
        &mut self,
        lane: u16,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Result<(), Fault> {
        let Some(channel) = self.channels.get_mut(&lane) else { return Ok(()) };
        if !multiple {
            let held = channel.unacked.take(tag).ok_or_else(|| unknown_tag(tag))?;
            self.settle_held(lane, &held, outcome);
            return Ok(());
        }
        let all = match tag {
            0 => channel.unacked.take_all(),
            _ => channel.unacked.take_through(tag).ok_or_else(|| unknown_tag(tag))?,
        };
        all.iter().for_each(|held| self.settle_held(lane, held, outcome));
        Ok(())
    }

    fn settle_held(&mut self, lane: u16, held: &Held, outcome: Outcome) {
        outbox::settle(&mut self.outbox, Lane(lane), held, outcome);
        if let Some(consumer) = held.grants {
            self.grant(consumer);
        }
    }

    /// `basic.recover`: everything goes back to its queue; asking for that is no failed delivery.
    pub(super) fn recover(&mut self, lane: u16) -> Result<(), Fault> {
        self.settle(lane, 0, true, Outcome::Return { failed: false })
    }
}

impl Channel {
    /// The tag of the next delivery.
    #[inline]
    pub(super) fn take_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;
    use std::collections::BTreeMap;

    fn held(tag: u64) -> Held {
        Held { tag, queue: QueueId(1), seq: Seq(tag), grants: None }
    }

    #[test]
    fn like_a_sorted_map_and_bounded_by_what_is_held() {
        let mut prng = Prng::new(1);
        for _ in 0..100 {
            let (mut unacked, mut reference) = (Unacked::default(), BTreeMap::new());
            let mut next = 1;
            for _ in 0..2000 {
                match prng.below(8) {
                    0..4 => {
                        next += 1 + u64::from(prng.chance(1, 4));
                        unacked.push(held(next));
                        reference.insert(next, ());
                    }
                    4..7 => {
                        let tag = if prng.chance(1, 2) { prng.below(next + 2) } else { next - next.min(3) };
                        assert_eq!(unacked.take(tag).map(|h| h.tag), reference.remove(&tag).map(|()| tag));
                    }
                    _ if prng.chance(1, 10) => {
                        let tag = prng.below(next + 2);
                        let taken = unacked.take_through(tag).map(|all| all.iter().map(|h| h.tag).collect());
                        let expected = reference.contains_key(&tag).then(|| {
                            let later = reference.split_off(&(tag + 1));
                            std::mem::replace(&mut reference, later).into_keys().collect::<Vec<_>>()
                        });
                        assert_eq!(taken, expected);
                    }
                    _ => {}
                }
                assert!(unacked.len() <= 2 * reference.len() + 200, "{} slots", unacked.len());
            }
            let left: Vec<u64> = unacked.into_held().map(|h| h.tag).collect();
            assert_eq!(left, reference.into_keys().collect::<Vec<_>>());
        }
    }
}
