//! One thread's world as one state machine: connections, sessions, broker, group replicas and their log.

use base::{Now, Pool, SendBuffer};
use commitlog::disk::{Disk, DiskDone, DiskOp};
use model::{ConnId, Limits, NodeId, Peer, ShardId, Status};

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
    /// Bounds.
    pub limits: Limits,
    /// Who may come in.
    pub users: Vec<User>,
}

/// A configured user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// `pbkdf2-sha256$iterations$salt$hash`, both hexadecimal.
    pub password_hash: String,
    /// Whether it is accepted from loopback only.
    pub loopback_only: bool,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// AMQP 0-9-1.
    Amqp,
}

/// A batch of messages for another shard; opaque to whoever carries it.
#[derive(Debug)]
pub struct Mail {
    _private: (),
}

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
    _config: Config,
}

impl Shard {
    /// Recovers the shard from its files. Blocking. `Err` says for a person what is wrong and what is lost.
    pub fn open(config: Config, _pool: Pool, _disk: &dyn Disk, _now: Now) -> Result<Shard, String> {
        Ok(Shard { _config: config })
    }

    /// A connection was accepted.
    pub fn accepted(&mut self, _conn: ConnId, _door: Door, _peer: Peer, _now: Now) {}

    /// Bytes arrived. Returns how many were used; the rest must be given again, in front of what arrives next.
    /// Fewer are used when a frame is incomplete, or the connection's turn is over (see [`Shard::hungry`]).
    pub fn received(&mut self, _conn: ConnId, bytes: &[u8], _now: Now) -> usize {
        bytes.len()
    }

    /// Connections that have whole frames left unread in what `received` did not use: call `received` again next
    /// turn even if nothing arrived.
    pub fn hungry(&self, _conn: ConnId) -> bool {
        false
    }

    /// Whether the connection's socket may be read; false while its own bounds are reached.
    pub fn wants_read(&self, _conn: ConnId) -> bool {
        true
    }

    /// The peer closed the connection, or it broke.
    pub fn closed(&mut self, _conn: ConnId, _now: Now) {}

    /// The connection's bytes to send. Take slices, `advance` what was sent, then call [`Shard::sent`].
    pub fn send_buffer(&mut self, _conn: ConnId) -> Option<&mut SendBuffer> {
        None
    }

    /// Some of the connection's bytes were sent: deliveries held back by a full buffer may go on.
    pub fn sent(&mut self, _conn: ConnId) {}

    /// Connections whose send buffer got bytes since the last call; each once.
    pub fn dirty(&mut self, _out: &mut Vec<ConnId>) {}

    /// A disk operation ended.
    pub fn completed(&mut self, _done: DiskDone) {}

    /// Mail from another shard.
    pub fn mail(&mut self, _from: ShardId, _mail: Mail) {}

    /// A password was checked.
    pub fn authenticated(&mut self, _conn: ConnId, _matches: bool) {}

    /// Stop accepting work, finish what was taken, then say `Drained`.
    pub fn drain(&mut self) {}

    /// Ends the turn: seals and proposes entries, applies what is committed, fills send buffers.
    pub fn finish(&mut self, _now: Now) {}

    /// The next thing to be done; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When [`Shard::finish`] must be called even if nothing happens, in microseconds of the monotonic clock.
    pub fn deadline(&self) -> Option<u64> {
        None
    }

    /// Figures for metrics and health checks.
    pub fn status(&self) -> Status {
        Status::default()
    }
}
