//! The replicated state of one group of queues and how entries change it.
//!
//! In: committed entries, in order, each once. Out: effects. `apply` reads the entry and this state and nothing
//! else; an entry is checked as a whole before any of it takes effect. Sharing is copy-on-write throughout, so that
//! a frozen view costs a few hundred pointers.

use std::sync::Arc;

use model::entry::{self, MACHINE_VERSION, OperationKind};
use model::{Entry, Index, OpSequence, Operation, Origin, QueueId, Seq, batch};

use crate::liveness::{Ledger, Liveness};
use crate::log_apply::{append_to_log, check_append, check_other};
use crate::objects::Objects;
use crate::origins::{Admission, Origins, Piece};
use crate::queue_state::settled_range;
use crate::{Effect, GroupOffsets, Halt, LogState, QueueState, View};

/// How far one entry may move the group's time forward, milliseconds.
const FORWARD_MS_MAX: u64 = 60_000;

/// So many operations before it is changed a queue's memory is asked for.
const AHEAD: usize = 12;

/// One group's queues, logs and committed offsets, and all that is remembered about who changed them.
#[derive(Clone, Debug)]
pub struct GroupMachine {
    pub(crate) applied: Index,
    pub(crate) time_ms: u64,
    pub(crate) origins: Origins,
    pub(crate) queues: Objects<QueueState>,
    pub(crate) logs: Objects<LogState>,
    pub(crate) coordinators: Objects<GroupOffsets>,
    pub(crate) live: Liveness,
}

impl Default for GroupMachine {
    fn default() -> Self {
        GroupMachine {
            applied: Index(0),
            time_ms: 0,
            origins: Origins::default(),
            queues: Objects::default(),
            logs: Objects::default(),
            coordinators: Objects::default(),
            live: Liveness::default(),
        }
    }
}

impl GroupMachine {
    /// A group in which nothing has happened yet.
    pub fn new() -> GroupMachine {
        GroupMachine::default()
    }

    /// The last entry applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// The group's time, milliseconds since 1970: never goes back, never leaps ahead.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The last operation applied of an origin; 0 where there was none.
    pub fn last_sequence(&self, origin: Origin) -> OpSequence {
        let place = self.origins.places.get(&origin.place());
        OpSequence(place.filter(|place| place.boot == origin.boot()).map_or(0, |place| place.last))
    }

    /// The state of a queue.
    pub fn queue(&self, id: QueueId) -> Option<&QueueState> {
        self.queues.find(id)
    }

    /// All queues, in an order that is the same everywhere.
    pub fn queues(&self) -> impl Iterator<Item = (QueueId, &QueueState)> {
        self.queues.iter()
    }

    /// Inclusive ranges of the entries that are still needed.
    pub fn kept_ranges(&self) -> Vec<(Index, Index)> {
        self.live.ranges()
    }

    /// A copy of the state as it is now, for a checkpoint to be written while this goes on.
    pub fn freeze(&self) -> View {
        View::new(self.clone())
    }

    /// Applies the entry at `index`, which lies above all before; an entry without any bytes does nothing. After a
    /// `Halt` nothing has changed.
    pub fn apply(&mut self, index: Index, bytes: &[u8], effects: &mut Vec<Effect>) -> Result<(), Halt> {
        assert!(index > self.applied, "entries are applied in order");
        if !bytes.is_empty() {
            let entry = check(bytes)?;
            self.advance_time(entry.time_ms);
            self.apply_operations(index, &entry, effects);
        }
        self.applied = index;
        if !self.live.is_held(index.0) {
            effects.push(Effect::Freed(index));
        }
        Ok(())
    }

    fn advance_time(&mut self, stamped: u64) {
        let latest = if self.time_ms == 0 { stamped } else { self.time_ms.saturating_add(FORWARD_MS_MAX) };
        self.time_ms = self.time_ms.max(stamped.min(latest));
    }

    fn apply_operations(&mut self, index: Index, entry: &Entry<'_>, effects: &mut Vec<Effect>) {
        let mut applied: Option<(Origin, OpSequence)> = None;
        let mut ahead = entry.objects();
        ahead.by_ref().take(AHEAD).for_each(|id| self.queues.prefetch(id));
        for operation in entry.operations() {
            let operation = operation.expect("checked before anything changed");
            ahead.next().into_iter().for_each(|id| self.queues.prefetch(id));
            let (origin, sequence) = (operation.origin, operation.sequence);
            let last = match self.admit(index, &operation, effects) {
                Admission::New => {
                    let answer = self.apply_one((index, entry.time_ms), &operation, effects);
                    if let Some(value) = answer {
                        self.origins.remember(origin, sequence, value);
                        effects.push(Effect::Answered { origin, sequence, value });
                    }
                    sequence
                }
                Admission::Repeat { last, answer } => {
                    self.tell_again(&operation, answer, effects);
                    last
                }
                Admission::Gap { expected } => {
                    effects.push(Effect::Gap { origin, sequence, expected });
                    continue;
                }
                Admission::Superseded => {
                    effects.push(Effect::Superseded { origin, sequence });
                    continue;
                }
            };
            if let Some((origin, sequence)) =
                applied.replace((origin, last)).filter(|before| before.0 != origin)
            {
                effects.push(Effect::Applied { origin, sequence });
            }
        }
        effects.extend(applied.map(|(origin, sequence)| Effect::Applied { origin, sequence }));
    }

    fn admit(&mut self, index: Index, operation: &Operation<'_>, effects: &mut Vec<Effect>) -> Admission {
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        self.origins.admit(operation.origin, operation.sequence, &mut ledger)
    }

    fn apply_one(
        &mut self,
        (index, stamped_ms): (Index, u64),
        operation: &Operation<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let id = operation.object;
        match operation.kind {
            OperationKind::Append if operation.is_native_append() => {
                self.append_native(index, operation, effects);
                None
            }
            OperationKind::Append => self.append((index, stamped_ms), operation, effects),
            OperationKind::Settle => {
                self.settle(index, operation, effects);
                None
            }
            OperationKind::Return => {
                self.return_(operation, effects);
                None
            }
            OperationKind::HandOut => {
                let bound = operation.body.first_chunk().map_or(0, |bound| u64::from_le_bytes(*bound));
                if self.queues.find_mut(id).is_some_and(|queue| queue.hand_out(bound)) {
                    effects.push(Effect::HandedOut { queue: id });
                }
                None
            }
            OperationKind::Drop => match self.remove_offsets(index, operation, effects) {
                None => Some(self.settle(index, operation, effects)),
                removed => removed,
            },
            OperationKind::Configure => Some(self.configure(operation, effects)),
            OperationKind::Delete => Some(self.delete(index, id, effects)),
            OperationKind::Part => {
                let mut ledger = Ledger { live: &mut self.live, effects, current: index };
                self.origins.add_part(operation, &mut ledger);
                None
            }
            OperationKind::Topology => None,
            OperationKind::Trim => Some(self.trim(index, operation, effects)),
            OperationKind::Commit => {
                self.commit(operation);
                None
            }
            OperationKind::Forget => {
                self.forget(operation);
                None
            }
            OperationKind::Rewrite => {
                self.rewrite(index, operation, effects);
                None
            }
        }
    }

    /// Adds the records to every queue and log that exists; answers with how many took them where that is not all.
    fn append(
        &mut self,
        (index, stamped_ms): (Index, u64),
        operation: &Operation<'_>,
        effects: &mut Vec<Effect>,
    ) -> Option<u64> {
        let (queues, batch) = operation.append().expect("checked before anything changed");
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        // Even an empty shared list is counted with operations that hold up the processor: none is made without parts.
        let parts: Option<Arc<[Piece]>> = match batch {
            Some(_) => None,
            None => Some(self.origins.take_parts(operation.origin, &mut ledger).into()),
        };
        let pieces = parts.as_deref().unwrap_or_default();
        let (at, count) = match batch {
            Some((at, batch)) => ((at + batch::HEADER) as u32, batch.summary.count),
            None => (0, u32::from(!pieces.is_empty())),
        };
        let (mut asked, mut taken) = (0, 0);
        for id in queues.iter() {
            asked += 1;
            let Some(queue) = self.queues.find_mut(id).filter(|_| count > 0) else {
                let log = self.logs.find_mut(id).filter(|_| count > 0);
                taken += u64::from(append_to_log(log, id, batch, parts.as_ref(), stamped_ms, &mut ledger));
                continue;
            };
            taken += 1;
            let first = if let Some(parts) = &parts {
                parts.iter().for_each(|piece| ledger.hold(piece.index, 1));
                queue.enqueue_parts(index, parts)
            } else {
                ledger.hold(index.0, u64::from(count));
                queue.enqueue(index, at, count)
            };
            if operation.flags & entry::HAND_OUT != 0 {
                queue.hand_out(u64::MAX);
            }
            ledger.effects.push(Effect::Enqueued { queue: id, first, count });
        }
        pieces.iter().for_each(|piece| ledger.release(piece.index, 1));
        (taken < asked).then_some(taken)
    }

    fn settle(&mut self, index: Index, operation: &Operation<'_>, effects: &mut Vec<Effect>) -> u64 {
        let id = operation.object;
        let Some(queue) = self.queues.find_mut(id) else { return 0 };
        let mut settled = 0;
        for range in operation.ranges() {
            let (first, last) = range.expect("checked before anything changed");
            let Some(last) = within(queue, first, last) else { break };
            let mut ledger = Ledger { live: &mut self.live, effects, current: index };
            let (from, to) = settled_range(first, last);
            let messages = queue.settle(from, to, &mut ledger);
            settled += messages;
            effects.push(Effect::Settled { queue: id, first, last, messages });
        }
        settled
    }

    fn return_(&mut self, operation: &Operation<'_>, effects: &mut Vec<Effect>) {
        let id = operation.object;
        let Some(queue) = self.queues.find_mut(id) else { return };
        for range in operation.ranges() {
            let (first, last) = range.expect("checked before anything changed");
            let Some(last) = within(queue, first, last) else { break };
            if operation.flags & entry::COUNT != 0 {
                queue.count_failures(first.0, last.0);
            }
            effects.push(Effect::Returned { queue: id, first, last });
        }
    }

    /// Creates an object (answer 1) or replaces its configuration (answer 0).
    fn configure(&mut self, operation: &Operation<'_>, effects: &mut Vec<Effect>) -> u64 {
        let (id, config) = (operation.object, operation.body);
        effects.push(Effect::Configured { queue: id });
        if let Some(queue) = self.queues.find_mut(id) {
            queue.config = config.into();
        } else if let Some(log) = self.logs.find_mut(id) {
            log.config = config.into();
        } else if let Some(coordinator) = self.coordinators.find_mut(id) {
            coordinator.config = config.into();
        } else {
            self.create(operation);
            return 1;
        }
        0
    }

    /// Creates the object; the flags say of which kind.
    fn create(&mut self, operation: &Operation<'_>) {
        let (id, config) = (operation.object, operation.body);
        match operation.flags {
            entry::LOG => {
                self.logs.insert(id, LogState::new(config));
            }
            entry::COORDINATOR => {
                self.coordinators.insert(id, GroupOffsets::new(config));
            }
            _ => {
                self.queues.insert(id, QueueState::new(config));
            }
        }
    }

    fn delete(&mut self, index: Index, id: QueueId, effects: &mut Vec<Effect>) -> u64 {
        let Some(queue) = self.queues.remove(id) else { return self.delete_other(index, id, effects) };
        let mut ledger = Ledger { live: &mut self.live, effects, current: index };
        let messages = queue.release_all(&mut ledger);
        effects.push(Effect::Deleted { queue: id, messages });
        messages
    }
}

/// The last place of a range as far as places were given; `None` where the whole range lies behind them.
fn within(queue: &QueueState, first: Seq, last: Seq) -> Option<Seq> {
    (first.0 < queue.next).then(|| Seq(last.0.min(queue.next - 1)))
}

/// Reads everything that applying will read.
fn check(bytes: &[u8]) -> Result<Entry<'_>, Halt> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Halt("an entry is larger than any can be"));
    }
    let entry = Entry::decode(bytes)?;
    if entry.machine_version > MACHINE_VERSION {
        return Err(Halt("an entry needs a newer version of this program"));
    }
    let mut count = 0u32;
    for operation in entry.operations() {
        check_operation(&operation?)?;
        count += 1;
    }
    if count != entry.count {
        return Err(Halt("an entry has another number of operations than it says"));
    }
    Ok(entry)
}

fn check_operation(operation: &Operation<'_>) -> Result<(), Halt> {
    let known = match operation.kind {
        OperationKind::Append => entry::FANOUT | entry::HAND_OUT | entry::PARTS,
        OperationKind::Return => entry::COUNT,
        OperationKind::Configure => entry::LOG | entry::COORDINATOR,
        _ => 0,
    };
    let kinds = entry::LOG | entry::COORDINATOR;
    let both = operation.kind == OperationKind::Configure && operation.flags == kinds;
    if operation.flags & !known != 0 || both {
        return Err(Halt("an operation has unknown flags"));
    }
    match operation.kind {
        OperationKind::Append => check_append(operation),
        OperationKind::Settle | OperationKind::Return | OperationKind::Drop => {
            operation.ranges().try_for_each(|range| range.map(|_| ())).map_err(Halt::from)
        }
        OperationKind::HandOut if operation.body.len() != 8 => Err(Halt("a bound is not eight bytes long")),
        OperationKind::Topology => Err(Halt("a topology command in a group of queues")),
        _ => check_other(operation),
    }
}
