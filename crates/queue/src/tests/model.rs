//! What a group of queues means, as plainly as possible: a list of messages per queue, looked through each time.

use std::collections::{BTreeMap, BTreeSet};

use ::model::entry::{COUNT, HAND_OUT};
use ::model::{Entry, Operation, OperationKind};

use crate::Effect;
use crate::origins::WINDOW;

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

#[derive(Clone, Debug, Default)]
struct Place {
    boot: u32,
    last: u64,
    answers: BTreeMap<u64, u64>,
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
                Effect::Appended { .. } | Effect::Grown { .. } | Effect::Trimmed { .. } => {
                    unreachable!("no log is made here")
                }
            }
        }
        told
    }
}

impl Group {
    pub(super) fn apply(&mut self, index: u64, bytes: &[u8]) -> Told {
        let mut told = Told::default();
        for operation in Entry::decode(bytes).unwrap().operations() {
            self.operation(index, &operation.unwrap(), &mut told);
        }
        let messages =
            self.queues.values().flat_map(|queue| queue.live()).flat_map(|(_, m)| m.entries.iter());
        let parts = self.places.values().flat_map(|place| place.parts.iter().map(|part| &part.0));
        let alive: BTreeSet<u64> = messages.chain(parts).copied().collect();
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
            let answer = place.answers.get(&sequence);
            told.answers.extend(answer.map(|value| (origin.0, sequence, *value)));
            return;
        }
        if place.boot != origin.boot() {
            *place = Place { boot: origin.boot(), ..Place::default() };
        }
        place.last = sequence;
        told.applied.insert(origin.0, sequence);
        if let Some(value) = self.act(index, operation, told) {
            told.answers.push((origin.0, sequence, value));
            let place = self.places.get_mut(&origin.place()).unwrap();
            place.answers.insert(sequence, value);
            while place.answers.len() > WINDOW {
                place.answers.pop_first();
            }
        }
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
                let created = !self.queues.contains_key(&id);
                self.queues.entry(id).or_default().config = operation.body.to_vec();
                return Some(u64::from(created));
            }
            OperationKind::Delete => {
                let messages = self.queues.remove(&id).map(|queue| queue.live().count() as u64);
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
            OperationKind::Drop => return Some(self.settle(operation)),
            OperationKind::Return => self.each(operation, |message| {
                message.held = false;
                message.failures += u32::from(operation.flags & COUNT);
            }),
            OperationKind::Topology | OperationKind::Trim | OperationKind::Commit | OperationKind::Forget => {
                unreachable!("never generated")
            }
        }
        None
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
