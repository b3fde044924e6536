//! What operations on logs and on committed offsets do to a group.

use std::sync::Arc;

use base::{Bug, planted};
use model::batch::{Encoding, HEADER};
use model::commit::{Commit, Forget};
use model::rewrite::REWRITE_HEADER;
use model::{Batch, Index, Operation, OperationKind, QueueId, Replaced};

use crate::effect::{recalled, remembered};
use crate::liveness::Ledger;
use crate::origins::Piece;
use crate::{AppendOutcome, AppendRefusal, Effect, GroupMachine, GroupOffsets, Halt, LogState};

/// The answer of a trim of a log that is not there.
const NO_LOG: u64 = u64::MAX;

impl GroupMachine {
    /// The state of a log.
    pub fn log(&self, id: QueueId) -> Option<&LogState> {
        self.logs.find(id)
    }

    /// All logs, in an order that is the same everywhere.
    pub fn logs(&self) -> impl Iterator<Item = (QueueId, &LogState)> {
        self.logs.iter()
    }

    /// The committed offsets of a coordinator.
    pub fn coordinator(&self, id: QueueId) -> Option<&GroupOffsets> {
        self.coordinators.find(id)
    }

    /// All coordinators, in an order that is the same everywhere.
    pub fn coordinators(&self) -> impl Iterator<Item = (QueueId, &GroupOffsets)> {
        self.coordinators.iter()
    }

    /// Appends one batch as it came, and remembers the answer.
    pub(crate) fn append_native(
        &mut self,
        index: Index,
        operation: &Operation<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let (at, batch) = native(operation);
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        let bytes = (HEADER + batch.body.len()) as u32;
        let answer = match self.logs.find_mut(operation.object) {
            Some(log) => log.append_native((index, at), &batch.summary, bytes, self.time_ms, &mut ledger),
            None => Err(AppendRefusal::NoLog),
        };
        self.origins.remember(operation.origin, operation.sequence, remembered(answer));
        if matches!(answer, Ok(AppendOutcome { repeat: false, .. })) {
            effects.push(Effect::Grown { log: operation.object });
        }
        effects.push(appended(operation, answer));
    }

    pub(crate) fn trim(&mut self, index: Index, operation: &Operation<'_>, effects: &mut Vec<Effect>) -> u64 {
        let id = operation.object;
        let bound = operation.body.first_chunk().map_or(0, |bound| u64::from_le_bytes(*bound));
        let Some(log) = self.logs.find_mut(id) else { return NO_LOG };
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        if log.trim(bound, &mut ledger) {
            effects.push(Effect::Trimmed { log: id });
        }
        log.start
    }

    /// Removes offsets of a log; `None` where there is no such log.
    pub(crate) fn remove_offsets(
        &mut self,
        index: Index,
        operation: &Operation<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let log = self.logs.find_mut(operation.object)?;
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        let mut removed = 0;
        for range in operation.ranges() {
            let (first, last) = range.expect("checked before anything changed");
            removed += log.remove(first, last, &mut ledger);
        }
        if removed > 0 {
            effects.push(Effect::Trimmed { log: operation.object });
        }
        Some(removed)
    }

    /// Puts a batch in place of one that a log has; a rewrite of what is not there any more does nothing.
    pub(crate) fn rewrite(&mut self, index: Index, operation: &Operation<'_>, effects: &mut Vec<Effect>) {
        let (replaced, batch) = Replaced::decode(operation.body).expect("checked before anything changed");
        let Some(log) = self.logs.find_mut(operation.object) else { return };
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        let before = log.chunk(replaced.first).map_or(0, |chunk| chunk.bytes);
        let at = (operation.at + REWRITE_HEADER) as u32;
        if log.rewrite(&replaced, (&batch, at), &mut ledger) {
            let after = (HEADER + batch.body.len()) as u32;
            effects.push(Effect::Rewritten { log: operation.object, before, after });
        }
    }

    pub(crate) fn commit(&mut self, operation: &Operation<'_>) {
        let commit = Commit::decode(operation.body).expect("checked before anything changed");
        if let Some(coordinator) = self.coordinators.find_mut(operation.object) {
            coordinator.commit(&commit, self.time_ms);
        }
    }

    pub(crate) fn forget(&mut self, operation: &Operation<'_>) {
        let forget = Forget::decode(operation.body).expect("checked before anything changed");
        if let Some(coordinator) = self.coordinators.find_mut(operation.object) {
            coordinator.forget(&forget);
        }
    }

    /// Deletes what is no queue: a log, or a coordinator with all its groups.
    pub(crate) fn delete_other(&mut self, index: Index, id: QueueId, effects: &mut Vec<Effect>) -> u64 {
        let mut messages = 0;
        if let Some(log) = self.logs.remove(id) {
            let mut ledger = Ledger { live: &mut self.live, effects, current: index };
            messages = log.release_all(&mut ledger);
        } else if self.coordinators.remove(id).is_none() {
            return 0;
        }
        effects.push(Effect::Deleted { queue: id, messages });
        messages
    }

    /// What is told again of an operation that was applied before.
    pub(crate) fn tell_again(
        &mut self,
        operation: &Operation<'_>,
        answer: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let (origin, sequence) = (operation.origin, operation.sequence);
        if operation.is_native_append() {
            let (_, batch) = native(operation);
            return effects.push(appended(operation, recalled(answer, batch.summary.span)));
        }
        if operation.kind == OperationKind::Commit && planted(Bug::CommitGoesBack) {
            // The planted bug commits again what was committed long ago.
            self.commit(operation);
        }
        effects.extend(answer.map(|value| Effect::Answered { origin, sequence, value }));
    }
}

/// Adds rows, or the row of these parts, to a log that may not be there; true when it is.
pub(crate) fn append_to_log(
    log: Option<&mut LogState>,
    id: QueueId,
    batch: Option<(usize, Batch<'_>)>,
    parts: Option<&Arc<[Piece]>>,
    stamped_ms: u64,
    ledger: &mut Ledger<'_>,
) -> bool {
    let Some(log) = log else { return false };
    let index = ledger.current;
    match (batch, parts) {
        (Some((at, batch)), _) => {
            let bytes = (HEADER + batch.body.len()) as u32;
            log.append((index, at as u32), &batch.summary, bytes, ledger);
        }
        (None, Some(parts)) => {
            log.append_parts(index, parts, stamped_ms, ledger);
        }
        (None, None) => unreachable!("an append has a batch or came in parts"),
    }
    ledger.effects.push(Effect::Grown { log: id });
    true
}

fn appended(operation: &Operation<'_>, answer: Result<AppendOutcome, AppendRefusal>) -> Effect {
    let Operation { object: log, origin, sequence, .. } = *operation;
    Effect::Appended { log, origin, sequence, answer }
}

/// The batch of an append as it came, and where its header begins in the entry.
fn native<'a>(operation: &Operation<'a>) -> (u32, Batch<'a>) {
    let (_, batch) = operation.append().expect("checked before anything changed");
    let (at, batch) = batch.expect("an append as it came has a batch");
    (at as u32, batch)
}

/// Reads what applying an append will read. Rows are not walked here, but there must be room for as many as the
/// header says.
pub(crate) fn check_append(operation: &Operation<'_>) -> Result<(), Halt> {
    const ROW_MIN: u64 = 20;
    let (_, Some((_, batch))) = operation.append()? else { return Ok(()) };
    let (count, span) = (batch.summary.count, batch.summary.span);
    match batch.summary.encoding {
        Encoding::Rows if u64::from(count) * ROW_MIN > batch.body.len() as u64 => {
            Err(Halt("a batch says it has more records than fit"))
        }
        Encoding::Rows if count != span => Err(Halt("rows take up another number of offsets than there are")),
        Encoding::KafkaV2 if operation.flags != 0 => Err(Halt("a batch as it came is for more than one log")),
        Encoding::KafkaV2 if count == 0 || span < count => Err(Halt("a batch takes up too few offsets")),
        _ => Ok(()),
    }
}

/// Reads what applying an operation on logs or committed offsets will read.
pub(crate) fn check_other(operation: &Operation<'_>) -> Result<(), Halt> {
    match operation.kind {
        OperationKind::Trim if operation.body.len() != 8 => Err(Halt("a bound is not eight bytes long")),
        OperationKind::Rewrite => check_rewrite(operation),
        OperationKind::Commit => Commit::decode(operation.body).map(|_| ()).map_err(Halt::from),
        OperationKind::Forget => Forget::decode(operation.body).map(|_| ()).map_err(Halt::from),
        _ => Ok(()),
    }
}

fn check_rewrite(operation: &Operation<'_>) -> Result<(), Halt> {
    let (_, batch) = Replaced::decode(operation.body)?;
    let (count, span) = (batch.summary.count, batch.summary.span);
    match batch.summary.encoding {
        Encoding::Rows => Err(Halt("a batch is rewritten as rows")),
        Encoding::KafkaV2 if count == 0 || span < count => Err(Halt("a batch takes up too few offsets")),
        Encoding::KafkaV2 => Ok(()),
    }
}
