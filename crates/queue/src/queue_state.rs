//! The replicated state of one queue: where its unsettled messages are, and what is known of their delivery.
//!
//! Messages are never listed one by one. A *run* is what one append added; it names the entry and the place of the
//! batch's first row in it. A run loses messages at its front by raising `head`, elsewhere by bits in `holes`, and
//! is gone with its last message: a place is unsettled exactly when a run has it and neither of these excludes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Bug, planted};
use model::{Index, Seq};

use crate::bits;
use crate::chunks::{Chunks, Keyed};
use crate::liveness::Ledger;
use crate::origins::Piece;

/// In place of a run's `at`: its one row came in parts.
pub(crate) const IN_PARTS: u32 = u32::MAX;

/// What one append added to a queue, as far as it is unsettled. 32 bytes: this is what a waiting message costs
/// where each came alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The place of its first message.
    pub(crate) first: u64,
    /// The entry its rows are in.
    pub(crate) index: u64,
    /// Where the first row begins in the entry, or [`IN_PARTS`].
    pub(crate) at: u32,
    /// Messages that were added.
    pub(crate) count: u32,
    /// Messages settled at its front without a break.
    pub(crate) head: u32,
    /// Messages unsettled.
    pub(crate) live: u32,
}

impl Keyed for Run {
    fn key(&self) -> u64 {
        self.first
    }
}

impl Run {
    /// The place behind its last message.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// The place of its first unsettled message.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.first + u64::from(self.head)
    }

    /// Whether messages behind `head` are settled: then the queue has bits for it.
    #[inline]
    pub(crate) fn has_holes(&self) -> bool {
        self.live < self.count - self.head
    }
}

/// Failed deliveries of one message, where there were any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) seq: u64,
    pub(crate) count: u32,
}

impl Keyed for Failures {
    fn key(&self) -> u64 {
        self.seq
    }
}

/// How many messages a queue has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Ever enqueued.
    pub enqueued: u64,
    /// Settled, dropped ones included.
    pub settled: u64,
    /// Unsettled.
    pub live: u64,
}

/// One queue.
#[derive(Clone, Debug)]
pub struct QueueState {
    pub(crate) config: Arc<[u8]>,
    pub(crate) next: u64,
    pub(crate) handed_out: u64,
    pub(crate) live: u64,
    pub(crate) settled: u64,
    pub(crate) runs: Chunks<Run>,
    pub(crate) holes: BTreeMap<u64, Arc<Vec<u64>>>,
    pub(crate) pieces: BTreeMap<u64, Arc<[Piece]>>,
    pub(crate) failures: Chunks<Failures>,
}

impl QueueState {
    pub(crate) fn new(config: &[u8]) -> QueueState {
        QueueState {
            config: config.into(),
            next: 0,
            handed_out: 0,
            live: 0,
            settled: 0,
            runs: Chunks::default(),
            holes: BTreeMap::new(),
            pieces: BTreeMap::new(),
            failures: Chunks::default(),
        }
    }

    /// The configuration as it came.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The place the next message will get.
    pub fn next(&self) -> Seq {
        Seq(self.next)
    }

    /// Messages below this place may be, and may have been, delivered.
    pub fn handed_out(&self) -> Seq {
        Seq(self.handed_out)
    }

    /// How many messages there were and are.
    pub fn counters(&self) -> Counters {
        Counters { enqueued: self.next, settled: self.settled, live: self.live }
    }

    /// The place of the oldest unsettled message.
    pub fn oldest(&self) -> Option<Seq> {
        self.runs.first().map(|run| Seq(run.start()))
    }

    /// Whether the message is there and unsettled.
    pub fn is_live(&self, seq: Seq) -> bool {
        self.run_of(seq.0).is_some_and(|run| self.is_live_in(run, seq.0))
    }

    /// Failed deliveries of a message.
    #[inline]
    pub fn failures(&self, seq: Seq) -> u32 {
        if self.failures.is_empty() { 0 } else { self.failures.find(seq.0).map_or(0, |found| found.count) }
    }

    /// The run that has this place, settled or not.
    pub(crate) fn run_of(&self, seq: u64) -> Option<&Run> {
        self.runs.floor(seq).filter(|run| seq < run.end())
    }

    /// The runs that have this place or lie behind it.
    pub(crate) fn runs_from(&self, seq: u64) -> impl Iterator<Item = &Run> {
        self.runs.from(self.run_of(seq).map_or(seq, |run| run.first))
    }

    /// The first run with a place in `from..=last`.
    fn run_within(&self, from: u64, last: u64) -> Option<Run> {
        if from > last {
            return None;
        }
        let next = self.run_of(from).or_else(|| self.runs.from(from).next());
        next.copied().filter(|run| run.first <= last)
    }

    /// Whether a place within the run is unsettled.
    #[inline]
    pub(crate) fn is_live_in(&self, run: &Run, seq: u64) -> bool {
        seq >= run.start() && (!run.has_holes() || !self.is_hole(run, seq))
    }

    fn is_hole(&self, run: &Run, seq: u64) -> bool {
        self.holes.get(&run.first).is_some_and(|holes| bits::is_set(holes, (seq - run.first) as usize))
    }

    /// Adds messages and returns the place of the first.
    pub(crate) fn enqueue(&mut self, index: Index, at: u32, count: u32) -> Seq {
        let first = self.next;
        if count > 0 {
            self.runs.insert(Run { first, index: index.0, at, count, head: 0, live: count });
        }
        self.next += u64::from(count);
        self.live += u64::from(count);
        self.assert_conservation();
        Seq(first)
    }

    /// Adds one message that came in parts.
    pub(crate) fn enqueue_parts(&mut self, index: Index, pieces: &Arc<[Piece]>) -> Seq {
        let first = self.enqueue(index, IN_PARTS, 1);
        self.pieces.insert(first.0, pieces.clone());
        first
    }

    /// Raises the handed-out bound to `bound`, but not above the end; true when it rose.
    pub(crate) fn hand_out(&mut self, bound: u64) -> bool {
        let before = self.handed_out;
        self.handed_out = before.max(bound.min(self.next));
        self.handed_out > before
    }

    /// Settles what is unsettled in `first..=last` and returns how many that were.
    pub(crate) fn settle(&mut self, first: u64, last: u64, ledger: &mut Ledger<'_>) -> u64 {
        let mut total = 0;
        let mut from = first;
        while let Some(run) = self.run_within(from, last) {
            total += self.settle_in(run, from, last, ledger);
            from = run.end();
        }
        if !self.failures.is_empty() {
            self.failures.remove_between(first, last);
        }
        self.live -= total;
        self.settled += total;
        self.assert_conservation();
        total
    }

    fn settle_in(&mut self, run: Run, first: u64, last: u64, ledger: &mut Ledger<'_>) -> u64 {
        let mut changed = run;
        let from = first.max(run.first) - run.first;
        let to = (last - run.first).min(u64::from(run.count) - 1);
        self.settle_part(&mut changed, from as u32, to as u32);
        let settled = u64::from(run.live - changed.live);
        if settled == 0 {
            return 0;
        }
        if changed.live == 0 {
            self.runs.remove(run.first);
        } else {
            self.runs.update(run.first, |stored| *stored = changed);
        }
        self.release(&run, settled, ledger);
        settled
    }

    /// Settles messages `from..=to` of a run, counted from its first: at the front by `head` alone, else by bits.
    fn settle_part(&mut self, run: &mut Run, from: u32, to: u32) {
        let from = from.max(run.head);
        if from > to {
            return;
        }
        if !run.has_holes() && from == run.head {
            run.head = to + 1;
            run.live = run.count - run.head;
            return;
        }
        let words = (run.count as usize).div_ceil(64);
        let holes = self.holes.entry(run.first).or_insert_with(|| Arc::new(vec![0; words]));
        let holes = Arc::make_mut(holes);
        run.live -= bits::set(holes, from as usize, to as usize) as u32;
        if from == run.head {
            let end = bits::next_clear(holes, from as usize).unwrap_or(usize::MAX);
            run.head = run.count.min(u32::try_from(end).unwrap_or(u32::MAX));
        }
        if !run.has_holes() {
            self.holes.remove(&run.first);
        }
    }

    fn release(&mut self, run: &Run, settled: u64, ledger: &mut Ledger<'_>) {
        if run.at != IN_PARTS {
            return ledger.release(run.index, settled);
        }
        let pieces = self.pieces.remove(&run.first);
        for piece in pieces.iter().flat_map(|pieces| pieces.iter()) {
            ledger.release(piece.index, 1);
        }
    }

    /// One more failed delivery for whatever is unsettled in `first..=last`.
    pub(crate) fn count_failures(&mut self, first: u64, last: u64) {
        let mut from = first;
        while let Some(run) = self.run_within(from, last) {
            for seq in from.max(run.start())..=last.min(run.end() - 1) {
                if !self.is_live_in(&run, seq) {
                    continue;
                }
                let counted = self.failures.update(seq, |item| item.count = item.count.saturating_add(1));
                if counted.is_none() {
                    self.failures.insert(Failures { seq, count: 1 });
                }
            }
            from = run.end();
        }
    }

    /// Releases every entry the queue still needs and returns how many messages that were.
    pub(crate) fn release_all(mut self, ledger: &mut Ledger<'_>) -> u64 {
        let runs = std::mem::take(&mut self.runs);
        for run in runs.iter() {
            self.release(run, u64::from(run.live), ledger);
        }
        self.live
    }

    /// Every message is in exactly one state; checked whenever one changes.
    fn assert_conservation(&self) {
        assert!(self.next == self.live + self.settled, "enqueued messages are either live or settled");
    }
}

/// The range an operation settles: itself.
pub(crate) fn settled_range(first: Seq, last: Seq) -> (u64, u64) {
    if planted(Bug::SettleNeighbour) {
        // The planted bug is off by one, as an end taken for a last place would be.
        return (first.0 + 1, last.0 + 1);
    }
    (first.0, last.0)
}
