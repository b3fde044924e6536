//! Metadata and DescribeCluster: one node that leads every partition, and the topics there are.
//!
//! In: which topics are wanted. Out: questions about them, then the response. Never: topics that are internal, as
//! there are none.

use std::sync::Arc;

use model::topic::{LogRefusal, Topic, TopicRef, TopicsWanted};
use model::{LogAnswer, LogRequest, TopicId};

use super::permitted;
use super::reply::{Asked, Node, Reply, distinct, mismatch, named};
use crate::map::{self, About};
use crate::wire::{Encoder, Malformed};

/// Types of endpoints.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn metadata(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let named_topics = fields.nullable_structs(|fields| {
        let id = if version >= 10 { fields.uuid()? } else { 0 };
        Ok(match fields.nullable_string()? {
            Some(name) => named(name),
            None if version >= 10 => TopicRef::Id(TopicId(id)),
            None => return Err(Malformed),
        })
    })?;
    let create = if version >= 4 { fields.bool()? } else { true };
    let cluster = permitted::told((8..=10).contains(&version) && fields.bool()?, permitted::CLUSTER);
    let operations = permitted::told(version >= 8 && fields.bool()?, permitted::TOPIC);
    let wanted = match named_topics {
        None if version >= 1 => TopicsWanted::All,
        None => return Err(Malformed),
        // The oldest version says nothing where it wants everything.
        Some(topics) if topics.is_empty() && version == 0 => TopicsWanted::All,
        Some(mut topics) => {
            distinct(&mut topics);
            TopicsWanted::Named { topics, create }
        }
    };
    let ask = match &wanted {
        TopicsWanted::Named { topics, .. } if topics.is_empty() => Vec::new(),
        _ => vec![LogRequest::Topics(wanted)],
    };
    let (node, is_asked) = (asked.node.clone(), !ask.is_empty());
    Ok(Reply::after(ask, move |fields, mut answers| {
        let topics = match is_asked.then(|| answers.next()) {
            Some(LogAnswer::Topics(topics)) => topics,
            Some(_) => mismatch(),
            None => Vec::new(),
        };
        put_metadata(version, &node, &topics, Operations { cluster, topic: operations }, fields);
    }))
}

/// What became of one topic that was asked for.
type Found = Result<Topic, (TopicRef, LogRefusal)>;

/// What is told of the operations that the client may do.
#[derive(Clone, Copy)]
struct Operations {
    cluster: i32,
    topic: i32,
}

fn put_metadata(
    version: i16,
    node: &Node,
    topics: &[Found],
    operations: Operations,
    fields: &mut Encoder<'_>,
) {
    if version >= 3 {
        fields.i32(0);
    }
    fields.structs([node], |fields, node| {
        put_node(node, fields);
        if version >= 1 {
            fields.nullable_string(None);
        }
    });
    if version >= 2 {
        fields.string(&node.cluster);
    }
    if version >= 1 {
        fields.i32(node.id);
    }
    fields.structs(topics, |fields, topic| put_topic(version, node.id, topic, operations.topic, fields));
    if (8..=10).contains(&version) {
        fields.i32(operations.cluster);
    }
    if version >= 13 {
        fields.i16(map::NONE);
    }
    fields.tags();
}

fn put_node(node: &Node, fields: &mut Encoder<'_>) {
    fields.i32(node.id);
    fields.string(&node.host);
    fields.i32(i32::from(node.port));
}

fn put_topic(version: i16, node: i32, found: &Found, operations: i32, fields: &mut Encoder<'_>) {
    let (code, name, id, partitions) = match found {
        Ok(topic) => (map::NONE, Some(topic.name.as_str()), topic.id, topic.partitions.len()),
        Err((TopicRef::Name(name), refusal)) => {
            (map::code_of(refusal, About::Topic), Some(name.as_str()), TopicId::default(), 0)
        }
        Err((TopicRef::Id(id), refusal)) => (map::code_of(refusal, About::Topic), None, *id, 0),
    };
    fields.i16(code);
    match version >= 12 {
        true => fields.nullable_string(name),
        false => fields.string(name.unwrap_or_default()),
    }
    if version >= 10 {
        fields.uuid(id.0);
    }
    if version >= 1 {
        fields.bool(false);
    }
    fields.structs(0..partitions as i32 as usize, |fields, partition| {
        put_partition(version, node, partition as i32, fields);
    });
    if version >= 8 {
        fields.i32(operations);
    }
}

fn put_partition(version: i16, node: i32, partition: i32, fields: &mut Encoder<'_>) {
    fields.i16(map::NONE);
    fields.i32(partition);
    fields.i32(node);
    if version >= 7 {
        fields.i32(0);
    }
    fields.list([node], Encoder::i32);
    fields.list([node], Encoder::i32);
    if version >= 5 {
        fields.length(0);
    }
}

pub(super) fn describe_cluster(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let version = asked.version;
    let operations = permitted::told(asked.fields.bool()?, permitted::CLUSTER);
    let endpoint = if version >= 1 { asked.fields.i8()? } else { BROKERS };
    asked.fields.tags()?;
    let node = Arc::clone(asked.node);
    Ok(Reply::now(move |fields| {
        fields.i32(0);
        let (code, text) = match endpoint {
            BROKERS => (map::NONE, None),
            CONTROLLERS => {
                (map::MISMATCHED_ENDPOINT_TYPE, Some("this is a broker, and controllers are asked for"))
            }
            _ => (map::UNSUPPORTED_ENDPOINT_TYPE, Some("there is no such type of endpoint")),
        };
        fields.i16(code);
        fields.nullable_string(text);
        if version >= 1 {
            fields.i8(BROKERS);
        }
        fields.string(&node.cluster);
        fields.i32(node.id);
        fields.structs([&*node], |fields, node| {
            put_node(node, fields);
            fields.nullable_string(None);
        });
        fields.i32(operations);
        fields.tags();
    }))
}
