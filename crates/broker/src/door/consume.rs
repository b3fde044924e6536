//! Consuming: subscribe, grant, deliver, get.

use model::{
    ConnId, ConsumerId, Delivered, Event, GroupId, Items, Lane, Outcome, QueueId, Refusal, StreamStart,
    Subscribe,
};
use queue::{ConsumerKey, Handed, Subscription};
use topology::{QueueKind, QueueRecord};

use super::Pending;
use super::connection::Consumer;
use super::outgoing::Waits;
use crate::Broker;
use crate::parcel::{Answer, Content, Question};

/// So many grants before it is told of one a consumer's memory is asked for.
const AHEAD: usize = 8;

impl Broker {
    /// Starts a consumer, or says why not.
    pub(crate) fn subscribe(&mut self, conn: ConnId, subscribe: &Subscribe<'_>) {
        let lane = subscribe.lane;
        let queue = match self.find_queue(conn, subscribe.queue) {
            Ok(queue) => (queue.id, queue.group, queue.kind == QueueKind::Stream),
            Err(refusal) => return self.refuse(conn, Some(lane), refusal),
        };
        let stream = queue.2;
        if let Some(refusal) = self.stream_refusal(conn, subscribe, stream) {
            return self.refuse(conn, Some(lane), refusal);
        }
        let limit = self.settings.limits.consumers_max as usize;
        let send_bytes = self.settings.limits.send_bytes_max;
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        if connection.consumers.len() >= limit {
            let text = format!("this connection has {limit} consumers, the most allowed (consumers_max)");
            return self.refuse(conn, Some(lane), Refusal::LimitReached(text));
        }
        let state = connection.lanes.get(&lane).copied().unwrap_or_default();
        let windowed = state.window.is_some() && !subscribe.settled;
        let free = if windowed { state.free() } else { None };
        let messages = match (free, subscribe.credit) {
            (Some(free), Some(credit)) => Some(free.min(credit)),
            (bound, None) | (None, bound) => bound,
        };
        // Together the consumers of a connection are granted little more than its send buffer may hold.
        let bytes = (send_bytes / (1 + connection.consumers.len())).max(4096) as u32;
        let consumer = Consumer {
            lane,
            queue: queue.0,
            group: queue.1,
            settled: subscribe.settled,
            stream,
            started: false,
            windowed,
            allowed: subscribe.credit,
            at_host: messages.unwrap_or(0),
            owed_bytes: 0,
            owed_bytes_max: bytes / 2,
        };
        connection.add_consumer(subscribe.consumer, consumer);
        let key = ConsumerKey { shard: self.settings.shard, conn, consumer: subscribe.consumer };
        let subscription = Subscription {
            key,
            lane,
            // The door settles what it passes on, see `pass_on`.
            settled: false,
            exclusive: subscribe.exclusive,
            priority: subscribe.priority,
            messages,
            bytes: bytes.into(),
        };
        let (consumer, (queue, group, _)) = (subscribe.consumer, queue);
        let pending = Pending::Subscribed { conn, lane, consumer, queue, group };
        let question = match stream {
            true => {
                let start = subscribe.start.unwrap_or(StreamStart::Next);
                Question::Follow(subscription, start, subscribe.filter.clone())
            }
            false => Question::Subscribe(subscription),
        };
        self.ask(group, queue, pending, question);
    }

    /// The host has started a consumer. If it has gone meanwhile, the host took note of that before it knew it.
    pub(crate) fn consumer_started(
        &mut self,
        conn: ConnId,
        lane: Lane,
        id: ConsumerId,
        (queue, group): (QueueId, GroupId),
    ) {
        let connection = self.door.connections.get_mut(&conn);
        let Some(consumer) = connection.and_then(|connection| connection.consumers.get_mut(&id)) else {
            let key = ConsumerKey { shard: self.settings.shard, conn, consumer: id };
            return self.post_to(group, Content::Unsubscribe { group, queue, key });
        };
        consumer.started = true;
        let windowed = consumer.windowed;
        self.events.push_back((conn, Event::Subscribed(lane, id)));
        if windowed {
            self.open_window(conn, lane);
        }
    }

    /// Sends a parcel to whoever hosts the group.
    fn post_to(&mut self, group: GroupId, content: Content) {
        if let Some(at) = self.door.by_group.get(&group) {
            self.post.send(self.door.outgoing[*at].host, content);
        }
    }

    /// A queue of the connection's virtual host that this connection may use.
    pub(crate) fn find_queue(&self, conn: ConnId, name: &str) -> Result<&QueueRecord, Refusal> {
        let vhost = self.door.connections.get(&conn).and_then(|c| c.vhost.as_deref()).unwrap_or_default();
        let missing = || Refusal::NotFound(model::Entity::Queue, name.to_owned());
        let queue = self.topology.queue(vhost, name).ok_or_else(missing)?;
        queue.check_access(Some(self.owner(conn)))?;
        Ok(queue)
    }

    /// Asks the queue's host behind everything this shard has sent to its group.
    pub(crate) fn ask(&mut self, group: GroupId, queue: QueueId, pending: Pending, question: Question) {
        let ticket = self.door.ticket(pending);
        let Some(at) = self.door.by_group.get(&group).copied() else {
            let text = "the group of this queue is not there yet".to_owned();
            return self.replied(ticket, Answer::Refused(Refusal::Unavailable(text, false)));
        };
        if self.topology.queue_by_id(queue).is_some_and(|record| record.kind == QueueKind::Queue) {
            self.door.group_of.insert(queue, group);
        }
        let outgoing = &mut self.door.outgoing[at];
        outgoing.everything(&self.pool);
        let (after, host) = (outgoing.last(), outgoing.host);
        let content = Content::Ask { group, queue, origin: self.origin, after, ticket, question };
        self.post.send(host, content);
    }

    /// Ends a consumer; what it holds stays with its lane.
    pub(crate) fn unsubscribe(&mut self, conn: ConnId, lane: Lane, id: ConsumerId) {
        self.remove_consumer(conn, id);
        self.events.push_back((conn, Event::Unsubscribed(lane, id)));
    }

    /// Takes a consumer away here and at its host.
    pub(crate) fn remove_consumer(&mut self, conn: ConnId, id: ConsumerId) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let Some(consumer) = connection.remove_consumer(id) else { return };
        let key = ConsumerKey { shard: self.settings.shard, conn, consumer: id };
        let (group, queue) = (consumer.group, consumer.queue);
        self.post_to(group, Content::Unsubscribe { group, queue, key });
    }

    /// The session allows consumers more messages.
    pub(crate) fn grants(&mut self, conn: ConnId, grants: &[(ConsumerId, u32)]) {
        for (at, (consumer, messages)) in grants.iter().enumerate() {
            if let Some((coming, _)) = grants.get(at + AHEAD)
                && let Some(connection) = self.door.connections.get(&conn)
            {
                connection.consumers.prefetch(coming);
            }
            self.grant(conn, *consumer, *messages);
        }
    }

    /// The session allows a consumer more messages. Its host is told when it has no more than half of them left: then
    /// one parcel does for many, and the host, which hands nothing out but past this door, never runs out meanwhile.
    fn grant(&mut self, conn: ConnId, id: ConsumerId, messages: u32) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let Some(consumer) = connection.consumers.get_mut(&id) else { return };
        consumer.allowed = consumer.allowed.map(|allowed| allowed.saturating_add(messages));
        if consumer.windowed {
            let lane = consumer.lane;
            return self.open_window(conn, lane);
        }
        if consumer.runs_low() {
            self.grant_owed(conn, id);
        }
    }

    /// Tells the host of a consumer what it may hand out besides.
    fn grant_owed(&mut self, conn: ConnId, id: ConsumerId) {
        let half = self.settings.limits.send_bytes_max / 2;
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let Some(consumer) = connection.consumers.get_mut(&id) else { return };
        let messages = consumer.take_owed();
        let (group, queue) = (consumer.group, consumer.queue);
        let key = ConsumerKey { shard: self.settings.shard, conn, consumer: id };
        let Some(at) = self.door.by_group.get(&group) else { return };
        let outgoing = &mut self.door.outgoing[*at];
        if outgoing.is_returning() {
            // What was returned just before comes first: it must be back when the credit is spent.
            return outgoing.wait_behind_returns(&self.pool, Waits::Grant { queue, key, messages });
        }
        let host = outgoing.host;
        // The bytes that have left may as well be granted with the messages.
        let bytes =
            if connection.unsent_bytes <= half { std::mem::take(&mut consumer.owed_bytes) } else { 0 };
        self.post.send(host, Content::Grant { group, queue, key, messages, bytes });
    }

    /// Bounds what the lane's consumers started from now on hold together.
    pub(crate) fn window(&mut self, conn: ConnId, lane: Lane, messages: Option<u32>) {
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        connection.lanes.entry(lane).or_default().window = messages;
        self.open_window(conn, lane);
    }

    /// Passes handed-out messages on to their session; what has nowhere to go returns as never handed out.
    pub(crate) fn deliver(&mut self, group: GroupId, queue: QueueId, mut handed: Handed) {
        let (conn, id) = (handed.key.conn, handed.key.consumer);
        let consumer = self.door.connections.get_mut(&conn);
        let Some(connection) = consumer else { return self.take_back(group, queue, handed.items) };
        let Some(consumer) = connection.consumers.get_mut(&id) else {
            return self.take_back(group, queue, handed.items);
        };
        let (consumer_settles, lane, stream) = (consumer.settled, consumer.lane, consumer.stream);
        let mut lifted = false;
        let owed_before = consumer.owed_bytes;
        consumer.owed_bytes = owed_before.saturating_add(handed.bytes as u32);
        if owed_before < consumer.owed_bytes_max && consumer.owed_bytes >= consumer.owed_bytes_max {
            connection.owing.push(id);
        }
        let mut excess = Items::new();
        if !consumer.settled {
            let state = connection.lanes.entry(consumer.lane).or_default();
            if consumer.windowed {
                let fits = state.free().map_or(handed.items.len(), |free| free as usize);
                consumer.at_host = consumer.at_host.saturating_sub(handed.items.len() as u32);
                excess = handed.items.drain(fits.min(handed.items.len())..).collect();
                lifted = state.window.is_none();
            }
            state.held += handed.items.len() as u32;
        }
        let delivered = handed.items.len() as u32;
        consumer.allowed = consumer.allowed.map(|allowed| allowed.saturating_sub(delivered));
        let mut runs_low = false;
        if !consumer.windowed {
            consumer.at_host = consumer.at_host.saturating_sub(delivered);
            runs_low = consumer.runs_low();
        }
        if !excess.is_empty() {
            self.take_back(group, queue, excess);
        }
        if !handed.items.is_empty() {
            self.pass_on(conn, queue, handed, (consumer_settles, stream));
        }
        if lifted {
            self.open_window(conn, lane);
        }
        if runs_low {
            self.grant_owed(conn, id);
        }
    }

    fn pass_on(&mut self, conn: ConnId, queue: QueueId, handed: Handed, (settled, stream): (bool, bool)) {
        self.counters.delivered += handed.items.len() as u64;
        if settled {
            for run in handed.items.chunk_by(|a, b| a.seq.0 + 1 == b.seq.0) {
                self.settle_range(queue, (run[0].seq, run[run.len() - 1].seq), Outcome::Accept);
            }
        }
        let delivered = Delivered {
            lane: handed.lane,
            consumer: handed.key.consumer,
            queue,
            block: handed.block,
            items: handed.items,
            settled,
            stream,
        };
        self.events.push_back((conn, Event::Delivered(delivered)));
    }

    /// Gives back to the host what it handed out for nobody.
    pub(crate) fn take_back(&mut self, group: GroupId, queue: QueueId, items: Items) {
        self.post_to(group, Content::TakeBack { group, queue, items });
    }

    /// One message, now.
    pub(crate) fn get(&mut self, conn: ConnId, lane: Lane, name: &str, settled: bool) {
        let (queue, group) = match self.find_queue(conn, name) {
            Ok(queue) if queue.kind == QueueKind::Stream => {
                let text = format!("stream '{name}' gives no single messages: it is read by consumers only");
                return self.refuse(conn, Some(lane), Refusal::NotImplemented(text));
            }
            Ok(queue) => (queue.id, queue.group),
            Err(refusal) => return self.refuse(conn, Some(lane), refusal),
        };
        self.ask(group, queue, Pending::Got { conn, lane, queue, group, settled }, Question::Get(lane));
    }

    /// The answer to a get.
    pub(crate) fn got(&mut self, pending: &Pending, got: Option<(Handed, u64)>) {
        let Pending::Got { conn, lane, queue, group, settled } = *pending else { return };
        let Some((handed, remaining)) = got else {
            return self.events.push_back((conn, Event::Empty(lane)));
        };
        let Some(connection) = self.door.connections.get_mut(&conn) else {
            return self.take_back(group, queue, handed.items);
        };
        if !settled {
            connection.lanes.entry(lane).or_default().held += handed.items.len() as u32;
        }
        self.counters.delivered += handed.items.len() as u64;
        if settled {
            for item in &handed.items {
                self.settle_range(queue, (item.seq, item.seq), Outcome::Accept);
            }
        }
        let (consumer, block, items) = (ConsumerId(0), handed.block, handed.items);
        let delivered = Delivered { lane, consumer, queue, block, items, settled, stream: false };
        self.events.push_back((conn, Event::Got(delivered, remaining)));
    }

    /// Grants consumers the bytes that have left, where the connection's send buffer has room again.
    pub(crate) fn grant_bytes(&mut self, conn: ConnId) {
        let half = self.settings.limits.send_bytes_max / 2;
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        if connection.unsent_bytes > half {
            return;
        }
        for id in connection.owing.drain(..) {
            let Some(consumer) = connection.consumers.get_mut(&id) else { continue };
            let bytes = std::mem::take(&mut consumer.owed_bytes);
            if bytes == 0 {
                continue;
            }
            let key = ConsumerKey { shard: self.settings.shard, conn, consumer: id };
            let (group, queue) = (consumer.group, consumer.queue);
            if let Some(at) = self.door.by_group.get(&group) {
                let host = self.door.outgoing[*at].host;
                self.post.send(host, Content::Grant { group, queue, key, messages: 0, bytes });
            }
        }
    }
}
