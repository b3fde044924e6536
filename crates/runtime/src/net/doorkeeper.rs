//! The thread that accepts connections and hands them to the shards in turn.
//!
//! One thread accepts for all shards instead of one listener per shard on a shared port: sharing the port would let
//! a second process take it unnoticed, and spreads connections by hash where taking turns spreads them evenly.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use model::Peer;
use shard::Door;

use super::admission::{Admission, Seat};
use super::poller::{Interest, Poller};
use crate::mailbox::{Letter, Mailbox};
use crate::supervise::{Notices, spawn};

/// How long nothing is accepted after descriptors or memory ran out.
const PAUSE: Duration = Duration::from_millis(250);
/// Connections accepted per listener and round.
const ROUND: usize = 64;

/// An accepted connection on its way to its shard.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, not blocking.
    pub socket: TcpStream,
    /// What it is to speak.
    pub door: Door,
    /// Who is there.
    pub peer: Peer,
    /// Its place among the node's connections.
    pub seat: Seat,
}

/// The near end of the thread. Dropping it closes the listeners.
#[derive(Debug)]
pub struct Doorkeeper {
    bell: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

impl Doorkeeper {
    /// Starts accepting.
    pub fn start(
        doors: Vec<(Door, TcpListener)>,
        shards: Vec<Arc<Mailbox>>,
        admission: Admission,
        kafka_advertised: Option<String>,
        notices: &Notices,
    ) -> Result<Doorkeeper, String> {
        let poller = Poller::new().map_err(|error| format!("cannot watch the listeners: {error}"))?;
        let bell = Arc::new(Mailbox::new()?);
        let keeper = Keeper {
            doors,
            shards,
            admission,
            kafka_advertised,
            poller,
            bell: bell.clone(),
            turn: 0,
            told_full: false,
            told_short: false,
        };
        keeper.watch(true).map_err(|error| format!("cannot watch the listeners: {error}"))?;
        let thread = spawn("doorkeeper", notices, move || keeper.run())?;
        Ok(Doorkeeper { bell, thread: Some(thread) })
    }
}

impl Drop for Doorkeeper {
    fn drop(&mut self) {
        self.bell.push(Letter::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic over there has already been reported by the supervisor.
            let _ = thread.join();
        }
    }
}

struct Keeper {
    doors: Vec<(Door, TcpListener)>,
    shards: Vec<Arc<Mailbox>>,
    admission: Admission,
    kafka_advertised: Option<String>,
    poller: Poller,
    bell: Arc<Mailbox>,
    turn: usize,
    told_full: bool,
    told_short: bool,
}

const BELL: u64 = u64::MAX;

impl Keeper {
    fn watch(&self, first: bool) -> io::Result<()> {
        let interest = Interest { read: true, write: false };
        for (token, (_, listener)) in self.doors.iter().enumerate() {
            if first {
                self.poller.add(listener, token as u64, interest)?;
            } else {
                self.poller.change(listener, token as u64, interest)?;
            }
        }
        if first { self.poller.add_bell(self.bell.bell(), BELL) } else { Ok(()) }
    }

    fn run(mut self) {
        let mut happenings = Vec::new();
        let mut letters = Vec::new();
        loop {
            let timeout = if self.bell.may_sleep() { None } else { Some(Duration::ZERO) };
            if let Err(error) = self.poller.wait(timeout, &mut happenings) {
                tracing::error!("cannot wait for connections any more: {error}");
                return;
            }
            self.bell.awake();
            self.bell.collect(&mut letters);
            if !letters.is_empty() {
                return;
            }
            for happening in happenings.drain(..).filter(|happening| happening.token != BELL) {
                if let Err(error) = self.accept(happening.token as usize) {
                    self.pause(&error);
                }
            }
        }
    }

    fn accept(&mut self, door: usize) -> io::Result<()> {
        for _ in 0..ROUND {
            let (speaks, listener) = &self.doors[door];
            match listener.accept() {
                Ok((socket, address)) => self.hand_on(*speaks, socket, address),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => return Err(error),
                },
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, door: Door, socket: TcpStream, address: SocketAddr) {
        let Some(seat) = self.admission.seat() else {
            if !std::mem::replace(&mut self.told_full, true) {
                tracing::warn!(
                    "refusing connections: all {} places are taken, see limits.connections_max and ulimit -n (told once)",
                    self.admission.taken()
                );
            }
            return;
        };
        (self.told_full, self.told_short) = (false, false);
        // A socket that could block would hold up its whole shard.
        if socket.set_nonblocking(true).is_err() {
            return;
        }
        // Without it the connection is only slower.
        let _ = socket.set_nodelay(true);
        let loopback = address.ip().to_canonical().is_loopback();
        let local = self.told(door, &socket);
        let peer = Peer { address: address.to_string(), local, loopback };
        let shard = &self.shards[self.turn % self.shards.len()];
        self.turn = self.turn.wrapping_add(1);
        shard.push(Letter::Arrived(Arrival { socket, door, peer, seat }));
    }

    /// The address that the client is to know this node by. What it dialled is what its connection came through, but
    /// where ports are forwarded, which only the configuration can know.
    fn told(&self, door: Door, socket: &TcpStream) -> String {
        match &self.kafka_advertised {
            Some(configured) if door == Door::Kafka => configured.clone(),
            _ => socket.local_addr().map_or_else(|_| String::new(), |local| local.to_string()),
        }
    }

    /// Descriptors or memory ran out: trying again at once would only spin.
    fn pause(&mut self, error: &io::Error) {
        tracing::error!(
            "cannot accept connections for now: {error}; raise the limit of open files (ulimit -n)"
        );
        let mut ignored = Vec::new();
        let unwatched = Interest::default();
        for (token, (_, listener)) in self.doors.iter().enumerate() {
            // If a listener stays watched, the pause is merely shorter.
            let _ = self.poller.change(listener, token as u64, unwatched);
        }
        let _ = self.poller.wait(Some(PAUSE), &mut ignored);
        if let Err(error) = self.watch(false) {
            tracing::error!("cannot watch the listeners any more: {error}");
        }
    }
}
