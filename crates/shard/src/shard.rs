//! The shard: every method takes what happened; `finish` ends the turn.

use std::collections::VecDeque;
use std::sync::Arc;

use auth::User;
use base::{Map, Now, Pool, Prng, SendBuffer, map};
use broker::{Broker, Notice, Parcel, Settings};
use commitlog::disk::{Disk, DiskDone, DiskOp};
use model::{ConnId, Limits, NodeId, Peer, ShardId, Status};

use crate::Door;
use crate::connection::{Connection, Products, Step};
use crate::timers::Timers;

/// Spare send buffers kept, and the largest that is.
const SPARE_BUFFERS: usize = 64;
const SPARE_BYTES: usize = 4 << 20;
/// Bytes decoded before a connection's bounds are looked at again.
const CHECK_BYTES: usize = 16 << 10;
/// So many events before it is taken in an event's memory is asked for.
const AHEAD: usize = 4;

/// What a shard is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// This shard.
    pub shard: ShardId,
    /// Shards of the node.
    pub shards: u16,
    /// Queue groups of the node (the metadata group comes on top).
    pub groups: u32,
    /// The node's start number; higher at every start.
    pub boot: u32,
    /// Drawn at random by the runtime; everything random in the shard derives from it.
    pub seed: u64,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
    /// Bytes of segments beyond which old entries are moved to runs; at least four segments.
    pub ring_bytes_max: u64,
    /// Bounds.
    pub limits: Limits,
    /// Who may come in.
    pub users: Vec<User>,
}

/// A message for another shard; opaque to whoever carries it.
#[derive(Debug)]
pub struct Mail(Parcel);

/// A password to be checked on the pool for slow work.
#[derive(Debug)]
pub struct AuthJob {
    /// Whose.
    pub conn: ConnId,
    /// What was given.
    pub password: Vec<u8>,
    /// What it must match.
    pub password_hash: String,
}

/// What the shard wants done, in the order it wants it.
#[derive(Debug)]
pub enum Output {
    /// For the disk; answer with [`Shard::completed`].
    Disk(DiskOp),
    /// For another shard; hand to its [`Shard::mail`].
    Mail(ShardId, Mail),
    /// Check a password (`auth::verify`); answer with [`Shard::authenticated`].
    Verify(AuthJob),
    /// Send what is left in the send buffer, then close the connection (and tell with [`Shard::closed`]).
    Close(ConnId),
    /// A line for the operator's log.
    Log(LogLevel, String),
    /// The shard's log is poisoned or damaged: stop the node, say why.
    Halt(String),
    /// Drained: the node may exit.
    Drained,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warn,
    /// Worth waking up for.
    Error,
}

/// One shard. Every method takes what happened; [`Shard::finish`] ends the turn; then outputs and send buffers are
/// collected. Between two `finish` calls any number of things may have happened.
#[derive(Debug)]
pub struct Shard {
    limits: Arc<Limits>,
    products: Products,
    broker: Broker,
    connections: Map<ConnId, Connection>,
    timers: Timers,
    dirty: Vec<ConnId>,
    outputs: VecDeque<Output>,
    pub(crate) spare: Vec<Vec<u8>>,
    prng: Prng,
    now: Now,
    draining: bool,
    drained: bool,
}

impl Shard {
    /// Recovers the shard from its files. Blocking. `Err` says for a person what is wrong and what is lost.
    pub fn open(config: Config, pool: Pool, disk: &dyn Disk, now: Now) -> Result<Shard, String> {
        let users = auth::Authenticator::new(config.users);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let cluster = format!("waystation@node-{}", config.node);
        let products = Products {
            amqp: Arc::new(proto_amqp::Product { version: version.clone(), cluster_name: cluster.clone() }),
            kafka: Arc::new(proto_kafka::Product {
                cluster_id: cluster,
                node_id: i32::from(config.node.0),
                version,
            }),
        };
        let limits = Arc::new(config.limits.clone());
        let seed = config.seed;
        let settings = Settings {
            node: config.node,
            shard: config.shard,
            shards: config.shards,
            groups: config.groups,
            boot: config.boot,
            seed: config.seed,
            segment_bytes: config.segment_bytes,
            ring_bytes_max: config.ring_bytes_max,
            read_block: proto_amqp::map::read_properties,
            write_block: proto_amqp::map::write_properties,
            limits: config.limits,
        };
        Ok(Shard {
            limits,
            products,
            broker: Broker::open_shard(settings, users, pool, disk, now)?,
            connections: map(seed),
            timers: Timers::default(),
            dirty: Vec::new(),
            outputs: VecDeque::new(),
            spare: Vec::new(),
            prng: Prng::new(seed ^ 0x5e55_1045),
            now,
            draining: false,
            drained: false,
        })
    }

    fn begin(&mut self, now: Now) {
        self.now = now;
        self.broker.begin(now);
    }

    /// A connection was accepted.
    pub fn accepted(&mut self, conn: ConnId, door: Door, peer: Peer, now: Now) {
        self.begin(now);
        let seed = self.prng.draw();
        let mut connection = Connection::new(door, self.limits.clone(), &self.products, &peer, seed, now);
        if self.draining {
            // It was accepted before the listener knew.
            connection.shut_down();
        }
        self.connections.insert(conn, connection);
        self.broker.connected(conn, peer);
        self.arm(conn);
        self.touch(conn);
    }

    /// Bytes arrived. Returns how many were used; the rest must be given again, in front of what arrives next.
    /// Fewer are used when a frame is incomplete, or the connection's turn is over (see [`Shard::hungry`]).
    pub fn received(&mut self, conn: ConnId, bytes: &[u8], now: Now) -> usize {
        self.begin(now);
        let Some(connection) = self.connections.get_mut(&conn) else { return bytes.len() };
        connection.hungry = false;
        if !self.broker.is_ready() {
            return 0;
        }
        connection.out.lend(|| self.spare.pop().unwrap_or_default());
        let (mut used, mut checked) = (0, 0);
        while !connection.ended {
            let (taken, step) = connection.receive(&bytes[used..], self.broker.routes_vary());
            used += taken;
            match step {
                Step::Request(request, coming) => {
                    if let Some((exchange, key)) = coming {
                        self.broker.prefetch_route(exchange, key);
                    }
                    self.broker.handle(conn, request);
                }
                Step::More => break,
                Step::Waiting => {
                    connection.hungry = used < bytes.len();
                    break;
                }
                Step::End => {
                    connection.ended = true;
                    self.outputs.push_back(Output::Close(conn));
                }
            }
            if used - checked < CHECK_BYTES {
                continue;
            }
            checked = used;
            if used >= self.limits.turn_bytes_max || !self.broker.wants_input(conn) {
                connection.hungry = used < bytes.len();
                break;
            }
        }
        self.requests(conn);
        self.touch(conn);
        self.arm(conn);
        used
    }

    /// Sees to it that the connection is looked at when it wants to be.
    fn arm(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if let Some(next) = connection.next_deadline()
            && next < connection.looked_at_us
        {
            connection.looked_at_us = next;
            self.timers.set(next, conn);
        }
    }

    /// Hands the broker what input and events gave rise to.
    fn requests(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        while let Some(request) = connection.poll_request() {
            self.broker.handle(conn, request);
        }
    }

    /// Notes that a connection may have something to send, or to end.
    fn touch(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Connections that have whole frames left unread in what `received` did not use: call `received` again next
    /// turn even if nothing arrived.
    pub fn hungry(&self, conn: ConnId) -> bool {
        self.connections
            .get(&conn)
            .is_some_and(|connection| connection.hungry && self.reads(conn, connection))
    }

    /// Whether the connection's socket may be read; false while its own bounds are reached.
    pub fn wants_read(&self, conn: ConnId) -> bool {
        self.connections.get(&conn).is_some_and(|connection| self.reads(conn, connection))
    }

    fn reads(&self, conn: ConnId, connection: &Connection) -> bool {
        !connection.ended
            && self.broker.is_ready()
            && self.broker.wants_input(conn)
            && connection.takes_input(&self.limits)
            && connection.partial_bytes() <= self.limits.partial_bytes_max
    }

    /// The peer closed the connection, or it broke.
    pub fn closed(&mut self, conn: ConnId, now: Now) {
        self.begin(now);
        self.requests(conn);
        let Some(mut connection) = self.connections.remove(&conn) else { return };
        connection.abandon();
        while let Some(request) = connection.poll_request() {
            self.broker.handle(conn, request);
        }
        self.broker.disconnected(conn);
    }

    /// The connection's bytes to send. Take slices, `advance` what was sent, then call [`Shard::sent`].
    pub fn send_buffer(&mut self, conn: ConnId) -> Option<&mut SendBuffer> {
        self.connections.get_mut(&conn).map(|connection| &mut connection.out)
    }

    /// Some of the connection's bytes were sent: deliveries held back by a full buffer may go on.
    pub fn sent(&mut self, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        reclaim(&mut connection.out, &mut self.spare);
        self.broker.unsent(conn, connection.out.len());
    }

    /// Connections whose send buffer got bytes since the last call; each once.
    pub fn dirty(&mut self, out: &mut Vec<ConnId>) {
        for conn in self.dirty.drain(..) {
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.dirty = false;
                if !connection.out.is_empty() {
                    out.push(conn);
                }
            }
        }
    }

    /// A disk operation ended.
    pub fn completed(&mut self, done: DiskDone) {
        self.broker.completed(done);
    }

    /// Mail from another shard.
    pub fn mail(&mut self, from: ShardId, mail: Mail) {
        self.broker.receive(from, mail.0);
    }

    /// A password was checked.
    pub fn authenticated(&mut self, conn: ConnId, matches: bool) {
        self.broker.authenticated(conn, matches);
    }

    /// Holds publishers back while `reason` lasts (the disk is nearly full); consumers go on.
    pub fn set_alarm(&mut self, reason: Option<&'static str>) {
        self.broker.set_alarm(reason);
    }

    /// Stop accepting work, finish what was taken, then say `Drained`.
    pub fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let mut all: Vec<ConnId> = self.connections.keys().copied().collect();
        all.sort_unstable();
        for conn in all {
            if let Some(connection) = self.connections.get_mut(&conn) {
                connection.shut_down();
            }
            self.requests(conn);
            self.touch(conn);
        }
    }

    /// Ends the turn: seals and proposes entries, applies what is committed, fills send buffers.
    pub fn finish(&mut self, now: Now) {
        self.begin(now);
        self.tick();
        loop {
            self.broker.finish(now);
            if !self.pass_events() {
                break;
            }
        }
        self.end_connections();
        self.collect();
        if self.draining && !self.drained && self.connections.is_empty() && self.broker.is_quiet() {
            self.drained = true;
            self.outputs.push_back(Output::Drained);
        }
    }

    /// Passes events to their sessions; returns whether a session asked for something in turn.
    fn pass_events(&mut self) -> bool {
        let mut asked = false;
        while let Some((conn, event)) = self.broker.poll_event() {
            let Some(connection) = self.connections.get_mut(&conn) else {
                self.broker.undelivered(event);
                asked = true;
                continue;
            };
            connection.out.lend(|| self.spare.pop().unwrap_or_default());
            // Those of one connection come in rows: what is looked up for the first serves all.
            let mut next = Some(event);
            while let Some(event) = next {
                self.broker.coming_event(AHEAD).into_iter().for_each(|coming| connection.prefetch(coming));
                connection.on_event(&event);
                while let Some(request) = connection.poll_request() {
                    asked = true;
                    self.broker.handle(conn, request);
                }
                next = self.broker.poll_event_of(conn);
            }
            self.touch(conn);
            self.arm(conn);
        }
        asked
    }

    fn end_connections(&mut self) {
        for at in 0..self.dirty.len() {
            let conn = self.dirty[at];
            let Some(connection) = self.connections.get_mut(&conn) else { continue };
            connection.flush();
            if connection.is_ended() && !connection.ended {
                connection.ended = true;
                self.outputs.push_back(Output::Close(conn));
            }
            // What was lent and not used, as to a publisher that wants no answers, serves another connection.
            reclaim(&mut connection.out, &mut self.spare);
            let unsent = connection.out.len();
            self.broker.unsent(conn, unsent);
        }
    }

    fn tick(&mut self) {
        while let Some(conn) = self.timers.due(self.now.mono_us) {
            let unread = !self.wants_read(conn);
            let Some(connection) = self.connections.get_mut(&conn) else { continue };
            if connection.looked_at_us > self.now.mono_us {
                continue;
            }
            connection.tick(self.now, unread);
            connection.looked_at_us = u64::MAX;
            self.touch(conn);
            self.arm(conn);
        }
    }

    fn collect(&mut self) {
        while let Some(op) = self.broker.poll_op() {
            self.outputs.push_back(Output::Disk(op));
        }
        while let Some((shard, parcel)) = self.broker.poll_parcel() {
            self.outputs.push_back(Output::Mail(shard, Mail(parcel)));
        }
        while let Some(notice) = self.broker.poll_notice() {
            self.outputs.push_back(match notice {
                Notice::Verify { conn, password, password_hash } => {
                    Output::Verify(AuthJob { conn, password, password_hash })
                }
                Notice::Note(text) => Output::Log(LogLevel::Info, text),
                Notice::Warn(text) => Output::Log(LogLevel::Warn, text),
                Notice::Halt(text) => Output::Halt(text),
            });
        }
    }

    /// The next thing to be done; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Shard::finish`] must be called even if nothing happens, in microseconds of the monotonic clock.
    pub fn deadline(&self) -> Option<u64> {
        [self.broker.deadline(), self.timers.next()].into_iter().flatten().min()
    }

    /// Figures for metrics and health checks.
    pub fn status(&self) -> Status {
        let mut status = self.broker.status();
        if self.draining {
            status.ready = false;
            status.reason.get_or_insert_with(|| "draining".to_owned());
        }
        status
    }
}

/// Takes the memory of an empty send buffer back, where spare buffers are still wanted.
fn reclaim(out: &mut SendBuffer, spare: &mut Vec<Vec<u8>>) {
    if let Some(mut bytes) = out.reclaim()
        && spare.len() < SPARE_BUFFERS
        && bytes.capacity() <= SPARE_BYTES
    {
        bytes.clear();
        spare.push(bytes);
    }
}
