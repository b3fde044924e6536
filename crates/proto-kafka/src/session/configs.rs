//! Configurations: described, replaced, changed one by one.
//!
//! In: resources by type and name. Out: questions about topics, then the response. Never: changes the broker's own
//! configuration, which its file says.
//!
//! ```text
//! types of resources   2 topic  4 broker
//! sources of values    1 the topic's own  4 the broker's file  5 default
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use model::topic::{ConfigChange, LogRefusal, Topic, TopicRef, TopicsWanted};
use model::{LogAnswer, LogRequest};

use super::config_table::{self, Kind};
use super::reply::{Asked, Node, Reply, distinct, mismatch, named};
use super::topics::counted;
use crate::map::{self, About, Code};
use crate::wire::{Decoder, Encoder, Malformed};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const FROM_TOPIC: i8 = 1;
const FROM_FILE: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// A resource that is to be described; no keys: all there are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    kind: i8,
    name: String,
    keys: Option<Vec<String>>,
}

/// One value as it is shown.
pub(super) struct Shown {
    pub name: String,
    pub value: String,
    pub kind: i8,
    pub source: i8,
    default: Option<String>,
}

/// All configurations of a topic: its own and the defaults of the others.
pub(super) fn of_topic(topic: &Topic) -> Vec<Shown> {
    let own = |name: &str| topic.configs.iter().find(|(own, _)| own == name);
    let known = config_table::TOPIC.iter().map(|(name, kind, default)| {
        let (value, source) = own(name).map_or((*default, FROM_DEFAULT), |(_, value)| (value, FROM_TOPIC));
        let (name, value) = ((*name).to_owned(), value.to_owned());
        Shown { name, value, kind: *kind as i8, source, default: Some((*default).to_owned()) }
    });
    let is_known = |name: &str| config_table::TOPIC.iter().any(|(known, ..)| *known == name);
    let others = topic.configs.iter().filter(|(name, _)| !is_known(name)).map(|(name, value)| Shown {
        name: name.clone(),
        value: value.clone(),
        kind: Kind::Text as i8,
        source: FROM_TOPIC,
        default: None,
    });
    known.chain(others).collect()
}

fn of_broker(node: &Node) -> Vec<Shown> {
    let all = config_table::of_broker(node).into_iter();
    all.map(|(name, kind, value)| Shown {
        name: name.to_owned(),
        value,
        kind: kind as i8,
        source: FROM_FILE,
        default: None,
    })
    .collect()
}

pub(super) fn describe(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let mut wanted: Vec<Wanted> = fields.structs(|fields| {
        Ok(Wanted {
            kind: fields.i8()?,
            name: fields.string()?.to_owned(),
            keys: fields.nullable_list(|fields| Ok(fields.string()?.to_owned()))?,
        })
    })?;
    distinct(&mut wanted);
    let synonyms = fields.bool()?;
    if version >= 3 {
        fields.bool()?;
    }
    let mut topics: Vec<TopicRef> =
        wanted.iter().filter(|wanted| wanted.kind == TOPIC).map(|wanted| named(&wanted.name)).collect();
    distinct(&mut topics);
    let mut ask = Vec::new();
    if !topics.is_empty() {
        ask.push(LogRequest::Topics(TopicsWanted::Named { topics: topics.clone(), create: false }));
    }
    let (node, is_asked) = (Arc::clone(asked.node), !ask.is_empty());
    Ok(Reply::after(ask, move |fields, mut answers| {
        let found = match is_asked.then(|| answers.next()) {
            Some(LogAnswer::Topics(found)) => found,
            Some(_) => mismatch(),
            None => Vec::new(),
        };
        let found: BTreeMap<TopicRef, Found> = topics.into_iter().zip(found).collect();
        fields.i32(0);
        fields.structs(&wanted, |fields, wanted| {
            let described = match wanted.kind {
                TOPIC => match found.get(&named(&wanted.name)).unwrap_or_else(|| mismatch()) {
                    Ok(topic) => Ok(of_topic(topic)),
                    Err((_, refusal)) => Err(refusal.clone()),
                },
                _ => of_other(wanted, &node),
            };
            put_described(version, wanted, described, synonyms, fields);
        });
        fields.tags();
    }))
}

/// What became of one topic that was asked for.
type Found = Result<Topic, (TopicRef, LogRefusal)>;

/// What is no topic: this broker, or by an empty name what all brokers have been told, which is nothing.
fn of_other(wanted: &Wanted, node: &Node) -> Result<Vec<Shown>, LogRefusal> {
    match (wanted.kind, wanted.name.as_str()) {
        (BROKER, "") => Ok(Vec::new()),
        (BROKER, name) if name == node.id.to_string() => Ok(of_broker(node)),
        (BROKER, name) => Err(LogRefusal::Invalid(format!("there is no broker '{name}'"))),
        (kind, _) => Err(LogRefusal::Invalid(format!("there are no resources of type {kind}"))),
    }
}

fn put_described(
    version: i16,
    wanted: &Wanted,
    described: Result<Vec<Shown>, LogRefusal>,
    synonyms: bool,
    fields: &mut Encoder<'_>,
) {
    fields.i16(map::code(&described, About::Topic));
    fields.nullable_string(map::text(&described));
    fields.i8(wanted.kind);
    fields.string(&wanted.name);
    let mut shown = described.unwrap_or_default();
    // Some clients send an empty list where they want everything.
    if let Some(keys) = wanted.keys.as_ref().filter(|keys| !keys.is_empty()) {
        shown.retain(|shown| keys.contains(&shown.name));
    }
    fields.structs(&shown, |fields, shown| {
        put_value(shown, shown.source == FROM_FILE, fields);
        fields.bool(false);
        put_synonyms(shown, synonyms, fields);
        if version >= 3 {
            fields.i8(shown.kind);
            fields.nullable_string(None);
        }
    });
}

/// Where a value could come from, the first one being where it does.
fn put_synonyms(shown: &Shown, wanted: bool, fields: &mut Encoder<'_>) {
    let mut synonyms = vec![(shown.value.as_str(), shown.source)];
    if let (FROM_TOPIC, Some(default)) = (shown.source, &shown.default) {
        synonyms.push((default, FROM_DEFAULT));
    }
    let synonyms = if wanted { &synonyms[..] } else { &[] };
    fields.structs(synonyms, |fields, (value, source)| {
        fields.string(&shown.name);
        fields.nullable_string(Some(value));
        fields.i8(*source);
    });
}

/// Name, value, whether it cannot be changed, and its source.
fn put_value(shown: &Shown, is_fixed: bool, fields: &mut Encoder<'_>) {
    fields.string(&shown.name);
    fields.nullable_string(Some(&shown.value));
    fields.bool(is_fixed);
    fields.i8(shown.source);
}

/// The configurations of a topic as the answer to its creation shows them.
pub(super) fn put_created(topic: &Topic, fields: &mut Encoder<'_>) {
    fields.structs(&of_topic(topic), |fields, shown| {
        put_value(shown, false, fields);
        fields.bool(false);
    });
}

/// A resource that is to be changed.
struct Altered {
    kind: i8,
    name: String,
    /// `None`: one of the changes makes no sense.
    changes: Option<Vec<ConfigChange>>,
    /// Whether the request names it more than once.
    is_double: bool,
}

pub(super) fn replace(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    alter(asked, true, |fields| {
        let (name, value) = (fields.string()?.to_owned(), fields.nullable_string()?);
        Ok(Some(match value {
            Some(value) => ConfigChange::Set(name, value.to_owned()),
            None => ConfigChange::Default(name),
        }))
    })
}

pub(super) fn change(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    alter(asked, false, |fields| {
        let (name, operation) = (fields.string()?.to_owned(), fields.i8()?);
        let value = fields.nullable_string()?.map(str::to_owned);
        Ok(match (operation, value) {
            (0, Some(value)) => Some(ConfigChange::Set(name, value)),
            (1, _) => Some(ConfigChange::Default(name)),
            (2, Some(value)) => Some(ConfigChange::Append(name, value)),
            (3, Some(value)) => Some(ConfigChange::Subtract(name, value)),
            _ => None,
        })
    })
}

fn alter(
    asked: &mut Asked<'_>,
    replace: bool,
    mut change: impl FnMut(&mut Decoder<'_>) -> Result<Option<ConfigChange>, Malformed>,
) -> Result<Reply, Malformed> {
    let fields = &mut asked.fields;
    let mut altered: Vec<Altered> = fields.structs(|fields| {
        let (kind, name) = (fields.i8()?, fields.string()?.to_owned());
        let changes = fields.structs(&mut change)?.into_iter().collect();
        Ok(Altered { kind, name, changes, is_double: false })
    })?;
    mark_doubles(&mut altered);
    let validate_only = fields.bool()?;
    let topics: Vec<_> = altered.iter().filter(|altered| refusal_of(altered).is_none()).collect();
    let topics: Vec<_> = topics
        .into_iter()
        .map(|altered| (altered.name.clone(), altered.changes.clone().unwrap_or_default()))
        .collect();
    let mut ask = Vec::new();
    if !topics.is_empty() {
        ask.push(LogRequest::AlterTopics { topics, validate_only, replace });
    }
    let is_asked = !ask.is_empty();
    Ok(Reply::after(ask, move |fields, mut answers| {
        let mut done = match is_asked.then(|| answers.next()) {
            Some(LogAnswer::Changed(done)) => done.into_iter(),
            Some(_) => mismatch(),
            None => Vec::new().into_iter(),
        };
        fields.i32(0);
        fields.structs(&altered, |fields, altered| {
            let (code, text) = match refusal_of(altered) {
                Some((code, text)) => (code, Some(text.to_owned())),
                None => {
                    let done = done.next().unwrap_or_else(|| mismatch());
                    (map::code(&done, About::Topic), map::text(&done).map(str::to_owned))
                }
            };
            fields.i16(code);
            fields.nullable_string(text.as_deref());
            fields.i8(altered.kind);
            fields.string(&altered.name);
        });
        fields.tags();
    }))
}

/// It is not clear what becomes of a resource that is named more than once.
fn mark_doubles(altered: &mut [Altered]) {
    let counts = counted(altered.iter().map(|altered| (altered.kind, altered.name.clone())));
    for altered in altered.iter_mut() {
        altered.is_double = counts[&(altered.kind, altered.name.clone())] > 1;
    }
}

fn refusal_of(altered: &Altered) -> Option<(Code, &'static str)> {
    match altered {
        Altered { is_double: true, .. } => Some((map::INVALID_REQUEST, "it is named more than once")),
        Altered { kind, .. } if *kind != TOPIC => Some((
            map::INVALID_REQUEST,
            "only topics can be configured: a broker's configuration is its file's",
        )),
        Altered { changes: None, .. } => {
            Some((map::INVALID_REQUEST, "no such operation, or one that needs a value"))
        }
        _ => None,
    }
}
