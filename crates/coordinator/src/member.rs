//! One member of a group.

use base::{Bug, planted};
use model::LogRefusal;
use model::membership::Join;

use crate::outbox::Outbox;

/// A member.
#[derive(Debug)]
pub(crate) struct Member {
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_us: u64,
    pub rebalance_us: u64,
    pub protocols: Vec<(String, Vec<u8>)>,
    pub assignment: Vec<u8>,
    /// It has asked to be part of the next generation.
    pub joining: bool,
    /// The join that waits for an answer.
    pub join_ticket: Option<u64>,
    /// The sync that waits for an answer.
    pub sync_ticket: Option<u64>,
    /// It has not been part of a generation yet, so it has no reason to send heartbeats.
    pub is_new: bool,
    /// When it is taken for dead.
    pub deadline_us: u64,
}

impl Member {
    pub(crate) fn new(join: &Join) -> Member {
        let mut member = Member {
            instance: join.instance.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_us: 0,
            rebalance_us: 0,
            protocols: Vec::new(),
            assignment: Vec::new(),
            joining: false,
            join_ticket: None,
            sync_ticket: None,
            is_new: true,
            deadline_us: u64::MAX,
        };
        member.describe(join);
        member
    }

    /// Takes over what a join says of the member.
    pub(crate) fn describe(&mut self, join: &Join) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_us = u64::from(join.session_timeout_ms) * 1000;
        self.rebalance_us = u64::from(join.rebalance_timeout_ms.max(1)) * 1000;
        self.protocols.clone_from(&join.protocols);
    }

    /// Whether a join says nothing new.
    pub(crate) fn matches(&self, protocols: &[(String, Vec<u8>)]) -> bool {
        self.protocols == protocols
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// The member's metadata for one way of sharing.
    pub(crate) fn metadata(&self, protocol: &str) -> &[u8] {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found.map_or(&[], |(_, metadata)| metadata)
    }

    /// A sign of life.
    pub(crate) fn touch(&mut self, now_us: u64) -> u64 {
        self.deadline_us = now_us.saturating_add(self.session_us);
        self.deadline_us
    }

    /// When it is taken for dead, unless it waits for the coordinator, which cannot be held against it.
    pub(crate) fn expires_us(&self) -> u64 {
        let waits = self.joining || self.sync_ticket.is_some();
        // The planted bug takes nobody for dead.
        let for_ever = waits && !self.is_new || planted(Bug::SessionForEver);
        if for_ever { u64::MAX } else { self.deadline_us }
    }

    /// Refuses whatever it waits for.
    pub(crate) fn refuse(&mut self, out: &mut Outbox, refusal: &LogRefusal) {
        self.joining = false;
        if let Some(ticket) = self.join_ticket.take() {
            out.joined(ticket, Err(refusal.clone()));
        }
        if let Some(ticket) = self.sync_ticket.take() {
            out.synced(ticket, Err(refusal.clone()));
        }
    }
}
