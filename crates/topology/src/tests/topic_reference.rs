//! Random sequences of changes by AMQP and Kafka clients at once against plain lists of names.

use std::collections::{BTreeMap, BTreeSet};

use model::topic::TopicDeclaration;
use model::{Change as Wanted, Limits, TopicId, Value};
use proptest::prelude::*;

use super::fixture::*;
use crate::{Answer, Command, QueueKind, Topology};

/// Names that are each other's partitions.
const NAMES: [&str; 5] = ["a", "a-0", "a-1", "a-2", "b"];

#[derive(Clone, Debug)]
enum Step {
    Queue(&'static str),
    Stream(&'static str),
    DeleteQueue(&'static str),
    Exchange(&'static str),
    DeleteExchange(&'static str),
    Create(&'static str, u32),
    Grow(&'static str, u32),
    Delete(&'static str),
}

/// The lists.
#[derive(Debug, Default)]
struct Lists {
    queues: BTreeMap<String, QueueKind>,
    exchanges: BTreeSet<String>,
    /// Names of the partitions by topic.
    topics: BTreeMap<String, Vec<String>>,
}

impl Lists {
    fn is_free(&self, name: &str) -> bool {
        !self.queues.contains_key(name) && !self.topics.contains_key(name)
    }

    /// Does a step; `false` where it is refused.
    fn step(&mut self, step: &Step) -> bool {
        match *step {
            Step::Queue(name) => {
                *self.queues.entry(name.into()).or_insert(QueueKind::Queue) == QueueKind::Queue
            }
            Step::Stream(name) => self.stream(name),
            Step::DeleteQueue(name) => self.delete_queue(name),
            Step::Exchange(name) => {
                self.exchanges.insert(name.into());
                true
            }
            Step::DeleteExchange(name) => {
                let owned = self.topics.get(name).is_some_and(|partitions| partitions.len() > 1);
                !owned && {
                    self.exchanges.remove(name);
                    true
                }
            }
            Step::Create(name, count) => self.create(name, count),
            Step::Grow(name, count) => self.grow(name, count),
            Step::Delete(name) => self.delete(name),
        }
    }

    fn stream(&mut self, name: &str) -> bool {
        match self.queues.get(name) {
            Some(kind) => *kind == QueueKind::Stream,
            None if self.topics.contains_key(name) => false,
            None => {
                self.queues.insert(name.into(), QueueKind::Stream);
                self.topics.insert(name.into(), vec![name.into()]);
                true
            }
        }
    }

    fn delete_queue(&mut self, name: &str) -> bool {
        let partition = |partitions: &Vec<String>| partitions.iter().any(|one| one == name);
        if self.topics.values().any(|partitions| partitions.len() > 1 && partition(partitions)) {
            return false;
        }
        self.topics.retain(|_, partitions| !partition(partitions));
        self.queues.remove(name);
        true
    }

    fn create(&mut self, name: &str, count: u32) -> bool {
        if !self.is_free(name) {
            return false;
        }
        if count == 1 {
            return self.stream(name);
        }
        self.topics.insert(name.into(), Vec::new());
        let done = self.add(name, 0, count);
        if !done {
            self.topics.remove(name);
        }
        done
    }

    fn grow(&mut self, name: &str, count: u32) -> bool {
        let Some(had) = self.topics.get(name).map(|partitions| partitions.len() as u32) else { return false };
        count > had && self.add(name, had, count)
    }

    fn add(&mut self, name: &str, had: u32, count: u32) -> bool {
        let new: Vec<String> = (had..count).map(|number| format!("{name}-{number}")).collect();
        let taken = new.iter().any(|one| self.queues.contains_key(one));
        if taken || (had < 2 && self.exchanges.contains(name)) {
            return false;
        }
        self.exchanges.insert(name.into());
        self.queues.extend(new.iter().map(|one| (one.clone(), QueueKind::Stream)));
        self.topics.entry(name.into()).or_default().extend(new);
        true
    }

    fn delete(&mut self, name: &str) -> bool {
        let Some(partitions) = self.topics.remove(name) else { return false };
        if partitions.len() > 1 {
            self.exchanges.remove(name);
        }
        self.queues.retain(|queue, _| !partitions.contains(queue));
        true
    }
}

fn command(topology: &Topology, step: &Step) -> Command {
    let by = |wanted| command_by(Some(owner(1)), wanted);
    let vhost = "/".to_owned();
    match *step {
        Step::Queue(name) => by(queue(name)),
        Step::Stream(name) => {
            let arguments = table(&[("x-queue-type", Value::text("stream"))]);
            by(Wanted::DeclareQueue(model::QueueDeclaration { arguments, ..a_queue(name) }))
        }
        Step::DeleteQueue(name) => by(delete(name)),
        Step::Exchange(name) => by(exchange(name, "direct")),
        Step::DeleteExchange(name) => by(delete_exchange(name)),
        Step::Create(name, count) => {
            let (name, partitions) = (name.to_owned(), Some(count));
            let declaration = TopicDeclaration { name, partitions, replicas: None, configs: Vec::new() };
            Command::CreateTopic { vhost, declaration, groups: vec![LOGGED; count as usize] }
        }
        Step::Grow(name, count) => {
            Command::AddPartitions { vhost, name: name.into(), count, groups: vec![LOGGED; count as usize] }
        }
        Step::Delete(name) => {
            let id = topology.topic("/", name).map_or(TopicId(0), |topic| topic.id);
            Command::DeleteTopic { vhost, id }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let name = || proptest::sample::select(NAMES.to_vec());
    prop_oneof![
        2 => name().prop_map(Step::Queue),
        3 => name().prop_map(Step::Stream),
        3 => name().prop_map(Step::DeleteQueue),
        1 => name().prop_map(Step::Exchange),
        2 => name().prop_map(Step::DeleteExchange),
        4 => (name(), 1..4u32).prop_map(|(name, count)| Step::Create(name, count)),
        3 => (name(), 1..5u32).prop_map(|(name, count)| Step::Grow(name, count)),
        3 => name().prop_map(Step::Delete),
    ]
}

fn check_same(topology: &Topology, lists: &Lists) {
    let queues = topology.queues().map(|queue| (queue.name.clone(), queue.kind)).collect::<BTreeMap<_, _>>();
    assert_eq!(queues, lists.queues);
    let name_of = |id: &model::QueueId| topology.queue_by_id(*id).expect("a partition exists").name.clone();
    let topics = topology.topics("/").map(|topic| {
        for (number, queue) in topic.partitions.iter().enumerate() {
            assert_eq!(topology.topic_of(*queue), Some((topic, number as u32)));
        }
        (topic.name.clone(), topic.partitions.iter().map(name_of).collect())
    });
    assert_eq!(topics.collect::<BTreeMap<_, Vec<String>>>(), lists.topics);
    let exchanges = topology.exchanges().map(|exchange| exchange.name.clone()).skip(7);
    assert_eq!(exchanges.collect::<BTreeSet<_>>(), lists.exchanges);
    for (topic, partitions) in lists.topics.iter().filter(|(_, partitions)| partitions.len() > 1) {
        for (number, partition) in partitions.iter().enumerate() {
            assert_eq!(routed(topology, topic, &number.to_string()), [partition.as_str()]);
        }
    }
    let several = lists.topics.values().map(Vec::len).filter(|count| *count > 1);
    assert_eq!(topology.bindings().count(), several.sum::<usize>());
}

proptest! {
    #[test]
    fn any_sequence_leaves_what_the_lists_have(steps in proptest::collection::vec(step(), 1..40)) {
        let (mut topology, mut lists) = (fresh(), Lists::default());
        for step in &steps {
            let before = (topology.version(), topology.hash());
            let command = command(&topology, step);
            let answer = apply(&mut topology, command);
            let refused = matches!(answer, Answer::Refused(_) | Answer::LogRefused(_));
            prop_assert_eq!(!refused, lists.step(step), "{:?}: {:?}", step, answer);
            let unchanged = topology.version() == before.0;
            prop_assert_eq!(unchanged, topology.hash() == before.1, "the version says what changed");
            prop_assert!(unchanged || !refused, "a refusal changes nothing");
            check_same(&topology, &lists);
        }
        let mut bytes = Vec::new();
        topology.encode(&mut bytes);
        let mut copy = Topology::decode(&bytes, &Limits::default()).expect("it was just written");
        check_same(&copy, &lists);
        for step in &steps {
            let command = command(&topology, step);
            prop_assert_eq!(copy.apply_command(command.clone()), topology.apply_command(command));
            prop_assert_eq!(copy.hash(), topology.hash(), "a copy goes on like the original");
        }
    }
}
