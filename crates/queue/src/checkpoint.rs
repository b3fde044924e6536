//! A group's state as bytes: written in slices from a frozen view, read back as a whole.
//!
//! ```text
//! head     0 format u8 = 4    1 reserve u8      2 machine version u16
//!          4 applied u64     12 group time u64 20 place count u32    24 queue count u64
//!         32 log count u64   40 coordinator count u64   (format 1 has neither; formats 2 and 3: see
//!         `log_checkpoint`)
//! place    place u32, boot u32, last sequence, answer count, expected bytes of the unfinished row, piece count;
//!          answers: distance from the sequence before, value
//!          pieces: entry, where in it, bytes
//! queue    id u64, configuration length and bytes, next place, handed-out bound, run count, failure count;
//!          runs: distance from the end of the run before, distance from the entry before,
//!                count * 4 + has holes * 2 + in parts, settled at the front,
//!                where the first row begins | piece count and pieces,
//!                with holes: a bit per message, as words u64, set where settled behind the front
//!          failures: distance from the place before, count
//! ```
//! Behind the queues come the logs (see `log_checkpoint`) and the coordinators (see `offsets_checkpoint`). Numbers
//! without a width are varints; the others are little endian. Nothing may follow the last object. What follows from
//! the rest (counters, which entries are needed) is not written.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Bug, Put, Reader, planted};
use model::entry::MACHINE_VERSION;
use model::{Damaged, Index, QueueId};

use crate::bits;
use crate::liveness::Liveness;
use crate::log_checkpoint::{encode_chunks, encode_log, encode_producers};
use crate::offsets_checkpoint::{encode_coordinator, encode_groups};
use crate::origins::{Partial, Piece, Place};
use crate::queue_state::{Failures, IN_PARTS, Run};
use crate::{GroupMachine, QueueState};

const FORMAT: u8 = 4;
/// The format before batches of logs were rewritten.
pub(crate) const AS_APPENDED: u8 = 3;
/// The format before it was known when a batch of a log was taken in.
pub(crate) const UNTIMED: u8 = 2;
/// The format before there were logs.
const QUEUES_ONLY: u8 = 1;
/// Runs, failures, chunks or producers written between two looks at the budget.
pub(crate) const STRIDE: usize = 128;
/// No counter comes anywhere near this; one that is read as more is damage, and would overflow one day.
pub(crate) const COUNTER_MAX: u64 = 1 << 62;

/// A group's state as it was at one entry.
#[derive(Debug)]
pub struct View {
    pub(crate) machine: GroupMachine,
    stage: Stage,
}

/// What is written next.
#[derive(Clone, Debug)]
enum Stage {
    Head,
    /// The queue behind this one.
    Queue(Option<QueueId>),
    /// Runs of this queue behind the one that ended here and was in this entry.
    Runs(QueueId, u64, u64),
    /// Failures of this queue from this place on.
    Failures(QueueId, u64),
    /// The log behind this one.
    Log(Option<QueueId>),
    /// Chunks of this log behind the one that ended here and was in this entry.
    Chunks(QueueId, u64, u64),
    /// Producers of this log from this id on.
    Producers(QueueId, u64),
    /// The coordinator behind this one.
    Coordinator(Option<QueueId>),
    /// Groups of this coordinator behind this one.
    Groups(QueueId, Option<Arc<str>>),
    Done,
}

impl View {
    pub(crate) fn new(machine: GroupMachine) -> View {
        View { machine, stage: Stage::Head }
    }

    /// The last entry in it.
    pub fn applied(&self) -> Index {
        self.machine.applied
    }

    /// Inclusive ranges of the entries that this state needs.
    pub fn kept_ranges(&self) -> Vec<(Index, Index)> {
        self.machine.kept_ranges()
    }

    /// Appends the next slice of about `budget` bytes; true when that was the last.
    pub fn encode(&mut self, budget: usize, out: &mut Vec<u8>) -> bool {
        let end = out.len().saturating_add(budget);
        loop {
            self.stage = self.encode_some(out);
            if matches!(self.stage, Stage::Done) {
                return true;
            }
            if out.len() >= end {
                return false;
            }
        }
    }

    fn encode_some(&self, out: &mut Vec<u8>) -> Stage {
        match self.stage.clone() {
            Stage::Head => {
                encode_head(&self.machine, out);
                Stage::Queue(None)
            }
            Stage::Queue(after) => {
                let Some((id, queue)) = self.machine.queues.next(after) else { return Stage::Log(None) };
                encode_queue(id, queue, out);
                Stage::Runs(id, 0, 0)
            }
            Stage::Runs(id, end, index) => {
                let queue = self.queue(id);
                match encode_runs(queue, end, index, out) {
                    Some((end, index)) => Stage::Runs(id, end, index),
                    None => Stage::Failures(id, 0),
                }
            }
            Stage::Failures(id, from) => match encode_failures(self.queue(id), from, out) {
                Some(from) => Stage::Failures(id, from),
                None => Stage::Queue(Some(id)),
            },
            log @ (Stage::Log(_) | Stage::Chunks(..) | Stage::Producers(..)) => self.encode_logs(log, out),
            offsets @ (Stage::Coordinator(_) | Stage::Groups(..)) => self.encode_offsets(offsets, out),
            Stage::Done => Stage::Done,
        }
    }

    fn encode_logs(&self, stage: Stage, out: &mut Vec<u8>) -> Stage {
        let log = |id| self.machine.log(id).expect("a frozen view does not change");
        match stage {
            Stage::Chunks(id, end, index) => match encode_chunks(log(id), end, index, out) {
                Some((end, index)) => Stage::Chunks(id, end, index),
                None => Stage::Producers(id, 0),
            },
            Stage::Producers(id, from) => match encode_producers(log(id), from, out) {
                Some(from) => Stage::Producers(id, from),
                None => Stage::Log(Some(id)),
            },
            Stage::Log(before) => match self.machine.logs.next(before) {
                Some((id, log)) => {
                    encode_log(id, log, out);
                    Stage::Chunks(id, 0, 0)
                }
                None => Stage::Coordinator(None),
            },
            other => other,
        }
    }

    fn encode_offsets(&self, stage: Stage, out: &mut Vec<u8>) -> Stage {
        match stage {
            Stage::Groups(id, before) => {
                let coordinator = self.machine.coordinator(id).expect("a frozen view does not change");
                match encode_groups(coordinator, before, out) {
                    Some(last) => Stage::Groups(id, Some(last)),
                    None => Stage::Coordinator(Some(id)),
                }
            }
            Stage::Coordinator(before) => match self.machine.coordinators.next(before) {
                Some((id, coordinator)) => {
                    encode_coordinator(id, coordinator, out);
                    Stage::Groups(id, None)
                }
                None => Stage::Done,
            },
            other => other,
        }
    }

    fn queue(&self, id: QueueId) -> &QueueState {
        self.machine.queue(id).expect("a frozen view does not change")
    }
}

fn encode_head(machine: &GroupMachine, out: &mut Vec<u8>) {
    out.put(&[FORMAT, 0]);
    out.put_u16_le(MACHINE_VERSION);
    out.put_u64_le(machine.applied.0);
    out.put_u64_le(machine.time_ms);
    out.put_u32_le(machine.origins.places.len() as u32);
    out.put_u64_le(machine.queues.len());
    out.put_u64_le(machine.logs.len());
    out.put_u64_le(machine.coordinators.len());
    for (id, place) in &machine.origins.places {
        out.put_u32_le(*id);
        out.put_u32_le(place.boot);
        out.put_varint(place.last);
        out.put_varint(place.answers.len() as u64);
        out.put_varint(place.partial.expected);
        out.put_varint(place.partial.pieces.len() as u64);
        let mut before = 0;
        for (sequence, value) in place.answers.iter() {
            out.put_varint(sequence - before);
            out.put_varint(*value);
            before = *sequence;
        }
        encode_pieces(&place.partial.pieces, out);
    }
}

pub(crate) fn encode_pieces(pieces: &[Piece], out: &mut Vec<u8>) {
    for piece in pieces {
        out.put_varint(piece.index);
        out.put_varint(u64::from(piece.at));
        out.put_varint(u64::from(piece.len));
    }
}

fn encode_queue(id: QueueId, queue: &QueueState, out: &mut Vec<u8>) {
    out.put_u64_le(id.0);
    out.put_lengthed(&queue.config);
    out.put_varint(queue.next);
    out.put_varint(queue.handed_out);
    out.put_varint(queue.runs.len() as u64);
    out.put_varint(if planted(Bug::LoseDeliveryCountOnCheckpoint) { 0 } else { queue.failures.len() as u64 });
}

/// Writes some runs and returns the end and the entry of the last; `None` when there was none left.
fn encode_runs(queue: &QueueState, mut end: u64, mut index: u64, out: &mut Vec<u8>) -> Option<(u64, u64)> {
    let mut any = false;
    for run in queue.runs.from(end).take(STRIDE) {
        let lost = planted(Bug::LoseSettlementOnCheckpoint);
        let (head, holes) = if lost { (0, false) } else { (run.head, run.has_holes()) };
        let in_parts = run.at == IN_PARTS;
        out.put_varint(run.first - end);
        out.put_varint(run.index - index);
        out.put_varint(u64::from(run.count) << 2 | u64::from(holes) << 1 | u64::from(in_parts));
        out.put_varint(u64::from(head));
        match queue.pieces.get(&run.first).filter(|_| in_parts) {
            Some(pieces) => {
                out.put_varint(pieces.len() as u64);
                encode_pieces(pieces, out);
            }
            None => out.put_varint(u64::from(run.at)),
        }
        if holes {
            encode_holes(queue, run, out);
        }
        (end, index, any) = (run.end(), run.index, true);
    }
    any.then_some((end, index))
}

/// Bits below the front depend on the order of settling and mean nothing: they are written as clear.
fn encode_holes(queue: &QueueState, run: &Run, out: &mut Vec<u8>) {
    let mut holes = queue.holes.get(&run.first).expect("a run with holes has bits").to_vec();
    if run.head > 0 {
        bits::clear(&mut holes, 0, run.head as usize - 1);
    }
    holes.into_iter().for_each(|word| out.put_u64_le(word));
}

fn encode_failures(queue: &QueueState, mut from: u64, out: &mut Vec<u8>) -> Option<u64> {
    if planted(Bug::LoseDeliveryCountOnCheckpoint) {
        return None;
    }
    let mut any = false;
    for item in queue.failures.from(from).take(STRIDE) {
        out.put_varint(item.seq - from);
        out.put_varint(u64::from(item.count));
        (from, any) = (item.seq + 1, true);
    }
    any.then_some(from)
}

impl GroupMachine {
    /// Reads a state that a [`View`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<GroupMachine, Damaged> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        let known = (QUEUES_ONLY..=FORMAT).contains(&format);
        if !known || reader.u8()? != 0 || reader.u16_le()? > MACHINE_VERSION {
            return Err(Damaged("a queue checkpoint has an unknown format"));
        }
        let mut machine = GroupMachine { applied: Index(reader.u64_le()?), ..GroupMachine::default() };
        machine.time_ms = reader.u64_le()?;
        require(machine.applied.0 < COUNTER_MAX)?;
        let (places, queues) = (reader.u32_le()?, reader.u64_le()?);
        let (logs, coordinators) =
            if format == QUEUES_ONLY { (0, 0) } else { (reader.u64_le()?, reader.u64_le()?) };
        let time_ms = i64::try_from(machine.time_ms).unwrap_or(i64::MAX);
        let mut decoder =
            Decoder { reader, format, time_ms, applied: machine.applied.0, needed: BTreeMap::new() };
        for _ in 0..places {
            let id = decoder.reader.u32_le()?;
            let place = decoder.place()?;
            require(machine.origins.places.insert(id, place).is_none())?;
        }
        for _ in 0..queues {
            let id = QueueId(decoder.reader.u64_le()?);
            let queue = decoder.queue()?;
            require(machine.queues.insert(id, queue))?;
        }
        for _ in 0..logs {
            let id = QueueId(decoder.reader.u64_le()?);
            let log = decoder.log()?;
            require(machine.queue(id).is_none() && machine.logs.insert(id, log))?;
        }
        for _ in 0..coordinators {
            let id = QueueId(decoder.reader.u64_le()?);
            let coordinator = decoder.coordinator()?;
            require(machine.queue(id).is_none() && machine.log(id).is_none())?;
            require(machine.coordinators.insert(id, coordinator))?;
        }
        require(decoder.reader.is_empty())?;
        machine.live = Liveness::default();
        decoder.needed.into_iter().for_each(|(index, count)| machine.live.hold(index, count));
        Ok(machine)
    }

    /// A number that is the same for the same state, whatever led to it.
    pub fn hash(&self) -> u64 {
        let mut view = self.freeze();
        let mut bytes = Vec::new();
        let mut hash = 0;
        loop {
            bytes.clear();
            let done = view.encode(1 << 14, &mut bytes);
            // Each slice is hashed over what came before; slices are cut in the same places for the same state.
            hash = mix(hash, base::crc32c_seeded(hash, &[&bytes]));
            if done {
                return hash;
            }
        }
    }
}

fn mix(hash: u64, word: u32) -> u64 {
    (hash ^ u64::from(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

pub(crate) fn require(holds: bool) -> Result<(), Damaged> {
    if holds { Ok(()) } else { Err(Damaged("a queue checkpoint contradicts itself")) }
}

pub(crate) fn narrow(value: u64) -> Result<u32, Damaged> {
    u32::try_from(value).map_err(|_| Damaged("a queue checkpoint has a number out of range"))
}

/// Reads what follows the head. Every loop consumes bytes, so no count is believed before its bytes.
pub(crate) struct Decoder<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) format: u8,
    /// The group's time when it was written.
    pub(crate) time_ms: i64,
    pub(crate) applied: u64,
    needed: BTreeMap<u64, u64>,
}

impl Decoder<'_> {
    fn place(&mut self) -> Result<Place, Damaged> {
        let mut place =
            Place { boot: self.reader.u32_le()?, last: self.reader.varint()?, ..Place::default() };
        let answers = self.reader.varint()?;
        let mut partial = Partial { expected: self.reader.varint()?, ..Partial::default() };
        let pieces = self.reader.varint()?;
        let mut sequence = 0u64;
        for _ in 0..answers {
            sequence = self.ascend(sequence)?;
            Arc::make_mut(&mut place.answers).push_back((sequence, self.reader.varint()?));
        }
        require(sequence <= place.last && place.last < COUNTER_MAX)?;
        partial.pieces = self.pieces(pieces)?;
        place.partial = Arc::new(partial);
        Ok(place)
    }

    pub(crate) fn ascend(&mut self, from: u64) -> Result<u64, Damaged> {
        from.checked_add(self.reader.varint()?).ok_or(Damaged("a queue checkpoint has a number out of range"))
    }

    pub(crate) fn pieces(&mut self, count: u64) -> Result<Vec<Piece>, Damaged> {
        let mut pieces = Vec::new();
        for _ in 0..count {
            let index = self.reader.varint()?;
            require(index <= self.applied)?;
            let (at, len) = (narrow(self.reader.varint()?)?, narrow(self.reader.varint()?)?);
            pieces.push(Piece { index, at, len });
            self.need(index, 1)?;
        }
        Ok(pieces)
    }

    pub(crate) fn need(&mut self, index: u64, count: u32) -> Result<(), Damaged> {
        let needed = self.needed.entry(index).or_default();
        *needed = needed.checked_add(u64::from(count)).ok_or(Damaged("an entry is needed too often"))?;
        Ok(())
    }

    fn queue(&mut self) -> Result<QueueState, Damaged> {
        let mut queue = QueueState::new(self.reader.lengthed()?);
        queue.next = self.reader.varint()?;
        queue.handed_out = self.reader.varint()?;
        require(queue.handed_out <= queue.next && queue.next < COUNTER_MAX)?;
        let (runs, failures) = (self.reader.varint()?, self.reader.varint()?);
        let (mut end, mut index) = (0, 0);
        for _ in 0..runs {
            let run = self.run(&mut queue, end, index)?;
            (end, index) = (run.end(), run.index);
            queue.live += u64::from(run.live);
            queue.runs.insert(run);
        }
        // The runs lie apart from each other below `next`: they cannot have more messages than that.
        queue.settled = queue.next - queue.live;
        let mut seq = 0;
        for _ in 0..failures {
            let item = Failures { seq: self.ascend(seq)?, count: narrow(self.reader.varint()?)? };
            require(item.count > 0 && queue.is_live(model::Seq(item.seq)))?;
            seq = item.seq + 1;
            queue.failures.insert(item);
        }
        Ok(queue)
    }

    fn run(&mut self, queue: &mut QueueState, end: u64, index: u64) -> Result<Run, Damaged> {
        let first = self.ascend(end)?;
        let index = self.ascend(index)?;
        let packed = self.reader.varint()?;
        let (has_holes, in_parts) = (packed & 2 != 0, packed & 1 != 0);
        let (count, head) = (narrow(packed >> 2)?, narrow(self.reader.varint()?)?);
        let last = first.checked_add(u64::from(count)).ok_or(Damaged("a run ends beyond all places"))?;
        require(last <= queue.next && head < count && index <= self.applied)?;
        let mut run = Run { first, index, at: IN_PARTS, count, head, live: count - head };
        let at = self.reader.varint()?;
        if in_parts {
            require(count == 1 && at > 0)?;
            let pieces = self.pieces(at)?;
            queue.pieces.insert(first, pieces.into());
        } else {
            run.at = narrow(at)?;
            require(run.at != IN_PARTS)?;
        }
        if has_holes {
            let holes = self.holes(&mut run)?;
            queue.holes.insert(first, Arc::new(holes));
        }
        if !in_parts {
            self.need(index, run.live)?;
        }
        Ok(run)
    }

    fn holes(&mut self, run: &mut Run) -> Result<Vec<u64>, Damaged> {
        let count = run.count as usize;
        let bytes = self.reader.bytes(count.div_ceil(64) * 8)?;
        let holes: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let set: u32 = holes.iter().map(|word| word.count_ones()).sum();
        let first_set = bits::next_set(&holes, 0);
        require(first_set.is_some_and(|bit| bit > run.head as usize))?;
        require(bits::next_set(&holes, count).is_none() && set < run.live)?;
        run.live -= set;
        Ok(holes)
    }
}
