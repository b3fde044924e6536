//! One connection as the broker sees it: who it is, its lanes and consumers, and its bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::Table;
use model::{ConsumerId, GroupId, Lane, Peer, QueueId};

use crate::door::log::RefusedBatches;
use crate::parcel::Ticket;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub peer: Peer,
    /// The name it claims while its password is checked, and its name afterwards.
    pub user: Option<String>,
    /// Whether there is such a user at all.
    pub known: bool,
    pub admitted: bool,
    pub vhost: Option<Arc<str>>,
    pub lanes: BTreeMap<Lane, LaneState>,
    /// Lanes on which a publish was refused, until they are closed.
    pub failed_lanes: Vec<Lane>,
    pub consumers: Table<ConsumerId, Consumer>,
    /// Those of them that their lane's window bounds.
    pub windowed: BTreeSet<(Lane, ConsumerId)>,
    /// Published and not yet applied.
    pub unconfirmed_bytes: usize,
    /// Consumers that are owed as many bytes as they may be.
    pub owing: Vec<ConsumerId>,
    /// In the send buffer, as last told.
    pub unsent_bytes: usize,
    pub has_exclusive_queues: bool,
    /// Whether it has ever published: an alarm holds back only those that do.
    pub publishes: bool,
    /// Batches that it must send again before others.
    pub refused_batches: RefusedBatches,
}

/// A lane, known here from its first question or delivery on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneState {
    /// What all windowed consumers of the lane may hold together.
    pub window: Option<u32>,
    /// Messages delivered on it and not settled, whoever took them: a settlement does not say.
    pub held: u32,
    /// Requests of the lane that have no answer yet.
    pub unanswered: u32,
    /// The barrier of its end. It waits for those answers: behind the end the number may name another lane.
    pub closing: Option<Ticket>,
}

impl LaneState {
    /// How many more may be delivered.
    pub(crate) fn free(&self) -> Option<u32> {
        self.window.map(|window| window.saturating_sub(self.held))
    }
}

/// One consumer.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub lane: Lane,
    pub queue: QueueId,
    pub group: GroupId,
    pub settled: bool,
    /// Whether the queue is a stream: it has a place of its own there, and what it settles stays.
    pub stream: bool,
    /// Whether its host knows it: what is granted before that is granted to nobody.
    pub started: bool,
    /// Bound by its lane's window besides its own credit.
    pub windowed: bool,
    /// Messages the session still allows; `None`: no bound.
    pub allowed: Option<u32>,
    /// Messages the host may still hand out; meaningless where there is no bound.
    pub at_host: u32,
    /// Bytes handed out and not granted again.
    pub owed_bytes: u32,
    /// So many owed bytes are granted even where no message is: half of what it may be ahead.
    pub owed_bytes_max: u32,
}

impl Consumer {
    /// Whether its host should be told of what it is allowed besides: that is no less than what the host knows of.
    #[inline]
    pub(crate) fn runs_low(&self) -> bool {
        self.allowed.is_some_and(|allowed| allowed > self.at_host && allowed - self.at_host >= self.at_host)
    }

    /// What it is allowed and its host does not know, to be told now.
    pub(crate) fn take_owed(&mut self) -> u32 {
        let allowed = self.allowed.unwrap_or(0);
        let owed = allowed.saturating_sub(self.at_host);
        self.at_host = allowed;
        owed
    }
}

impl Connection {
    pub(crate) fn new(peer: Peer, seed: u64) -> Connection {
        Connection {
            peer,
            user: None,
            known: false,
            admitted: false,
            vhost: None,
            lanes: BTreeMap::new(),
            failed_lanes: Vec::new(),
            consumers: Table::new(seed),
            windowed: BTreeSet::new(),
            unconfirmed_bytes: 0,
            owing: Vec::new(),
            unsent_bytes: 0,
            has_exclusive_queues: false,
            publishes: false,
            refused_batches: RefusedBatches::default(),
        }
    }

    pub(crate) fn add_consumer(&mut self, id: ConsumerId, consumer: Consumer) {
        if consumer.windowed {
            self.windowed.insert((consumer.lane, id));
        }
        self.consumers.insert(id, consumer);
    }

    pub(crate) fn remove_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        self.windowed.remove(&(consumer.lane, id));
        Some(consumer)
    }

    /// Its consumers, or those of one lane, in the order they were started.
    pub(crate) fn consumers_on(&self, lane: Option<Lane>) -> Vec<ConsumerId> {
        let on_it = |consumer: &Consumer| lane.is_none_or(|lane| consumer.lane == lane);
        let mut ids: Vec<_> = self.consumers.iter().filter(|(_, c)| on_it(c)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}
