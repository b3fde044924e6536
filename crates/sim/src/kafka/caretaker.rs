//! Who creates, uses and deletes a topic over and over, and adds partitions to another.
//!
//! In: chances to act. Out: one request at a time. What is checked: records of a deleted topic never appear in the one
//! that has its name, nor under the id of the deleted one, which no other topic ever has (K1); what was acknowledged is
//! there as long as the topic is (K2); a change that was answered is there after a crash, and only then (L1).

use std::collections::BTreeMap;

use super::batch::{self, NewRecord};
use super::link::{self, Ask, Link, With};
use super::plan::BEHIND_MS;
use super::wire::{self, Fields, PutFields, code};
use crate::client::Fault;
use crate::ledger::{body_of, is_body};

/// Partitions of the topic that grows, at most.
const PARTITIONS_MAX: usize = 4;
/// Bits of a record's number that count within its topic.
const COUNT_BITS: u32 = 20;

/// What an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Create,
    Delete,
    Produce(usize),
    Fetch,
    /// By the id of a topic that was deleted.
    FetchDeleted,
    Grow(usize),
}

/// Whether the topic is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Absent,
    Present,
    /// The node died before it said so.
    Unknown,
}

/// The caretaker.
#[derive(Debug, Default)]
pub(super) struct Caretaker {
    state: State,
    /// Part of the topic's name: another one once it is not clear what a lost connection still brings about.
    number: u32,
    /// The ids of all topics that were, and of those that are gone for certain.
    ids: Vec<[u8; 16]>,
    deleted: Vec<[u8; 16]>,
    /// The id of the topic, where it is there or was when it was last heard of.
    present: Option<[u8; 16]>,
    /// The next record of the present topic.
    next: usize,
    acked: BTreeMap<u64, usize>,
    /// As far as its records were read.
    place: u64,
    /// Whether the topic was used since the node was started.
    is_served: bool,
    errand: Option<Errand>,
}

impl Caretaker {
    fn name(&self) -> String {
        format!("passing-{}", self.number)
    }

    /// The node has died.
    pub fn crashed(&mut self) {
        if matches!(self.errand.take(), Some(Errand::Create | Errand::Delete)) {
            self.state = State::Unknown;
        }
        self.is_served = false;
    }

    /// The connection is gone, and what was sent may still arrive.
    pub fn hung_up(&mut self) {
        if matches!(self.errand.take(), Some(Errand::Create | Errand::Delete)) {
            self.begin_elsewhere();
        }
    }

    fn begin_elsewhere(&mut self) {
        self.number += 1;
        (self.state, self.present) = (State::Absent, None);
    }

    pub fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        if link.under_way() > 0 {
            return;
        }
        let percent = with.prng.below(100);
        let growing = with.journal.growing().filter(|(_, count)| *count < PARTITIONS_MAX && percent < 5);
        let errand = match (growing, self.state) {
            (Some((topic, _)), _) => Errand::Grow(topic),
            (_, State::Unknown) => Errand::Delete,
            (_, State::Absent) if percent < 60 => Errand::Create,
            (_, State::Present) if percent < 65 => Errand::Produce(self.next),
            (_, State::Present) if percent < 72 => Errand::Delete,
            _ if percent < 85 && !self.deleted.is_empty() => Errand::FetchDeleted,
            (_, State::Absent | State::Present) => Errand::Fetch,
        };
        let (api, body) = match errand {
            Errand::Create => (wire::CREATE_TOPICS_WITH_ID, self.creation()),
            Errand::Delete => (wire::DELETE_TOPICS, self.deletion()),
            Errand::Produce(_) => (wire::PRODUCE, self.production(with)),
            Errand::Fetch => (wire::FETCH, self.fetch()),
            Errand::FetchDeleted => (wire::FETCH_BY_ID, self.fetch_deleted(with)),
            Errand::Grow(topic) => (wire::CREATE_PARTITIONS, growth(topic, with)),
        };
        self.errand = Some(errand);
        link.ask(api, Ask::Care(errand), &body);
    }

    fn creation(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.short_length(1);
        body.short_text(&self.name());
        body.i32(1);
        body.i16(1);
        body.short_length(0);
        body.short_length(1);
        body.short_text("retention.ms");
        body.short_text("-1");
        body.i8(0);
        body.i8(0);
        body.i32(30_000);
        body.i8(0);
        body.i8(0);
        body
    }

    fn deletion(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.i32(1);
        body.text(&self.name());
        body.i32(30_000);
        body
    }

    fn production(&mut self, with: &mut With<'_>) -> Vec<u8> {
        let (number, time_ms) = (self.next, with.wall_ms - BEHIND_MS);
        self.next += 1;
        let record =
            NewRecord { number, time_ms, key: None, value: Some(body_of(number, length_of(number))) };
        let bytes = batch::write(&[record], 0, (-1, -1, -1));
        let mut body = Vec::new();
        body.null_text();
        body.i16(-1);
        body.i32(30_000);
        body.i32(1);
        body.text(&self.name());
        body.i32(1);
        body.i32(0);
        body.blob(&bytes);
        body
    }

    fn fetch(&self) -> Vec<u8> {
        let mut body = fetch_head();
        body.i32(1);
        body.text(&self.name());
        body.i32(1);
        body.i32(0);
        body.i32(-1);
        body.i64(self.place.cast_signed());
        body.i64(-1);
        body.i32(1 << 20);
        body.i32(0);
        body.text("");
        body
    }

    fn fetch_deleted(&self, with: &mut With<'_>) -> Vec<u8> {
        let mut body = fetch_head();
        body.short_length(1);
        let which = with.prng.below(self.deleted.len() as u64) as usize;
        body.extend_from_slice(&self.deleted[which]);
        body.short_length(1);
        body.i32(0);
        body.i32(-1);
        body.i64(0);
        body.i32(-1);
        body.i64(-1);
        body.i32(1 << 20);
        body.i8(0);
        body.i8(0);
        body.short_length(0);
        body.short_text("");
        body.i8(0);
        body
    }

    pub fn answered(&mut self, ask: &Ask, fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        let Ask::Care(errand) = ask else { return link::greeting(ask, fields) };
        self.errand = None;
        match errand {
            Errand::Create => self.created(fields, with),
            Errand::Delete => self.deleted(fields, with),
            Errand::Produce(number) => self.produced(*number, fields),
            Errand::Fetch => self.fetched(fields, with),
            Errand::FetchDeleted => fetched_deleted(fields, with),
            Errand::Grow(topic) => grown(*topic, fields, with),
        }
    }

    fn is_gone(&mut self) {
        self.state = State::Absent;
        self.deleted.extend(self.present.take());
    }

    fn fault(&self, invariant: &'static str, what: &str) -> Result<(), Fault> {
        Err((invariant, format!("{}: {what}", self.name())))
    }

    fn created(&mut self, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        fields.take(1 + 4)?;
        fields.short_length()?;
        fields.short_text()?;
        let id: [u8; 16] = fields.array()?;
        match fields.i16()? {
            code::NONE if self.ids.contains(&id) => {
                self.fault("K1", "it has the id of a topic that was deleted")
            }
            code::NONE => {
                with.journal.seen.recreated += u64::from(!self.ids.is_empty());
                self.ids.push(id);
                self.present = Some(id);
                (self.state, self.next) = (State::Present, self.ids.len() << COUNT_BITS);
                self.acked.clear();
                self.place = 0;
                Ok(())
            }
            code::REQUEST_TIMED_OUT | code::LEADER_NOT_AVAILABLE => {
                self.begin_elsewhere();
                Ok(())
            }
            why => self.fault("L1", &format!("it was deleted, and to create it is refused with {why}")),
        }
    }

    fn deleted(&mut self, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        fields.take(8)?;
        fields.text()?;
        match (fields.i16()?, self.state) {
            (code::NONE, State::Absent) => self.fault("L1", "it was deleted twice"),
            (code::NONE, State::Present) => {
                with.journal.seen.topics_deleted += 1;
                self.is_gone();
                Ok(())
            }
            (code::NONE | code::UNKNOWN_TOPIC_OR_PARTITION, State::Unknown) => {
                self.is_gone();
                Ok(())
            }
            (code::REQUEST_TIMED_OUT, _) => {
                self.begin_elsewhere();
                Ok(())
            }
            (why, _) => self.fault("L1", &format!("it was created, and to delete it is refused with {why}")),
        }
    }

    /// Right after a start a partition's group may not have learned of it yet.
    fn refused(&self, why: i16, with_damage: bool) -> Result<(), Fault> {
        match why {
            code::UNKNOWN_TOPIC_OR_PARTITION if !self.is_served => Ok(()),
            code::LEADER_NOT_AVAILABLE | code::REQUEST_TIMED_OUT => Ok(()),
            code::KAFKA_STORAGE_ERROR if with_damage => Ok(()),
            why => self.fault("K2", &format!("it is there and refuses with {why}")),
        }
    }

    fn produced(&mut self, number: usize, mut fields: Fields<'_>) -> Result<(), Fault> {
        let mut answer = (0, 0);
        link::read_spots(&mut fields, |_, _, fields| {
            answer = (fields.i16()?, fields.i64()?);
            fields.take(16).map(drop)
        })?;
        let (why, base) = answer;
        if why != code::NONE {
            return self.refused(why, true);
        }
        self.is_served = true;
        match self.acked.insert(base.cast_unsigned(), number) {
            Some(_) => self.fault("K1", &format!("offset {base} is given twice")),
            None => Ok(()),
        }
    }

    fn fetched(&mut self, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        fields.take(4 + 2 + 4)?;
        let (mut why, mut batches) = (code::NONE, Vec::new());
        link::read_spots(&mut fields, |_, _, fields| {
            why = fields.i16()?;
            fields.take(3 * 8)?;
            fields.list(|aborted| aborted.take(16).map(drop))?;
            fields.i32()?;
            batches = batch::read_all(fields.blob()?)?;
            Ok(())
        })?;
        match (why, self.state) {
            (code::UNKNOWN_TOPIC_OR_PARTITION, State::Absent) => Ok(()),
            (code::NONE, State::Absent) => self.fault("K1", "it was deleted and is read"),
            (code::NONE, _) => self.found(&batches, with),
            (why, _) => self.refused(why, with.is_damaged),
        }
    }

    fn found(&mut self, batches: &[batch::GotBatch], with: &mut With<'_>) -> Result<(), Fault> {
        self.is_served = true;
        let records: BTreeMap<u64, &batch::GotRecord> =
            batches.iter().flat_map(|batch| &batch.records).map(|record| (record.offset, record)).collect();
        for (offset, record) in &records {
            let number = record.number;
            if number >> COUNT_BITS != self.ids.len() || number >= self.next {
                return self.fault("K1", &format!("{offset} has a record of another topic, {number:x}"));
            }
            if !record.value.as_deref().is_some_and(|value| is_body(number, length_of(number), value)) {
                return self.fault("L11", &format!("record {number:x} at {offset} was altered"));
            }
        }
        // Where nothing comes there is nothing.
        let end = batches.last().map_or(u64::MAX, |batch| batch.end);
        let is_lost =
            |(offset, number): &(&u64, &usize)| records.get(offset).is_none_or(|got| got.number != **number);
        if let Some((offset, number)) = self.acked.range(self.place..end).find(is_lost) {
            return self
                .fault("K2", &format!("record {number:x} was acknowledged at {offset} and is not there"));
        }
        self.place = if batches.is_empty() { 0 } else { end };
        with.journal.seen.recreated_read += u64::from(self.ids.len() > 1 && !records.is_empty());
        Ok(())
    }
}

/// Bytes of a record's value.
fn length_of(number: usize) -> usize {
    number % 300
}

fn fetch_head() -> Vec<u8> {
    let mut body = Vec::new();
    body.i32(-1);
    body.i32(0);
    body.i32(1);
    body.i32(1 << 20);
    body.i8(0);
    body.i32(0);
    body.i32(-1);
    body
}

fn fetched_deleted(mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
    fields.take(1 + 4 + 2 + 4)?;
    let topics = fields.short_length()?;
    fields.take(16)?;
    let partitions = fields.short_length()?;
    fields.i32()?;
    match (topics, partitions, fields.i16()?) {
        (1, 1, code::UNKNOWN_TOPIC_ID) => {
            with.journal.seen.deleted_ids += 1;
            Ok(())
        }
        (_, _, why) => Err(("K1", format!("a deleted topic is read by its id and answers {why}"))),
    }
}

fn growth(topic: usize, with: &mut With<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    body.i32(1);
    body.text(&with.journal.topics[topic].name);
    body.i32(with.journal.growing().map_or(0, |(_, count)| count as i32 + 1));
    body.i32(-1);
    body.i32(30_000);
    body.i8(0);
    body
}

fn grown(topic: usize, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
    fields.take(8)?;
    fields.text()?;
    match fields.i16()? {
        // One whose answer was lost has grown it already.
        code::NONE | code::INVALID_PARTITIONS => {
            with.journal.grow(topic);
            with.journal.seen.grown += 1;
            Ok(())
        }
        code::REQUEST_TIMED_OUT => Ok(()),
        why => Err(("L10", format!("a partition more is refused with {why}"))),
    }
}
