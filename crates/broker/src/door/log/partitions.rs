//! From a partition's name to its log, by memo: a producer names the same partition with every batch.

use base::{Map, map};
use model::topic::{PartitionRef, TopicRef};
use model::{LogRefusal, TopicId};
use topology::{Target, TopicSettings, Topology};

/// One partition as requests need it.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub target: Target,
    pub settings: TopicSettings,
}

/// Partitions that were looked up, as of one version of the topology.
#[derive(Debug)]
pub(crate) struct Partitions {
    version: u64,
    topics: Map<String, Vec<Partition>>,
    ids: Map<TopicId, String>,
}

impl Partitions {
    pub(crate) fn new(seed: u64) -> Partitions {
        Partitions { version: 0, topics: map(seed), ids: map(seed) }
    }

    /// The partition of this name.
    pub(crate) fn find(
        &mut self,
        topology: &Topology,
        vhost: &str,
        topic: &str,
        partition: u32,
    ) -> Result<&Partition, LogRefusal> {
        self.refresh(topology);
        if !self.topics.contains_key(topic) {
            let found = topology.topic(vhost, topic).ok_or(LogRefusal::UnknownPartition)?;
            let settings = found.settings();
            let target = |number: usize| topology.partition(vhost, topic, number as u32);
            let all = (0..found.partitions.len()).filter_map(target);
            let all = all.map(|target| Partition { target, settings: settings.clone() }).collect();
            self.topics.insert(topic.to_owned(), all);
        }
        let partitions = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        partitions.get(partition as usize).ok_or(LogRefusal::UnknownPartition)
    }

    /// The partition of this topic id.
    pub(crate) fn find_by_id(
        &mut self,
        topology: &Topology,
        vhost: &str,
        id: TopicId,
        partition: u32,
    ) -> Result<&Partition, LogRefusal> {
        self.refresh(topology);
        let name = match self.ids.get(&id) {
            Some(name) => name.clone(),
            None => {
                let name = topology.topic_by_id(id).ok_or(LogRefusal::UnknownTopicId)?.name.clone();
                self.ids.insert(id, name.clone());
                name
            }
        };
        self.find(topology, vhost, &name, partition)
    }

    /// The partition as a request names it.
    pub(crate) fn resolve(
        &mut self,
        topology: &Topology,
        vhost: &str,
        at: &PartitionRef,
    ) -> Result<&Partition, LogRefusal> {
        match &at.topic {
            TopicRef::Name(name) => self.find(topology, vhost, name, at.partition),
            TopicRef::Id(id) => self.find_by_id(topology, vhost, *id, at.partition),
        }
    }

    fn refresh(&mut self, topology: &Topology) {
        if self.version != topology.version() {
            self.version = topology.version();
            self.topics.clear();
            self.ids.clear();
        }
    }
}
