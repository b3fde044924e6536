//! Topics: names for ordered lists of streams, their partitions.
//!
//! In: commands about topics, declarations of streams. Out: records, answers, refusals. A topic of one partition is the
//! stream of its name. One of more is a direct exchange of its name, bound with the keys `0`, `1`, … to the streams
//! `name-0`, `name-1`, …; a topic that grows keeps its first stream under the name it has. A stream whose name cannot be
//! a topic's is one for AMQP only. Never: offsets or records, which are in the partitions' groups.

use std::collections::BTreeMap;

use base::{Bug, planted};
use model::topic::{Topic, TopicDeclaration, TopicRef};
use model::{Arguments, GroupId, LogRefusal, QueueId, Refusal, TopicId, Value};

use crate::configs::{TopicSettings, check_config};
use crate::stream_arguments::configs_of;
use crate::topology::Answer;
use crate::{
    BindingId, BindingRecord, Destination, ExchangeId, ExchangeKind, ExchangeRecord, QueueKind, QueueRecord,
    Target, Topology,
};

/// The upper half of topic ids where none was chosen, which keeps them from being zero; the lower one is the id of the
/// first partition.
const TOPIC_IDS: u64 = 0x5761_7973_7461_7469;

/// Partitions of one topic: one command creates them all.
const PARTITIONS_MAX: u32 = 4096;

/// A topic.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicRecord {
    /// Never reused, not even by a cluster that begins anew, so it tells a topic from a later one of the same name;
    /// never zero.
    pub id: TopicId,
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Its streams, in order; at least one.
    pub partitions: Vec<QueueId>,
    /// What was configured; what is missing has its default.
    pub configs: BTreeMap<String, String>,
    /// What the stream was declared with, where an AMQP client created it; else empty.
    pub arguments: Arguments,
}

impl TopicRecord {
    pub(crate) fn new(
        topic_ids: u64,
        vhost: &str,
        name: &str,
        partitions: Vec<QueueId>,
        configs: BTreeMap<String, String>,
    ) -> TopicRecord {
        let first = partitions.first().expect("a topic has a partition");
        let upper = if topic_ids == 0 { TOPIC_IDS } else { topic_ids };
        let id = TopicId(u128::from(upper) << 64 | u128::from(first.0));
        let arguments = Arguments::default();
        TopicRecord { id, vhost: vhost.into(), name: name.into(), partitions, configs, arguments }
    }

    /// What the configurations come to.
    pub fn settings(&self) -> TopicSettings {
        TopicSettings::of(&self.configs)
    }

    /// The topic as clients see it.
    pub fn to_model(&self) -> Topic {
        Topic {
            name: self.name.clone(),
            id: self.id,
            partitions: self.partitions.clone(),
            configs: self.configs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            arguments: self.arguments.clone(),
        }
    }

    /// The names of the partitions from `first` up to `count` for one that has no partition of these yet.
    fn names(&self, first: u32, count: u32) -> impl Iterator<Item = String> {
        partition_names(&self.name, first, count)
    }
}

fn partition_names(topic: &str, first: u32, count: u32) -> impl Iterator<Item = String> {
    (first..count).map(move |number| if count == 1 { topic.to_owned() } else { format!("{topic}-{number}") })
}

/// Whether a topic can have this name.
pub fn is_topic_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}

/// Refuses a name that no topic can be given.
pub fn check_topic_name(name: &str) -> Result<(), LogRefusal> {
    if !is_topic_name(name) {
        let text = "a topic's name has 1 to 249 letters, digits, '.', '_' or '-' and is neither '.' nor '..'";
        return Err(LogRefusal::BadName(text.into()));
    }
    if name.starts_with("amq.") {
        return Err(LogRefusal::BadName(format!("'{name}' begins with the reserved 'amq.'")));
    }
    Ok(())
}

impl Topology {
    /// The topic of this name.
    pub fn topic(&self, vhost: &str, name: &str) -> Option<&TopicRecord> {
        let id = self.vhosts.get(vhost)?.topics.get(name)?;
        self.topics.get(id).filter(|topic| is_topic_name(&topic.name))
    }

    /// The topic of this id, whatever its virtual host.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&TopicRecord> {
        self.topics.get(&id).filter(|topic| is_topic_name(&topic.name))
    }

    /// Whether it was chosen what topic ids begin with.
    pub fn names_topics(&self) -> bool {
        self.topic_ids != 0
    }

    pub(crate) fn name_topics(&mut self, first: u64) -> Answer {
        if self.topic_ids == 0 && first != 0 {
            self.topic_ids = first;
            self.version += 1;
        }
        Answer::Done
    }

    /// The topic as a request names it.
    pub fn resolve(&self, vhost: &str, topic: &TopicRef) -> Result<&TopicRecord, LogRefusal> {
        match topic {
            TopicRef::Name(name) => self.topic(vhost, name).ok_or(LogRefusal::UnknownPartition),
            TopicRef::Id(id) => {
                let found = self.topic_by_id(*id).filter(|topic| topic.vhost == vhost);
                found.ok_or(LogRefusal::UnknownTopicId)
            }
        }
    }

    /// The topics of a virtual host in the order of their names, without streams that are for AMQP only.
    pub fn topics(&self, vhost: &str) -> impl Iterator<Item = &TopicRecord> {
        let ids = self.vhosts.get(vhost).into_iter().flat_map(|vhost| vhost.topics.values());
        ids.map(|id| &self.topics[id]).filter(|topic| is_topic_name(&topic.name))
    }

    /// Where one partition is.
    pub fn partition(&self, vhost: &str, topic: &str, partition: u32) -> Option<Target> {
        let queue = self.topic(vhost, topic)?.partitions.get(partition as usize)?;
        self.queues.get(queue).map(QueueRecord::target)
    }

    /// The topic that a stream is a partition of, and which; also for streams that are for AMQP only.
    pub fn topic_of(&self, queue: QueueId) -> Option<(&TopicRecord, u32)> {
        let (topic, partition) = self.topic_of.get(&queue)?;
        Some((&self.topics[topic], *partition))
    }

    /// Where the offsets of consumer groups are kept, in an order that never changes.
    pub fn coordinators(&self) -> &[Target] {
        &self.coordinators
    }

    /// The number of nodes that hold replicas, at least one.
    pub(crate) fn nodes(&self) -> usize {
        let mut nodes: Vec<_> = self.groups.values().flatten().map(|replica| replica.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len().max(1)
    }

    /// Refuses what cannot become a topic now; returns the number of partitions.
    pub(crate) fn check_new_topic(
        &self,
        vhost: &str,
        declaration: &TopicDeclaration,
    ) -> Result<u32, LogRefusal> {
        check_topic_name(&declaration.name)?;
        let Some(host) = self.vhosts.get(vhost) else {
            return Err(LogRefusal::Invalid(format!("there is no virtual host '{vhost}'")));
        };
        if host.topics.contains_key(&declaration.name) {
            return Err(exists("topic", &declaration.name));
        }
        let count = declaration.partitions.unwrap_or(1);
        check_count(count)?;
        self.check_replicas(declaration.replicas)?;
        for (name, value) in &declaration.configs {
            check_config(name, value)?;
            self.check_in_sync(name, value)?;
        }
        self.check_free(vhost, &declaration.name, count > 1, partition_names(&declaration.name, 0, count))?;
        if count > 1 && host.queues.contains_key(&declaration.name) {
            return Err(exists("queue", &declaration.name));
        }
        Ok(count)
    }

    /// Refuses streams, and an exchange for them, whose names are taken or for which there is no room.
    pub(crate) fn check_free(
        &self,
        vhost: &str,
        topic: &str,
        needs_exchange: bool,
        streams: impl Iterator<Item = String>,
    ) -> Result<(), LogRefusal> {
        let mut missing = 0;
        for name in streams {
            if self.queue(vhost, &name).is_some() {
                return Err(exists("queue", &name));
            }
            missing += 1;
        }
        if needs_exchange && self.exchange(vhost, topic).is_some() {
            return Err(exists("exchange", topic));
        }
        let bounds = &self.bounds;
        let full = |what, most| Err(LogRefusal::Forbidden(format!("there would be more than {most} {what}")));
        if self.queues.len() + missing > bounds.queues {
            return full("queues", bounds.queues);
        }
        if needs_exchange && self.exchanges.len() >= bounds.exchanges {
            return full("exchanges", bounds.exchanges);
        }
        // At most one more for the first partition of a topic that had one only.
        if needs_exchange && self.bindings.records.len() + missing + 1 > bounds.bindings {
            return full("bindings", bounds.bindings);
        }
        Ok(())
    }

    fn check_replicas(&self, replicas: Option<u16>) -> Result<(), LogRefusal> {
        let nodes = self.nodes();
        match replicas {
            Some(count) if count == 0 || usize::from(count) > nodes => Err(LogRefusal::InvalidReplicas(
                format!("{count} replicas are asked for and there are {nodes} nodes"),
            )),
            _ => Ok(()),
        }
    }

    /// More replicas in sync than there are nodes would never be there.
    pub(crate) fn check_in_sync(&self, name: &str, value: &str) -> Result<(), LogRefusal> {
        let nodes = self.nodes();
        if name == "min.insync.replicas" && value.parse::<usize>().is_ok_and(|count| count > nodes) {
            let text = format!("configuration '{name}': {value} are asked for and there are {nodes} nodes");
            return Err(LogRefusal::InvalidConfig(text));
        }
        Ok(())
    }

    pub(crate) fn create_topic(
        &mut self,
        vhost: &str,
        declaration: TopicDeclaration,
        groups: &[GroupId],
    ) -> Result<Answer, LogRefusal> {
        let count = self.check_new_topic(vhost, &declaration)?;
        self.check_groups(groups, count)?;
        let TopicDeclaration { name, configs, .. } = declaration;
        let names = partition_names(&name, 0, count);
        let queues: Vec<_> = names.zip(groups).map(|(name, at)| self.add_stream(vhost, name, *at)).collect();
        let partitions = queues.iter().map(|queue| queue.id).collect();
        let topic = TopicRecord::new(self.topic_ids, vhost, &name, partitions, configs.into_iter().collect());
        if count > 1 {
            self.add_super_stream(&topic);
        }
        self.add_topic(topic.clone());
        self.version += 1;
        Ok(Answer::TopicCreated { topic, queues })
    }

    fn check_groups(&self, groups: &[GroupId], count: u32) -> Result<(), LogRefusal> {
        if groups.len() < count as usize {
            let text = format!("{} groups were chosen for {count} partitions", groups.len());
            return Err(LogRefusal::Unavailable(text, true));
        }
        match groups.iter().find(|group| !self.groups.contains_key(group)) {
            Some(group) => {
                let text = format!("group {group}, chosen for a partition, does not exist");
                Err(LogRefusal::Unavailable(text, true))
            }
            None => Ok(()),
        }
    }

    fn add_stream(&mut self, vhost: &str, name: String, group: GroupId) -> QueueRecord {
        let queue = QueueRecord {
            id: self.draw_queue_id(),
            kind: QueueKind::Stream,
            vhost: vhost.to_owned(),
            name,
            group,
            durable: true,
            exclusive: None,
            auto_delete: false,
            arguments: Arguments::default(),
            home: None,
        };
        self.add_queue(queue.clone());
        queue
    }

    /// The exchange of a topic with several partitions, bound to all that it has.
    fn add_super_stream(&mut self, topic: &TopicRecord) {
        let id = self.draw_exchange_id();
        self.add_exchange(ExchangeRecord {
            id,
            vhost: topic.vhost.clone(),
            name: topic.name.clone(),
            kind: ExchangeKind::Direct,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments(vec![("x-super-stream".into(), Value::Bool(true))]),
            home: None,
        });
        self.bind_partitions(id, topic, 0);
    }

    fn bind_partitions(&mut self, source: ExchangeId, topic: &TopicRecord, first: usize) {
        for (number, queue) in topic.partitions.iter().enumerate().skip(first) {
            let id = BindingId(self.bindings.next);
            self.bindings.next += 1;
            self.add_binding(BindingRecord { id, ..partition_binding(source, *queue, number as u32) });
        }
    }

    /// Indexes a topic whose partitions exist.
    pub(crate) fn add_topic(&mut self, mut topic: TopicRecord) {
        topic.arguments = self.queues[&topic.partitions[0]].arguments.clone();
        let vhost = self.vhosts.get_mut(&topic.vhost).expect("the virtual host of a topic exists");
        vhost.topics.insert(topic.name.clone(), topic.id);
        for (number, queue) in topic.partitions.iter().enumerate() {
            self.topic_of.insert(*queue, (topic.id, number as u32));
        }
        self.topics.insert(topic.id, topic);
    }

    /// Takes a topic out of all indexes; its streams and its exchange are left.
    pub(crate) fn forget_topic(&mut self, id: TopicId) -> Option<TopicRecord> {
        let topic = self.topics.remove(&id)?;
        let vhost = self.vhosts.get_mut(&topic.vhost).expect("the virtual host of a topic exists");
        vhost.topics.remove(&topic.name);
        for queue in &topic.partitions {
            self.topic_of.remove(queue);
        }
        Some(topic)
    }

    /// A stream that an AMQP client declared becomes a topic of one partition.
    pub(crate) fn add_stream_topic(&mut self, queue: &QueueRecord) {
        let configs = configs_of(&queue.arguments);
        self.add_topic(TopicRecord::new(self.topic_ids, &queue.vhost, &queue.name, vec![queue.id], configs));
    }

    /// Refuses more partitions than can be, or not more than there are; returns how many are missing.
    pub fn validate_partitions(&self, vhost: &str, name: &str, count: u32) -> Result<u32, LogRefusal> {
        let topic = self.topic(vhost, name).ok_or(LogRefusal::UnknownPartition)?;
        let had = topic.partitions.len() as u32;
        if count <= had {
            let text = format!("topic '{name}' has {had} partitions already, which cannot become {count}");
            return Err(LogRefusal::InvalidPartitions(text));
        }
        check_count(count)?;
        self.check_free(vhost, name, had == 1, topic.names(had, count))?;
        Ok(count - had)
    }

    pub(crate) fn add_partitions(
        &mut self,
        vhost: &str,
        name: &str,
        count: u32,
        groups: &[GroupId],
    ) -> Result<Answer, LogRefusal> {
        let missing = self.validate_partitions(vhost, name, count)?;
        self.check_groups(groups, missing)?;
        let id = self.vhosts[vhost].topics[name];
        let mut topic = self.topics[&id].clone();
        let had = topic.partitions.len();
        let names: Vec<_> = topic.names(had as u32, count).collect();
        let new = names.into_iter().zip(groups);
        let queues: Vec<_> = new.map(|(name, at)| self.add_stream(vhost, name, *at)).collect();
        topic.partitions.extend(queues.iter().map(|queue| queue.id));
        match self.exchange_id(vhost, name) {
            Ok(exchange) if had > 1 => self.bind_partitions(exchange, &topic, had),
            _ => self.add_super_stream(&topic),
        }
        self.add_topic(topic.clone());
        self.version += 1;
        Ok(Answer::TopicCreated { topic, queues })
    }

    pub(crate) fn delete_topic(&mut self, vhost: &str, id: TopicId) -> Result<Answer, LogRefusal> {
        self.resolve(vhost, &TopicRef::Id(id))?;
        let topic = self.forget_topic(id).expect("it was just found");
        if topic.partitions.len() > 1
            && let Ok(exchange) = self.exchange_id(vhost, &topic.name)
        {
            self.remove_exchange(exchange);
        }
        let queues = self.remove_queues(topic.partitions.iter().copied());
        if planted(Bug::TopicIdStays) && self.next_queue == topic.partitions[topic.partitions.len() - 1].0 + 1
        {
            // The planted bug gives the numbers away again.
            self.next_queue = topic.partitions[0].0;
        }
        Ok(Answer::TopicDeleted { topic, queues })
    }

    pub(crate) fn create_coordinators(&mut self, groups: &[GroupId]) -> Result<Answer, LogRefusal> {
        if !self.coordinators.is_empty() {
            return Ok(Answer::Coordinators { queues: Vec::new() });
        }
        if groups.is_empty() || groups.len() > PARTITIONS_MAX as usize {
            let text = format!("there can be 1 to {PARTITIONS_MAX} coordinators, not {}", groups.len());
            return Err(LogRefusal::InvalidPartitions(text));
        }
        self.check_groups(groups, groups.len() as u32)?;
        let mut queues = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate() {
            let queue = QueueRecord {
                id: self.draw_queue_id(),
                kind: QueueKind::Coordinator,
                vhost: String::new(),
                name: format!("coordinator-{number}"),
                group: *group,
                durable: true,
                exclusive: None,
                auto_delete: false,
                arguments: Arguments::default(),
                home: None,
            };
            self.add_queue(queue.clone());
            queues.push(queue);
        }
        self.version += 1;
        Ok(Answer::Coordinators { queues })
    }

    /// Refuses to delete one of several partitions, which would leave a topic with a hole.
    pub(crate) fn check_deletable(&self, queue: &QueueRecord) -> Result<(), Refusal> {
        match self.topic_of(queue.id) {
            Some((topic, partition)) if topic.partitions.len() > 1 => Err(Refusal::AccessRefused(format!(
                "queue '{}' is partition {partition} of topic '{}' and goes only with it",
                queue.name, topic.name
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to delete the exchange of a topic.
    pub(crate) fn check_no_super_stream(&self, vhost: &str, exchange: &str) -> Result<(), Refusal> {
        match self.topic(vhost, exchange) {
            Some(topic) if topic.partitions.len() > 1 => Err(Refusal::AccessRefused(format!(
                "exchange '{exchange}' belongs to the topic of that name and goes only with it"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to take a partition from the exchange of its topic.
    pub(crate) fn check_no_partition(&self, binding: &BindingRecord) -> Result<(), Refusal> {
        let Destination::Queue(queue) = binding.destination else { return Ok(()) };
        let Some((topic, number)) = self.topic_of(queue) else { return Ok(()) };
        let from_topic = self.exchanges[&binding.source].record.name == topic.name;
        let own = partition_binding(binding.source, queue, number);
        let same = own.key == binding.key && own.arguments == binding.arguments;
        if topic.partitions.len() > 1 && from_topic && same {
            let text =
                format!("partition {number} of topic '{}' stays bound while the topic exists", topic.name);
            return Err(Refusal::AccessRefused(text));
        }
        Ok(())
    }
}

/// The binding that leads from the exchange of a topic to one partition.
fn partition_binding(source: ExchangeId, queue: QueueId, number: u32) -> BindingRecord {
    let order = ("x-stream-partition-order".to_owned(), Value::Int(i64::from(number)));
    BindingRecord {
        id: BindingId(0),
        source,
        destination: Destination::Queue(queue),
        key: number.to_string(),
        arguments: Arguments(vec![order]),
    }
}

fn check_count(count: u32) -> Result<(), LogRefusal> {
    if (1..=PARTITIONS_MAX).contains(&count) {
        return Ok(());
    }
    Err(LogRefusal::InvalidPartitions(format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {count}")))
}

fn exists(what: &str, name: &str) -> LogRefusal {
    LogRefusal::Exists(format!("{what} '{name}' already exists"))
}
