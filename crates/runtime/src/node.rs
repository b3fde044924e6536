//! The life of a node: take the data directory and the addresses, recover, serve, drain, end.
//!
//! ```text
//! lock → bind → raise the start number → recover every shard → let clients in → … → drain → stop
//! ```
//! Addresses are taken before recovery, so that a wrong port is told at once, and answer after it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base::Pool;
use model::ShardId;
use shard::{Door, Shard};

use crate::clock::Clock;
use crate::config::{Config, LogFormat, Scheme};
use crate::data_dir::{DataDir, NodeFile};
use crate::disk::{Adapter, Calls, Files, System};
use crate::http::{Front, Phase, Room, SideDoor, Stage};
use crate::logs;
use crate::mailbox::{Letter, Mailbox};
use crate::net::{Admission, Bound, Doorkeeper, bind, room_for_connections};
use crate::supervise::{Notice, Notices, spawn};
use crate::turn::{Parts, ShardLoop};
use crate::verifier::Verifier;

/// How long clients have to say goodbye to a draining node before they are cut off.
const GOODBYE: Duration = Duration::from_secs(10);
/// How long a draining node waits for its shards in all.
const DRAIN: Duration = Duration::from_secs(30);

/// Why a node did not start or had to stop, for a person, sorted by what it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The data directory cannot be used.
    DataDir(String),
    /// An address cannot be listened on.
    Address(String),
    /// It was asked to end before it was ready.
    Interrupted,
    /// The node could not start or had to stop for another reason.
    Halted(String),
}

/// Whether SIGTERM and SIGINT are the node's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// The first drains the node, the second ends the process.
    Watched,
    /// Whoever started the node sees to them.
    Ignored,
}

/// A running node. Dropping it stops it without draining.
#[derive(Debug)]
pub struct Node {
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
    doorkeeper: Option<Doorkeeper>,
    phase: Arc<Phase>,
    side_door: Option<SideDoor>,
    notices: Notices,
    inbox: Receiver<Notice>,
    addresses: Vec<(Scheme, SocketAddr)>,
    data_dir: DataDir,
}

/// Runs a node until it is asked to end or must stop, as the `serve` command does.
pub fn serve(config: &Config) -> Result<(), Failure> {
    logs::start(config.log_format);
    let node = match Node::start(config, Arc::new(System), Signals::Watched) {
        Err(Failure::Interrupted) => return Ok(()),
        started => started?,
    };
    announce(config, &node);
    node.run()
}

fn announce(config: &Config, node: &Node) {
    let urls: Vec<String> = node.addresses.iter().map(|(scheme, at)| format!("{scheme}://{at}")).collect();
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("waystation {version} ready: {} data={}", urls.join(" "), config.data_dir.display());
    match config.log_format {
        LogFormat::Text => eprintln!("{line}"),
        LogFormat::Json => tracing::info!("{line}"),
    }
}

impl Node {
    /// Starts a node whose files are reached through `calls`; returns when it lets clients in.
    pub fn start<C: Calls>(config: &Config, calls: Arc<C>, signals: Signals) -> Result<Node, Failure> {
        let data_dir = DataDir::lock(&config.data_dir).map_err(Failure::DataDir)?;
        let bound: Vec<Bound> =
            config.listen.iter().map(bind).collect::<Result<_, _>>().map_err(Failure::Address)?;
        let file = data_dir.begin_start(config.shards, config.groups).map_err(Failure::DataDir)?;
        let addresses = bound.iter().map(|bound| (bound.scheme, bound.address)).collect();
        let (notices, inbox) = channel();
        let mut mailboxes = Vec::new();
        for _ in 0..file.shards {
            mailboxes.push(Arc::new(Mailbox::new().map_err(Failure::Halted)?));
        }
        let phase = Arc::new(Phase::new());
        let mut node = Node {
            mailboxes,
            threads: Vec::new(),
            doorkeeper: None,
            phase,
            side_door: None,
            notices,
            inbox,
            addresses,
            data_dir,
        };
        let bound = node.open_side_door(config, &file, bound, signals)?;
        node.start_shards(config, &file, calls).map_err(Failure::Halted)?;
        node.await_shards()?;
        node.open_doors(config, bound)?;
        node.phase.enter(Stage::Serving);
        Ok(node)
    }

    /// What is listened on, with the ports that were picked.
    pub fn addresses(&self) -> &[(Scheme, SocketAddr)] {
        &self.addresses
    }

    /// Serves until asked to end, then drains; `Err` when the node had to stop.
    pub fn run(mut self) -> Result<(), Failure> {
        loop {
            match self.inbox.recv() {
                Ok(Notice::Halt(reason)) => return Err(halted(reason)),
                Ok(Notice::Terminate) => return self.drain(),
                Ok(_) => {}
                Err(_) => unreachable!("the node holds a sender of its own"),
            }
        }
    }

    /// Finishes what was taken and stops.
    pub fn drain(&mut self) -> Result<(), Failure> {
        tracing::info!("draining: no new connections, finishing what was taken");
        self.phase.enter(Stage::Draining);
        self.doorkeeper = None;
        self.tell_all(|| Letter::Drain);
        let begun = Instant::now();
        let mut left = self.await_drained(self.mailboxes.len(), begun + GOODBYE)?;
        if left > 0 {
            tracing::warn!("some clients have not said goodbye within {GOODBYE:?}: cutting them off");
            self.tell_all(|| Letter::HangUp);
            left = self.await_drained(left, begun + DRAIN)?;
        }
        if left > 0 {
            tracing::warn!("{left} shards have not drained within {DRAIN:?}; stopping anyway");
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn tell_all(&self, letter: impl Fn() -> Letter) {
        for mailbox in &self.mailboxes {
            mailbox.push(letter());
        }
    }

    /// Waits for that many shards; how many are left when the time is over.
    fn await_drained(&self, mut left: usize, until: Instant) -> Result<usize, Failure> {
        while left > 0 {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Notice::Drained(_)) => left -= 1,
                Ok(Notice::Halt(reason)) => return Err(halted(reason)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(left)
    }

    fn start_shards<C: Calls>(
        &mut self,
        config: &Config,
        file: &NodeFile,
        calls: Arc<C>,
    ) -> Result<(), String> {
        let clock = Clock::start();
        let pool = Pool::default();
        let files = Arc::new(Files::new(self.data_dir.path(), calls, pool.clone()));
        if !files.is_direct() {
            tracing::info!("the file system takes no direct writes: the log goes through the page cache");
        }
        let verifier = Verifier::start(&self.notices)?;
        for number in 0..file.shards {
            let id = ShardId(number);
            let shard = shard_config(config, file, id)?;
            let (notices, mailboxes) = (self.notices.clone(), self.mailboxes.clone());
            let (files, verifier, pool) = (files.clone(), verifier.clone(), pool.clone());
            let run = move || {
                let started = start_shard(shard, mailboxes, files, verifier, pool, clock, &notices);
                match started {
                    Ok(shard_loop) => shard_loop.run(),
                    // Nobody listens when the node has already given up.
                    Err(notice) => drop(notices.send(notice)),
                }
            };
            self.threads.push(spawn(&format!("shard-{number}"), &self.notices, run)?);
        }
        Ok(())
    }

    fn await_shards(&mut self) -> Result<(), Failure> {
        let mut left = self.mailboxes.len();
        while left > 0 {
            match self.inbox.recv() {
                Ok(Notice::Ready(_)) => left -= 1,
                Ok(Notice::Unusable(reason)) => return Err(Failure::DataDir(reason)),
                Ok(Notice::Halt(reason)) => return Err(Failure::Halted(reason)),
                Ok(Notice::Terminate) => return Err(Failure::Interrupted),
                Ok(_) => {}
                Err(_) => unreachable!("the node holds a sender of its own"),
            }
        }
        Ok(())
    }

    /// Health can be asked for while the node recovers; the addresses of everything else are returned.
    fn open_side_door(
        &mut self,
        config: &Config,
        file: &NodeFile,
        bound: Vec<Bound>,
        signals: Signals,
    ) -> Result<Vec<Bound>, Failure> {
        let (side, others): (Vec<_>, Vec<_>) =
            bound.into_iter().partition(|bound| bound.scheme == Scheme::Http);
        let listeners =
            side.into_iter().map(Bound::open).collect::<Result<_, _>>().map_err(Failure::Address)?;
        let front = Front { node: file.node(), phase: self.phase.clone(), mailboxes: self.mailboxes.clone() };
        let watched = signals == Signals::Watched;
        let room = Room { directory: self.data_dir.path().to_path_buf(), least: config.free_bytes_min };
        let door = SideDoor::start(listeners, Arc::new(front), room, &self.notices, watched);
        self.side_door = Some(door.map_err(Failure::Halted)?);
        Ok(others)
    }

    fn open_doors(&mut self, config: &Config, bound: Vec<Bound>) -> Result<(), Failure> {
        let open = |bound: Bound| {
            let door = match bound.scheme {
                Scheme::Kafka => Door::Kafka,
                Scheme::Amqp | Scheme::Http => Door::Amqp,
            };
            Ok((door, bound.open().map_err(Failure::Address)?))
        };
        let doors = bound.into_iter().map(open).collect::<Result<_, _>>()?;
        let (most, room) = (config.limits.connections_max, room_for_connections());
        if room < most {
            tracing::info!(
                "{room} connections fit below the bound of open files (ulimit -n), fewer than {most}"
            );
        }
        let admission = Admission::new(most.min(room));
        let told = config.kafka_advertised.clone();
        let keeper = Doorkeeper::start(doors, self.mailboxes.clone(), admission, told, &self.notices);
        self.doorkeeper = Some(keeper.map_err(Failure::Halted)?);
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.doorkeeper = None;
        self.side_door = None;
        self.tell_all(|| Letter::Stop);
        for thread in self.threads.drain(..) {
            // A panic over there has already been reported by the supervisor.
            let _ = thread.join();
        }
    }
}

fn start_shard<C: Calls>(
    config: shard::Config,
    mailboxes: Vec<Arc<Mailbox>>,
    files: Arc<Files<C>>,
    verifier: Verifier,
    pool: Pool,
    clock: Clock,
    notices: &Notices,
) -> Result<ShardLoop<C>, Notice> {
    let id = config.shard;
    let shard = Shard::open(config, pool, &*files, clock.now()).map_err(Notice::Unusable)?;
    let mailbox = mailboxes[usize::from(id.0)].clone();
    let disk = Adapter::start(&format!("shard-{id}"), files, &mailbox, notices).map_err(Notice::Halt)?;
    let parts = Parts { id, shard, mailboxes, disk, verifier, clock, notices: notices.clone() };
    ShardLoop::new(parts).map_err(Notice::Halt)
}

fn shard_config(config: &Config, file: &NodeFile, shard: ShardId) -> Result<shard::Config, String> {
    Ok(shard::Config {
        node: file.node(),
        shard,
        shards: file.shards,
        groups: file.groups,
        boot: file.boot,
        seed: random()?,
        segment_bytes: config.segment_bytes,
        ring_bytes_max: config.ring_bytes_max,
        limits: config.limits.clone(),
        users: config.users.clone(),
    })
}

fn random() -> Result<u64, String> {
    let mut bytes = [0; 8];
    let told = |error| format!("cannot get random numbers: {error}");
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(told)?;
    if got == bytes.len() { Ok(u64::from_le_bytes(bytes)) } else { Err("too few random numbers".into()) }
}

fn halted(reason: String) -> Failure {
    tracing::error!("{reason}");
    Failure::Halted(reason)
}
