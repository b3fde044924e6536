//! Which producers a log knows: of each the epoch and its latest batches, so that a batch sent again is recognized
//! and a missing one is missed.
//!
//! The rules are Kafka's: a batch that is among the producer's last five is answered with where it went and not
//! stored again; otherwise its first number must follow the last one, or be 0 in a new epoch; a producer nobody knows
//! may begin with any, since it may have been forgotten. Numbers wrap from `i32::MAX` to 0. A producer is forgotten a day of group time after its last
//! batch, and the one idle longest when there would be too many; both only depend on what was applied.

use base::{Bug, planted};
use model::batch::Producer;

use crate::AppendRefusal;
use crate::chunks::{Chunks, Keyed};

/// Batches remembered of a producer: as many as it may have under way.
pub(crate) const REMEMBERED: usize = 5;
/// Milliseconds of group time after its last batch that a producer is remembered.
const EXPIRE_MS: u64 = 86_400_000;
/// Producers remembered per log, 12 MB; beyond it the one idle longest goes.
const PRODUCERS_MAX: usize = 100_000;
/// Expired producers forgotten per append, so that no append does the work of many.
const EXPIRE_STEP: usize = 4;

/// One batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) first_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base: u64,
}

/// One producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    pub(crate) id: u64,
    pub(crate) last_ms: u64,
    pub(crate) epoch: i16,
    pub(crate) count: u8,
    /// The latest batches, the oldest first; at least one.
    pub(crate) seen: [Seen; REMEMBERED],
}

impl Keyed for ProducerState {
    fn key(&self) -> u64 {
        self.id
    }
}

impl ProducerState {
    pub(crate) fn batches(&self) -> &[Seen] {
        &self.seen[..usize::from(self.count)]
    }

    pub(crate) fn last(&self) -> Seen {
        *self.batches().last().expect("a producer is known by its batches")
    }

    pub(crate) fn push(&mut self, batch: Seen) {
        if usize::from(self.count) == REMEMBERED {
            self.seen.rotate_left(1);
            self.count -= 1;
        }
        self.seen[usize::from(self.count)] = batch;
        self.count += 1;
    }
}

/// When a producer last wrote: its last batch's base offset, which rises with every batch of the log.
#[derive(Clone, Copy, Debug)]
struct LastUse {
    base: u64,
    producer: u64,
    time_ms: u64,
}

impl Keyed for LastUse {
    fn key(&self) -> u64 {
        self.base
    }
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// To be stored.
    New,
    /// It is there already, from this offset on.
    Repeat(u64),
}

/// The producers of one log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    known: Chunks<ProducerState>,
    by_use: Chunks<LastUse>,
}

/// The number `by` behind another; they wrap to 0.
fn advance(sequence: i32, by: u32) -> i32 {
    ((sequence as u32).wrapping_add(by) & i32::MAX as u32) as i32
}

/// The number of the last record of a batch.
fn last_sequence(producer: &Producer, span: u32) -> i32 {
    advance(producer.base_sequence, span.wrapping_sub(1))
}

impl Producers {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// From this id on, in the order of ids.
    pub(crate) fn from(&self, id: u64) -> impl Iterator<Item = &ProducerState> {
        self.known.from(id)
    }

    /// Decides about a batch of `span` offsets; changes nothing.
    pub(crate) fn judge(&self, batch: &Producer, span: u32, now_ms: u64) -> Result<Verdict, AppendRefusal> {
        if batch.base_sequence < 0 {
            return Ok(Verdict::New);
        }
        let known = self.known.find(batch.id as u64).filter(|known| !is_expired(known.last_ms, now_ms));
        let Some(known) = known else { return Ok(Verdict::New) };
        if batch.epoch < known.epoch {
            return Err(AppendRefusal::StaleProducer);
        }
        let expected = if batch.epoch > known.epoch { 0 } else { advance(known.last().last_sequence, 1) };
        if batch.epoch == known.epoch {
            let last = last_sequence(batch, span);
            let same =
                |seen: &&Seen| (seen.first_sequence, seen.last_sequence) == (batch.base_sequence, last);
            if let Some(seen) = known.batches().iter().rev().find(same) {
                return Ok(Verdict::Repeat(seen.base));
            }
        }
        // The planted bug takes any number.
        if batch.base_sequence == expected || planted(Bug::AcceptSequenceGap) {
            return Ok(Verdict::New);
        }
        Err(AppendRefusal::OutOfSequence)
    }

    /// Takes note of a batch that was judged new and went to `base`.
    pub(crate) fn note(&mut self, batch: &Producer, span: u32, base: u64, now_ms: u64) {
        if batch.base_sequence < 0 {
            return;
        }
        let seen =
            Seen { first_sequence: batch.base_sequence, last_sequence: last_sequence(batch, span), base };
        let id = batch.id as u64;
        let mut before = None;
        let found = self.known.update(id, |known| {
            before = Some(known.last().base);
            if batch.epoch != known.epoch || is_expired(known.last_ms, now_ms) {
                (known.epoch, known.count) = (batch.epoch, 0);
            }
            known.last_ms = now_ms;
            known.push(seen);
        });
        if found.is_none() {
            self.known.insert(only(id, batch.epoch, seen, now_ms));
        }
        if let Some(before) = before {
            self.by_use.remove(before);
        }
        self.by_use.insert(LastUse { base, producer: id, time_ms: now_ms });
        self.expire(now_ms);
    }

    fn expire(&mut self, now_ms: u64) {
        for _ in 0..EXPIRE_STEP {
            let Some(oldest) = self.by_use.first().copied() else { return };
            if !is_expired(oldest.time_ms, now_ms) && self.known.len() <= PRODUCERS_MAX {
                return;
            }
            self.by_use.remove(oldest.base);
            self.known.remove(oldest.producer);
        }
    }

    /// Adds one that was read back; false where it contradicts those that are there.
    pub(crate) fn restore(&mut self, producer: ProducerState) -> bool {
        let base = producer.last().base;
        if self.known.find(producer.id).is_some() || self.by_use.find(base).is_some() {
            return false;
        }
        self.by_use.insert(LastUse { base, producer: producer.id, time_ms: producer.last_ms });
        self.known.insert(producer);
        true
    }
}

fn only(id: u64, epoch: i16, seen: Seen, now_ms: u64) -> ProducerState {
    let mut producer =
        ProducerState { id, last_ms: now_ms, epoch, count: 0, seen: [Seen::default(); REMEMBERED] };
    producer.push(seen);
    producer
}

fn is_expired(last_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(last_ms) > EXPIRE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: i64, epoch: i16, base_sequence: i32) -> Producer {
        Producer { id, epoch, base_sequence }
    }

    /// Judges and stores a batch of three; answers with its base offset, which is ten times the count of appends.
    fn append(
        producers: &mut Producers,
        next: &mut u64,
        batch: Producer,
        now_ms: u64,
    ) -> Result<u64, AppendRefusal> {
        match producers.judge(&batch, 3, now_ms)? {
            Verdict::Repeat(base) => Ok(base),
            Verdict::New => {
                *next += 10;
                producers.note(&batch, 3, *next, now_ms);
                Ok(*next)
            }
        }
    }

    #[test]
    fn the_last_five_are_recognized_and_gaps_are_refused() {
        let (mut producers, mut next) = (Producers::default(), 0);
        for at in 0..7 {
            assert_eq!(append(&mut producers, &mut next, batch(1, 0, at * 3), 0), Ok(10 + at as u64 * 10));
        }
        for at in 2..7 {
            let again = append(&mut producers, &mut next, batch(1, 0, at * 3), 0);
            assert_eq!(again, Ok(10 + at as u64 * 10));
        }
        for sequence in [0, 3, 7, 22, 24] {
            let refused = append(&mut producers, &mut next, batch(1, 0, sequence), 0);
            assert_eq!(refused, Err(AppendRefusal::OutOfSequence));
        }
        assert_eq!(
            producers.judge(&batch(1, 0, 18), 2, 0),
            Err(AppendRefusal::OutOfSequence),
            "another length"
        );
        assert_eq!(next, 70);
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_supersedes() {
        let (mut producers, mut next) = (Producers::default(), 0);
        assert!(append(&mut producers, &mut next, batch(1, 3, 0), 0).is_ok());
        let refused = append(&mut producers, &mut next, batch(1, 4, 3), 0);
        assert_eq!(refused, Err(AppendRefusal::OutOfSequence));
        assert_eq!(
            append(&mut producers, &mut next, batch(1, 4, 0), 0),
            Ok(20),
            "no repeat of the old epoch's"
        );
        let stale = append(&mut producers, &mut next, batch(1, 3, 3), 0);
        assert_eq!(stale, Err(AppendRefusal::StaleProducer));
        assert_eq!(
            append(&mut producers, &mut next, batch(2, 0, 3), 0),
            Ok(30),
            "it may have been forgotten"
        );
        let before = append(&mut producers, &mut next, batch(2, 0, 0), 0);
        assert_eq!(before, Err(AppendRefusal::OutOfSequence), "what comes before its first number");
        assert_eq!(append(&mut producers, &mut next, batch(2, 0, 6), 0), Ok(40));
    }

    #[test]
    fn numbers_wrap_to_zero() {
        let (mut producers, mut next) = (Producers::default(), 0);
        producers.note(&batch(1, 0, i32::MAX - 4), 3, 5, 0);
        assert_eq!(append(&mut producers, &mut next, batch(1, 0, i32::MAX - 1), 0), Ok(10));
        assert_eq!(append(&mut producers, &mut next, batch(1, 0, 2), 0), Err(AppendRefusal::OutOfSequence));
        assert_eq!(append(&mut producers, &mut next, batch(1, 0, 1), 0), Ok(20));
        assert_eq!(
            append(&mut producers, &mut next, batch(1, 0, i32::MAX - 1), 0),
            Ok(10),
            "across the wrap"
        );
        assert_eq!(advance(i32::MAX, 1), 0);
    }

    #[test]
    fn the_idle_expire_whether_or_not_they_are_still_listed() {
        let (mut producers, mut next) = (Producers::default(), 0);
        for id in 0..10 {
            append(&mut producers, &mut next, batch(id, 0, 0), 1000).unwrap();
        }
        let late = 1001 + EXPIRE_MS;
        assert_eq!(producers.judge(&batch(9, 0, 3), 3, late - 1), Ok(Verdict::New));
        assert_eq!(producers.judge(&batch(9, 0, 6), 3, late - 1), Err(AppendRefusal::OutOfSequence));
        assert_eq!(
            append(&mut producers, &mut next, batch(9, 0, 6), late),
            Ok(110),
            "it begins anew anywhere"
        );
        assert_eq!(producers.len(), 10 - EXPIRE_STEP);
        assert_eq!(
            producers.from(9).next().unwrap().batches().len(),
            1,
            "nothing of before its expiry is left"
        );
    }

    #[test]
    fn no_more_than_the_bound_are_remembered() {
        let (mut producers, mut next) = (Producers::default(), 0);
        for id in 0..PRODUCERS_MAX as i64 + 10 {
            append(&mut producers, &mut next, batch(id, 0, 0), 1000).unwrap();
        }
        assert_eq!(producers.len(), PRODUCERS_MAX);
        assert_eq!(producers.from(0).next().unwrap().id, 10, "the one idle longest goes");
        assert_eq!(producers.by_use.len(), PRODUCERS_MAX);
    }
}
