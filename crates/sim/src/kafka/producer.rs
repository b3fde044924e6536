//! A producer: batches with numbers of their own, sent again after every lost connection until they are answered; or
//! without numbers, sent once.

use std::collections::{BTreeMap, VecDeque};

use super::batch::{self, NewRecord};
use super::journal::{RecordId, key_of};
use super::link::{Ask, Link, With};
use super::plan::{BEHIND_MS, DRAWN_MS, Keeping};
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
    /// Packed or not.
    attributes: i16,
    /// Everything it wrote, in order.
    pub written: Vec<RecordId>,
}

impl Producer {
    pub fn new(writer: u64, is_idempotent: bool, packs: bool) -> Producer {
        let (lines, written) = (BTreeMap::new(), Vec::new());
        let attributes = if packs { batch::SNAPPY } else { 0 };
        Producer { writer: writer << 20, is_idempotent, id: None, lines, batches: 0, attributes, written }
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
            self.probe(spot, link, with);
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
                produce(link, with, (*spot, batch.number), records, &batch.bytes, None);
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
        let bytes = encode(&records, self.attributes, by, with);
        with.journal.sealed(&records, &bytes);
        with.journal.seen.packed += u64::from(self.attributes != 0);
        self.batches += 1;
        let number = self.batches;
        produce(link, with, (spot, number), records.clone(), &bytes, None);
        line.batches.push_back(Batch { number, records, bytes, is_under_way: true });
    }

    /// Asks for what must not be given.
    fn probe(&mut self, spot: usize, link: &mut Link, with: &mut With<'_>) {
        let (Some(id), Some(line)) = (self.id, self.lines.get(&spot)) else { return };
        let next = line.next_sequence;
        match with.prng.below(4) {
            0 => {
                let mut body = Vec::new();
                body.text("transactions");
                body.i32(60_000);
                link.ask(wire::INIT_PRODUCER_ID, Ask::TransactionalId, &body);
            }
            1 => {
                let records = vec![write(self.writer + 1, spot, with)];
                with.journal.refused("K4", &records);
                let bytes = encode(&records, batch::TRANSACTIONAL, (id, 0, next), with);
                produce(link, with, (spot, 0), records, &bytes, Some("K4"));
            }
            _ => {
                // As if a batch before this one had been lost.
                let records = vec![write(self.writer + 1, spot, with)];
                let bytes = encode(&records, 0, (id, 0, next + 7), with);
                produce(link, with, (spot, 0), records, &bytes, Some("K9"));
            }
        }
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
            Ask::TransactionalId => {
                fields.i32()?;
                let why = fields.i16()?;
                if why != code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED {
                    return Err(("G6", format!("an id for transactions is answered with {why}")));
                }
                with.journal.seen.transactions_refused += 1;
                Ok(())
            }
            Ask::Produce { spot, batch, records, must_fail, held_back } => {
                let mut answer = None;
                super::link::read_spots(&mut fields, |topic, partition, fields| {
                    let (why, base, time_ms) = (fields.i16()?, fields.i64()?, fields.i64()?);
                    fields.i64()?;
                    answer = Some((with.journal.spot_of(topic, partition)?, why, base, time_ms));
                    Ok(())
                })?;
                match answer {
                    Some((_, code::NONE, ..)) if held_back.is_some() && held_back == with.held_back => {
                        Err(("L12", format!("records {records:?} were taken while publishers are held back")))
                    }
                    Some((named, why, base, time_ms)) if named == spot => match must_fail {
                        Some(invariant) => must_be_refused(invariant, why, &records, with),
                        None => self.produced(spot, batch, (why, base, time_ms), with),
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
        (why, base, time_ms): (i16, i64, i64),
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        let line = self.lines.entry(spot).or_default();
        let Some(at) = line.batches.iter().position(|batch| batch.number == number) else { return Ok(()) };
        let must_wait = line.batches.iter().take(at).any(|batch| !batch.is_under_way);
        match why {
            code::NONE => {
                let batch = line.batches.remove(at).expect("it was just found");
                with.journal.acked(spot, base.cast_unsigned(), &batch.records)?;
                with.journal.stamped(spot, (base.cast_unsigned(), &batch.records), time_ms)
            }
            // Whoever creates a topic that is being created hears that it exists before every shard knows it.
            code::UNKNOWN_TOPIC_OR_PARTITION
            | code::LEADER_NOT_AVAILABLE
            | code::REQUEST_TIMED_OUT
            | code::KAFKA_STORAGE_ERROR => {
                with.journal.seen.put_off += 1;
                with.journal.seen.held_back += u64::from(with.held_back.is_some());
                if why == code::KAFKA_STORAGE_ERROR && !self.is_idempotent && !with.is_damaged {
                    // That is said of what has not happened, and nobody sends it again.
                    with.journal.refused("L13", &line.batches[at].records);
                }
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

fn must_be_refused(
    invariant: &'static str,
    why: i16,
    records: &[RecordId],
    with: &mut With<'_>,
) -> Result<(), Fault> {
    with.journal.seen.probes += 1;
    match why {
        code::NONE => Err((invariant, format!("records {records:?} were taken, which may not be"))),
        code::OUT_OF_ORDER_SEQUENCE_NUMBER | code::UNKNOWN_PRODUCER_ID => {
            with.journal.refused("K6", records);
            Ok(())
        }
        _ => {
            with.journal.seen.transactions_refused += u64::from(invariant == "K4");
            Ok(())
        }
    }
}

pub(super) fn write(writer: u64, spot: usize, with: &mut With<'_>) -> RecordId {
    let prng = &mut *with.prng;
    let is_keyed = matches!(with.journal.keeping(spot), Keeping::Keys(_));
    let key = (is_keyed || prng.chance(1, 4)).then(|| prng.below(with.plan.keys));
    let deletes = key.is_some() && prng.chance(1, 6);
    let is_large = prng.chance(with.plan.large, 100);
    let most = if is_large { with.plan.bytes } else { with.plan.bytes.min(600) };
    let bytes = (!deletes).then(|| prng.below(most) as usize);
    let time_ms = with.wall_ms - BEHIND_MS + prng.below(2 * DRAWN_MS as u64) as i64 - DRAWN_MS;
    with.journal.write(spot, writer, key, bytes, time_ms)
}

fn encode(records: &[RecordId], attributes: i16, by: batch::By, with: &With<'_>) -> Vec<u8> {
    let record = |id: &RecordId| {
        let (key, time_ms) = with.journal.key_and_time(*id);
        NewRecord { number: *id, time_ms, key: key.map(key_of), value: with.journal.value(*id) }
    };
    let records: Vec<NewRecord> = records.iter().map(record).collect();
    batch::write(&records, attributes, by)
}

fn produce(
    link: &mut Link,
    with: &mut With<'_>,
    (spot, batch): (usize, usize),
    records: Vec<RecordId>,
    bytes: &[u8],
    must_fail: Option<&'static str>,
) {
    let mut body = Vec::new();
    body.null_text();
    body.i16(if with.prng.chance(1, 5) { 1 } else { -1 });
    body.i32(30_000);
    super::link::put_spots(&mut body, with.journal, &[(spot, ())], |out, ()| out.blob(bytes));
    let held_back = with.held_back;
    link.ask(wire::PRODUCE, Ask::Produce { spot, batch, records, must_fail, held_back }, &body);
}
