//! Connections come, are admitted, and go.

use std::sync::Arc;

use auth::Decision;
use base::{Bug, planted};
use model::{ConnId, Entity, Event, Lane, Peer, Refusal};
use topology::Command;

use super::connection::{Connection, LaneState};
use super::{Pending, PendingChange};
use crate::Broker;
use crate::broker::Notice;

/// How hashes begin that are checked without slow work.
const CHEAP: &str = "plain$";
/// Whom connections from this machine act for when they give no name.
const DEFAULT_USER: &str = "guest";

impl Broker {
    /// A connection was accepted.
    pub fn connected(&mut self, conn: ConnId, peer: Peer) {
        self.door.connections.insert(conn, Connection::new(peer, self.settings.seed));
        self.counters.connections_opened += 1;
    }

    /// A name and a password; the answer may need slow work elsewhere.
    pub(crate) fn authenticate(&mut self, conn: ConnId, user: &str, password: &[u8]) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        connection.user = Some(user.to_owned());
        let decision = self.users.decide(user, connection.peer.loopback);
        connection.known = matches!(decision, Decision::Verify { .. });
        match decision {
            Decision::Verify { hash } | Decision::Unknown { hash } if hash.starts_with(CHEAP) => {
                self.authenticated(conn, auth::verify(password, &hash));
            }
            Decision::Verify { hash } | Decision::Unknown { hash } => {
                let password = password.to_vec();
                self.notices.push_back(Notice::Verify { conn, password, password_hash: hash });
            }
            Decision::NotFromHere(reason) => {
                self.refuse(conn, None, Refusal::AuthenticationFailed(reason));
            }
        }
    }

    /// Someone without a name: from this machine it is the default user, where there is one.
    pub(crate) fn admit_anonymous(&mut self, conn: ConnId) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let decision = self.users.decide(DEFAULT_USER, connection.peer.loopback);
        if connection.peer.loopback && matches!(decision, Decision::Verify { .. }) {
            connection.user = Some(DEFAULT_USER.to_owned());
            connection.admitted = true;
            return self.events.push_back((conn, Event::Admitted));
        }
        let text = format!("{} must authenticate", connection.peer.address);
        self.refuse(conn, None, Refusal::AuthenticationFailed(text));
    }

    /// A password was checked.
    pub fn authenticated(&mut self, conn: ConnId, matches: bool) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let user = connection.user.clone().unwrap_or_default();
        if matches && connection.known {
            connection.admitted = true;
            return self.events.push_back((conn, Event::Admitted));
        }
        self.counters.authentication_failures += 1;
        let text = format!("login was refused for user '{user}' from {}", connection.peer.address);
        self.notices.push_back(Notice::Warn(text.clone()));
        self.refuse(conn, None, Refusal::AuthenticationFailed(text));
    }

    /// The connection enters a virtual host.
    pub(crate) fn enter(&mut self, conn: ConnId, vhost: &str) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        if !connection.admitted {
            return;
        }
        if !self.topology.has_vhost(vhost) {
            let refusal = Refusal::NotFound(Entity::Vhost, vhost.to_owned());
            return self.refuse(conn, None, refusal);
        }
        connection.vhost = Some(Arc::from(vhost));
        self.events.push_back((conn, Event::Entered));
        if let Some(reason) = self.alarm {
            self.events.push_back((conn, Event::Blocked(reason)));
        }
    }

    /// Ends a lane: the session has returned what it held; its consumers go, and its settlements become durable.
    pub(crate) fn close_lane(&mut self, conn: ConnId, lane: Lane) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        connection.failed_lanes.retain(|failed| *failed != lane);
        let unanswered = connection.lanes.remove(&lane).map_or(0, |state| state.unanswered);
        for consumer in connection.consumers_on(Some(lane)) {
            self.remove_consumer(conn, consumer);
        }
        let missing = 1 + u32::from(unanswered > 0);
        let ticket = self.door.ticket(Pending::Barrier { conn, lane: Some(lane), missing });
        if unanswered > 0
            && let Some(connection) = self.door.connections.get_mut(&conn)
        {
            let closing = LaneState { unanswered, closing: Some(ticket), ..LaneState::default() };
            connection.lanes.insert(lane, closing);
        }
        self.barrier(ticket);
    }

    /// Whether nothing that this lane asks for is to be done any more.
    pub(crate) fn is_failed(&self, conn: ConnId, lane: Lane) -> bool {
        self.door.connections.get(&conn).is_some_and(|connection| connection.failed_lanes.contains(&lane))
    }

    /// Ends a connection in order: everything it asked for is done before it is told.
    pub(crate) fn close(&mut self, conn: ConnId) {
        let ticket = self.door.ticket(Pending::Barrier { conn, lane: None, missing: 1 });
        self.leave(conn, PendingChange::Closing(ticket), Some(ticket));
        self.barrier(ticket);
    }

    /// A connection is gone. What its session held has been returned.
    pub fn disconnected(&mut self, conn: ConnId) {
        self.leave(conn, PendingChange::Nobody, None);
        let Some(connection) = self.door.connections.remove(&conn) else { return };
        self.cancel_all(conn);
        self.counters.connections_closed += 1;
        for ticket in connection.lanes.values().filter_map(|state| state.closing) {
            // Answers find no lane any more, so the barriers that wait for them would stay.
            self.door.pending.remove(&ticket);
        }
    }

    fn leave(&mut self, conn: ConnId, pending: PendingChange, barrier: Option<u64>) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let exclusive = std::mem::take(&mut connection.has_exclusive_queues);
        for consumer in connection.consumers_on(None) {
            self.remove_consumer(conn, consumer);
        }
        if exclusive {
            if let Some(Pending::Barrier { missing, .. }) =
                barrier.and_then(|ticket| self.door.pending.get_mut(&ticket))
            {
                *missing += 1;
            }
            let command = Command::EndConnection(self.owner(conn));
            self.propose_command(&command, pending);
        }
    }

    /// Waits for every group that has not applied everything this shard has gathered for it.
    fn barrier(&mut self, ticket: u64) {
        for outgoing in &mut self.door.outgoing {
            if outgoing.group != model::GroupId::METADATA
                && outgoing.barrier(&self.pool, ticket)
                && let Some(Pending::Barrier { missing, .. }) = self.door.pending.get_mut(&ticket)
            {
                *missing += 1;
            }
        }
        // The one it was made with, so that it cannot pass before all are counted.
        self.barrier_passed(ticket);
    }

    /// Tells a connection that it was refused.
    pub(crate) fn refuse(&mut self, conn: ConnId, lane: Option<Lane>, refusal: Refusal) {
        self.counters.refusals += 1;
        self.events.push_back((conn, Event::Refused(lane, refusal)));
    }

    /// Whether a connection may send more: it is within its own bound of unconfirmed bytes, and it did not publish
    /// where publishers are held back. Batches do not count for that: they are refused at once, and whoever appends
    /// by offset asks other things on the same connection.
    pub fn wants_input(&self, conn: ConnId) -> bool {
        self.door.connections.get(&conn).is_none_or(|connection| {
            // The planted bug takes everything.
            let held_back = connection.publishes && self.alarm.is_some() && !planted(Bug::ReadWhileFull);
            !held_back && connection.unconfirmed_bytes < self.settings.limits.unconfirmed_bytes_max
        })
    }

    /// Holds publishers back while `reason` lasts, and lets them go on when there is none. Consumers go on meanwhile.
    ///
    /// Repeated while the reason lasts, each time more room is made: see [`commitlog::CommitLog::set_scarce`].
    pub fn set_alarm(&mut self, reason: Option<&'static str>) {
        self.log.set_scarce(reason.is_some());
        // The planted bug never lets them go on.
        if self.alarm == reason || self.alarm.is_some() && planted(Bug::FullForEver) {
            return;
        }
        self.alarm = reason;
        let event = reason.map_or(Event::Unblocked, Event::Blocked);
        let mut entered: Vec<ConnId> =
            self.door.connections.iter().filter(|(_, c)| c.vhost.is_some()).map(|(id, _)| *id).collect();
        entered.sort_unstable();
        self.events.extend(entered.into_iter().map(|conn| (conn, event.clone())));
        let text = reason
            .map_or_else(|| "publishing goes on".to_owned(), |why| format!("publishing is held back: {why}"));
        self.notices.push_back(Notice::Warn(text));
    }

    /// How much of a connection's output waits to be sent.
    pub fn unsent(&mut self, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.door.connections.get_mut(&conn) {
            connection.unsent_bytes = bytes;
            self.grant_bytes(conn);
        }
    }
}
