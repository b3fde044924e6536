//! Publishing: route, add to the entry of each target group, remember who waits.

use base::Map;
use model::{ConnId, Event, GroupId, Lane, OwnedRecord, Publish, QueueId, Record, Refusal};
use smallvec::SmallVec;
use topology::Topology;

use super::Door;
use super::connection::Connection;
use super::outgoing::{Outgoing, Turn, Waits};
use super::routes::{Target, Targets, Terms};
use crate::Broker;
use crate::host::Host;

/// The parts of a broker that one routed message touches.
struct Sending<'a> {
    turn: Turn<'a>,
    host: &'a Host,
    outgoing: &'a mut [Outgoing],
    connection: &'a mut Connection,
    spread: &'a mut Map<(ConnId, Lane, u64), u32>,
}

impl Sending<'_> {
    /// Sends to every target that takes it; false where one does not. Whoever asked for a confirm is not to get one then.
    #[inline]
    fn send(self, conn: ConnId, publish: &Publish<'_>, targets: &[Target]) -> bool {
        let bytes = publish.record.encoded_len();
        let is_taken = targets.iter().all(|target| bytes <= target.terms.bytes_max);
        let token = if is_taken { publish.token } else { 0 };
        let spread = targets.len() > 1;
        if spread && token != 0 {
            self.spread.insert((conn, publish.lane, token), targets.len() as u32);
        }
        self.connection.publishes = true;
        for target in targets.iter().filter(|target| bytes <= target.terms.bytes_max) {
            self.connection.unconfirmed_bytes += bytes;
            let hand_out = self.host.has_takers(target.group, &target.queues);
            let waits = Waits::Publish { conn, lane: publish.lane, first: token, last: token, bytes, spread };
            let stamped;
            let mut record = &publish.record;
            if target.terms.log_time {
                stamped = Record { timestamp_ms: None, ..publish.record };
                record = &stamped;
            }
            self.outgoing[target.at].publish(self.turn, &target.queues, hand_out, record, waits);
        }
        is_taken
    }
}

impl Broker {
    /// Takes one message. Its confirm follows when every group it was routed to has applied it.
    #[inline]
    pub(crate) fn publish(&mut self, conn: ConnId, publish: &Publish<'_>) {
        let Door { connections, routes, outgoing, spread, by_group, .. } = &mut self.door;
        let Some(connection) = connections.get_mut(&conn) else { return };
        let Some(vhost) = connection.vhost.as_deref() else { return };
        if connection.failed_lanes.contains(&publish.lane) {
            return;
        }
        self.counters.published += 1;
        self.counters.published_bytes += publish.record.body.map_or(0, <[u8]>::len) as u64;
        let (exchange, key) = (publish.record.exchange, publish.record.routing_key);
        let version = self.topology.version();
        let (mut slot, known) = routes.find(version, vhost, exchange, key);
        let known = known && publish.also.is_empty();
        if !known {
            match look_up(&self.topology, by_group, &mut self.targets, vhost, publish) {
                Ok(targets) => slot = routes.remember(slot, version, (vhost, exchange, key), targets),
                Err(refusal) => return self.fail_lane(conn, publish.lane, refusal),
            }
        }
        // A route that depends on more than exchange and key is good for this message only.
        let forget = !known && (!publish.also.is_empty() || self.topology.needs_headers(vhost, exchange));
        let targets = routes.at(slot);
        let unroutable = targets.is_empty();
        let mut is_taken = true;
        if !unroutable {
            let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now: self.now };
            let sending = Sending { turn, host: &self.host, outgoing, connection, spread };
            is_taken = sending.send(conn, publish, targets);
        }
        if forget {
            routes.forget(slot);
        }
        if unroutable {
            self.unroutable(conn, publish);
        }
        if !is_taken {
            self.too_large(conn, publish);
        }
    }

    /// A message that goes nowhere ends its lane: what its client sent behind it goes nowhere either.
    #[cold]
    fn fail_lane(&mut self, conn: ConnId, lane: Lane, refusal: Refusal) {
        if let Some(connection) = self.door.connections.get_mut(&conn) {
            connection.failed_lanes.push(lane);
        }
        self.refuse_publish(conn, lane, refusal);
    }

    fn refuse_publish(&mut self, conn: ConnId, lane: Lane, refusal: Refusal) {
        self.counters.refusals += 1;
        self.events.push_back((conn, Event::PublishRefused(lane, refusal)));
    }

    /// A topic that the message was routed to takes none as large.
    #[cold]
    fn too_large(&mut self, conn: ConnId, publish: &Publish<'_>) {
        let (lane, token) = (publish.lane, publish.token);
        if token != 0 {
            self.counters.rejected += 1;
            return self.events.push_back((conn, Event::Rejected(lane, token, token)));
        }
        let bytes = publish.record.encoded_len();
        let text =
            format!("a message of {bytes} bytes is larger than max.message.bytes of a topic it goes to");
        self.fail_lane(conn, lane, Refusal::Invalid(text));
    }

    #[cold]
    fn unroutable(&mut self, conn: ConnId, publish: &Publish<'_>) {
        self.counters.unroutable += 1;
        if publish.mandatory {
            let record = OwnedRecord {
                protocol: publish.record.protocol,
                exchange: publish.record.exchange.to_owned(),
                routing_key: publish.record.routing_key.to_owned(),
                prefix: publish.record.prefix.to_vec(),
                body: publish.record.body.unwrap_or(&[]).to_vec(),
            };
            self.events.push_back((conn, Event::Unroutable(publish.lane, Box::new(record))));
        }
        if publish.token != 0 {
            let confirmed = Event::Confirmed(publish.lane, publish.token, publish.token);
            self.events.push_back((conn, confirmed));
        }
    }

    /// Publishes that waited for their groups for too long are not taken.
    pub(crate) fn refuse_overdue(&mut self) {
        let mut told = std::mem::take(&mut self.told);
        for (waits, _) in told.drain(..) {
            self.not_taken(waits);
        }
        self.told = told;
    }

    #[cold]
    fn not_taken(&mut self, waits: Waits) {
        let (conn, lane, first, last, bytes, spread) = match waits {
            Waits::Publish { conn, lane, first, last, bytes, spread } => {
                (conn, lane, first, last, bytes, spread)
            }
            Waits::Append(appending) => return self.batch_not_taken(&appending),
            _ => return,
        };
        if let Some(connection) = self.door.connections.get_mut(&conn) {
            connection.unconfirmed_bytes = connection.unconfirmed_bytes.saturating_sub(bytes);
        }
        if first == 0 {
            // Who asks for no answers is told that something is lost all the same.
            let text = format!("the queue's group took nothing for {} ms", self.settings.limits.park_ms_max);
            return self.refuse_publish(conn, lane, Refusal::Unavailable(text, false));
        }
        if !spread {
            self.counters.rejected += last - first + 1;
            return self.events.push_back((conn, Event::Rejected(lane, first, last)));
        }
        for token in first..=last {
            // The other groups may have taken it; whatever they say then finds nobody waiting.
            if self.door.spread.remove(&(conn, lane, token)).is_some() {
                self.counters.rejected += 1;
                self.events.push_back((conn, Event::Rejected(lane, token, token)));
            }
        }
    }

    /// An applied publish: its bytes no longer count, and its confirm leaves once no group is missing.
    #[inline]
    pub(crate) fn published(&mut self, waits: Waits) {
        let Waits::Publish { conn, lane, first, last, bytes, spread } = waits else { return };
        if let Some(connection) = self.door.connections.get_mut(&conn) {
            connection.unconfirmed_bytes = connection.unconfirmed_bytes.saturating_sub(bytes);
        }
        if first == 0 {
            return;
        }
        if !spread {
            self.counters.confirmed += last - first + 1;
            self.events.push_back((conn, Event::Confirmed(lane, first, last)));
            return;
        }
        for token in first..=last {
            let Some(missing) = self.door.spread.get_mut(&(conn, lane, token)) else { continue };
            *missing -= 1;
            if *missing == 0 {
                self.door.spread.remove(&(conn, lane, token));
                self.counters.confirmed += 1;
                self.events.push_back((conn, Event::Confirmed(lane, token, token)));
            }
        }
    }
}

/// Where the topology sends a message: one target for all queues of a group that ask for the same, so that the group
/// stores the message once for all of them.
#[cold]
fn look_up(
    topology: &Topology,
    by_group: &Map<GroupId, usize>,
    found: &mut Vec<topology::Target>,
    vhost: &str,
    publish: &Publish<'_>,
) -> Result<Targets, Refusal> {
    let record = &publish.record;
    let mut headers = || (publish.headers)(record.prefix);
    found.clear();
    let keys: SmallVec<[&str; 4]> =
        std::iter::once(record.routing_key).chain(publish.also.iter().map(String::as_str)).collect();
    topology.route_by_any(vhost, record.exchange, &keys, &mut headers, found)?;
    let with_terms =
        |target: &topology::Target| (target.group, terms_of(topology, target.queue), target.queue);
    let mut sorted: SmallVec<[(GroupId, Terms, QueueId); 1]> = found.iter().map(with_terms).collect();
    sorted.sort_unstable();
    let mut targets = Targets::new();
    for same in sorted.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (group, terms, _) = same[0];
        if let Some(at) = by_group.get(&group) {
            let queues = same.iter().map(|(_, _, queue)| *queue).collect();
            targets.push(Target { at: *at, group, queues, terms });
        }
    }
    Ok(targets)
}

/// What a queue asks for. A topic bounds messages where it was told to: the bound that topics have otherwise is one of
/// Kafka's clients.
fn terms_of(topology: &Topology, queue: QueueId) -> Terms {
    let Some((topic, _)) = topology.topic_of(queue) else { return Terms::NONE };
    let settings = topic.settings();
    let bytes_max = settings.told_max_message_bytes.map_or(usize::MAX, |bytes| bytes as usize);
    Terms { log_time: settings.log_append_time, bytes_max }
}
