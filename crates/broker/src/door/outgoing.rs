//! The operations of this shard for one group, gathered into one entry per turn, and who waits for which.
//!
//! Every operation carries this shard's origin and the next number. Settlements are lazy: they ride on the next
//! entry, or leave alone after a short while. What a group cannot take yet stays here, in order, and publishes and
//! batches among it are refused after a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Now, Pool};
use model::batch::{Producer, Summary};
use model::{
    ConnId, EntryBuilder, GroupId, Lane, Limits, OpSequence, OperationKind, Origin, QueueId, Record,
    Replaced, Seq, ShardId,
};
use queue::ConsumerKey;

use super::parked::Parked;
use crate::log_parcel::{AppendAnswer, LogReply};
use crate::parcel::{Content, Post, Ticket, merged};

/// Who is told when an operation is applied.
#[derive(Debug)]
pub(crate) enum Waits {
    /// Publishes `first..=last` (0 without confirms) of a lane, of so many bytes; `spread` over several groups.
    Publish { conn: ConnId, lane: Lane, first: u64, last: u64, bytes: usize, spread: bool },
    /// One of the groups of a barrier.
    Barrier(Ticket),
    /// A batch appended to a log.
    Append(Box<Appending>),
    /// A host's reply that may leave once the operation is applied.
    Reply { to: ShardId, ticket: Ticket, reply: Box<LogReply> },
    /// Credit that may be spent once what was returned before it is back.
    Grant { queue: QueueId, key: ConsumerKey, messages: u32 },
}

/// A batch on its way to its log, and who is told of it.
#[derive(Debug)]
pub(crate) struct Appending {
    pub conn: ConnId,
    pub token: u64,
    pub bytes: usize,
    /// Whether anybody wants to know of success.
    pub answer: bool,
    pub log_append_ms: Option<i64>,
    pub log: QueueId,
    /// Whose number it has.
    pub producer: Option<Producer>,
    /// When it is refused if its group has not taken it.
    pub due_us: u64,
}

impl Appending {
    /// Whose numbers in which log it is one of.
    fn series(&self) -> Option<(QueueId, i64)> {
        self.producer.map(|producer| (self.log, producer.id))
    }
}

#[derive(Debug)]
struct Waiting {
    sequence: OpSequence,
    what: Waits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Settling {
    queue: QueueId,
    /// Settle, or return with or without a count.
    kind: u8,
    flags: u8,
    first: Seq,
    last: Seq,
}

/// What every act of a turn needs.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    pub pool: &'a Pool,
    pub limits: &'a Limits,
    pub now: Now,
}

/// One group's outgoing operations.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub group: GroupId,
    pub host: ShardId,
    origin: Origin,
    next: OpSequence,
    applied: OpSequence,
    builder: Option<EntryBuilder>,
    /// Whether the builder has publishes.
    publishing: bool,
    /// When the first of the builder's batches is refused if it cannot leave.
    appends_due_us: Option<u64>,
    parked: Parked,
    /// Sent and not applied: (last operation, bytes).
    sent: VecDeque<(OpSequence, usize)>,
    sent_bytes: usize,
    settling: Vec<Settling>,
    settling_since_us: Option<u64>,
    /// Whether something that was returned is among the settlements.
    settling_returns: bool,
    /// The newest operation that returns something.
    returning: OpSequence,
    urgent: bool,
    waiting: VecDeque<Waiting>,
    /// What became of appends to logs, until their operations count as applied.
    appended: VecDeque<(OpSequence, AppendAnswer)>,
    /// How many at the end of `waiting` belong to the open builder: only those may be merged with.
    waiting_open: usize,
    capacity: usize,
}

impl Outgoing {
    pub(crate) fn new(group: GroupId, host: ShardId, origin: Origin) -> Outgoing {
        Outgoing {
            group,
            host,
            origin,
            next: OpSequence(1),
            applied: OpSequence(0),
            builder: None,
            publishing: false,
            appends_due_us: None,
            parked: Parked::default(),
            sent: VecDeque::new(),
            sent_bytes: 0,
            settling: Vec::new(),
            settling_since_us: None,
            settling_returns: false,
            returning: OpSequence(0),
            urgent: false,
            waiting: VecDeque::new(),
            appended: VecDeque::new(),
            waiting_open: 0,
            capacity: 0,
        }
    }

    fn builder(&mut self, pool: &Pool) -> &mut EntryBuilder {
        let (origin, next, capacity) = (self.origin, self.next, self.capacity);
        self.builder.get_or_insert_with(|| EntryBuilder::new(pool, capacity, origin, next))
    }

    /// Adds a record for some of the group's queues; larger ones than an entry may be travel in parts.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        turn: Turn<'_>,
        queues: &[QueueId],
        hand_out: bool,
        record: &Record<'_>,
        waits: Waits,
    ) {
        let half = turn.limits.entry_bytes_max / 2;
        let in_parts = record.encoded_len() > half;
        if in_parts {
            self.publish_parts(turn, queues, hand_out, record);
        } else {
            self.builder(turn.pool).append(queues, hand_out, turn.now.wall_ms as i64, record);
        }
        (self.urgent, self.publishing) = (true, true);
        self.wait(waits);
        // The end of a row in parts stands alone: its entry stays if a part has been sent.
        if in_parts || self.builder.as_ref().is_some_and(|builder| builder.len() >= half) {
            self.seal_builder(turn.now, false);
        }
    }

    #[cold]
    fn publish_parts(&mut self, turn: Turn<'_>, queues: &[QueueId], hand_out: bool, record: &Record<'_>) {
        let mut row = Vec::with_capacity(record.encoded_len());
        record.encode(&mut row);
        for part in row.chunks(turn.limits.entry_bytes_max / 2) {
            self.builder(turn.pool).operation(OperationKind::Part, 0, queues[0], part);
            self.publishing = true;
            self.seal_builder(turn.now, true);
        }
        self.builder(turn.pool).append_parts(queues, hand_out);
    }

    /// Adds a batch for one log as it came.
    pub(crate) fn append_batch(
        &mut self,
        turn: Turn<'_>,
        summary: &Summary,
        body: &[u8],
        appending: Appending,
    ) {
        let half = turn.limits.entry_bytes_max / 2;
        if self.builder.as_ref().is_some_and(|builder| builder.len() + body.len() > 2 * half) {
            self.seal_builder(turn.now, false);
        }
        if self.builder.is_none() {
            self.capacity = self.capacity.max(body.len() + 512);
        }
        self.builder(turn.pool).append_batch(appending.log, summary, body);
        self.urgent = true;
        let due = self.appends_due_us.map_or(appending.due_us, |due| due.min(appending.due_us));
        self.appends_due_us = Some(due);
        self.wait(Waits::Append(Box::new(appending)));
        if self.builder.as_ref().is_some_and(|builder| builder.len() >= half) {
            self.seal_builder(turn.now, false);
        }
    }

    /// Adds a batch that stands in place of one that the log has.
    pub(crate) fn rewrite(
        &mut self,
        turn: Turn<'_>,
        log: QueueId,
        replaced: &Replaced,
        (summary, body): (&Summary, &[u8]),
    ) -> OpSequence {
        let half = turn.limits.entry_bytes_max / 2;
        if self.builder.as_ref().is_some_and(|builder| builder.len() + body.len() > 2 * half) {
            self.seal_builder(turn.now, false);
        }
        self.urgent = true;
        let sequence = self.builder(turn.pool).rewrite(log, replaced, summary, body);
        if self.builder.as_ref().is_some_and(|builder| builder.len() >= half) {
            self.seal_builder(turn.now, false);
        }
        sequence
    }

    /// Adds an operation with an opaque body and tells `waits` when it is applied.
    pub(crate) fn awaited(
        &mut self,
        turn: Turn<'_>,
        kind: OperationKind,
        object: QueueId,
        body: &[u8],
        waits: Waits,
    ) {
        self.operation(turn.pool, kind, object, body);
        self.wait(waits);
    }

    /// What became of an append, told before it counts as applied.
    pub(crate) fn appended(&mut self, sequence: OpSequence, answer: AppendAnswer) {
        self.appended.push_back((sequence, answer));
    }

    /// Takes what was told of the append of this number.
    fn take_appended(&mut self, sequence: OpSequence) -> Option<AppendAnswer> {
        while let Some((told, _)) = self.appended.front() {
            match told.cmp(&sequence) {
                Ordering::Less => drop(self.appended.pop_front()),
                Ordering::Equal => return self.appended.pop_front().map(|(_, answer)| answer),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// Adds an operation with an opaque body, to be sent this turn.
    pub(crate) fn operation(
        &mut self,
        pool: &Pool,
        kind: OperationKind,
        object: QueueId,
        body: &[u8],
    ) -> OpSequence {
        self.flagged(pool, kind, 0, object, body)
    }

    /// Likewise, with flags.
    pub(crate) fn flagged(
        &mut self,
        pool: &Pool,
        kind: OperationKind,
        flags: u8,
        object: QueueId,
        body: &[u8],
    ) -> OpSequence {
        self.urgent = true;
        self.builder(pool).operation(kind, flags, object, body)
    }

    /// Adds an operation over ranges, to be sent this turn.
    pub(crate) fn ranges(
        &mut self,
        pool: &Pool,
        kind: OperationKind,
        queue: QueueId,
        ranges: Vec<(Seq, Seq)>,
    ) -> OpSequence {
        self.urgent = true;
        self.builder(pool).ranges(kind, 0, queue, ranges)
    }

    /// Adds a settlement; it waits for company.
    #[inline]
    pub(crate) fn settle(
        &mut self,
        kind: OperationKind,
        flags: u8,
        queue: QueueId,
        (first, last): (Seq, Seq),
        now: Now,
    ) {
        if self.group.memory_shard().is_some() || kind == OperationKind::Return {
            self.urgent = true;
        }
        self.settling_since_us.get_or_insert(now.mono_us);
        self.settling_returns |= kind == OperationKind::Return;
        let kind = kind as u8;
        match self.settling.last_mut() {
            Some(s) if s.queue == queue && s.kind == kind && s.flags == flags && s.last.0 + 1 == first.0 => {
                s.last = last;
            }
            _ => self.settling.push(Settling { queue, kind, flags, first, last }),
        }
    }

    #[inline]
    fn wait(&mut self, what: Waits) {
        let sequence = self.last();
        if self.waiting_open > 0
            && let Some(newest) = self.waiting.back_mut()
            && merge(&mut newest.what, &what)
        {
            newest.sequence = sequence;
            return;
        }
        self.waiting.push_back(Waiting { sequence, what });
        self.waiting_open += 1;
    }

    /// The number of the newest operation.
    pub(crate) fn last(&self) -> OpSequence {
        let next = self.builder.as_ref().map_or(self.next, EntryBuilder::next_sequence);
        OpSequence(next.0 - 1)
    }

    /// Makes everything gathered so far leave this turn and returns the number to wait for; `None` when all of it
    /// is applied already.
    pub(crate) fn everything(&mut self, pool: &Pool) -> Option<OpSequence> {
        self.write_settlements(pool);
        self.urgent |= self.builder.is_some();
        (self.last() > self.applied).then(|| self.last())
    }

    /// Waits for everything gathered so far; false when all of it is applied already.
    pub(crate) fn barrier(&mut self, pool: &Pool, ticket: Ticket) -> bool {
        let waits = self.everything(pool).is_some();
        if waits {
            self.wait(Waits::Barrier(ticket));
        }
        waits
    }

    /// Whether returns have been gathered that are not applied yet.
    pub(crate) fn is_returning(&self) -> bool {
        self.settling_returns || self.returning > self.applied
    }

    /// Tells `waits` when the returns gathered so far are applied.
    pub(crate) fn wait_behind_returns(&mut self, pool: &Pool, waits: Waits) {
        self.everything(pool);
        self.wait(waits);
    }

    fn write_settlements(&mut self, pool: &Pool) {
        if self.settling.is_empty() {
            return;
        }
        let mut settling = std::mem::take(&mut self.settling);
        (self.settling_since_us, self.settling_returns) = (None, false);
        settling.sort_unstable();
        for same in settling.chunk_by(|a, b| (a.queue, a.kind, a.flags) == (b.queue, b.kind, b.flags)) {
            let ranges = merged(same.iter().map(|s| (s.first, s.last)));
            let kind = if same[0].kind == OperationKind::Settle as u8 {
                OperationKind::Settle
            } else {
                OperationKind::Return
            };
            let sequence = self.builder(pool).ranges(kind, same[0].flags, same[0].queue, ranges);
            if kind == OperationKind::Return {
                self.returning = sequence;
            }
        }
        settling.clear();
        self.settling = settling;
    }

    fn seal_builder(&mut self, now: Now, goes_on: bool) {
        let Some(builder) = self.builder.take() else { return };
        self.next = builder.next_sequence();
        self.waiting_open = 0;
        // A turn's last entry is often a short one, and the next turn's first is not: growing would copy it.
        self.capacity = (builder.len() + builder.len() / 8).max(self.capacity - self.capacity / 8);
        let block = builder.seal(now.wall_ms, 0);
        let since = std::mem::take(&mut self.publishing).then_some(now.mono_us);
        let appends_due = self.appends_due_us.take();
        self.parked.push(OpSequence(self.next.0 - 1), block, (since, appends_due), goes_on);
    }

    /// Seals what is due and sends what the group's bound allows.
    pub(crate) fn leave(&mut self, turn: Turn<'_>, post: &mut Post) {
        let due = self.settle_deadline_us(turn.limits).is_some_and(|due| due <= turn.now.mono_us);
        if self.urgent || due {
            self.write_settlements(turn.pool);
            self.seal_builder(turn.now, false);
            self.urgent = false;
        }
        while self.sent_bytes < turn.limits.uncommitted_bytes_max
            && let Some((last, block)) = self.parked.pop()
        {
            self.sent_bytes += block.len();
            self.sent.push_back((last, block.len()));
            post.send(self.host, Content::Propose { group: self.group, block });
        }
    }

    /// Gives up on publishes that the group's bound has held back for too long: they are never sent. Hands over who
    /// waited for them.
    pub(crate) fn refuse_overdue(&mut self, turn: Turn<'_>, mut tell: impl FnMut(Waits)) {
        while let Some((first, last)) = self.parked.refuse_overdue(turn) {
            let mut kept = VecDeque::with_capacity(self.waiting.len());
            for waiting in self.waiting.drain(..) {
                let is_in_it = (first..=last).contains(&waiting.sequence);
                match waiting.what {
                    publish @ Waits::Publish { .. } if is_in_it => tell(publish),
                    what => kept.push_back(Waiting { what, ..waiting }),
                }
            }
            self.waiting = kept;
        }
        if self.parked.appends_due_us().is_some_and(|due| due <= turn.now.mono_us) {
            self.refuse_overdue_appends(turn, tell);
        }
    }

    /// Likewise with batches that are overdue; with one go those of its producer behind it, which are not to get there
    /// before it comes again.
    #[cold]
    fn refuse_overdue_appends(&mut self, turn: Turn<'_>, mut tell: impl FnMut(Waits)) {
        let (mut gone, mut left, mut broken) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let parked = self.waiting.iter().filter(|waiting| waiting.sequence > self.parked.sent());
        for waiting in parked {
            let Waits::Append(appending) = &waiting.what else { continue };
            let series = appending.series();
            if appending.due_us <= turn.now.mono_us || series.is_some_and(|series| broken.contains(&series)) {
                broken.extend(series);
                gone.insert(waiting.sequence);
            } else {
                left.insert(waiting.sequence, appending.due_us);
            }
        }
        self.parked.take_appends(turn.pool, &gone, &left);
        for waiting in std::mem::take(&mut self.waiting) {
            match gone.contains(&waiting.sequence) && matches!(waiting.what, Waits::Append(_)) {
                true => tell(waiting.what),
                false => self.waiting.push_back(waiting),
            }
        }
    }

    /// When something must happen here even if nothing else does.
    pub(crate) fn deadline_us(&self, limits: &Limits) -> Option<u64> {
        let ends = [self.settle_deadline_us(limits), self.parked.deadline_us(limits)];
        ends.into_iter().flatten().min()
    }

    /// When gathered settlements must leave even if nothing else does.
    fn settle_deadline_us(&self, limits: &Limits) -> Option<u64> {
        self.settling_since_us.map(|since| since + limits.settle_delay_ms * 1000)
    }

    /// Whether something was gathered that leaves with the next turn: one follows at once, if nothing else calls for it.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether entries are held back by the group's bound.
    pub(crate) fn is_held_back(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Whether everything gathered has left and is applied.
    pub(crate) fn is_quiet(&self) -> bool {
        self.builder.is_none() && self.settling.is_empty() && self.parked.is_empty() && self.sent.is_empty()
    }

    /// Everything up to `sequence` is applied: hands over who waited for it.
    pub(crate) fn applied(
        &mut self,
        sequence: OpSequence,
        mut tell: impl FnMut(Waits, Option<AppendAnswer>),
    ) {
        self.applied = self.applied.max(sequence);
        while let Some((_, bytes)) = self.sent.front().filter(|(last, _)| *last <= sequence) {
            self.sent_bytes -= bytes;
            self.sent.pop_front();
        }
        while self.waiting.front().is_some_and(|waiting| waiting.sequence <= sequence) {
            let Some(Waiting { sequence, what }) = self.waiting.pop_front() else { break };
            let appended = if matches!(what, Waits::Append(_)) { self.take_appended(sequence) } else { None };
            tell(what, appended);
        }
        self.waiting_open = self.waiting_open.min(self.waiting.len());
    }
}

/// Adds `next` to `newest` where both are publishes of one lane that follow each other.
#[inline]
fn merge(newest: &mut Waits, next: &Waits) -> bool {
    let Waits::Publish { conn, lane, last, bytes, spread, .. } = newest else { return false };
    let Waits::Publish {
        conn: conn2,
        lane: lane2,
        first: first2,
        last: last2,
        bytes: bytes2,
        spread: spread2,
    } = next
    else {
        return false;
    };
    let follows = (*last == 0 && *first2 == 0) || (*last != 0 && *last + 1 == *first2);
    if conn != conn2 || lane != lane2 || spread != spread2 || !follows {
        return false;
    }
    *last = *last2;
    *bytes += bytes2;
    true
}
