//! A whole node in one thread: production shards, their mail, their disk, their clock and their sockets.
//!
//! In: bytes of clients, the passing of time, crashes. Out: bytes for clients, and why the node halted. Does what the
//! runtime does, in an order drawn from the seed; knows nothing of what the bytes mean.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::IoSlice;

use base::{Now, Pool, Prng, crc32c};
use model::{ConnId, NodeId, Peer, ShardId};
use shard::{AuthJob, Config, Door, Mail, Output, Shard, User};

use crate::disk::{Pace, VirtualDisk};
use crate::plan::Plan;
use crate::room::Room;

/// A socket: bytes on their way in both directions.
#[derive(Debug, Default)]
struct Socket {
    shard: u16,
    arriving: Vec<u8>,
    /// What the shard did not use.
    leftover: Vec<u8>,
    leaving: Vec<u8>,
    /// The shard wants it closed once everything is sent.
    closing: bool,
    /// The client has gone; the shard is told next.
    gone: bool,
    /// Bytes that were left in the send buffer.
    unsent: usize,
}

#[derive(Debug)]
struct Letter {
    due_us: u64,
    mail: Mail,
}

/// The node.
pub struct Node {
    plan: Plan,
    shards: Vec<Shard>,
    /// What would survive it.
    pub disk: VirtualDisk,
    mail: BTreeMap<(u16, u16), VecDeque<Letter>>,
    jobs: VecDeque<(u16, AuthJob)>,
    sockets: BTreeMap<ConnId, Socket>,
    /// The time.
    pub now: Now,
    boot: u32,
    connections: u64,
    /// Why it stopped.
    pub halted: Option<String>,
    /// A digest of everything that has happened.
    pub trace: u64,
    /// Whether to tell the story on standard error.
    pub is_loud: bool,
    /// How bytes are cut on their way.
    cuts: Prng,
    pool: Pool,
    password_hash: String,
    /// Shards to which something happened outside of their turn, or that sent something: the next turn follows.
    stirred: BTreeSet<u16>,
    /// Who counts the free bytes, where there may be few.
    room: Option<Room>,
    /// How often publishers were held back, and let go on, by earlier starts.
    alarms: (u64, u64),
}

/// Most microseconds that pass at once: clients do something in between, too.
const LEAP_US: u64 = 5000;
/// Most microseconds that pass at once while clients rest: enough for what happens once a second.
const REST_US: u64 = 1_200_000;

/// The name and password of every client.
pub const USER: (&str, &str) = ("guest", "guest");

impl Node {
    /// A node that was never started.
    pub fn new(plan: &Plan, password_hash: &str, cuts: Prng) -> Node {
        let pace = Pace { most_us: plan.disk_us, slow_one_in: plan.slow_one_in };
        let pool = Pool::default();
        Node {
            plan: plan.clone(),
            shards: Vec::new(),
            disk: VirtualDisk::new(plan.shards, pace, pool.clone()),
            mail: BTreeMap::new(),
            jobs: VecDeque::new(),
            sockets: BTreeMap::new(),
            now: Now { mono_us: 1_000_000, wall_ms: 1_700_000_000_000 },
            boot: 0,
            connections: 0,
            halted: None,
            trace: 0,
            is_loud: false,
            cuts,
            pool,
            password_hash: password_hash.to_owned(),
            stirred: BTreeSet::new(),
            room: None,
            alarms: (0, 0),
        }
    }

    /// Starts it; `Err` says why it refuses to.
    pub fn start(&mut self, prng: &mut Prng) -> Result<(), String> {
        assert!(self.shards.is_empty(), "it is started once at a time");
        self.boot += 1;
        self.stirred.extend(0..self.plan.shards);
        self.halted = None;
        self.room = self.plan.faults.scarce.then(|| Room::new(&self.plan, self.now.mono_us));
        for shard in 0..self.plan.shards {
            let config = self.config(shard, prng.draw());
            match Shard::open(config, self.pool.clone(), &self.disk, self.now) {
                Ok(opened) => self.shards.push(opened),
                Err(why) => {
                    self.shards.clear();
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    fn config(&self, shard: u16, seed: u64) -> Config {
        let password_hash = self.password_hash.clone();
        Config {
            node: NodeId(1),
            shard: ShardId(shard),
            shards: self.plan.shards,
            groups: self.plan.groups,
            boot: self.boot,
            seed,
            segment_bytes: self.plan.segment_bytes,
            ring_bytes_max: self.plan.ring_bytes_max,
            limits: self.plan.limits.clone(),
            users: vec![User { name: USER.0.to_owned(), password_hash, loopback_only: false }],
        }
    }

    /// Whether every shard serves.
    pub fn is_ready(&self) -> bool {
        !self.shards.is_empty() && self.shards.iter().all(|shard| shard.status().ready)
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        !self.shards.is_empty()
    }

    /// The sum of one of the shards' counters.
    pub fn counter(&self, name: &str) -> u64 {
        let status = self.shards.iter().map(Shard::status);
        let counters = status.flat_map(|status| status.counters);
        counters.filter(|(counter, _)| *counter == name).map(|(_, value)| value).sum()
    }

    /// How often publishers were held back because the disk was nearly full, and let go on.
    pub fn alarms(&self) -> (u64, u64) {
        let now = self.room.as_ref().map_or((0, 0), |room| room.seen);
        (self.alarms.0 + now.0, self.alarms.1 + now.1)
    }

    /// Whether any shard holds publishers back, or will.
    pub fn is_alarmed(&self) -> bool {
        self.room.as_ref().is_some_and(Room::is_alarmed)
    }

    /// Whether every shard holds publishers back: as long as it is the same number, none has let them go on.
    pub fn holds_back(&self) -> Option<u64> {
        self.room.as_ref().and_then(Room::holds_back)
    }

    /// The power goes: only what the disk kept is left.
    pub fn crash(&mut self, prng: &mut Prng) {
        self.disk.crash(prng);
        self.alarms = self.alarms();
        self.room = None;
        self.shards.clear();
        self.mail.clear();
        self.jobs.clear();
        self.sockets.clear();
        self.mix(0xc4a5);
    }

    /// A client of AMQP connects.
    pub fn connect(&mut self, prng: &mut Prng) -> ConnId {
        self.accept(Door::Amqp, prng)
    }

    /// A client of Kafka connects.
    pub fn connect_kafka(&mut self, prng: &mut Prng) -> ConnId {
        self.accept(Door::Kafka, prng)
    }

    fn accept(&mut self, door: Door, prng: &mut Prng) -> ConnId {
        self.connections += 1;
        let (conn, shard) = (ConnId(self.connections), prng.below(u64::from(self.plan.shards)) as u16);
        let peer = Peer { address: format!("client-{conn}"), local: "node:1".into(), loopback: true };
        self.shards[usize::from(shard)].accepted(conn, door, peer, self.now);
        self.stirred.insert(shard);
        self.sockets.insert(conn, Socket { shard, ..Socket::default() });
        conn
    }

    /// A client sends.
    pub fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(socket) = self.sockets.get_mut(&conn) {
            socket.arriving.extend_from_slice(bytes);
        }
    }

    /// What has arrived at a client; `None` once the connection is closed and everything was taken.
    pub fn receive(&mut self, conn: ConnId, into: &mut Vec<u8>) -> Option<()> {
        let socket = self.sockets.get_mut(&conn)?;
        into.append(&mut socket.leaving);
        Some(())
    }

    /// A client is gone without a word; what it sent may still arrive, or part of it.
    pub fn hang_up(&mut self, conn: ConnId) {
        if let Some(socket) = self.sockets.get_mut(&conn) {
            socket.gone = true;
        }
    }

    /// When something is due even if no client does anything.
    fn next_due_us(&self) -> Option<u64> {
        let deadlines = self.shards.iter().filter_map(Shard::deadline).min();
        let mail = self.mail.values().filter_map(|letters| letters.front()).map(|letter| letter.due_us).min();
        let room = self.room.as_ref().map(Room::next_due_us);
        [deadlines, mail, self.disk.next_due_us(), room].into_iter().flatten().min()
    }

    /// How far ahead the next thing may be that everybody waits for.
    fn leap_us(&self, prng: &mut Prng) -> u64 {
        if self.plan.rests && prng.chance(1, 8) { REST_US } else { LEAP_US }
    }

    /// Time passes, and every shard has a turn.
    pub fn step(&mut self, prng: &mut Prng) {
        let most_us = self.leap_us(prng);
        self.pass(most_us, prng);
    }

    fn pass(&mut self, most_us: u64, prng: &mut Prng) {
        let before = self.now.mono_us;
        let next = self.next_due_us().unwrap_or(before);
        let pass = 1 + prng.below(60);
        self.now.mono_us = match prng.chance(1, 2) {
            true => before + pass,
            false => next.clamp(before + pass, before + most_us),
        };
        self.now.wall_ms += (self.now.mono_us - before) / 1000;
        self.turn(prng);
    }

    /// Much time passes, unless something is due or on its way, and every shard has a turn.
    pub fn rest(&mut self, most_us: u64, prng: &mut Prng) {
        if self.sockets.values().any(|socket| !socket.arriving.is_empty() || socket.unsent > 0) {
            return self.pass(LEAP_US, prng);
        }
        let before = self.now.mono_us;
        let next = self.next_due_us().unwrap_or(u64::MAX);
        self.now.mono_us = next.clamp(before + 1 + prng.below(60), before + most_us);
        self.now.wall_ms += (self.now.mono_us - before) / 1000;
        self.turn(prng);
    }

    /// Whether the node has yet to learn that a client is gone.
    pub fn has_ghosts(&self) -> bool {
        self.sockets.values().any(|socket| socket.gone)
    }

    /// One turn of every shard that has something to do, in a drawn order.
    fn turn(&mut self, prng: &mut Prng) {
        if let (Some(room), Some(free)) = (&mut self.room, self.disk.free()) {
            room.look(free, self.now.mono_us, prng);
        }
        let shards = self.shards.len() as u64;
        let first = if shards == 0 { 0 } else { prng.below(shards) };
        for shard in (0..shards).map(|shard| ((first + shard) % shards) as u16) {
            self.turn_of(shard, prng);
        }
    }

    fn turn_of(&mut self, shard: u16, prng: &mut Prng) {
        let at = usize::from(shard);
        let mut busy = self.shards[at].deadline().is_some_and(|due| due <= self.now.mono_us);
        for done in self.disk.complete(shard, self.now.mono_us, prng) {
            self.mix(0xd15c ^ done.id.0 << 16 ^ u64::from(done.result.is_err()) << 60);
            self.shards[at].completed(done);
            busy = true;
        }
        busy |= self.open_letters(shard);
        while let Some(told) = self.room.as_mut().and_then(|room| room.letter(shard, self.now.mono_us)) {
            self.shards[at].set_alarm(told);
            self.mix(0xa1a2 ^ u64::from(told.is_some()));
            busy = true;
        }
        while let Some(job) = self.jobs.iter().position(|(of, _)| *of == shard) {
            let Some((_, job)) = self.jobs.remove(job) else { break };
            let matches = auth::verify(&job.password, &job.password_hash);
            self.shards[at].authenticated(job.conn, matches);
            busy = true;
        }
        busy |= self.feed(shard);
        busy |= self.stirred.remove(&shard);
        if busy {
            self.shards[at].finish(self.now);
            self.follow_outputs(shard, prng);
            self.collect(shard);
        }
    }

    fn open_letters(&mut self, shard: u16) -> bool {
        let mut any = false;
        for from in 0..self.plan.shards {
            let Some(letters) = self.mail.get_mut(&(from, shard)) else { continue };
            while letters.front().is_some_and(|letter| letter.due_us <= self.now.mono_us) {
                let Some(letter) = letters.pop_front() else { break };
                self.shards[usize::from(shard)].mail(ShardId(from), letter.mail);
                any = true;
            }
        }
        any
    }

    /// Gives a shard some of what has arrived on its sockets.
    fn feed(&mut self, shard: u16) -> bool {
        let mut any = false;
        let of_shard = self.sockets.iter_mut().filter(|(_, socket)| socket.shard == shard);
        let machine = &mut self.shards[usize::from(shard)];
        let mut gone = Vec::new();
        for (conn, socket) in of_shard {
            if socket.gone && (socket.arriving.is_empty() || self.cuts.chance(1, 3)) {
                machine.closed(*conn, self.now);
                gone.push(*conn);
                any = true;
                continue;
            }
            let fresh = !socket.arriving.is_empty() && !machine.hungry(*conn);
            if socket.closing || !(fresh || machine.hungry(*conn)) || !machine.wants_read(*conn) {
                continue;
            }
            if fresh {
                let most = socket.arriving.len() as u64;
                let taken = if self.cuts.chance(1, 2) { most } else { 1 + self.cuts.below(most) };
                socket.leftover.extend(socket.arriving.drain(..taken as usize));
            }
            let used = machine.received(*conn, &socket.leftover, self.now);
            assert!(used <= socket.leftover.len(), "no more bytes are used than were given");
            socket.leftover.drain(..used);
            any = true;
        }
        gone.iter().for_each(|conn| drop(self.sockets.remove(conn)));
        any
    }

    fn follow_outputs(&mut self, shard: u16, prng: &mut Prng) {
        while let Some(output) = self.shards[usize::from(shard)].poll_output() {
            match output {
                Output::Disk(op) => {
                    let now = self.now.mono_us;
                    let digest = self.disk.submit(shard, op, now, prng);
                    self.mix(u64::from(digest));
                }
                Output::Mail(to, mail) => {
                    let letters = self.mail.entry((shard, to.0)).or_default();
                    let after = letters.back().map_or(0, |letter| letter.due_us);
                    let due_us = after.max(self.now.mono_us + prng.below(self.plan.mail_us));
                    letters.push_back(Letter { due_us, mail });
                }
                Output::Verify(job) => self.jobs.push_back((shard, job)),
                Output::Close(conn) => {
                    if let Some(socket) = self.sockets.get_mut(&conn) {
                        socket.closing = true;
                    }
                }
                Output::Log(level, line) => {
                    if self.is_loud {
                        eprintln!("{} shard {shard} {level:?}: {line}", self.now.mono_us);
                    }
                }
                Output::Halt(why) => drop(self.halted.get_or_insert(why)),
                Output::Drained => {}
            }
        }
    }

    /// Takes everything that connections have to send.
    pub fn drain_sockets(&mut self) {
        for (conn, socket) in &mut self.sockets {
            let machine = &mut self.shards[usize::from(socket.shard)];
            while let Some(buffer) = machine.send_buffer(*conn).filter(|buffer| !buffer.is_empty()) {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = buffer.slices(&mut slices);
                slices[..filled].iter().for_each(|slice| socket.leaving.extend_from_slice(slice));
                let taken = slices[..filled].iter().map(|slice| slice.len()).sum();
                buffer.advance(taken);
            }
            socket.unsent = 0;
        }
    }

    /// Takes some of what a shard's connections have to send.
    fn collect(&mut self, shard: u16) {
        let machine = &mut self.shards[usize::from(shard)];
        let mut dirty = Vec::new();
        machine.dirty(&mut dirty);
        let of_shard = self.sockets.iter().filter(|(_, socket)| socket.shard == shard);
        for (conn, socket) in of_shard {
            let grown = machine.send_buffer(*conn).is_some_and(|buffer| buffer.len() > socket.unsent);
            assert!(!grown || dirty.contains(conn), "a connection with something new to send is named");
        }
        let mut mixed = Vec::new();
        let mut finished = Vec::new();
        for (conn, socket) in self.sockets.iter_mut().filter(|(_, socket)| socket.shard == shard) {
            let Some(buffer) = machine.send_buffer(*conn) else { continue };
            if !buffer.is_empty() && (self.halted.is_some() || !self.cuts.chance(1, 8)) {
                let mut slices = [IoSlice::new(&[]); 16];
                let filled = buffer.slices(&mut slices);
                let offered: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
                let taken = match self.cuts.chance(2, 3) {
                    true => offered,
                    false => 1 + self.cuts.below(offered as u64) as usize,
                };
                let start = socket.leaving.len();
                slices[..filled].iter().for_each(|slice| socket.leaving.extend_from_slice(slice));
                socket.leaving.truncate(start + taken);
                mixed.push((*conn, crc32c(&socket.leaving[start..])));
                buffer.advance(taken);
                machine.sent(*conn);
                self.stirred.insert(shard);
            }
            socket.unsent = machine.send_buffer(*conn).map_or(0, |buffer| buffer.len());
            if socket.unsent > 0 || socket.closing {
                self.stirred.insert(shard);
            }
            if socket.closing && socket.unsent == 0 && socket.leaving.is_empty() {
                machine.closed(*conn, self.now);
                self.stirred.insert(shard);
                finished.push(*conn);
            }
        }
        finished.iter().for_each(|conn| drop(self.sockets.remove(conn)));
        mixed.iter().for_each(|(conn, crc)| self.mix(conn.0 << 32 ^ u64::from(*crc)));
    }

    fn mix(&mut self, what: u64) {
        let mixed = (self.trace ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.trace = mixed ^ mixed >> 29;
    }
}
