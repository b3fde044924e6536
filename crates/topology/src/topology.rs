//! The replicated machine of the metadata group: takes commands in order, answers each.
//!
//! In: the bytes of committed commands. Out: an [`Answer`], or a [`Halt`] where the bytes are not understood. Everything
//! is decided here and decided alike on every replica, races between clients included: the state and the command are
//! all that counts. Never: a change before every check of the command has passed, so that a refusal changed nothing.

use std::collections::{BTreeMap, BTreeSet};

use base::{Map, map};
use model::{
    Change as Wanted, Damaged, Entity, GroupId, Limits, LogRefusal, Origin, QueueId, Refusal, TopicId,
};

use crate::bindings::{Bindings, Exchange};
use crate::command::{Change, Command};
use crate::topics::TopicRecord;
use crate::{ExchangeId, ExchangeKind, ExchangeRecord, Owner, QueueKind, QueueRecord, Replica, Target};

/// The only virtual host so far.
pub(crate) const DEFAULT_VHOST: &str = "/";

/// A command that this program does not understand: applying anything behind it would be a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt(pub String);

impl From<Damaged> for Halt {
    fn from(damaged: Damaged) -> Self {
        Halt(format!("a metadata command cannot be read: {}", damaged.0))
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is so, and nothing more is to be said.
    Done,
    /// The queue exists.
    Declared {
        /// The queue.
        queue: QueueRecord,
        /// Whether this command created it.
        created: bool,
    },
    /// These queues went: their hosts drop their messages and consumers. Empty where there was none to delete.
    DeletedQueues {
        /// As they were.
        queues: Vec<QueueRecord>,
    },
    /// The queue may be purged by whoever asked: its group does that.
    Purge(QueueRecord),
    /// It may not be, and nothing changed.
    Refused(Refusal),
    /// The topic has these partitions that it had not before: their hosts create logs.
    TopicCreated {
        /// The topic.
        topic: TopicRecord,
        /// The new partitions.
        queues: Vec<QueueRecord>,
    },
    /// The topic went with all its partitions.
    TopicDeleted {
        /// As it was.
        topic: TopicRecord,
        /// As they were.
        queues: Vec<QueueRecord>,
    },
    /// The topic is configured so: the hosts of its partitions are told.
    TopicAltered {
        /// The topic.
        topic: TopicRecord,
        /// Its partitions; empty where nothing changed.
        queues: Vec<QueueRecord>,
    },
    /// There are coordinators of consumer groups.
    Coordinators {
        /// Those that this command created.
        queues: Vec<QueueRecord>,
    },
    /// A change of topics may not be, and nothing changed.
    LogRefused(LogRefusal),
}

/// What one virtual host holds, by name.
#[derive(Clone, Debug)]
pub(crate) struct Vhost {
    pub(crate) exchanges: Map<String, ExchangeId>,
    pub(crate) queues: Map<String, Target>,
    pub(crate) topics: BTreeMap<String, TopicId>,
}

/// How many there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) queues: usize,
    pub(crate) bindings: usize,
    pub(crate) exchanges: usize,
}

/// Everything that exists, and the routing index over it.
#[derive(Clone, Debug)]
pub struct Topology {
    pub(crate) bounds: Bounds,
    pub(crate) version: u64,
    pub(crate) next_queue: u64,
    pub(crate) next_exchange: u64,
    /// The upper half of the ids of new topics; 0 until it is chosen.
    pub(crate) topic_ids: u64,
    pub(crate) groups: BTreeMap<GroupId, Vec<Replica>>,
    pub(crate) vhosts: BTreeMap<String, Vhost>,
    pub(crate) queues: BTreeMap<QueueId, QueueRecord>,
    pub(crate) exchanges: BTreeMap<ExchangeId, Exchange>,
    pub(crate) bindings: Bindings,
    pub(crate) topics: BTreeMap<TopicId, TopicRecord>,
    /// The topic and the number of each partition.
    pub(crate) topic_of: BTreeMap<QueueId, (TopicId, u32)>,
    /// In the order they were created in.
    pub(crate) coordinators: Vec<Target>,
    /// The exclusive queues of each connection.
    pub(crate) held: BTreeMap<Owner, BTreeSet<QueueId>>,
    /// What each place keeps in memory only.
    pub(crate) homes: BTreeMap<u32, Home>,
}

/// What lives only as long as one start of one place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home {
    pub(crate) queues: BTreeSet<QueueId>,
    pub(crate) exchanges: BTreeSet<ExchangeId>,
}

impl Topology {
    /// A topology with the default virtual host and its predeclared exchanges, and no group to place a queue in.
    pub fn new(limits: &Limits) -> Topology {
        let mut topology = Topology::empty(limits);
        topology.add_vhost(DEFAULT_VHOST);
        for (name, kind, internal) in PREDECLARED {
            let id = topology.draw_exchange_id();
            topology.add_exchange(ExchangeRecord {
                id,
                vhost: DEFAULT_VHOST.into(),
                name: name.into(),
                kind,
                durable: true,
                auto_delete: false,
                internal,
                arguments: Default::default(),
                home: None,
            });
        }
        topology
    }

    pub(crate) fn empty(limits: &Limits) -> Topology {
        Topology {
            bounds: Bounds {
                queues: limits.queues_max as usize,
                bindings: limits.bindings_max as usize,
                exchanges: limits.exchanges_max as usize,
            },
            version: 0,
            next_queue: 1,
            next_exchange: 1,
            topic_ids: 0,
            groups: BTreeMap::new(),
            vhosts: BTreeMap::new(),
            queues: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            bindings: Bindings::default(),
            topics: BTreeMap::new(),
            topic_of: BTreeMap::new(),
            coordinators: Vec::new(),
            held: BTreeMap::new(),
            homes: BTreeMap::new(),
        }
    }

    pub(crate) fn add_vhost(&mut self, name: &str) {
        self.vhosts.insert(name.into(), Vhost { exchanges: map(0), queues: map(0), topics: BTreeMap::new() });
    }

    /// Applies one committed command.
    pub fn apply(&mut self, command: &[u8]) -> Result<Answer, Halt> {
        Ok(self.apply_command(Command::decode(command)?))
    }

    /// Applies one committed command that is decoded already.
    pub fn apply_command(&mut self, command: Command) -> Answer {
        let answer = match command {
            Command::Change(change) => self.change(change),
            Command::EndConnection(owner) => Ok(self.end_connection(owner)),
            Command::Boot(origin) => Ok(self.boot(origin)),
            Command::CreateGroups(count) => self.create_groups(count),
            Command::PlaceGroup(group, replicas) => self.place_group(group, replicas),
            Command::UnusedAutoDelete(queue) => Ok(self.unused_auto_delete(queue)),
            Command::NameTopics(first) => Ok(self.name_topics(first)),
            of_topics => return self.change_topics(of_topics).unwrap_or_else(Answer::LogRefused),
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    fn change_topics(&mut self, command: Command) -> Result<Answer, LogRefusal> {
        match command {
            Command::CreateTopic { vhost, declaration, groups } => {
                self.create_topic(&vhost, declaration, &groups)
            }
            Command::AddPartitions { vhost, name, count, groups } => {
                self.add_partitions(&vhost, &name, count, &groups)
            }
            Command::DeleteTopic { vhost, id } => self.delete_topic(&vhost, id),
            Command::AlterTopic { vhost, name, configs } => self.alter_topic(&vhost, &name, configs),
            Command::CreateCoordinators { groups } => self.create_coordinators(&groups),
            other => unreachable!("no command about topics: {other:?}"),
        }
    }

    fn change(&mut self, change: Change) -> Result<Answer, Refusal> {
        let Change { vhost, change, owner, group, name } = change;
        if !self.vhosts.contains_key(&vhost) {
            return Err(Refusal::NotFound(Entity::Vhost, vhost));
        }
        match change {
            Wanted::DeclareExchange(declaration) => self.declare_exchange(&vhost, declaration, owner),
            Wanted::DeleteExchange { name, if_unused } => self.delete_exchange(&vhost, &name, if_unused),
            Wanted::BindExchange { source, destination, key, arguments } => {
                self.bind_exchange(&vhost, [&source, &destination], key, arguments)
            }
            Wanted::UnbindExchange { source, destination, key, arguments } => {
                self.unbind_exchange(&vhost, [&source, &destination], &key, &arguments)
            }
            Wanted::DeclareQueue(declaration) => self.declare_queue(&vhost, declaration, owner, group, name),
            Wanted::DeleteQueue { name, if_unused, if_empty } => {
                self.delete_queue(&vhost, &name, owner, if_unused || if_empty)
            }
            Wanted::BindQueue { exchange, queue, key, arguments } => {
                self.bind_queue(&vhost, [&exchange, &queue], owner, key, arguments)
            }
            Wanted::UnbindQueue { exchange, queue, key, arguments } => {
                self.unbind_queue(&vhost, [&exchange, &queue], owner, &key, &arguments)
            }
            Wanted::PurgeQueue { name } => {
                let queue = self.passive_queue(&vhost, &name, owner)?;
                if queue.kind == QueueKind::Stream {
                    return Err(Refusal::Unsupported(format!("stream '{name}' cannot be purged")));
                }
                Ok(Answer::Purge(queue.clone()))
            }
        }
    }

    fn boot(&mut self, origin: Origin) -> Answer {
        let Some(home) = self.homes.get(&origin.place()) else {
            return Answer::DeletedQueues { queues: Vec::new() };
        };
        let older = |home: Option<Origin>| home.is_some_and(|home| home.boot() < origin.boot());
        let queues = home.queues.iter().copied().filter(|id| older(self.queues[id].home));
        let queues: Vec<_> = queues.collect();
        let exchanges = home.exchanges.iter().copied().filter(|id| older(self.exchanges[id].record.home));
        let exchanges: Vec<_> = exchanges.collect();
        let queues = self.remove_queues(queues);
        exchanges.into_iter().for_each(|id| self.remove_exchange(id));
        Answer::DeletedQueues { queues }
    }

    fn create_groups(&mut self, count: u32) -> Result<Answer, Refusal> {
        // Far below the numbers of memory groups, and no command may make this machine hold millions of groups.
        if count > 65_536 {
            return Err(Refusal::Invalid(format!("{count} groups are more than there can be")));
        }
        let before = self.groups.len();
        for number in 1..=count {
            self.groups.entry(GroupId(number)).or_default();
        }
        self.version += (self.groups.len() - before) as u64;
        Ok(Answer::Done)
    }

    fn place_group(&mut self, group: GroupId, replicas: Vec<Replica>) -> Result<Answer, Refusal> {
        let Some(placed) = self.groups.get_mut(&group) else {
            return Err(Refusal::Invalid(format!("there is no group {group}")));
        };
        if *placed != replicas {
            *placed = replicas;
            self.version += 1;
        }
        Ok(Answer::Done)
    }

    /// Raised by every change that took effect: what was derived from a lower version may be wrong.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the virtual host exists.
    pub fn has_vhost(&self, name: &str) -> bool {
        self.vhosts.contains_key(name)
    }

    /// The logged groups and where their replicas are.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &[Replica])> {
        self.groups.iter().map(|(group, replicas)| (*group, replicas.as_slice()))
    }
}

/// The exchanges of every virtual host that nobody declared.
const PREDECLARED: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

/// Refuses names that the broker keeps for itself.
pub(crate) fn check_name(entity: Entity, name: &str) -> Result<(), Refusal> {
    if name.len() > 255 {
        return Err(Refusal::Invalid(format!("a {} name is longer than 255 bytes", entity.word())));
    }
    if name.starts_with("amq.") {
        let text = format!("{} name '{name}' contains reserved prefix 'amq.*'", entity.word());
        return Err(Refusal::AccessRefused(text));
    }
    Ok(())
}
