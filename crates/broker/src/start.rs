//! From files to a broker that serves: recover, lead, learn the topology, end what an older start left behind.

use auth::Authenticator;
use base::{Now, Pool, Prng};
use commitlog::disk::Disk;
use commitlog::{CommitLog, OpenError, RecoveredGroup};
use model::{GroupId, Origin, ShardId};
use queue::GroupMachine;
use replica::{Replica, Role};
use topology::{Command, QueueKind, Topology};

use crate::broker::{Broker, Counters, Notice, Settings};
use crate::door::outgoing::Outgoing;
use crate::door::{Door, PendingChange};
use crate::host::{Freed, GroupLog, Host, MetadataHost, QueueGroup};
use crate::parcel::{Content, Post};

/// Coordinators of consumer groups in a new cluster; a group's name tells which is its own for ever.
const COORDINATORS: u32 = 16;

impl Broker {
    /// Recovers the shard from its files. Blocking. `Err` says for a person what is wrong.
    pub fn open_shard(
        settings: Settings,
        users: Authenticator,
        pool: Pool,
        disk: &dyn Disk,
        now: Now,
    ) -> Result<Broker, String> {
        let config = commitlog::Config {
            segment_bytes: settings.segment_bytes,
            ring_bytes_max: settings.ring_bytes_max,
            cache_bytes_max: settings.limits.cache_bytes_max,
            read_bytes_max: settings.limits.read_bytes_max,
            flush_bytes_max: 8 << 20,
            ..commitlog::Config::new(settings.shard, pool.clone())
        };
        let (mut log, recovered) = CommitLog::open(config, disk).map_err(|error| error.to_string())?;
        log.enable_evacuation();
        let origin = Origin::new(settings.node, settings.shard, settings.boot);
        let mut broker = Broker {
            origin,
            now,
            log,
            topology: Topology::new(&settings.limits),
            has_topology: settings.shard == ShardId(0),
            users,
            door: Door::new(settings.seed),
            host: Host::new(settings.seed),
            post: Post::new(settings.shard),
            events: Default::default(),
            notices: Default::default(),
            prng: Prng::new(settings.seed),
            counters: Counters::default(),
            next_group: 0,
            evacuating_more: false,
            booting: false,
            booted: false,
            ready: false,
            asked_for_topology: false,
            groups_proposed: false,
            failed: None,
            alarm: None,
            targets: Vec::new(),
            told: Vec::new(),
            settings,
            pool,
        };
        broker.open_groups(recovered, disk).map_err(|error| error.to_string())?;
        Ok(broker)
    }

    fn open_groups(&mut self, recovered: Vec<RecoveredGroup>, disk: &dyn Disk) -> Result<(), OpenError> {
        let mut recovered: Vec<RecoveredGroup> = recovered;
        let metadata = recovered.iter().position(|group| group.group == GroupId::METADATA);
        if self.settings.shard == ShardId(0) {
            let group = metadata.map_or_else(|| empty(GroupId::METADATA), |at| recovered.swap_remove(at));
            self.open_metadata(&group, disk)?;
        }
        for group in &recovered {
            self.open_group(group, disk)?;
        }
        let memory = QueueGroup::memory(self.settings.shard, self.settings.seed, &self.pool);
        self.host.add(memory);
        self.door.add_outgoing(Outgoing::new(GroupId::METADATA, ShardId(0), self.origin));
        for shard in 0..self.settings.shards {
            let group = GroupId::memory(ShardId(shard));
            self.door.add_outgoing(Outgoing::new(group, ShardId(shard), self.origin));
        }
        Ok(())
    }

    fn open_metadata(&mut self, group: &RecoveredGroup, disk: &dyn Disk) -> Result<(), OpenError> {
        if let Some(checkpoint) = &group.checkpoint {
            self.topology = Topology::decode(&checkpoint.state, &self.settings.limits)
                .map_err(|damaged| state_damaged(group.group, damaged))?;
        }
        let (mut replica, replay) =
            Replica::open(self.settings.node, group, self.pool.clone(), &mut self.log, disk)?;
        for committed in replay {
            if committed.block.is_empty() {
                continue;
            }
            let damaged = |damaged| state_damaged(GroupId::METADATA, damaged);
            let entry = model::Entry::decode(committed.block.as_slice()).map_err(damaged)?;
            for operation in entry.operations() {
                self.topology
                    .apply(operation.map_err(damaged)?.body)
                    .map_err(|halt| OpenError::Failed(format!("the metadata group halted: {}", halt.0)))?;
            }
        }
        replica.campaign(&mut self.log).map_err(|halted| OpenError::Failed(halted.0))?;
        self.host.metadata = Some(MetadataHost::new(replica));
        Ok(())
    }

    fn open_group(&mut self, group: &RecoveredGroup, disk: &dyn Disk) -> Result<(), OpenError> {
        let mut machine = match &group.checkpoint {
            Some(checkpoint) => GroupMachine::decode(&checkpoint.state)
                .map_err(|damaged| state_damaged(group.group, damaged))?,
            None => GroupMachine::new(),
        };
        // What the durable checkpoint does not need may have been on its way out when the node ended.
        let trimming = group.checkpoint.as_ref().map(|_| machine.freeze());
        let (mut replica, replay) =
            Replica::open(self.settings.node, group, self.pool.clone(), &mut self.log, disk)?;
        let (mut effects, mut freed) = (Vec::new(), Freed::default());
        for committed in replay {
            if committed.block.is_empty() {
                self.log.release(group.group, committed.index);
                continue;
            }
            machine
                .apply(committed.index, committed.block.as_slice(), &mut effects)
                .map_err(|halt| OpenError::Failed(format!("group {} halted: {}", group.group, halt.0)))?;
            for effect in effects.drain(..) {
                if let queue::Effect::Freed(index) = effect {
                    freed.count();
                    self.log.release(group.group, index);
                }
            }
        }
        replica.campaign(&mut self.log).map_err(|halted| OpenError::Failed(halted.0))?;
        let log = GroupLog::Replicated(Box::new(replica));
        let opened = QueueGroup::new(group.group, log, machine, self.settings.seed, &self.pool);
        self.host.add(QueueGroup { freed, trimming, ..opened });
        Ok(())
    }

    fn add_group(&mut self, id: GroupId, replica: Replica) {
        let log = GroupLog::Replicated(Box::new(replica));
        self.host.add(QueueGroup::new(id, log, GroupMachine::new(), self.settings.seed, &self.pool));
    }

    /// Starts replicas of groups that the topology places here and that are new.
    pub(crate) fn start_groups(&mut self) {
        let shard_of = |replicas: &[topology::Replica]| replicas.first().map(|replica| replica.shard);
        let placed = self.topology.groups().filter_map(|(group, at)| Some((group, shard_of(at)?)));
        for (group, shard) in placed.collect::<Vec<_>>() {
            self.door.add_outgoing(Outgoing::new(group, shard, self.origin));
            if shard != self.settings.shard || self.host.by_group.contains_key(&group) {
                continue;
            }
            let opened = Replica::create(self.settings.node, group, self.pool.clone(), &mut self.log);
            match opened {
                Ok(replica) => self.add_group(group, replica),
                Err(error) => self.notices.push_back(Notice::Halt(error)),
            }
        }
    }

    /// The steps from recovered to ready, each taken once it can be.
    pub(crate) fn start(&mut self) {
        if self.ready {
            return self.send_snapshots();
        }
        if !self.has_topology {
            if !std::mem::replace(&mut self.asked_for_topology, true) {
                self.post.send(ShardId(0), Content::WantSnapshot);
            }
            return;
        }
        if !self.leads_everything() || !self.has_groups() {
            return;
        }
        self.send_snapshots();
        if !std::mem::replace(&mut self.booting, true) {
            if self.host.metadata.is_some() && !self.topology.names_topics() {
                self.propose_command(&Command::NameTopics(self.draw_topic_ids()), PendingChange::Nobody);
            }
            self.propose_command(&Command::Boot(self.origin), PendingChange::Boot);
        }
        if self.booted {
            self.reconcile();
            self.ready = true;
            let queues = self.topology.queues().filter(|queue| queue.kind != QueueKind::Coordinator).count();
            let shard = self.settings.shard;
            self.notices.push_back(Notice::Note(format!("shard {shard} serves {queues} queues")));
        }
    }

    /// What topic ids of this cluster begin with: when it began, and some bits that chance gives. Another one on the
    /// same disk has others, so that no client takes a new topic for an old one.
    fn draw_topic_ids(&self) -> u64 {
        let chance = Prng::new(self.settings.seed).draw() >> 44;
        self.now.wall_ms << 20 | chance
    }

    fn leads_everything(&self) -> bool {
        let metadata = self.host.metadata.iter().all(|m| m.replica.role() == Role::Leader);
        metadata
            && self.host.groups.iter().all(|group| match &group.log {
                GroupLog::Replicated(replica) => replica.role() == Role::Leader,
                GroupLog::Memory { .. } => true,
            })
    }

    /// Whether the topology places as many groups as configured; if not, has them created.
    fn has_groups(&mut self) -> bool {
        let wanted = self.settings.groups.max(u32::from(self.settings.shards));
        self.start_groups();
        let placed = self.topology.groups().filter(|(_, at)| !at.is_empty()).count() as u32;
        if placed >= wanted {
            return self.leads_everything();
        }
        if self.host.metadata.is_some() && !std::mem::replace(&mut self.groups_proposed, true) {
            let shards = u32::from(self.settings.shards);
            self.propose_command(&Command::CreateGroups(wanted), PendingChange::Nobody);
            for group in placed + 1..=wanted {
                let shard = ShardId(((group - 1) % shards) as u16);
                let replica = topology::Replica { node: self.settings.node, shard };
                let place = Command::PlaceGroup(GroupId(group), vec![replica]);
                self.propose_command(&place, PendingChange::Nobody);
            }
            let groups = (0..COORDINATORS).map(|slot| GroupId(1 + slot % wanted)).collect();
            self.propose_command(&Command::CreateCoordinators { groups }, PendingChange::Nobody);
        }
        false
    }

    /// The topology as the metadata host has it.
    pub(crate) fn take_snapshot(&mut self, bytes: &[u8]) {
        match Topology::decode(bytes, &self.settings.limits) {
            Ok(topology) => {
                self.topology = topology;
                self.has_topology = true;
                self.start_groups();
            }
            Err(damaged) => self.notices.push_back(Notice::Halt(damaged.0.to_owned())),
        }
    }
}

fn empty(group: GroupId) -> RecoveredGroup {
    RecoveredGroup { group, checkpoint: None, hard_state: Default::default(), entries: Vec::new() }
}

fn state_damaged(group: GroupId, damaged: model::Damaged) -> OpenError {
    OpenError::Failed(format!("the state of group {group} is damaged: {}", damaged.0))
}
