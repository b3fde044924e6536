//! How a request is answered: what is asked of the broker for it, and what is written once the answers are there.
//!
//! In: one kind of request with its fields (`Asked`). Out: a [`Reply`]. Never: the order among requests.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use model::membership::{GroupAnswer, GroupRequest};
use model::topic::{PartitionRef, TopicRef};
use model::{LogAnswer, LogRequest, TopicId};

use crate::wire::{Decoder, Encoder};

/// What a client is told about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub id: i32,
    pub cluster: String,
    pub host: String,
    pub port: u16,
}

/// A request whose header was read.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub version: i16,
    pub client: &'a str,
    /// Where the client is, as others are shown it.
    pub peer: &'a str,
    pub node: &'a Arc<Node>,
    pub fields: Decoder<'a>,
}

/// Writes a response out of the answers to what was asked.
pub(crate) struct Respond(Box<Write>);

type Write = dyn FnOnce(&mut Encoder<'_>, Answers) + Send;

impl fmt::Debug for Respond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Respond")
    }
}

impl Respond {
    pub(crate) fn write(self, fields: &mut Encoder<'_>, answers: Answers) {
        (self.0)(fields, answers);
    }
}

/// How a request is answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub ask: Vec<LogRequest<'static>>,
    pub respond: Respond,
}

impl Reply {
    /// Nothing need be asked.
    pub(crate) fn now(respond: impl FnOnce(&mut Encoder<'_>) + Send + 'static) -> Reply {
        Reply::after(Vec::new(), |fields, _| respond(fields))
    }

    /// All of these must be answered first.
    pub(crate) fn after(
        ask: Vec<LogRequest<'static>>,
        respond: impl FnOnce(&mut Encoder<'_>, Answers) + Send + 'static,
    ) -> Reply {
        Reply { ask, respond: Respond(Box::new(respond)) }
    }

    /// The coordinator must answer this first.
    pub(crate) fn group(
        ask: GroupRequest,
        respond: impl FnOnce(&mut Encoder<'_>, GroupAnswer) + Send + 'static,
    ) -> Reply {
        Reply::after(vec![LogRequest::Group(ask)], |fields, mut answers| respond(fields, answers.group()))
    }
}

/// The answers to what a reply asked, in the order asked.
#[derive(Debug)]
pub(crate) struct Answers(std::vec::IntoIter<LogAnswer>);

impl Answers {
    pub(crate) fn new(answers: Vec<LogAnswer>) -> Answers {
        Answers(answers.into_iter())
    }

    pub(crate) fn next(&mut self) -> LogAnswer {
        self.0.next().expect("a reply is written when every answer is there")
    }

    pub(crate) fn group(&mut self) -> GroupAnswer {
        match self.next() {
            LogAnswer::Group(answer) => answer,
            _ => mismatch(),
        }
    }
}

/// The broker answered something else than it was asked.
pub(crate) fn mismatch() -> ! {
    unreachable!("every request has its own kind of answer")
}

/// Bytes of a topic's name as far as the broker is told it: longer ones cannot be topics, and what is kept of a
/// request must not grow far beyond its bytes.
const NAME_KEPT: usize = 250;

/// A topic by its name.
pub(crate) fn named(name: &str) -> TopicRef {
    TopicRef::Name(name[..name.floor_char_boundary(NAME_KEPT)].to_owned())
}

/// How a request of the protocol names a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Name(Arc<str>),
    Id(u128),
}

impl Topic {
    pub(crate) fn reference(&self) -> TopicRef {
        match self {
            Topic::Name(name) => named(name),
            Topic::Id(id) => TopicRef::Id(TopicId(*id)),
        }
    }

    pub(crate) fn put(&self, fields: &mut Encoder<'_>) {
        match self {
            Topic::Name(name) => fields.string(name),
            Topic::Id(id) => fields.uuid(*id),
        }
    }
}

/// A partition of a named topic. A number below 0 names one that cannot be.
pub(crate) fn partition_of(topic: &str, partition: i32) -> PartitionRef {
    PartitionRef { topic: named(topic), partition: partition.cast_unsigned() }
}

/// Topics of a request with something for each partition.
pub(crate) type ByTopic<T> = Vec<(String, Vec<T>)>;

/// Reads a list of topic names with a list of something for each.
pub(crate) fn by_topic<T>(
    fields: &mut Decoder<'_>,
    mut item: impl FnMut(&mut Decoder<'_>) -> Result<T, crate::wire::Malformed>,
) -> Result<ByTopic<T>, crate::wire::Malformed> {
    fields.structs(|fields| Ok((fields.string()?.to_owned(), fields.structs(&mut item)?)))
}

/// Something for every partition, in the order asked.
pub(crate) fn each<T, R>(topics: &ByTopic<T>, mut act: impl FnMut(&str, &T) -> R) -> Vec<R> {
    let all = topics.iter().flat_map(|(topic, items)| items.iter().map(move |item| (topic, item)));
    all.map(|(topic, item)| act(topic, item)).collect()
}

/// Leaves the first of everything that is named more than once: an answer may be far larger than the question, and
/// must not be multiplied by asking the same again.
pub(crate) fn distinct<T: Ord + Clone>(items: &mut Vec<T>) {
    let mut seen = BTreeSet::new();
    items.retain(|item| seen.insert(item.clone()));
}

/// Leaves the first of every partition that is named more than once.
pub(crate) fn distinct_partitions(topics: &mut ByTopic<i32>) {
    let mut seen = BTreeSet::new();
    for (topic, partitions) in topics.iter_mut() {
        let topic: Arc<str> = Arc::from(topic.as_str());
        partitions.retain(|partition| seen.insert((topic.clone(), *partition)));
    }
    topics.retain(|(_, partitions)| !partitions.is_empty());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_again_is_asked_once() {
        let mut names = vec!["b", "a", "b"];
        distinct(&mut names);
        assert_eq!(names, ["b", "a"]);
        let mut topics =
            vec![("t".to_owned(), vec![1, 0, 1]), ("u".to_owned(), vec![1]), ("t".to_owned(), vec![0])];
        distinct_partitions(&mut topics);
        assert_eq!(topics, [("t".to_owned(), vec![1, 0]), ("u".to_owned(), vec![1])]);
    }
}
