//! Sealed entries that a group's bound holds back, in order, and the end of patience with the publishes in them.
//!
//! In: sealed entries. Out: entries to be sent. A publish or batch that has waited too long leaves its entry: an
//! operation that does nothing takes its number, so that everything else keeps number and place. A row in parts is
//! one publish: once a part of it has been sent, the rest follows however late. Never: tells anybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Block, Pool};
use model::{Entry, EntryBuilder, Limits, OpSequence, Operation, OperationKind};

use super::outgoing::Turn;

#[derive(Debug)]
struct Sealed {
    /// Its last operation.
    last: OpSequence,
    block: Block,
    /// Since when publishes in it wait; `None`: there is none that may be refused.
    since_us: Option<u64>,
    /// When the first of its batches is overdue; `None`: there is none.
    appends_due_us: Option<u64>,
    /// The row its last operation is a part of goes on in the next entry.
    goes_on: bool,
}

/// What waits for room in the group.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    entries: VecDeque<Sealed>,
    /// The entry sent last ended within a row.
    within_row: bool,
    /// The last operation of the entry sent last.
    sent: OpSequence,
}

impl Parked {
    /// Adds an entry: since when its publishes wait and when its first batch is overdue, where it has such.
    pub(crate) fn push(
        &mut self,
        last: OpSequence,
        block: Block,
        (since_us, appends_due_us): (Option<u64>, Option<u64>),
        goes_on: bool,
    ) {
        self.entries.push_back(Sealed { last, block, since_us, appends_due_us, goes_on });
    }

    /// The next entry to be sent, with the number of its last operation.
    pub(crate) fn pop(&mut self) -> Option<(OpSequence, Block)> {
        let Sealed { last, block, goes_on, .. } = self.entries.pop_front()?;
        (self.within_row, self.sent) = (goes_on, last);
        Some((last, block))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last operation that has been sent.
    pub(crate) fn sent(&self) -> OpSequence {
        self.sent
    }

    /// When the first publish or batch will have waited long enough to be refused.
    pub(crate) fn deadline_us(&self, limits: &Limits) -> Option<u64> {
        let ends = [self.publishes_due_us(limits), self.appends_due_us()];
        ends.into_iter().flatten().min()
    }

    /// When the first batch is overdue.
    pub(crate) fn appends_due_us(&self) -> Option<u64> {
        self.entries.iter().filter_map(|entry| entry.appends_due_us).min()
    }

    fn publishes_due_us(&self, limits: &Limits) -> Option<u64> {
        let since = self.entries.iter().find_map(|entry| entry.since_us)?;
        Some(since.saturating_add(limits.park_ms_max.saturating_mul(1000)))
    }

    /// Takes the publishes out of the oldest entry in which they are overdue and returns the numbers of its first and
    /// last operation.
    pub(crate) fn refuse_overdue(&mut self, turn: Turn<'_>) -> Option<(OpSequence, OpSequence)> {
        if self.publishes_due_us(turn.limits)? > turn.now.mono_us {
            return None;
        }
        self.keep_begun_row();
        let overdue = self.publishes_due_us(turn.limits)? <= turn.now.mono_us;
        let entry = self.entries.iter_mut().find(|entry| entry.since_us.is_some()).filter(|_| overdue)?;
        entry.since_us = None;
        // The row it may have begun has gone with it; what follows of that is overdue as well.
        entry.goes_on = false;
        let (first, block) = without(&entry.block, turn.pool, is_publish);
        entry.block = block;
        Some((first, entry.last))
    }

    /// Takes batches out of their entries; `left` says when each of the others is overdue.
    pub(crate) fn take_appends(
        &mut self,
        pool: &Pool,
        gone: &BTreeSet<OpSequence>,
        left: &BTreeMap<OpSequence, u64>,
    ) {
        let mut first = OpSequence(self.sent.0 + 1);
        for entry in &mut self.entries {
            let range = first..=entry.last;
            if gone.range(range.clone()).next().is_some() {
                (_, entry.block) =
                    without(&entry.block, pool, |operation| gone.contains(&operation.sequence));
            }
            entry.appends_due_us = left.range(range).map(|(_, due)| *due).min();
            first = OpSequence(entry.last.0 + 1);
        }
    }

    /// The rest of a row of which parts have been sent is not refused.
    fn keep_begun_row(&mut self) {
        let mut begun = self.within_row;
        for entry in &mut self.entries {
            if !begun {
                return;
            }
            entry.since_us = None;
            begun = entry.goes_on;
        }
    }
}

fn is_publish(operation: &Operation<'_>) -> bool {
    match operation.kind {
        OperationKind::Append => !operation.is_native_append(),
        kind => kind == OperationKind::Part,
    }
}

/// The entry with some operations replaced by empty settlements, and the number of its first operation.
fn without(block: &Block, pool: &Pool, is_gone: impl Fn(&Operation<'_>) -> bool) -> (OpSequence, Block) {
    const SOUND: &str = "an entry sealed here is sound";
    let entry = Entry::decode(block.as_slice()).expect(SOUND);
    let mut operations = entry.operations().map(|operation| operation.expect(SOUND)).peekable();
    let (origin, first) = operations
        .peek()
        .map(|first| (first.origin, first.sequence))
        .expect("an entry is sealed for something");
    let mut builder = EntryBuilder::new(pool, 0, origin, first);
    for operation in operations {
        let Operation { kind, flags, object, body, sequence, .. } = operation;
        let given = match is_gone(&operation) {
            true => builder.operation(OperationKind::Settle, 0, object, &[]),
            false => builder.operation(kind, flags, object, body),
        };
        assert!(given == sequence, "numbers stay");
    }
    (first, builder.seal(entry.time_ms, entry.epoch))
}
