//! Topics created, enlarged, deleted, and records deleted from their front.
//!
//! In: topics by name or id. Out: one question for those that make sense, then the response. Never: which values a
//! topic can have.

use std::collections::BTreeMap;

use model::topic::{LogRefusal, Topic, TopicDeclaration, TopicRef};
use model::{LogAnswer, LogRequest, TopicId};

use super::configs;
use super::reply::{Answers, Asked, ByTopic, Reply, by_topic, each, mismatch, named, partition_of};
use crate::map::{self, About};
use crate::wire::{Decoder, Encoder, Malformed};

/// What became of one topic.
type Changed = Result<Topic, LogRefusal>;

/// What was asked, or why it is not asked of the broker.
type Checked<T> = Vec<(String, Result<T, LogRefusal>)>;

fn changed(is_asked: bool, answers: &mut Answers) -> std::vec::IntoIter<Changed> {
    match is_asked.then(|| answers.next()) {
        Some(LogAnswer::Changed(changed)) => changed.into_iter(),
        Some(_) => mismatch(),
        None => Vec::new().into_iter(),
    }
}

/// What became of it: as refused before, or as the broker says next.
fn outcome<T>(checked: &Result<T, LogRefusal>, changed: &mut impl Iterator<Item = Changed>) -> Changed {
    match checked {
        Ok(_) => changed.next().unwrap_or_else(|| mismatch()),
        Err(refusal) => Err(refusal.clone()),
    }
}

/// Refuses what is named more than once, as it is not clear which is meant, and leaves one of them to be answered.
fn refuse_doubles<T>(checked: &mut Checked<T>) {
    let mut counts = counted(checked.iter().map(|(name, _)| name.clone()));
    checked.retain_mut(|(name, checked)| match counts.remove(name) {
        Some(1) => true,
        Some(_) => {
            *checked = Err(twice(name));
            true
        }
        None => false,
    });
}

/// How often each is there.
pub(super) fn counted<T: Ord>(all: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    all.for_each(|one| *counts.entry(one).or_default() += 1);
    counts
}

fn twice(name: &str) -> LogRefusal {
    LogRefusal::Invalid(format!("topic '{}' is named more than once", cut(name)))
}

/// A name as far as a text repeats it.
fn cut(name: &str) -> &str {
    &name[..name.floor_char_boundary(250)]
}

pub(super) fn create(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, node, fields) = (asked.version, asked.node.id, &mut asked.fields);
    let mut topics: Checked<TopicDeclaration> = fields.structs(|fields| declaration(node, fields))?;
    fields.i32()?;
    let validate_only = fields.bool()?;
    refuse_doubles(&mut topics);
    let declared: Vec<_> = topics.iter().filter_map(|(_, checked)| checked.clone().ok()).collect();
    let mut ask = Vec::new();
    if !declared.is_empty() {
        ask.push(LogRequest::CreateTopics { topics: declared, validate_only });
    }
    let is_asked = !ask.is_empty();
    Ok(Reply::after(ask, move |fields, mut answers| {
        let mut changed = changed(is_asked, &mut answers);
        fields.i32(0);
        fields.structs(&topics, |fields, (name, checked)| {
            put_created(version, name, &outcome(checked, &mut changed), fields);
        });
        fields.tags();
    }))
}

fn declaration(
    node: i32,
    fields: &mut Decoder<'_>,
) -> Result<(String, Result<TopicDeclaration, LogRefusal>), Malformed> {
    let name = fields.string()?.to_owned();
    let (partitions, replicas) = (fields.i32()?, fields.i16()?);
    let assignments = fields.structs(|fields| Ok((fields.i32()?, fields.list(Decoder::i32)?)))?;
    let configs = fields
        .structs(|fields| Ok((fields.string()?.to_owned(), fields.nullable_string()?.map(str::to_owned))))?;
    let all_set: Option<Vec<_>> =
        configs.into_iter().map(|(name, value)| value.map(|value| (name, value))).collect();
    let counts = match assignments.is_empty() {
        // What cannot be a count is no count: 0 of anything is refused.
        true => Ok((
            (partitions != -1).then(|| u32::try_from(partitions).unwrap_or(0)),
            (replicas != -1).then(|| u16::try_from(replicas).unwrap_or(0)),
        )),
        false if partitions != -1 || replicas != -1 => Err(LogRefusal::Invalid(
            "with assignments neither partitions nor replicas are counted".to_owned(),
        )),
        false => assigned(node, assignments).map(|count| (Some(count), Some(1))),
    };
    let declared = counts.and_then(|(partitions, replicas)| {
        let configs =
            all_set.ok_or_else(|| LogRefusal::InvalidConfig("a configuration needs a value".to_owned()))?;
        Ok(TopicDeclaration { name: cut(&name).to_owned(), partitions, replicas, configs })
    });
    Ok((name, declared))
}

/// How many partitions are assigned: they must be numbered without gaps, and this node is the only place there is.
fn assigned(node: i32, mut assignments: Vec<(i32, Vec<i32>)>) -> Result<u32, LogRefusal> {
    assignments.sort_unstable();
    let is_sound = assignments.iter().zip(0..).all(|((at, on), n)| *at == n && on[..] == [node]);
    match is_sound {
        true => Ok(assignments.len() as u32),
        false => Err(LogRefusal::InvalidAssignment(format!(
            "partitions must be numbered from 0 without gaps and be assigned to node {node} alone"
        ))),
    }
}

fn put_created(version: i16, name: &str, created: &Changed, fields: &mut Encoder<'_>) {
    fields.string(name);
    if version >= 7 {
        fields.uuid(created.as_ref().map_or(0, |topic| topic.id.0));
    }
    fields.i16(map::code(created, About::Topic));
    fields.nullable_string(map::text(created));
    if version >= 5 {
        match created {
            Ok(topic) => {
                fields.i32(topic.partitions.len() as i32);
                fields.i16(1);
                configs::put_created(topic, fields);
            }
            Err(_) => {
                fields.i32(-1);
                fields.i16(-1);
                fields.length(0);
            }
        }
    }
}

pub(super) fn enlarge(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (node, fields) = (asked.node.id, &mut asked.fields);
    let mut topics: Checked<u32> = fields.structs(|fields| {
        let (name, count) = (fields.string()?.to_owned(), fields.i32()?);
        let assignments = fields.nullable_structs(|fields| fields.list(Decoder::i32))?.unwrap_or_default();
        let is_here = assignments.iter().all(|on| on[..] == [node]);
        let elsewhere = || LogRefusal::InvalidAssignment(format!("there is only node {node}"));
        let count = if is_here { Ok(u32::try_from(count).unwrap_or(0)) } else { Err(elsewhere()) };
        Ok((name, count))
    })?;
    fields.i32()?;
    let validate_only = fields.bool()?;
    refuse_doubles(&mut topics);
    let wanted =
        topics.iter().filter_map(|(name, count)| Some((cut(name).to_owned(), *count.as_ref().ok()?)));
    let wanted: Vec<_> = wanted.collect();
    let mut ask = Vec::new();
    if !wanted.is_empty() {
        ask.push(LogRequest::CreatePartitions { topics: wanted, validate_only });
    }
    let is_asked = !ask.is_empty();
    Ok(Reply::after(ask, move |fields, mut answers| {
        let mut changed = changed(is_asked, &mut answers);
        fields.i32(0);
        fields.structs(&topics, |fields, (name, checked)| {
            let done = outcome(checked, &mut changed);
            fields.string(name);
            fields.i16(map::code(&done, About::Topic));
            fields.nullable_string(map::text(&done));
        });
        fields.tags();
    }))
}

/// A topic that is to be deleted, as the request names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Doomed {
    name: Option<String>,
    id: TopicId,
}

impl Doomed {
    fn reference(&self) -> TopicRef {
        self.name.as_deref().map_or(TopicRef::Id(self.id), named)
    }

    /// Why it is not asked of the broker: it must be clear which one is meant.
    fn refusal(&self) -> Option<LogRefusal> {
        let text = match (&self.name, self.id) {
            (Some(_), TopicId(1..)) => "a topic is named or its id is given, not both",
            (None, TopicId(0)) => "neither a name nor an id is given",
            _ => return None,
        };
        Some(LogRefusal::Invalid(text.to_owned()))
    }
}

pub(super) fn delete(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let named: Vec<Doomed> = match version {
        ..6 => fields
            .list(|fields| Ok(Doomed { name: Some(fields.string()?.to_owned()), id: TopicId::default() }))?,
        _ => fields.structs(|fields| {
            Ok(Doomed { name: fields.nullable_string()?.map(str::to_owned), id: TopicId(fields.uuid()?) })
        })?,
    };
    fields.i32()?;
    let doomed = checked_doomed(named);
    let sound: Vec<_> = doomed.iter().filter(|(_, checked)| checked.is_ok()).collect();
    let wanted: Vec<_> = sound.into_iter().map(|(doomed, _)| doomed.reference()).collect();
    let is_asked = !wanted.is_empty();
    let ask = if is_asked { vec![LogRequest::DeleteTopics(wanted)] } else { Vec::new() };
    Ok(Reply::after(ask, move |fields, mut answers| {
        let mut deleted = changed(is_asked, &mut answers);
        if version >= 1 {
            fields.i32(0);
        }
        fields.structs(&doomed, |fields, (doomed, checked)| {
            put_deleted(version, doomed, &outcome(checked, &mut deleted), fields);
        });
        fields.tags();
    }))
}

/// Each topic once, and whether it is clear which one is meant.
fn checked_doomed(named: Vec<Doomed>) -> Vec<(Doomed, Result<(), LogRefusal>)> {
    let mut counts = counted(named.iter().cloned());
    let once = named.into_iter().filter_map(|doomed| Some((counts.remove(&doomed)?, doomed)));
    let checked = once.map(|(count, doomed)| {
        let name = doomed.name.as_deref().unwrap_or("of one id");
        let double = (count > 1).then(|| twice(name));
        let checked = doomed.refusal().or(double).map_or(Ok(()), Err);
        (doomed, checked)
    });
    checked.collect()
}

fn put_deleted(version: i16, doomed: &Doomed, deleted: &Changed, fields: &mut Encoder<'_>) {
    let known = deleted.as_ref().ok();
    let name = doomed.name.as_deref().or(known.map(|topic| topic.name.as_str()));
    let id = known.map_or(doomed.id, |topic| topic.id);
    match version >= 6 {
        true => {
            fields.nullable_string(name);
            fields.uuid(id.0);
        }
        false => fields.string(name.unwrap_or_default()),
    }
    fields.i16(map::code(deleted, About::Topic));
    if version >= 5 {
        fields.nullable_string(map::text(deleted));
    }
}

pub(super) fn delete_records(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let fields = &mut asked.fields;
    let topics: ByTopic<(i32, Option<u64>)> = by_topic(fields, |fields| {
        let (partition, offset) = (fields.i32()?, fields.i64()?);
        // -1 means all that are there.
        Ok((partition, if offset == -1 { Some(u64::MAX) } else { u64::try_from(offset).ok() }))
    })?;
    let places = each(&topics, |topic, (at, offset)| offset.map(|offset| (partition_of(topic, *at), offset)));
    let places: Vec<_> = places.into_iter().flatten().collect();
    let ask = if places.is_empty() { Vec::new() } else { vec![LogRequest::Trim(places)] };
    let is_asked = !ask.is_empty();
    Ok(Reply::after(ask, move |fields, mut answers| {
        let mut trimmed = match is_asked.then(|| answers.next()) {
            Some(LogAnswer::Trimmed(trimmed)) => trimmed.into_iter(),
            Some(_) => mismatch(),
            None => Vec::new().into_iter(),
        };
        fields.i32(0);
        fields.structs(&topics, |fields, (topic, partitions)| {
            fields.string(topic);
            fields.structs(partitions, |fields, (partition, offset)| {
                let trimmed = match offset {
                    Some(_) => trimmed.next().unwrap_or_else(|| mismatch()),
                    None => Err(LogRefusal::OutOfRange(0, 0)),
                };
                fields.i32(*partition);
                fields.i64(trimmed.as_ref().map_or(-1, |start| start.cast_signed()));
                fields.i16(map::code(&trimmed, About::Topic));
            });
        });
        fields.tags();
    }))
}
