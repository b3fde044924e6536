//! Who holds what of one queue: the leader's own state, rebuilt from the replicated one by whoever leads next.
//!
//! In: consumers and their credit, effects of applied entries. Out: messages to hand over, the next handed-out
//! bound to propose, ranges to settle for consumers that settle by taking. Every unsettled message is either held
//! or ready; the ready ones are those behind the cursor, which this leader never handed out, and the returned ones
//! before it. Nothing at or above the committed handed-out bound is ever handed out.

use std::ops::ControlFlow::{self, Break, Continue};

use base::{Block, Bug, Pool, planted};
use model::{Index, Item, Items, Lane, Seq};

use crate::bits;
use crate::consumers::{Consumers, Ring};
use crate::queue_state::Run;
use crate::rows::{Fetched, Rows, Source, Walk, Wanted};
use crate::seq_set::SeqSet;
use crate::{ConsumerKey, ExclusiveUse, QueueState, Subscription};

/// How far the handed-out bound is raised ahead of the cursor, in messages.
const STRIDE: u64 = 8192;

/// Messages of one block for one consumer.
#[derive(Debug)]
pub struct Handed {
    /// Who takes them.
    pub key: ConsumerKey,
    /// On which lane.
    pub lane: Lane,
    /// Whether taking settles.
    pub settled: bool,
    /// Where the rows are.
    pub block: Block,
    /// The messages, in order.
    pub items: Items,
    /// Bytes of their rows.
    pub bytes: u64,
}

/// How a [`Delivery::fill`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Bytes of rows handed out.
    pub bytes: u64,
    /// Whether it stopped at the caller's bound, so that another call would go on at once.
    pub more: bool,
}

/// The answer of a [`Delivery::get`].
#[derive(Debug)]
pub enum Got {
    /// One message, and how many are ready behind it.
    One(Handed, u64),
    /// Nothing is ready.
    Empty,
    /// There is one, but its entry must be read first or the handed-out bound be raised.
    Later,
}

/// Why handing out stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Limit,
    NoCredit,
    Missing(Index),
}

/// One call of `fill`.
struct Turn<'a> {
    ring: Ring,
    left: u64,
    bytes: u64,
    out: &'a mut Vec<Handed>,
}

/// The delivery of one queue.
#[derive(Debug)]
pub struct Delivery {
    consumers: Consumers,
    /// Handed out and neither settled nor returned.
    held: SeqSet,
    /// Before the cursor and ready again.
    returned: SeqSet,
    /// Of the returned ones, those that were handed out and reached nobody.
    unseen: SeqSet,
    /// Every unsettled message before it is held or returned, none from it on is.
    cursor: u64,
    /// Below this, earlier leaders may have handed out anything.
    doubtful_below: u64,
    rows: Rows,
    walk: Walk,
    walk_returned: Walk,
    waiting: Option<Index>,
    wanted: Option<Seq>,
    /// The last fill left nothing that credit alone could hand out.
    dry: bool,
    to_settle: Vec<(Seq, Seq)>,
}

impl Delivery {
    /// Delivery that begins now: everything unsettled is ready. All entries that an earlier leader may have committed
    /// must have been applied to `state`.
    pub fn new(state: &QueueState, pool: &Pool) -> Delivery {
        Delivery {
            consumers: Consumers::default(),
            held: SeqSet::default(),
            returned: SeqSet::default(),
            unseen: SeqSet::default(),
            cursor: state.oldest().map_or(state.next, |oldest| oldest.0),
            doubtful_below: state.handed_out,
            rows: Rows::new(pool.clone()),
            walk: Walk::NOWHERE,
            walk_returned: Walk::NOWHERE,
            waiting: None,
            wanted: None,
            dry: false,
            to_settle: Vec::new(),
        }
    }

    /// Adds a consumer, unless it or another must be alone.
    pub fn subscribe(&mut self, subscription: Subscription) -> Result<(), ExclusiveUse> {
        self.consumers.add(subscription)
    }

    /// Removes a consumer; what it was handed stays held. False when it was not there.
    pub fn unsubscribe(&mut self, key: ConsumerKey) -> bool {
        self.consumers.remove(key)
    }

    /// Adds to a consumer's credit.
    pub fn grant(&mut self, key: ConsumerKey, messages: u32, bytes: i64) {
        self.consumers.grant(key, messages, bytes);
    }

    /// Whether the last `fill` handed out all there was: until something comes to the queue or back to it, more credit
    /// changes nothing.
    pub fn ran_dry(&self) -> bool {
        self.dry
    }

    /// The consumers and their lanes.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerKey, Lane)> {
        self.consumers.keys()
    }

    /// How many consumers there are.
    pub fn consumer_count(&self) -> usize {
        self.consumers.len()
    }

    /// Whether a consumer would take a message now: then appends are worth marking as handed out.
    pub fn has_credit(&self) -> bool {
        self.consumers.any_waits()
    }

    /// Messages handed out and unsettled.
    pub fn unacked(&self) -> u64 {
        self.held.len()
    }

    /// Messages unsettled and not handed out.
    pub fn ready(&self, state: &QueueState) -> u64 {
        state.live.saturating_sub(self.held.len())
    }

    /// The first message that is ready.
    pub fn oldest_ready(&self, state: &QueueState) -> Option<Seq> {
        let returned = self.first_returned(state).map(|(_, seq)| seq);
        returned.or_else(|| self.first_fresh(state).map(|(_, seq)| seq)).map(Seq)
    }

    /// Ranges that cover everything ready and nothing held; they may span settled messages.
    pub fn ready_ranges(&self, state: &QueueState) -> Vec<(Seq, Seq)> {
        let mut ranges = Vec::new();
        let Some(Seq(mut from)) = self.oldest_ready(state) else { return ranges };
        while let Some((first, last)) = self.held.next_range(from) {
            if first > from {
                ranges.push((Seq(from), Seq(first - 1)));
            }
            from = last + 1;
        }
        if from < state.next {
            ranges.push((Seq(from), Seq(state.next - 1)));
        }
        ranges
    }

    /// Takes note that a range is settled.
    pub fn on_settled(&mut self, first: Seq, last: Seq) {
        self.held.remove(first.0, last.0);
        if !self.returned.is_empty() {
            self.returned.remove(first.0, last.0);
        }
    }

    /// Makes whatever is held of a range ready again, in its old place. For returns that need not be counted the
    /// caller may do this at once and propose nothing; never both, or what somebody else holds by then comes back too.
    pub fn on_returned(&mut self, first: Seq, last: Seq) {
        self.dry = false;
        let mut from = first.0;
        while let Some((low, high)) = self.held.next_range(from).filter(|range| range.0 <= last.0) {
            let high = high.min(last.0);
            self.held.remove(low, high);
            self.returned.insert(low, high);
            from = high + 1;
        }
    }

    /// Makes a held message ready again that was handed out and reached nobody: it keeps its redelivered flag as
    /// it was.
    pub fn on_unseen(&mut self, seq: Seq, redelivered: bool) {
        self.dry = false;
        if self.held.next_range(seq.0).is_some_and(|(first, _)| first == seq.0) {
            self.held.remove(seq.0, seq.0);
            self.returned.insert(seq.0, seq.0);
            if !redelivered {
                self.unseen.insert(seq.0, seq.0);
            }
        }
    }

    /// Whether a returned message may have been seen, or one behind it: what comes out of order is never called a
    /// first delivery. Asked once, when it is handed out again.
    fn was_seen(&mut self, seq: u64) -> bool {
        if self.unseen.is_empty() {
            return true;
        }
        let unseen = self.unseen.next(seq) == Some(seq);
        self.unseen.remove(0, seq);
        let mut behind = seq + 1;
        while let Some((_, last)) = self.unseen.next_range(behind).filter(|range| range.0 == behind) {
            behind = last + 1;
        }
        !unseen || behind < self.cursor
    }

    /// Takes note that the queue is gone; returns whose consumers end with it.
    pub fn on_deleted(&mut self) -> Vec<(ConsumerKey, Lane)> {
        let revoked = self.consumers.keys().collect();
        self.consumers = Consumers::default();
        self.held.clear();
        self.returned.clear();
        self.unseen.clear();
        self.to_settle.clear();
        (self.waiting, self.wanted) = (None, None);
        revoked
    }

    /// The entry that must be read from disk before the queue can go on.
    pub fn waiting_for(&self) -> Option<Index> {
        self.waiting
    }

    /// The handed-out bound to be proposed, after a `fill` or `get` that came near the committed one. It stays until
    /// the next of them; the caller remembers what it has proposed already.
    pub fn wants_hand_out(&self) -> Option<Seq> {
        self.wanted
    }

    /// Takes the ranges that were handed to consumers that settle by taking, ascending: to be proposed as settled.
    pub fn take_settled(&mut self, out: &mut Vec<(Seq, Seq)>) {
        self.to_settle.sort_unstable();
        for (first, last) in self.to_settle.drain(..) {
            match out.last_mut() {
                Some(before) if before.1.0 + 1 >= first.0 && before.0 <= first => {
                    before.1 = before.1.max(last)
                }
                _ => out.push((first, last)),
            }
        }
    }

    /// Hands out what is ready to whoever has credit, up to about `limit_bytes`.
    pub fn fill(
        &mut self,
        state: &QueueState,
        limit_bytes: u64,
        source: &mut dyn FnMut(Wanted) -> Option<Fetched>,
        out: &mut Vec<Handed>,
    ) -> Filled {
        (self.waiting, self.wanted) = (None, None);
        let mut turn = Turn { ring: Ring::default(), left: limit_bytes, bytes: 0, out };
        let stop = self.hand_out(state, source, &mut turn);
        self.consumers.give_back(turn.ring);
        self.rows.unload();
        if let Break(Stop::Missing(index)) = stop {
            self.waiting = Some(index);
        }
        self.dry = stop.is_continue() && state.handed_out == state.next;
        if self.consumers.any_waits() {
            self.note_wanted(state);
        }
        Filled { bytes: turn.bytes, more: stop == Break(Stop::Limit) }
    }

    fn hand_out(&mut self, state: &QueueState, source: Source<'_>, turn: &mut Turn<'_>) -> ControlFlow<Stop> {
        if planted(Bug::RequeueToTail) {
            // The planted bug serves what came back only when nothing else is ready.
            self.hand_fresh(state, source, turn)?;
        }
        self.hand_returned(state, source, turn)?;
        self.hand_fresh(state, source, turn)
    }

    fn hand_returned(
        &mut self,
        state: &QueueState,
        source: Source<'_>,
        turn: &mut Turn<'_>,
    ) -> ControlFlow<Stop> {
        while let Some((run, seq)) = self.first_returned(state) {
            self.taker(turn)?;
            let found = self.rows.locate(&mut self.walk_returned, (state, &run), seq, source);
            let (at, len) = found_or_missing(found)?;
            self.returned.remove(0, seq);
            self.held.insert(seq, seq);
            let seen = self.was_seen(seq);
            self.give(turn, self.item(state, seq, at, seen), len);
        }
        Continue(())
    }

    /// The first returned message that is still there.
    fn first_returned(&self, state: &QueueState) -> Option<(Run, u64)> {
        let mut from = 0;
        while let Some(seq) = self.returned.next(from) {
            if let Some(run) = state.run_of(seq).filter(|run| state.is_live_in(run, seq)) {
                return Some((*run, seq));
            }
            from = seq + 1;
        }
        None
    }

    fn hand_fresh(
        &mut self,
        state: &QueueState,
        source: Source<'_>,
        turn: &mut Turn<'_>,
    ) -> ControlFlow<Stop> {
        let bound = self.bound(state);
        for run in state.runs_from(self.cursor) {
            let start = self.cursor.max(run.start());
            if start >= bound {
                break;
            }
            if start < run.end() {
                self.hand_run((state, run), start..run.end().min(bound), source, turn)?;
            }
        }
        Continue(())
    }

    fn bound(&self, state: &QueueState) -> u64 {
        if planted(Bug::DeliverAboveHandedOutBound) { state.next } else { state.handed_out }
    }

    /// Hands out the unsettled messages of `places`, which lie in one run.
    fn hand_run(
        &mut self,
        (state, run): (&QueueState, &Run),
        places: std::ops::Range<u64>,
        source: Source<'_>,
        turn: &mut Turn<'_>,
    ) -> ControlFlow<Stop> {
        let mut seq = places.start;
        let mut held_from = seq;
        let mut walk = self.walk;
        let mut flow = Continue(());
        while seq < places.end {
            if state.is_live_in(run, seq) {
                flow = self.taker(turn);
                if flow.is_break() {
                    break;
                }
                match found_or_missing(self.rows.locate(&mut walk, (state, run), seq, source)) {
                    Continue((at, len)) => {
                        self.give(turn, self.item(state, seq, at, seq < self.doubtful_below), len)
                    }
                    Break(stop) => {
                        flow = Break(stop);
                        break;
                    }
                }
            } else {
                self.hold(held_from, seq);
                held_from = seq + 1;
            }
            seq += 1;
        }
        self.hold(held_from, seq);
        (self.cursor, self.walk) = (seq, walk);
        flow
    }

    fn hold(&mut self, from: u64, end: u64) {
        if from < end {
            self.held.insert(from, end - 1);
        }
    }

    #[inline]
    fn item(&self, state: &QueueState, seq: u64, at: u32, redelivered: bool) -> Item {
        Item { seq: Seq(seq), at, count: state.failures(Seq(seq)), redelivered }
    }

    /// Makes sure that somebody's turn has come.
    #[inline]
    fn taker(&mut self, turn: &mut Turn<'_>) -> ControlFlow<Stop> {
        if turn.ring.is_empty() {
            match self.consumers.take_ring() {
                Some(ring) => turn.ring = ring,
                None => return Break(Stop::NoCredit),
            }
        }
        if turn.left == 0 { Break(Stop::Limit) } else { Continue(()) }
    }

    /// Gives a message to the consumer whose turn it is.
    #[inline]
    fn give(&mut self, turn: &mut Turn<'_>, item: Item, len: u32) {
        let slot = turn.ring.head().expect("a message is given only when a taker was found");
        let (block, stamp) = self.rows.block();
        let consumer = self.consumers.of_slot(slot);
        let Subscription { key, lane, settled, .. } = consumer.subscription;
        if consumer.open.0 != stamp {
            consumer.open = (stamp, turn.out.len());
            let items = Items::new();
            turn.out.push(Handed { key, lane, settled, block: block.clone(), items, bytes: 0 });
        }
        let handed = &mut turn.out[consumer.open.1];
        handed.items.push(item);
        handed.bytes += u64::from(len);
        turn.left = turn.left.saturating_sub(u64::from(len));
        turn.bytes += u64::from(len);
        if consumer.spend(len) {
            self.consumers.rotate(&mut turn.ring);
        } else {
            self.consumers.pop(&mut turn.ring);
        }
        if settled {
            self.settle_later(item.seq);
        }
    }

    #[inline]
    fn settle_later(&mut self, seq: Seq) {
        match self.to_settle.last_mut() {
            Some((_, last)) if last.0 + 1 == seq.0 => last.0 += 1,
            _ => self.to_settle.push((seq, seq)),
        }
    }

    fn note_wanted(&mut self, state: &QueueState) {
        if state.handed_out < state.next.min(self.cursor + STRIDE / 2) {
            self.wanted = Some(Seq(state.next.min(self.cursor + STRIDE)));
        }
    }

    /// The first unsettled message behind the cursor.
    fn first_fresh(&self, state: &QueueState) -> Option<(Run, u64)> {
        state.runs_from(self.cursor).find_map(|run| {
            let start = self.cursor.max(run.start());
            let live = match state.holes.get(&run.first) {
                Some(holes) => bits::next_clear(holes, (start - run.first) as usize)
                    .map_or(run.end(), |bit| run.first + bit as u64),
                None => start,
            };
            (live < run.end()).then_some((*run, live))
        })
    }

    /// Hands out exactly one message to a lane that asks without being a consumer; credit plays no part.
    pub fn get(
        &mut self,
        state: &QueueState,
        asker: (ConsumerKey, Lane),
        settled: bool,
        source: &mut dyn FnMut(Wanted) -> Option<Fetched>,
    ) -> Got {
        (self.waiting, self.wanted) = (None, None);
        let returned = self.first_returned(state);
        let Some((run, seq)) = returned.or_else(|| self.first_fresh(state)) else { return Got::Empty };
        if returned.is_none() && seq >= self.bound(state) {
            self.cursor = seq;
            self.note_wanted(state);
            return Got::Later;
        }
        let handed = self.get_one(state, &run, seq, returned.is_some(), source);
        self.rows.unload();
        match handed {
            Continue((item, block, len)) => {
                if settled {
                    self.settle_later(item.seq);
                }
                let items = Items::from_buf([item]);
                let (key, lane) = asker;
                let handed = Handed { key, lane, settled, block, items, bytes: u64::from(len) };
                Got::One(handed, self.ready(state))
            }
            Break(missing) => {
                self.waiting = Some(missing);
                Got::Later
            }
        }
    }

    fn get_one(
        &mut self,
        state: &QueueState,
        run: &Run,
        seq: u64,
        returned: bool,
        source: Source<'_>,
    ) -> ControlFlow<Index, (Item, Block, u32)> {
        let walk = if returned { &mut self.walk_returned } else { &mut self.walk };
        let (at, len) = match self.rows.locate(walk, (state, run), seq, source) {
            Ok(found) => found,
            Err(missing) => return Break(missing),
        };
        let block = self.rows.block().0.clone();
        if returned {
            self.returned.remove(0, seq);
        } else {
            self.cursor = seq + 1;
        }
        self.held.insert(seq, seq);
        let redelivered = if returned { self.was_seen(seq) } else { seq < self.doubtful_below };
        Continue((self.item(state, seq, at, redelivered), block, len))
    }
}

fn found_or_missing(found: Result<(u32, u32), Index>) -> ControlFlow<Stop, (u32, u32)> {
    match found {
        Ok(found) => Continue(found),
        Err(missing) => Break(Stop::Missing(missing)),
    }
}
