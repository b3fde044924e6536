//! One connection as the broker sees it: who it is, its lanes and consumers, and its bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{ConsumerId, GroupId, Lane, Peer, QueueId};

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
    pub consumers: BTreeMap<ConsumerId, Consumer>,
    /// Published and not yet applied.
    pub unconfirmed_bytes: usize,
    /// In the send buffer, as last told.
    pub unsent_bytes: usize,
    pub has_exclusive_queues: bool,
    /// Whether it has ever published: an alarm holds back only those that do.
    pub publishes: bool,
}

/// A lane, known here only while it has a window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneState {
    /// What all windowed consumers of the lane may hold together.
    pub window: Option<u32>,
    /// What they hold.
    pub held: u32,
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
    /// Bound by its lane's window besides its own credit.
    pub windowed: bool,
    /// Messages the session still allows; `None`: no bound.
    pub allowed: Option<u32>,
    /// Messages the host may still hand out, for windowed consumers.
    pub at_host: u32,
    /// Bytes handed out and not granted again.
    pub owed_bytes: u32,
}

impl Connection {
    pub(crate) fn new(peer: Peer) -> Connection {
        Connection {
            peer,
            user: None,
            known: false,
            admitted: false,
            vhost: None,
            lanes: BTreeMap::new(),
            consumers: BTreeMap::new(),
            unconfirmed_bytes: 0,
            unsent_bytes: 0,
            has_exclusive_queues: false,
            publishes: false,
        }
    }
}
