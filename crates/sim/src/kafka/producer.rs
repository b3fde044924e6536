//! A producer: batches with numbers of their own, sent again after every lost connection until they are answered; or
//! without numbers, sent once.

use std::collections::{BTreeMap, VecDeque};

use super::batch::{self, NewRecord};
use super::journal::{RecordId, key_of};
use super::link::{Ask, Link, With};
use super::plan::{BEHIND_MS, Keeping};
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;

/// A batch without an answer.
#[derive(Debug)]
struct Batch {
    number: usize,
    records: Vec<RecordId>,
    bytes: Vec<u8>,
    is_under_way: bool,
}

/// What goes to one partition.
#[derive(Debug, Default)]
struct Line {
    next_sequence: i32,
    batches: VecDeque<Batch>,
}

/// A producer.
#[derive(Debug)]
pub(super) struct Producer {
    /// Its number as a writer; another one for each connection where it has no numbers of its own.
    writer: u64,
    is_idempotent: bool,
    id: Option<i64>,
    lines: BTreeMap<usize, Line>,
    batches: usize,
    /// Everything it wrote, in order.
    pub written: Vec<RecordId>,
}

impl Producer {
    pub fn new(writer: u64, is_idempotent: bool) -> Producer {
        let (lines, written) = (BTreeMap::new(), Vec::new());
        Producer { writer: writer << 20, is_idempotent, id: None, lines, batches: 0, written }
    }

    /// Its number as a writer, if what it writes is numbered.
    pub fn numbered(&self) -> Option<u64> {
        self.is_idempotent.then_some(self.writer)
    }

    /// Its connection is gone.
    pub fn lost(&mut self) {
        match self.is_idempotent {
            true => {
                let batches = self.lines.values_mut().flat_map(|line| &mut line.batches);
                batches.for_each(|batch| batch.is_under_way = false);
            }
            false => {
                self.lines.clear();
                self.writer += 1;
            }
        }
    }

    pub fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        if self.is_idempotent && self.id.is_none() {
            if !link.awaits(|ask| matches!(ask, Ask::ProducerId)) {
                let mut body = Vec::new();
                body.null_text();
                body.i32(60_000);
                link.ask(wire::INIT_PRODUCER_ID, Ask::ProducerId, &body);
            }
            return;
        }
        self.send_again(link, with);
        if !with.prng.chance(with.plan.produce, 100) {
            return;
        }
        let spot = with.prng.below(with.journal.spots() as u64) as usize;
        let line = self.lines.entry(spot).or_default();
        let is_stuck = line.batches.iter().any(|batch| !batch.is_under_way);
        if self.is_idempotent && line.next_sequence > 0 && with.prng.chance(with.plan.probe, 100) {
            self.leave_out(spot, link, with);
        } else if !is_stuck && line.batches.len() < with.plan.window {
            self.send_new(spot, link, with);
        }
    }

    /// What must be sent again goes in order, once nothing of its partition is under way.
    fn send_again(&mut self, link: &mut Link, with: &mut With<'_>) {
        for (spot, line) in &mut self.lines {
            if line.batches.iter().any(|batch| batch.is_under_way) {
                continue;
            }
            for batch in &mut line.batches {
                batch.is_under_way = true;
                with.journal.seen.resent += 1;
                let records = batch.records.clone();
                produce(link, with, (*spot, batch.number), records, &batch.bytes, false);
            }
        }
    }

    fn send_new(&mut self, spot: usize, link: &mut Link, with: &mut With<'_>) {
        let count = 1 + with.prng.below(with.plan.records);
        let records: Vec<RecordId> = (0..count).map(|_| write(self.writer, spot, with)).collect();
        self.written.extend(&records);
        let line = self.lines.entry(spot).or_default();
        let by = match self.id {
            Some(id) => (id, 0, line.next_sequence),
            None => (-1, -1, -1),
        };
        line.next_sequence += count as i32;
        let bytes = encode(&records, by, with);
        self.batches += 1;
        let number = self.batches;
        produce(link, with, (spot, number), records.clone(), &bytes, false);
        line.batches.push_back(Batch { number, records, bytes, is_under_way: true });
    }

    /// Pretends that a batch was lost before this one, which must not be taken then.
    fn leave_out(&mut self, spot: usize, link: &mut Link, with: &mut With<'_>) {
        let (Some(id), Some(line)) = (self.id, self.lines.get(&spot)) else { return };
        let records = vec![write(self.writer + 1, spot, with)];
        let bytes = encode(&records, (id, 0, line.next_sequence + 7), with);
        produce(link, with, (spot, 0), records, &bytes, true);
    }

    pub fn answered(&mut self, ask: Ask, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        match ask {
            Ask::ProducerId => {
                fields.i32()?;
                let (why, id) = (fields.i16()?, fields.i64()?);
                if why != code::NONE {
                    return Err(("L10", format!("a producer's id is refused with {why}")));
                }
                self.id = Some(id);
                Ok(())
            }
            Ask::Produce { spot, batch, records, must_fail } => {
                let mut answer = None;
                super::link::read_spots(&mut fields, |topic, partition, fields| {
                    let (why, base) = (fields.i16()?, fields.i64()?);
                    fields.take(16)?;
                    answer = Some((with.journal.spot_of(topic, partition)?, why, base));
                    Ok(())
                })?;
                match answer {
                    Some((named, why, base)) if named == spot => match must_fail {
                        true => left_out(why, &records, with),
                        false => self.produced(spot, batch, (why, base), with),
                    },
                    _ => Err(("L2", "a batch is not answered".to_owned())),
                }
            }
            other => super::link::greeting(&other, fields),
        }
    }

    fn produced(
        &mut self,
        spot: usize,
        number: usize,
        (why, base): (i16, i64),
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        let line = self.lines.entry(spot).or_default();
        let Some(at) = line.batches.iter().position(|batch| batch.number == number) else { return Ok(()) };
        let must_wait = line.batches.iter().take(at).any(|batch| !batch.is_under_way);
        match why {
            code::NONE => {
                let batch = line.batches.remove(at).expect("it was just found");
                with.journal.acked(spot, base.cast_unsigned(), &batch.records)
            }
            // Whoever creates a topic that is being created hears that it exists before every shard knows it.
            code::UNKNOWN_TOPIC_OR_PARTITION
            | code::LEADER_NOT_AVAILABLE
            | code::REQUEST_TIMED_OUT
            | code::KAFKA_STORAGE_ERROR => {
                with.journal.seen.put_off += 1;
                match self.is_idempotent {
                    true => line.batches[at].is_under_way = false,
                    false => drop(line.batches.remove(at)),
                }
                Ok(())
            }
            // One before it was put off.
            code::OUT_OF_ORDER_SEQUENCE_NUMBER | code::UNKNOWN_PRODUCER_ID if must_wait => {
                line.batches[at].is_under_way = false;
                Ok(())
            }
            why => {
                let place = with.journal.place(spot);
                Err(("K6", format!("{place:?} refuses a batch in its turn with {why}")))
            }
        }
    }
}

fn left_out(why: i16, records: &[RecordId], with: &mut With<'_>) -> Result<(), Fault> {
    with.journal.seen.probes += 1;
    match why {
        code::NONE => Err(("K9", "a batch was taken though one before it is missing".to_owned())),
        code::OUT_OF_ORDER_SEQUENCE_NUMBER | code::UNKNOWN_PRODUCER_ID => {
            with.journal.refused(records);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn write(writer: u64, spot: usize, with: &mut With<'_>) -> RecordId {
    let prng = &mut *with.prng;
    let is_keyed = matches!(with.journal.keeping(spot), Keeping::Keys(_));
    let key = (is_keyed || prng.chance(1, 4)).then(|| prng.below(with.plan.keys));
    let deletes = key.is_some() && prng.chance(1, 6);
    let most = if prng.chance(1, 4) { with.plan.bytes } else { with.plan.bytes.min(600) };
    let bytes = (!deletes).then(|| prng.below(most) as usize);
    let time_ms = with.wall_ms - BEHIND_MS + prng.below(500) as i64 - 250;
    with.journal.write(spot, writer, key, bytes, time_ms)
}

fn encode(records: &[RecordId], by: batch::By, with: &With<'_>) -> Vec<u8> {
    let record = |id: &RecordId| {
        let (key, time_ms) = with.journal.key_and_time(*id);
        NewRecord { number: *id, time_ms, key: key.map(key_of), value: with.journal.value(*id) }
    };
    let records: Vec<NewRecord> = records.iter().map(record).collect();
    batch::write(&records, by)
}

fn produce(
    link: &mut Link,
    with: &mut With<'_>,
    (spot, batch): (usize, usize),
    records: Vec<RecordId>,
    bytes: &[u8],
    must_fail: bool,
) {
    let mut body = Vec::new();
    body.null_text();
    body.i16(if with.prng.chance(1, 5) { 1 } else { -1 });
    body.i32(30_000);
    super::link::put_spots(&mut body, with.journal, &[(spot, ())], |out, ()| out.blob(bytes));
    link.ask(wire::PRODUCE, Ask::Produce { spot, batch, records, must_fail }, &body);
}
