//! Which numbered batches of a connection were refused before their log saw them, so that none that follows such a
//! one gets there first: the log may not know the producer, and would take any number for its beginning.
//!
//! In: batches refused here, batches that come. Out: whether one must wait for an earlier one. Never: outlives the
//! connection, whose client sends again what was refused, in order.

use std::collections::BTreeMap;

use model::QueueId;
use model::batch::Producer;

/// Producers of one connection of which something is remembered; beyond it, one is forgotten.
const PRODUCERS_MAX: usize = 1024;

/// The first refused batch of each log and producer: its epoch and first number.
#[derive(Debug, Default)]
pub(crate) struct RefusedBatches {
    first: BTreeMap<(QueueId, i64), (i16, i32)>,
}

impl RefusedBatches {
    /// A batch was refused.
    pub(crate) fn note(&mut self, log: QueueId, batch: &Producer) {
        let (epoch, first) = (batch.epoch, batch.base_sequence);
        let known = self.first.entry((log, batch.id)).or_insert((epoch, first));
        if known.0 != epoch || !comes_behind(first, known.1) {
            *known = (epoch, first);
        }
        if self.first.len() > PRODUCERS_MAX {
            self.first.pop_first();
        }
    }

    /// Whether a batch comes behind one that was refused and not sent again since.
    pub(crate) fn holds_back(&mut self, log: QueueId, batch: &Producer) -> bool {
        if self.first.is_empty() {
            return false;
        }
        let Some((epoch, first)) = self.first.get(&(log, batch.id)).copied() else { return false };
        if epoch == batch.epoch && comes_behind(batch.base_sequence, first) {
            return true;
        }
        self.first.remove(&(log, batch.id));
        false
    }
}

/// Whether one number lies behind another; they wrap to 0, and nothing is half of them ahead.
fn comes_behind(sequence: i32, other: i32) -> bool {
    let ahead = (sequence as u32).wrapping_sub(other as u32) & i32::MAX as u32;
    (1..1 << 30).contains(&ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: QueueId = QueueId(1);

    fn batch(epoch: i16, base_sequence: i32) -> Producer {
        Producer { id: 9, epoch, base_sequence }
    }

    #[test]
    fn what_follows_a_refused_batch_waits_until_that_one_comes_again() {
        let mut refused = RefusedBatches::default();
        assert!(!refused.holds_back(LOG, &batch(0, 0)));
        refused.note(LOG, &batch(0, 5));
        refused.note(LOG, &batch(0, 8));
        assert!(refused.holds_back(LOG, &batch(0, 8)) && refused.holds_back(LOG, &batch(0, 11)));
        assert!(!refused.holds_back(QueueId(2), &batch(0, 8)), "another log");
        assert!(!refused.holds_back(LOG, &batch(0, 5)), "it comes again");
        assert!(!refused.holds_back(LOG, &batch(0, 8)));
    }

    #[test]
    fn an_earlier_refusal_and_another_epoch_supersede() {
        let mut refused = RefusedBatches::default();
        refused.note(LOG, &batch(0, 5));
        refused.note(LOG, &batch(0, 2));
        assert!(refused.holds_back(LOG, &batch(0, 5)));
        assert!(!refused.holds_back(LOG, &batch(1, 9)), "it began anew");
        refused.note(LOG, &batch(0, i32::MAX - 1));
        assert!(refused.holds_back(LOG, &batch(0, 1)), "across the wrap");
    }

    #[test]
    fn a_connection_remembers_a_bounded_number() {
        let mut refused = RefusedBatches::default();
        for id in 0..2 * PRODUCERS_MAX as i64 {
            refused.note(LOG, &Producer { id, epoch: 0, base_sequence: 0 });
        }
        assert_eq!(refused.first.len(), PRODUCERS_MAX);
    }
}
