//! What a group of queues means, as plainly as possible: a list of messages per queue, looked through each time.

use std::collections::{BTreeMap, BTreeSet};

use ::model::commit::{Commit, Forget};
use ::model::entry::{COORDINATOR, COUNT, HAND_OUT, LOG};
use ::model::rewrite::REWRITE_HEADER;
use ::model::{Entry, Operation, OperationKind, Replaced};

use super::log_model::{Answer, Coordinator, Log};
use crate::origins::WINDOW;
use crate::{AppendRefusal, Effect};

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) row: Vec<u8>,
    pub(super) settled: bool,
    pub(super) failures: u32,
    /// The entries it is in.
    pub(super) entries: Vec<u64>,
    /// Handed out by any leader so far.
    pub(super) ever_handed: bool,
    /// Handed out by this leader, and whether nobody has settled or returned it since.
    pub(super) handed: bool,
    pub(super) held: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) config: Vec<u8>,
    pub(super) messages: Vec<Message>,
    pub(super) handed_out: u64,
    pub(super) doubtful_below: u64,
}

impl Queue {
    pub(super) fn live(&self) -> impl Iterator<Item = (u64, &Message)> {
        self.messages.iter().enumerate().filter(|(_, m)| !m.settled).map(|(seq, m)| (seq as u64, m))
    }

    pub(super) fn first_ready(&self) -> Option<u64> {
        self.live().find(|(_, m)| !m.held).map(|(seq, _)| seq)
    }
}

#[derive(Clone, Copy, Debug)]
enum Remembered {
    Number(u64),
    Append(Answer),
}

#[derive(Clone, Debug, Default)]
struct Place {
    boot: u32,
    last: u64,
    answers: BTreeMap<u64, Remembered>,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Place {
    fn expected(&self) -> Option<usize> {
        let head = self.parts.first()?.1.first_chunk().map_or(0, |head| u32::from_le_bytes(*head));
        Some(4 + head as usize)
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.1.len()).sum()
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) queues: BTreeMap<u64, Queue>,
    pub(super) logs: BTreeMap<u64, Log>,
    pub(super) coordinators: BTreeMap<u64, Coordinator>,
    pub(super) time_ms: u64,
    /// What the entry that is applied says of the time.
    stamped_ms: u64,
    places: BTreeMap<u32, Place>,
    pub(super) alive: BTreeSet<u64>,
}

/// What applying an entry must have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) answers: Vec<(u64, u64, u64)>,
    pub(super) gaps: Vec<(u64, u64, u64)>,
    pub(super) superseded: Vec<(u64, u64)>,
    pub(super) applied: BTreeMap<u64, u64>,
    pub(super) freed: BTreeSet<u64>,
    pub(super) enqueued: Vec<(u64, u64, u64)>,
    pub(super) deleted: Vec<(u64, u64)>,
    pub(super) appended: Vec<(u64, u64, u64, Answer)>,
    pub(super) grown: Vec<u64>,
    pub(super) trimmed: Vec<u64>,
    pub(super) rewritten: Vec<(u64, u32, u32)>,
}

impl Told {
    pub(super) fn of(effects: &[Effect]) -> Told {
        let mut told = Told::default();
        for effect in effects {
            match *effect {
                Effect::Answered { origin, sequence, value } => {
                    told.answers.push((origin.0, sequence.0, value));
                }
                Effect::Gap { origin, sequence, expected } => {
                    told.gaps.push((origin.0, sequence.0, expected.0));
                }
                Effect::Superseded { origin, sequence } => told.superseded.push((origin.0, sequence.0)),
                Effect::Applied { origin, sequence } => {
                    told.applied.insert(origin.0, sequence.0);
                }
                Effect::Freed(index) => assert!(told.freed.insert(index.0), "an entry is freed once"),
                Effect::Enqueued { queue, first, count } => {
                    told.enqueued.push((queue.0, first.0, u64::from(count)));
                }
                Effect::Deleted { queue, messages } => told.deleted.push((queue.0, messages)),
                Effect::Settled { .. } | Effect::Returned { .. } => {}
                Effect::HandedOut { .. } | Effect::Configured { .. } => {}
                Effect::Appended { log, origin, sequence, answer } => {
                    let answer = answer.map(|outcome| (outcome.base, outcome.end, outcome.repeat));
                    told.appended.push((log.0, origin.0, sequence.0, answer));
                }
                Effect::Grown { log } => told.grown.push(log.0),
                Effect::Trimmed { log } => told.trimmed.push(log.0),
                Effect::Rewritten { log, before, after } => told.rewritten.push((log.0, before, after)),
            }
        }
        told
    }
}

impl Group {
    pub(super) fn apply(&mut self, index: u64, bytes: &[u8]) -> Told {
        let mut told = Told::default();
        let entry = Entry::decode(bytes).unwrap();
        self.stamped_ms = entry.time_ms;
        let latest = if self.time_ms == 0 { entry.time_ms } else { self.time_ms + 60_000 };
        self.time_ms = self.time_ms.max(entry.time_ms.min(latest));
        for operation in entry.operations() {
            self.operation(index, &operation.unwrap(), &mut told);
        }
        let messages =
            self.queues.values().flat_map(|queue| queue.live()).flat_map(|(_, m)| m.entries.iter());
        let parts = self.places.values().flat_map(|place| place.parts.iter().map(|part| &part.0));
        let batches = self.logs.values().flat_map(|log| log.batches()).flat_map(|batch| batch.entries.iter());
        let alive: BTreeSet<u64> = messages.chain(parts).chain(batches).copied().collect();
        self.alive.insert(index);
        told.freed = self.alive.difference(&alive).copied().collect();
        self.alive = alive;
        told
    }

    fn operation(&mut self, index: u64, operation: &Operation<'_>, told: &mut Told) {
        let (origin, sequence) = (operation.origin, operation.sequence.0);
        let place = self.places.entry(origin.place()).or_default();
        if place.boot > origin.boot() {
            return told.superseded.push((origin.0, sequence));
        }
        let last = if place.boot == origin.boot() { place.last } else { 0 };
        if sequence > last + 1 {
            return told.gaps.push((origin.0, sequence, last + 1));
        }
        if sequence <= last {
            told.applied.insert(origin.0, last);
            match place.answers.get(&sequence) {
                Some(Remembered::Number(value)) => told.answers.push((origin.0, sequence, *value)),
                Some(Remembered::Append(answer)) => {
                    told.appended.push((operation.object.0, origin.0, sequence, *answer));
                }
                None if operation.is_native_append() => {
                    let forgotten = Err(AppendRefusal::Forgotten);
                    told.appended.push((operation.object.0, origin.0, sequence, forgotten));
                }
                None => {}
            }
            return;
        }
        if place.boot != origin.boot() {
            *place = Place { boot: origin.boot(), ..Place::default() };
        }
        place.last = sequence;
        told.applied.insert(origin.0, sequence);
        let answer = if operation.is_native_append() {
            let answer = self.append_native(index, operation, told);
            told.appended.push((operation.object.0, origin.0, sequence, answer));
            Some(Remembered::Append(answer))
        } else {
            let value = self.act(index, operation, told);
            told.answers.extend(value.map(|value| (origin.0, sequence, value)));
            value.map(Remembered::Number)
        };
        if let Some(value) = answer {
            let place = self.places.get_mut(&origin.place()).unwrap();
            place.answers.insert(sequence, value);
            while place.answers.len() > WINDOW {
                place.answers.pop_first();
            }
        }
    }

    fn append_native(&mut self, index: u64, operation: &Operation<'_>, told: &mut Told) -> Answer {
        let (_, batch) = operation.append().unwrap();
        let Some(log) = self.logs.get_mut(&operation.object.0) else { return Err(AppendRefusal::NoLog) };
        let (at, batch) = batch.unwrap();
        let place = (index, at as u32);
        let answer = log.append_native(&batch.summary, operation.body, place, self.time_ms);
        if matches!(answer, Ok((_, _, false))) {
            told.grown.push(operation.object.0);
        }
        answer
    }

    fn configure(&mut self, operation: &Operation<'_>) -> bool {
        let (id, config) = (operation.object.0, operation.body.to_vec());
        let known = self.queues.get_mut(&id).map(|queue| &mut queue.config);
        let known = known.or_else(|| self.logs.get_mut(&id).map(|log| &mut log.config));
        let known = known.or_else(|| self.coordinators.get_mut(&id).map(|own| &mut own.config));
        match (known, operation.flags) {
            (Some(known), _) => {
                *known = config;
                return false;
            }
            (None, LOG) => drop(self.logs.insert(id, Log { config, ..Log::default() })),
            (None, COORDINATOR) => {
                self.coordinators.insert(id, Coordinator { config, ..Coordinator::default() });
            }
            _ => drop(self.queues.insert(id, Queue { config, ..Queue::default() })),
        }
        true
    }

    fn delete(&mut self, id: u64) -> Option<u64> {
        let log = self.logs.remove(&id).map(|log| log.batches().map(|batch| batch.left()).sum());
        let coordinator = self.coordinators.remove(&id).map(|_| 0);
        self.queues.remove(&id).map(|queue| queue.live().count() as u64).or(log).or(coordinator)
    }

    fn act(&mut self, index: u64, operation: &Operation<'_>, told: &mut Told) -> Option<u64> {
        let id = operation.object.0;
        let place = self.places.get_mut(&operation.origin.place()).unwrap();
        match operation.kind {
            OperationKind::Append => return self.append(index, operation, told),
            OperationKind::Part => {
                if place.expected().is_none_or(|expected| place.len() + operation.body.len() > expected) {
                    place.parts.clear();
                }
                place.parts.push((index, operation.body.to_vec()));
                if place.expected().is_some_and(|expected| place.len() > expected) {
                    place.parts.clear();
                }
            }
            OperationKind::Configure => {
                return Some(u64::from(self.configure(operation)));
            }
            OperationKind::Delete => {
                let messages = self.delete(id);
                told.deleted.extend(messages.map(|messages| (id, messages)));
                return Some(messages.unwrap_or(0));
            }
            OperationKind::HandOut => {
                let bound = u64::from_le_bytes(operation.body.try_into().unwrap());
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.handed_out = queue.handed_out.max(bound.min(queue.messages.len() as u64));
                }
            }
            OperationKind::Settle => drop(self.settle(operation)),
            OperationKind::Drop => return Some(self.remove(operation, told)),
            OperationKind::Return => self.each(operation, |message| {
                message.held = false;
                message.failures += u32::from(operation.flags & COUNT);
            }),
            OperationKind::Trim => {
                let bound = u64::from_le_bytes(operation.body.try_into().unwrap());
                let Some(log) = self.logs.get_mut(&id) else { return Some(u64::MAX) };
                if log.trim(bound) {
                    told.trimmed.push(id);
                }
                return Some(log.start);
            }
            OperationKind::Commit => {
                if let Some(coordinator) = self.coordinators.get_mut(&id) {
                    coordinator.commit(&Commit::decode(operation.body).unwrap(), self.time_ms);
                }
            }
            OperationKind::Forget => {
                if let Some(coordinator) = self.coordinators.get_mut(&id) {
                    coordinator.forget(&Forget::decode(operation.body).unwrap());
                }
            }
            OperationKind::Rewrite => {
                let (replaced, batch) = Replaced::decode(operation.body).unwrap();
                let (bytes, at) = (&operation.body[REWRITE_HEADER..], operation.at + REWRITE_HEADER);
                let log = self.logs.get_mut(&id);
                let place = (index, at as u32);
                let rewritten = log.and_then(|log| log.rewrite(&replaced, &batch.summary, bytes, place));
                told.rewritten.extend(rewritten.map(|(before, after)| (id, before, after)));
            }
            OperationKind::Topology => unreachable!("never generated"),
        }
        None
    }

    fn remove(&mut self, operation: &Operation<'_>, told: &mut Told) -> u64 {
        let Some(log) = self.logs.get_mut(&operation.object.0) else { return self.settle(operation) };
        let ranges = operation.ranges().map(|range| range.map(|(first, last)| (first.0, last.0)).unwrap());
        let removed = log.remove(&ranges.collect::<Vec<_>>());
        if removed > 0 {
            told.trimmed.push(operation.object.0);
        }
        removed
    }

    fn settle(&mut self, operation: &Operation<'_>) -> u64 {
        let mut settled = 0;
        self.each(operation, |message| {
            (message.settled, message.held) = (true, false);
            settled += 1;
        });
        settled
    }

    /// Acts on the unsettled messages in the operation's ranges.
    fn each(&mut self, operation: &Operation<'_>, mut act: impl FnMut(&mut Message)) {
        let Some(queue) = self.queues.get_mut(&operation.object.0) else { return };
        let ranges: Vec<_> = operation.ranges().map(Result::unwrap).collect();
        for (seq, message) in queue.messages.iter_mut().enumerate() {
            let seq = seq as u64;
            let named = ranges.iter().any(|(first, last)| first.0 <= seq && seq <= last.0);
            if named && !message.settled {
                act(message);
            }
        }
    }

    fn append(&mut self, index: u64, operation: &Operation<'_>, told: &mut Told) -> Option<u64> {
        let (queues, batch) = operation.append().unwrap();
        let place = self.places.get_mut(&operation.origin.place()).unwrap();
        let rows: Vec<(Vec<u8>, Vec<u64>)> = match batch {
            Some((_, batch)) => {
                let records = batch.records().map(|record| record.unwrap().0);
                let starts: Vec<usize> = records.chain([batch.body.len()]).collect();
                starts.windows(2).map(|at| (batch.body[at[0]..at[1]].to_vec(), vec![index])).collect()
            }
            None => {
                let complete = place.expected() == Some(place.len());
                let parts = std::mem::take(&mut place.parts);
                let row = parts.iter().flat_map(|part| part.1.iter().copied()).collect();
                let entries = parts.iter().map(|part| part.0).collect();
                if complete { vec![(row, entries)] } else { vec![] }
            }
        };
        let mut taken = 0;
        for id in queues.iter() {
            if let Some(log) = self.logs.get_mut(&id.0).filter(|_| !rows.is_empty()) {
                taken += 1;
                told.grown.push(id.0);
                match batch {
                    Some((at, batch)) => {
                        let bytes = &operation.body[at - operation.at..];
                        log.append(&batch.summary, bytes, (index, at as u32));
                    }
                    None => log.append_row(&rows[0].0, &rows[0].1, self.stamped_ms),
                }
                continue;
            }
            let Some(queue) = self.queues.get_mut(&id.0).filter(|_| !rows.is_empty()) else { continue };
            taken += 1;
            told.enqueued.push((id.0, queue.messages.len() as u64, rows.len() as u64));
            queue.messages.extend(rows.iter().map(|(row, entries)| Message {
                row: row.clone(),
                settled: false,
                failures: 0,
                entries: entries.clone(),
                ever_handed: false,
                handed: false,
                held: false,
            }));
            if operation.flags & HAND_OUT != 0 {
                queue.handed_out = queue.messages.len() as u64;
            }
        }
        (taken < queues.iter().count() as u64).then_some(taken)
    }

    /// Another leader begins: everything unsettled is ready.
    pub(super) fn restart(&mut self) {
        for queue in self.queues.values_mut() {
            queue.doubtful_below = queue.handed_out;
            for message in &mut queue.messages {
                (message.handed, message.held) = (false, false);
            }
        }
    }
}
