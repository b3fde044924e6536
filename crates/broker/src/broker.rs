//! One shard's broker: takes requests and parcels, and at the end of a turn lets everything that became possible
//! happen.

use std::collections::VecDeque;

use auth::Authenticator;
use base::{Block, Now, Pool, Prng};
use commitlog::disk::{DiskDone, DiskOp};
use commitlog::{CommitLog, LogEvent};
use model::{ConnId, Event, GroupId, Limits, NodeId, Origin, Properties, Request, ShardId, Subscribe};
use topology::{Target, Topology};

use crate::door::Door;
use crate::door::outgoing::{Outgoing, Turn, Waits};
use crate::host::{Asked, GroupLog, Host};
use crate::log_parcel::AppendAnswer;
use crate::parcel::{Content, Parcel, Post};

/// What a broker is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node.
    pub node: NodeId,
    /// This shard.
    pub shard: ShardId,
    /// Shards of the node.
    pub shards: u16,
    /// Queue groups of the node; at least one per shard.
    pub groups: u32,
    /// The node's start number.
    pub boot: u32,
    /// What everything random derives from.
    pub seed: u64,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Bytes of segments beyond which old entries are moved to runs; at least four segments.
    pub ring_bytes_max: u64,
    /// Reads the property blocks of AMQP messages for readers of other protocols.
    pub read_block: ReadBlock,
    /// Writes property blocks of AMQP messages for readers of what other protocols wrote.
    pub write_block: WriteBlock,
    /// Bounds.
    pub limits: Limits,
}

/// Reads a property block; `None` where it is not sound.
pub type ReadBlock = fn(&[u8]) -> Option<Properties>;

/// Writes a property block.
pub type WriteBlock = fn(&Properties) -> Vec<u8>;

/// What a broker wants done that is neither an event nor a parcel nor a disk operation.
#[derive(Debug)]
pub enum Notice {
    /// Check a password against a hash and tell [`Broker::authenticated`].
    Verify {
        /// Whose.
        conn: ConnId,
        /// As given.
        password: Vec<u8>,
        /// What it must match.
        password_hash: String,
    },
    /// Worth a line in the log.
    Note(String),
    /// Worth a look.
    Warn(String),
    /// Nothing more may be confirmed: stop the node and say why.
    Halt(String),
}

/// So many parcels before it is opened a parcel's memory is asked for.
const AHEAD: usize = 4;

/// What has happened since the start; only rises.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Counters {
    pub published: u64,
    pub published_bytes: u64,
    pub confirmed: u64,
    pub delivered: u64,
    pub rejected: u64,
    pub unroutable: u64,
    pub refusals: u64,
    pub checkpoints: u64,
    pub rewritten: u64,
    pub rewritten_freed_bytes: u64,
    pub connections_opened: u64,
    pub connections_closed: u64,
    pub authentication_failures: u64,
}

/// One shard's broker.
#[derive(Debug)]
pub struct Broker {
    pub(crate) settings: Settings,
    pub(crate) origin: Origin,
    pub(crate) pool: Pool,
    pub(crate) now: Now,
    pub(crate) log: CommitLog,
    pub(crate) topology: Topology,
    /// Whether this shard's copy of the topology is complete.
    pub(crate) has_topology: bool,
    pub(crate) users: Authenticator,
    pub(crate) door: Door,
    pub(crate) host: Host,
    pub(crate) post: Post,
    pub(crate) events: VecDeque<(ConnId, Event)>,
    pub(crate) notices: VecDeque<Notice>,
    pub(crate) prng: Prng,
    pub(crate) counters: Counters,
    pub(crate) next_group: usize,
    /// Whether the log would go on moving old entries at once.
    pub(crate) evacuating_more: bool,
    pub(crate) booting: bool,
    pub(crate) booted: bool,
    pub(crate) ready: bool,
    pub(crate) asked_for_topology: bool,
    pub(crate) groups_proposed: bool,
    pub(crate) failed: Option<String>,
    /// Why publishers are held back.
    pub(crate) alarm: Option<&'static str>,
    pub(crate) targets: Vec<Target>,
    pub(crate) told: Vec<(Waits, Option<AppendAnswer>)>,
}

impl Broker {
    /// One request of a connection.
    #[inline]
    pub fn handle(&mut self, conn: ConnId, request: Request<'_>) {
        match request {
            Request::Publish(publish) => self.publish(conn, &publish),
            Request::Settle { lane, settlements } => self.settle(conn, lane, settlements),
            Request::Grant(grants) => self.grants(conn, grants),
            Request::Authenticate { user, password } => self.authenticate(conn, user, password),
            Request::Anonymous => self.admit_anonymous(conn),
            Request::Enter { vhost } => self.enter(conn, vhost),
            Request::CloseLane { lane } => self.close_lane(conn, lane),
            Request::Subscribe(Subscribe { lane, .. })
            | Request::Get { lane, .. }
            | Request::Change { lane, .. }
                if self.is_failed(conn, lane) => {}
            Request::Subscribe(subscribe) => self.subscribe(conn, &subscribe),
            Request::Unsubscribe { lane, consumer } => self.unsubscribe(conn, lane, consumer),
            Request::Window { lane, messages } => self.window(conn, lane, messages),
            Request::Get { lane, queue, settled } => self.get(conn, lane, queue, settled),
            Request::Change { lane, change } => self.change(conn, lane, change),
            Request::Log { token, request } => self.log_request(conn, token, request),
            Request::Close => self.close(conn),
        }
    }

    /// Whether the last message had another route than the one before: then it is worth asking for the next one's.
    #[inline]
    pub fn routes_vary(&self) -> bool {
        self.door.routes.vary()
    }

    /// Asks for the memory of the route of a message that comes soon.
    #[inline]
    pub fn prefetch_route(&self, exchange: &[u8], key: &[u8]) {
        self.door.routes.prefetch(exchange, key);
    }

    /// A parcel from another shard. What it leads to here comes before the next one: a group is told of a new queue
    /// before what others have sent it for that queue.
    pub fn receive(&mut self, from: ShardId, parcel: Parcel) {
        self.open(from, parcel.0);
        while let Some(content) = self.post.next_local() {
            self.open(self.settings.shard, content);
        }
    }

    fn open(&mut self, from: ShardId, content: Content) {
        match content {
            Content::Propose { group, block } => self.propose(group, block),
            Content::Ask { group, queue, origin, after, ticket, question } => {
                self.asked(group, Asked { queue, origin, after, from, ticket, question });
            }
            Content::Unsubscribe { group, queue, key } => self.remove_taker(group, queue, key),
            Content::Grant { group, queue, key, messages, bytes } => {
                let grant = |delivery: &mut queue::Delivery| {
                    delivery.grant(key, messages, i64::from(bytes));
                    !delivery.ran_dry()
                };
                if !self.host.group(group).is_some_and(|group| group.change(queue, grant)) {
                    self.host.logs.followers.grant(key, messages, bytes);
                }
            }
            Content::TakeBack { group, queue, items } => {
                if let Some(group) = self.host.group(group) {
                    group.change(queue, |delivery| {
                        items.iter().for_each(|item| delivery.on_unseen(item.seq, item.redelivered));
                        true
                    });
                }
            }
            Content::Return { group, queue, range } => {
                if let Some(group) = self.host.group(group) {
                    group.change(queue, |delivery| {
                        delivery.on_returned(range.0, range.1);
                        true
                    });
                }
            }
            Content::Read { ticket, request } => self.read_logs(from, ticket, request),
            Content::HurryRead { ticket } => self.hurry_read(from, ticket),
            Content::CancelLog { ticket } => self.cancel_log(from, ticket),
            Content::AskLog { group, log, ticket, question } => {
                self.asked_log(from, (group, log), ticket, question);
            }
            Content::Coordinate { target, ticket, question } => {
                self.coordinate(from, target, ticket, *question);
            }
            Content::Appended { group, sequence, answer } => {
                if let Some(outgoing) = self.door.outgoing(group) {
                    outgoing.appended(sequence, answer);
                }
            }
            Content::LogReplied { ticket, reply } => self.log_replied(ticket, *reply),
            Content::Applied { group, sequence } => self.applied(group, sequence),
            Content::Replied { ticket, answer } => self.replied(ticket, answer),
            Content::Handed { group, queue, handed } => self.deliver(group, queue, handed),
            Content::Revoked { key } => self.revoked(key),
            Content::Changed { number, origin, sequence, command } => {
                self.changed(number, origin, sequence, &command);
            }
            Content::ChangeApplied { number, value } => self.change_applied(number, value),
            Content::ChangeDone { sequence, value } => self.change_done(sequence, value),
            Content::Snapshot { bytes } => self.take_snapshot(&bytes),
            Content::WantSnapshot => {
                if let Some(metadata) = &mut self.host.metadata {
                    metadata.waiting.push(from);
                }
            }
        }
    }

    pub(crate) fn applied(&mut self, group: GroupId, sequence: model::OpSequence) {
        let Some(at) = self.door.by_group.get(&group).copied() else { return };
        let mut told = std::mem::take(&mut self.told);
        self.door.outgoing[at].applied(sequence, |waits, appended| told.push((waits, appended)));
        for (waits, appended) in told.drain(..) {
            match waits {
                Waits::Barrier(ticket) => self.barrier_passed(ticket),
                Waits::Grant { queue, key, messages } => {
                    let host = self.door.outgoing[at].host;
                    self.post.send(host, Content::Grant { group, queue, key, messages, bytes: 0 });
                }
                Waits::Reply { to, ticket, reply } => {
                    self.post.send(to, Content::LogReplied { ticket, reply });
                }
                Waits::Append(appending) => self.batch_appended(&appending, appended),
                publish => self.published(publish),
            }
        }
        self.told = told;
    }

    fn revoked(&mut self, key: queue::ConsumerKey) {
        let Some(connection) = self.door.connections.get_mut(&key.conn) else { return };
        if let Some(consumer) = connection.remove_consumer(key.consumer) {
            self.events.push_back((key.conn, Event::Revoked(consumer.lane, key.consumer)));
        }
    }

    /// A disk operation ended.
    pub fn completed(&mut self, done: DiskDone) {
        self.log.completed(done);
        self.pass_log_events();
    }

    pub(crate) fn pass_log_events(&mut self) {
        while let Some(event) = self.log.poll_event() {
            match event {
                LogEvent::Durable(flush) => self.durable(flush),
                LogEvent::Loaded { group, index, block } => self.loaded(group, index, block),
                LogEvent::Checkpointed { group, index } => self.checkpointed(group, index),
                LogEvent::Failed(reason) => self.fail(reason),
                LogEvent::Evacuating { group, index, entry } => self.evacuating(group, index, &entry),
                LogEvent::Adopting { group, index, noted } => self.adopting(group, index, &noted),
                LogEvent::Dropped { .. } | LogEvent::Left { .. } => self.wake_readers(),
                LogEvent::LoadedPiece { group, log, index, at, ordinal, piece } => {
                    self.loaded_piece(group, log, (index, at, ordinal), piece);
                }
            }
        }
    }

    fn durable(&mut self, flush: commitlog::FlushId) {
        let log = &mut self.log;
        let metadata = self.host.metadata.iter_mut().map(|metadata| &mut metadata.replica);
        let queues = self.host.groups.iter_mut().filter_map(|group| match &mut group.log {
            GroupLog::Replicated(replica) => Some(&mut **replica),
            GroupLog::Memory { .. } => None,
        });
        for replica in metadata.chain(queues) {
            if let Err(halted) = replica.durable(flush, log) {
                self.notices.push_back(Notice::Halt(halted.0));
            }
        }
    }

    fn loaded(&mut self, group: GroupId, index: model::Index, block: Result<Block, String>) {
        let block = match block {
            Ok(block) => block,
            // What is damaged is unknown, not absent: nothing behind it is served past it.
            Err(why) => return self.fail(format!("entry {index} of group {group} cannot be read: {why}")),
        };
        if let Some(group) = self.host.group(group) {
            group.loaded.insert(index, block);
        }
        self.wake_readers();
    }

    /// Something was read from disk: whoever waits for that looks again.
    pub(crate) fn wake_readers(&mut self) {
        // The bytes that this read held may be what another group waits for.
        for at in 0..self.host.groups.len() {
            let group = &mut self.host.groups[at];
            for queue in std::mem::take(&mut group.reading) {
                group.wake(queue);
            }
            if !group.asked.is_empty() {
                self.ask_again(at);
            }
        }
        self.look_again();
    }

    /// Lets go of what was read for messages that have left.
    fn tidy_loaded(&mut self) {
        let most = 2 * self.settings.limits.message_bytes_max;
        let reads = self.host.logs.is_loading();
        for group in &mut self.host.groups {
            let waits = reads || !group.reading.is_empty() || !group.asked.is_empty();
            group.loaded.tidy(waits, most);
        }
    }

    fn fail(&mut self, reason: String) {
        self.failed.get_or_insert_with(|| reason.clone());
        self.notices.push_back(Notice::Halt(reason));
    }

    /// A turn begins at this time: what comes in from here on came then, not when the last turn was.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
    }

    /// Ends the turn: everything gathered leaves, everything committed is applied, everything that may be handed
    /// out is. Repeats until nothing moves without the disk or another shard.
    pub fn finish(&mut self, now: Now) {
        self.now = now;
        self.tick_coordinators();
        self.keep_logs();
        loop {
            self.start();
            let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now };
            for outgoing in &mut self.door.outgoing {
                outgoing.leave(turn, &mut self.post);
                outgoing.refuse_overdue(turn, |waits| self.told.push((waits, None)));
            }
            self.refuse_overdue();
            let mut moved = false;
            while let Some(content) = self.post.next_local() {
                self.post.coming(AHEAD).into_iter().for_each(|coming| self.door.prefetch(coming));
                self.open(self.settings.shard, content);
                moved = true;
            }
            moved |= self.apply_committed();
            moved |= self.fill();
            moved |= self.answer_reads();
            moved |= self.feed_followers();
            if !moved {
                break;
            }
        }
        // What was read for compaction is looked at before it is let go of: else it would be read for ever.
        self.compact();
        self.tidy_loaded();
        self.reclaim();
        self.checkpoint();
        self.move_old_entries();
        self.log.flush();
    }

    /// The next event for a connection.
    #[inline]
    pub fn poll_event(&mut self) -> Option<(ConnId, Event)> {
        self.events.pop_front()
    }

    /// The next event, if it is for this connection.
    #[inline]
    pub fn poll_event_of(&mut self, conn: ConnId) -> Option<Event> {
        self.events.pop_front_if(|(other, _)| *other == conn).map(|(_, event)| event)
    }

    /// The event that comes so many after the next one.
    #[inline]
    pub fn coming_event(&self, after: usize) -> Option<&Event> {
        self.events.get(after).map(|(_, event)| event)
    }

    /// An event whose connection is gone: what it delivered goes back, unless it was settled by being sent.
    pub fn undelivered(&mut self, event: Event) {
        let (Event::Delivered(delivered) | Event::Got(delivered, _)) = event else { return };
        if let Some(group) = self.door.group_of.get(&delivered.queue).filter(|_| !delivered.settled) {
            self.take_back(*group, delivered.queue, delivered.items);
        }
    }

    /// The next disk operation.
    pub fn poll_op(&mut self) -> Option<DiskOp> {
        self.log.poll_op()
    }

    /// The next parcel for another shard.
    pub fn poll_parcel(&mut self) -> Option<(ShardId, Parcel)> {
        self.post.next_remote()
    }

    /// The next notice.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Broker::finish`] must be called next even if nothing happens, in microseconds.
    pub fn deadline(&self) -> Option<u64> {
        if self.host.checkpointing.is_some()
            || self.post.has_local()
            || self.door.outgoing.iter().any(Outgoing::is_urgent)
            || self.is_moving()
            || self.host.logs.compaction.is_busy()
        {
            return Some(self.now.mono_us);
        }
        let limits = &self.settings.limits;
        let outgoing = self.door.outgoing.iter().filter_map(|outgoing| outgoing.deadline_us(limits)).min();
        [outgoing, self.host.logs.deadline(), self.host.reclaim_at_us].into_iter().flatten().min()
    }

    /// Whether clients can be served.
    pub fn is_ready(&self) -> bool {
        self.ready && self.failed.is_none()
    }

    /// Whether nothing is under way that a client or the disk has not been told of.
    pub fn is_quiet(&self) -> bool {
        self.log.is_idle() && !self.post.has_local() && self.door.outgoing.iter().all(Outgoing::is_quiet)
    }
}
