//! Topics: told from this shard's copy of the topology; changes are proposed to the metadata group and answered when
//! every shard has them.

use base::{Bug, planted};
use model::topic::{ConfigChange, Topic, TopicDeclaration, TopicRef, TopicsWanted};
use model::{ConnId, GroupId, LogAnswer, LogRefusal, QueueId};
use topology::{Answer as Changed, Command, check_topic_name};

use crate::Broker;
use crate::door::PendingChange;

/// Partitions of a topic that says nothing of them.
const PARTITIONS: u32 = 1;

/// A topic as it would be made; what is given out when it is made, it does not have.
fn planned(declaration: TopicDeclaration) -> Topic {
    let partitions = declaration.partitions.unwrap_or(PARTITIONS) as usize;
    Topic {
        name: declaration.name,
        partitions: vec![QueueId::default(); partitions],
        configs: declaration.configs,
        ..Topic::default()
    }
}

/// A change of a topic on its way: which answer it is part of, and where in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingTopics {
    pub gather: u64,
    pub position: usize,
}

impl Broker {
    /// What topics there are; missing ones may have to be created first.
    pub(crate) fn topics(&mut self, conn: ConnId, token: u64, wanted: TopicsWanted) {
        let vhost = self.vhost_of(conn);
        let TopicsWanted::Named { topics, create } = wanted else {
            let all = self.topology.topics(&vhost).map(|topic| Ok(topic.to_model())).collect();
            return self.answer_log(conn, token, LogAnswer::Topics(all));
        };
        let mut answer = Vec::with_capacity(topics.len());
        let mut missing = Vec::new();
        for (position, topic) in topics.into_iter().enumerate() {
            let mut found = self.topic(&vhost, &topic);
            if found == Err(LogRefusal::UnknownPartition)
                && let TopicRef::Name(name) = &topic
            {
                match check_topic_name(name) {
                    Ok(()) if create => missing.push((position, name.clone())),
                    Ok(()) => {}
                    // It will never be there: nobody need ask again.
                    Err(refusal) => found = Err(refusal),
                }
            }
            answer.push(found.map_err(|refusal| (topic, refusal)));
        }
        let gather = self.gather(conn, token, LogAnswer::Topics(answer));
        for (position, name) in missing {
            let declaration =
                TopicDeclaration { name, partitions: None, replicas: None, configs: Vec::new() };
            self.create_topic(conn, gather, position, declaration, false);
        }
        self.gathered(gather);
    }

    fn topic(&self, vhost: &str, topic: &TopicRef) -> Result<Topic, LogRefusal> {
        let found = match topic {
            TopicRef::Name(name) => self.topology.topic(vhost, name).ok_or(LogRefusal::UnknownPartition),
            TopicRef::Id(id) => self.topology.topic_by_id(*id).ok_or(LogRefusal::UnknownTopicId),
        };
        found.map(|topic| topic.to_model())
    }

    /// Creates topics.
    pub(crate) fn create_topics(
        &mut self,
        conn: ConnId,
        token: u64,
        topics: Vec<TopicDeclaration>,
        validate_only: bool,
    ) {
        let gather = self.begin_changes(conn, token, topics.len());
        for (position, declaration) in topics.into_iter().enumerate() {
            self.create_topic(conn, gather, position, declaration, validate_only);
        }
        self.gathered(gather);
    }

    fn begin_changes(&mut self, conn: ConnId, token: u64, count: usize) -> u64 {
        let answer = vec![Err(super::unanswered()); count];
        self.gather(conn, token, LogAnswer::Changed(answer))
    }

    fn create_topic(
        &mut self,
        conn: ConnId,
        gather: u64,
        position: usize,
        mut declaration: TopicDeclaration,
        validate_only: bool,
    ) {
        let vhost = self.vhost_of(conn);
        let partitions = *declaration.partitions.get_or_insert(PARTITIONS);
        let limits = &self.settings.limits;
        match self.topology.validate_topic(&vhost, &declaration, limits) {
            Err(refusal) => return self.topic_answer(gather, position, Err(refusal)),
            Ok(sound) if validate_only => return self.topic_answer(gather, position, Ok(planned(sound))),
            Ok(sound) => declaration = sound,
        }
        let groups = self.groups_for_partitions(partitions);
        let command = Command::CreateTopic { vhost: vhost.to_string(), declaration, groups };
        self.propose_topic(&command, gather, position);
    }

    fn propose_topic(&mut self, command: &Command, gather: u64, position: usize) {
        if let Some(gather) = self.door.gathers.get_mut(&gather) {
            gather.changes += 1;
        }
        self.propose_command(command, PendingChange::Topic(PendingTopics { gather, position }));
    }

    /// Partitions go to all groups in turn.
    fn groups_for_partitions(&mut self, count: u32) -> Vec<GroupId> {
        let placed = self.topology.groups().filter(|(_, replicas)| !replicas.is_empty());
        let groups: Vec<GroupId> = placed.map(|(group, _)| group).collect();
        let mut next = || {
            self.next_group = self.next_group.wrapping_add(1);
            groups.get(self.next_group % groups.len().max(1)).copied().unwrap_or(GroupId(1))
        };
        (0..count).map(|_| next()).collect()
    }

    /// Adds partitions to topics.
    pub(crate) fn create_partitions(
        &mut self,
        conn: ConnId,
        token: u64,
        topics: Vec<(String, u32)>,
        validate_only: bool,
    ) {
        let vhost = self.vhost_of(conn);
        let gather = self.begin_changes(conn, token, topics.len());
        for (position, (name, count)) in topics.into_iter().enumerate() {
            let known = match self.topology.topic(&vhost, &name) {
                Some(topic) => topic.partitions.len() as u32,
                None => {
                    self.topic_answer(gather, position, Err(LogRefusal::UnknownPartition));
                    continue;
                }
            };
            if let Err(refusal) = self.topology.validate_partitions(&vhost, &name, count) {
                self.topic_answer(gather, position, Err(refusal));
                continue;
            }
            if validate_only {
                self.topic_answer(gather, position, Ok(Topic { name, ..Topic::default() }));
                continue;
            }
            let groups = self.groups_for_partitions(count.saturating_sub(known));
            let command = Command::AddPartitions { vhost: vhost.to_string(), name, count, groups };
            self.propose_topic(&command, gather, position);
        }
        self.gathered(gather);
    }

    /// Deletes topics.
    pub(crate) fn delete_topics(&mut self, conn: ConnId, token: u64, topics: &[TopicRef]) {
        let vhost = self.vhost_of(conn);
        let gather = self.begin_changes(conn, token, topics.len());
        for (position, topic) in topics.iter().enumerate() {
            match self.topic(&vhost, topic) {
                Ok(topic) => {
                    let command = Command::DeleteTopic { vhost: vhost.to_string(), id: topic.id };
                    if planted(Bug::DeletedComesBack) {
                        // The planted bug answers before it is so.
                        self.topic_answer(gather, position, Ok(topic));
                        let nowhere = PendingTopics { gather: u64::MAX, position };
                        self.propose_command(&command, PendingChange::Topic(nowhere));
                        continue;
                    }
                    self.propose_topic(&command, gather, position);
                }
                Err(refusal) => self.topic_answer(gather, position, Err(refusal)),
            }
        }
        self.gathered(gather);
    }

    /// Changes configurations.
    pub(crate) fn alter_topics(
        &mut self,
        conn: ConnId,
        token: u64,
        topics: Vec<(String, Vec<ConfigChange>)>,
        validate_only: bool,
        replace: bool,
    ) {
        let vhost = self.vhost_of(conn);
        let gather = self.begin_changes(conn, token, topics.len());
        for (position, (name, changes)) in topics.into_iter().enumerate() {
            let limits = &self.settings.limits;
            match self.topology.altered(&vhost, &name, &changes, replace, limits) {
                Ok(_) if validate_only => {
                    self.topic_answer(gather, position, Ok(Topic { name, ..Topic::default() }));
                }
                Ok(configs) => {
                    let command = Command::AlterTopic { vhost: vhost.to_string(), name, configs };
                    self.propose_topic(&command, gather, position);
                }
                Err(refusal) => self.topic_answer(gather, position, Err(refusal)),
            }
        }
        self.gathered(gather);
    }

    /// Every shard has a change of a topic, or it was refused.
    pub(crate) fn topic_changed(&mut self, pending: PendingTopics, answer: Changed) {
        let result = match answer {
            Changed::TopicCreated { topic, .. }
            | Changed::TopicDeleted { topic, .. }
            | Changed::TopicAltered { topic, .. } => Ok(topic.to_model()),
            Changed::LogRefused(refusal) => Err(refusal),
            _ => Ok(Topic::default()),
        };
        if let Some(gather) = self.door.gathers.get_mut(&pending.gather) {
            gather.changes -= 1;
        }
        self.topic_answer(pending.gather, pending.position, result);
        self.gathered(pending.gather);
    }

    /// The topic that was asked for at this place, as it is by now.
    fn topic_at(&self, conn: ConnId, gather: u64, position: usize) -> Result<Topic, LogRefusal> {
        let answer = self.door.gathers.get(&gather).map(|gather| &gather.answer);
        let Some(LogAnswer::Topics(all)) = answer else { return Err(LogRefusal::UnknownPartition) };
        let Some(Err((asked, _))) = all.get(position) else { return Err(LogRefusal::UnknownPartition) };
        self.topic(&self.vhost_of(conn), asked)
    }

    fn topic_answer(&mut self, gather: u64, position: usize, result: Result<Topic, LogRefusal>) {
        let Some(gather) = self.door.gathers.get(&gather).map(|begun| (gather, begun.conn)) else { return };
        let (gather, conn) = gather;
        let found = match &result {
            Err(LogRefusal::Exists(_)) => self.topic_at(conn, gather, position),
            _ => Err(LogRefusal::UnknownPartition),
        };
        let Some(gather) = self.door.gathers.get_mut(&gather) else { return };
        match &mut gather.answer {
            LogAnswer::Changed(all) => {
                if let Some(slot) = all.get_mut(position) {
                    *slot = result;
                }
            }
            LogAnswer::Topics(all) => {
                let Some(slot) = all.get_mut(position) else { return };
                let Err((asked, _)) = &*slot else { return };
                // Two that create the same topic at once: the second finds that it is there by now.
                let asked = asked.clone();
                let result = match (result, found) {
                    (Err(LogRefusal::Exists(_)), Ok(topic)) => Ok(topic),
                    // A queue has the name: no topic can have it.
                    (Err(LogRefusal::Exists(text)), Err(_)) => Err(LogRefusal::BadName(text)),
                    (other, _) => other,
                };
                *slot = result.map_err(|refusal| (asked, refusal));
            }
            answer => unreachable!("a topic is no part of {answer:?}"),
        }
    }
}
