//! How far what readers of logs will want next is read ahead of them.
//!
//! In: where a reader is, each time it takes something. Out: from which offset on, and how many bytes, may be read now.
//! A reader is known by its place alone: whoever reads between where one was last and what was read ahead of it is
//! taken for the same. The further one goes on in order, the more is read ahead of it, up to its share of what all may
//! have. Never: reads anything, or keeps more places than a bound.

use std::collections::{BTreeMap, VecDeque};

use model::QueueId;

/// Bytes read ahead of a reader that is new.
const FIRST: usize = 2 << 20;
/// Places known.
const PLACES: usize = 1024;
/// Microseconds after which a reader that took nothing is forgotten.
const IDLE_US: u64 = 2_000_000;

/// One reader.
#[derive(Debug)]
struct Place {
    /// What was read ahead and not reached: the offset behind it, and the bytes.
    ahead: VecDeque<(u64, usize)>,
    ahead_bytes: usize,
    /// The offset up to which everything is known, or being read.
    known: u64,
    /// Bytes to be read ahead.
    window: usize,
    seen_us: u64,
}

impl Place {
    /// The reader has come to that offset.
    fn reaches(&mut self, offset: u64) {
        while let Some((end, bytes)) = self.ahead.front().copied().filter(|(end, _)| *end <= offset) {
            self.ahead.pop_front();
            self.ahead_bytes -= bytes;
            self.known = self.known.max(end);
        }
    }
}

/// All readers of the logs hosted here, by log and by the offset where each was last.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    places: BTreeMap<(QueueId, u64), Place>,
    tidied_us: u64,
}

impl Ahead {
    /// A reader of the log is at `from` and has everything below `to`, or missed what is there. Returns from which
    /// offset on how many bytes are to be read ahead of it, if any are; `total` are all readers' together.
    pub fn moved(
        &mut self,
        log: QueueId,
        (from, to): (u64, u64),
        missed: bool,
        (total, now_us): (usize, u64),
    ) -> Option<(u64, usize)> {
        self.tidy(now_us);
        let known = self.places.range((log, 0)..=(log, from)).next_back();
        let known = known.filter(|(_, place)| from <= place.known).map(|(key, _)| *key);
        let mut place = match known.and_then(|key| Some((key, self.places.remove(&key)?))) {
            Some(((_, last), mut place)) => {
                let grown = if last < from { 2 * place.window } else { place.window };
                place.window = grown;
                place
            }
            None if missed && self.places.len() < PLACES => {
                Place { ahead: VecDeque::new(), ahead_bytes: 0, known: to, window: FIRST, seen_us: 0 }
            }
            None => return None,
        };
        place.reaches(from);
        place.known = place.known.max(to);
        place.seen_us = now_us;
        let share = total / (self.places.len() + 1);
        place.window = place.window.min(share);
        let room = place.window.saturating_sub(place.ahead_bytes);
        let next = place.known;
        let is_worth_it = 2 * room >= place.window && room > 0;
        self.places.insert((log, from), place);
        is_worth_it.then_some((next, room))
    }

    /// What lies below the offset `end` is in memory, or so many bytes are being read for it.
    pub fn asked(&mut self, (log, from): (QueueId, u64), end: u64, bytes: usize) {
        let Some(place) = self.places.get_mut(&(log, from)) else { return };
        place.known = place.known.max(end);
        if bytes > 0 {
            place.ahead.push_back((end, bytes));
            place.ahead_bytes += bytes;
        }
    }

    /// Forgets who has not been seen for a while.
    fn tidy(&mut self, now_us: u64) {
        if self.tidied_us + IDLE_US <= now_us {
            self.tidied_us = now_us;
            self.places.retain(|_, place| place.seen_us + IDLE_US > now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: QueueId = QueueId(1);
    const TOTAL: usize = 8 << 20;

    #[test]
    fn a_reader_in_order_is_read_ahead_of_by_more_and_more_up_to_its_share() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.moved(LOG, (0, 10), false, (TOTAL, 0)), None, "all of it was in memory");
        assert_eq!(ahead.moved(LOG, (0, 10), true, (TOTAL, 0)), Some((10, FIRST)));
        ahead.asked((LOG, 0), 30, FIRST);
        assert_eq!(ahead.moved(LOG, (0, 10), true, (TOTAL, 0)), None, "it looked again");
        // It is read ahead of as soon as half of what may be is not.
        assert_eq!(ahead.moved(LOG, (10, 20), false, (TOTAL, 0)), Some((30, FIRST)));
        ahead.asked((LOG, 10), 50, FIRST);
        assert_eq!(ahead.moved(LOG, (30, 40), false, (TOTAL, 0)), Some((50, 3 * FIRST)));
        ahead.asked((LOG, 30), 110, 3 * FIRST);
        assert_eq!(ahead.moved(LOG, (50, 60), false, (TOTAL, 0)), None);
        assert_eq!(ahead.moved(LOG, (110, 120), false, (TOTAL, 0)), Some((120, TOTAL)));
    }

    #[test]
    fn readers_share_what_may_be_read_ahead_and_those_that_leave_are_forgotten() {
        let mut ahead = Ahead::default();
        for log in 1..=4 {
            let found = ahead.moved(QueueId(log), (0, 0), true, (TOTAL, 0));
            assert_eq!(found, Some((0, FIRST.min(TOTAL / log as usize))));
        }
        assert_eq!(
            ahead.moved(LOG, (500, 500), true, (TOTAL, 0)),
            Some((500, TOTAL / 5)),
            "elsewhere: another"
        );
        assert_eq!(ahead.places.len(), 5);
        assert_eq!(ahead.moved(LOG, (500, 510), true, (TOTAL, IDLE_US)), Some((510, FIRST)));
        assert_eq!(ahead.places.len(), 1);
    }

    #[test]
    fn places_are_bounded() {
        let mut ahead = Ahead::default();
        for offset in 0..2 * PLACES as u64 {
            ahead.moved(LOG, (10 * offset, 10 * offset), true, (TOTAL, 0));
        }
        assert_eq!(ahead.places.len(), PLACES);
    }
}
