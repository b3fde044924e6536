//! The loop itself: gathers what happened, ends the turn, carries out what the shard wants done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::Now;
use model::{ConnId, ShardId};
use shard::{LogLevel, Output, Shard};

use super::connection::{Connection, Stage};
use super::connections::Connections;
use super::inbound::{Inbound, Taken};
use super::outbound::{Sent, send};
use crate::clock::Clock;
use crate::disk::{Adapter, Calls};
use crate::mailbox::{Letter, Mailbox};
use crate::net::{Arrival, Happening, Interest, Poller};
use crate::supervise::{Notice, Notices};
use crate::verifier::Verifier;

/// Microseconds a closing connection is given to take its last bytes.
const FAREWELL_US: u64 = 5_000_000;
const BELL: u64 = u64::MAX;

/// What a loop is made of.
#[derive(Debug)]
pub struct Parts<C> {
    /// Its number.
    pub id: ShardId,
    /// The recovered shard.
    pub shard: Shard,
    /// Its own mailbox, and those of all shards by number.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// Its files.
    pub disk: Adapter<C>,
    /// Where passwords are checked.
    pub verifier: Verifier,
    /// The clock of the node.
    pub clock: Clock,
    /// Where the node listens.
    pub notices: Notices,
}

/// One shard and its connections.
#[derive(Debug)]
pub struct ShardLoop<C> {
    parts: Parts<C>,
    mailbox: Arc<Mailbox>,
    poller: Poller,
    connections: Connections,
    inbound: Inbound,
    /// Connections held back: hungry ones, and those that may not be read for now.
    attended: Vec<ConnId>,
    to_send: Vec<ConnId>,
    /// When a closing connection is given up, in order of time.
    farewells: VecDeque<(u64, ConnId)>,
    letters: Vec<Letter>,
    happenings: Vec<Happening>,
    scratch: Vec<ConnId>,
    /// Mail of this turn, by shard.
    outgoing: Vec<Vec<Letter>>,
    /// Something was told to the shard after the turn's `finish`: the next turn follows at once.
    again: bool,
    announced: bool,
    stopped: bool,
}

impl<C: Calls> ShardLoop<C> {
    /// A loop without connections.
    pub fn new(parts: Parts<C>) -> Result<ShardLoop<C>, String> {
        let told = |error: std::io::Error| format!("cannot watch sockets: {error}");
        let mailbox = parts.mailboxes[usize::from(parts.id.0)].clone();
        let poller = Poller::new().map_err(told)?;
        poller.add_bell(mailbox.bell(), BELL).map_err(told)?;
        let outgoing = parts.mailboxes.iter().map(|_| Vec::new()).collect();
        Ok(ShardLoop {
            parts,
            mailbox,
            poller,
            connections: Connections::default(),
            inbound: Inbound::new(),
            attended: Vec::new(),
            to_send: Vec::new(),
            farewells: VecDeque::new(),
            letters: Vec::new(),
            happenings: Vec::new(),
            scratch: Vec::new(),
            outgoing,
            again: false,
            announced: false,
            stopped: false,
        })
    }

    /// Runs until told to stop.
    pub fn run(mut self) {
        let mut now = self.parts.clock.now();
        let mut busy = true;
        while !self.stopped {
            if let Err(error) = self.wait(busy, now) {
                self.notify(Notice::Halt(format!(
                    "shard {} cannot wait for sockets: {error}",
                    self.parts.id
                )));
                return;
            }
            now = self.parts.clock.now();
            busy = self.turn(now);
        }
    }

    fn wait(&mut self, busy: bool, now: Now) -> std::io::Result<()> {
        let asleep = !busy && self.mailbox.may_sleep();
        let timeout = if asleep { self.sleep_time(now) } else { Some(Duration::ZERO) };
        self.poller.wait(timeout, &mut self.happenings)?;
        self.mailbox.awake();
        Ok(())
    }

    fn sleep_time(&self, now: Now) -> Option<Duration> {
        let farewell = self.farewells.front().map(|(at, _)| *at);
        let next = [self.parts.shard.deadline(), farewell].into_iter().flatten().min()?;
        Some(Duration::from_micros(next.saturating_sub(now.mono_us)))
    }

    /// One turn; whether the next must follow at once.
    fn turn(&mut self, now: Now) -> bool {
        self.open_letters(now);
        self.attend(now);
        self.take_happenings(now);
        self.parts.shard.finish(now);
        self.follow_outputs(now);
        self.again = false;
        self.send_all(now);
        let ShardLoop { parts: Parts { disk, shard, .. }, .. } = self;
        self.again |= disk.work_inline(|done| shard.completed(done));
        self.say_farewells(now);
        self.announce();
        self.again || self.may_go_on()
    }

    /// Whether a connection that was held back may be read again: its bounds may have widened in `finish`.
    fn may_go_on(&self) -> bool {
        self.attended.iter().any(|id| self.parts.shard.wants_read(*id))
    }

    fn open_letters(&mut self, now: Now) {
        let mut letters = std::mem::take(&mut self.letters);
        self.mailbox.collect(&mut letters);
        for letter in letters.drain(..) {
            match letter {
                Letter::Arrived(arrival) => self.welcome(arrival, now),
                Letter::Mail(from, mail) => self.parts.shard.mail(from, mail),
                Letter::Disk(done) => {
                    self.parts.disk.calls().completing(&done);
                    self.parts.disk.finished(done.id);
                    self.parts.shard.completed(done);
                }
                Letter::Verified(conn, matches) => self.parts.shard.authenticated(conn, matches),
                // Whoever asked may have given up waiting.
                Letter::Status(reply) => drop(reply.send(self.parts.shard.status())),
                Letter::Alarm(reason) => self.parts.shard.set_alarm(reason),
                Letter::Drain => self.parts.shard.drain(),
                Letter::HangUp => {
                    for id in self.connections.ids() {
                        self.lose(id, now);
                    }
                }
                Letter::Stop => self.stopped = true,
            }
        }
        self.letters = letters;
    }

    fn welcome(&mut self, arrival: Arrival, now: Now) {
        let Arrival { socket, door, peer, seat } = arrival;
        let connection = Connection::new(socket, seat);
        let interest = connection.interest;
        let Some(id) = self.connections.insert(connection) else { return };
        let Some(connection) = self.connections.find(id) else { return };
        if let Err(error) = self.poller.add(&connection.socket, id.0, interest) {
            tracing::error!("cannot watch the connection of {}: {error}", peer.address);
            self.connections.remove(id);
            return;
        }
        self.parts.shard.accepted(id, door, peer, now);
    }

    /// Looks after hungry connections and those that were not to be read.
    fn attend(&mut self, now: Now) {
        std::mem::swap(&mut self.attended, &mut self.scratch);
        let mut attended = std::mem::take(&mut self.scratch);
        for id in attended.drain(..) {
            let Some(connection) = self.connections.find(id) else { continue };
            connection.attended = false;
            if connection.stage != Stage::Open {
                continue;
            }
            if self.parts.shard.wants_read(id) && !connection.leftover.is_empty() {
                let shard = &mut self.parts.shard;
                self.inbound.offer_leftover(connection, |bytes| shard.received(id, bytes, now));
            }
            self.review(id);
        }
        self.scratch = attended;
    }

    /// Puts a connection on the list it belongs to now, and has it watched accordingly.
    fn review(&mut self, id: ConnId) {
        let Some(connection) = self.connections.find(id) else { return };
        let held_back = !self.parts.shard.wants_read(id) || self.parts.shard.hungry(id);
        if held_back && !connection.attended {
            connection.attended = true;
            self.attended.push(id);
        }
        let interest = Interest { read: !held_back, ..connection.interest };
        watch(&self.poller, id, connection, interest);
    }

    fn take_happenings(&mut self, now: Now) {
        let mut happenings = std::mem::take(&mut self.happenings);
        for happening in happenings.drain(..).filter(|happening| happening.token != BELL) {
            self.take_happening(happening, now);
        }
        self.happenings = happenings;
    }

    fn take_happening(&mut self, happening: Happening, now: Now) {
        let id = ConnId(happening.token);
        let Some(connection) = self.connections.find(id) else { return };
        if happening.writable && !connection.to_send {
            connection.to_send = true;
            self.to_send.push(id);
        }
        let taken = match connection.stage {
            // What is already here is still read from a connection that broke; a paused one has nobody to read it.
            Stage::Open if happening.readable && connection.interest.read => {
                let shard = &mut self.parts.shard;
                self.inbound.read(connection, |bytes| shard.received(id, bytes, now))
            }
            Stage::Open if happening.broken => Taken::End,
            Stage::Open => return,
            Stage::Flushing if !happening.broken => return,
            Stage::Flushing => Taken::End,
            Stage::Lingering => self.inbound.discard(connection),
        };
        if taken == Taken::End {
            self.lose(id, now);
        } else if self.connections.find(id).is_some_and(|connection| connection.stage == Stage::Open) {
            self.review(id);
        }
    }

    fn follow_outputs(&mut self, now: Now) {
        while let Some(output) = self.parts.shard.poll_output() {
            match output {
                Output::Disk(op) => self.parts.disk.submit(op),
                Output::Mail(to, mail) => {
                    self.outgoing[usize::from(to.0)].push(Letter::Mail(self.parts.id, mail));
                }
                Output::Verify(job) => self.parts.verifier.verify(self.mailbox.clone(), job),
                Output::Close(id) => self.begin_close(id, now),
                Output::Log(level, line) => log(self.parts.id, level, &line),
                Output::Halt(reason) => self.notify(Notice::Halt(reason)),
                Output::Drained => self.notify(Notice::Drained(self.parts.id)),
            }
        }
        for (letters, mailbox) in self.outgoing.iter_mut().zip(&self.parts.mailboxes) {
            if !letters.is_empty() {
                mailbox.push_all(letters.drain(..));
            }
        }
    }

    fn begin_close(&mut self, id: ConnId, now: Now) {
        let Some(connection) = self.connections.find(id) else { return };
        if connection.stage != Stage::Open {
            return;
        }
        connection.stage = Stage::Flushing;
        let leftover = std::mem::take(&mut connection.leftover);
        let interest = Interest { read: false, ..connection.interest };
        watch(&self.poller, id, connection, interest);
        if !connection.to_send {
            connection.to_send = true;
            self.to_send.push(id);
        }
        self.inbound.recycle(leftover);
        self.farewells.push_back((now.mono_us + FAREWELL_US, id));
    }

    /// Sends to every connection that has something, once.
    fn send_all(&mut self, now: Now) {
        self.parts.shard.dirty(&mut self.scratch);
        for id in self.scratch.drain(..) {
            if let Some(connection) = self.connections.find(id)
                && !connection.to_send
                && !connection.interest.write
            {
                connection.to_send = true;
                self.to_send.push(id);
            }
        }
        // What is put back while this list is worked off comes next turn.
        std::mem::swap(&mut self.to_send, &mut self.scratch);
        let mut sending = std::mem::take(&mut self.scratch);
        for id in sending.drain(..) {
            self.send_one(id, now);
        }
        self.scratch = sending;
    }

    fn send_one(&mut self, id: ConnId, now: Now) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.to_send = false;
        if connection.stage == Stage::Lingering {
            return;
        }
        let sent = match self.parts.shard.send_buffer(id) {
            Some(buffer) => send(&**self.parts.disk.calls(), id, connection, buffer),
            None => Sent::All { bytes: 0 },
        };
        let (bytes, full) = match sent {
            Sent::All { bytes } | Sent::Some { bytes } => (bytes, false),
            Sent::Full { bytes } => (bytes, true),
            Sent::Broken => return self.lose(id, now),
        };
        watch(&self.poller, id, connection, Interest { write: full, ..connection.interest });
        if matches!(sent, Sent::Some { .. }) {
            connection.to_send = true;
            self.to_send.push(id);
            self.again = true;
        }
        let finished = matches!(sent, Sent::All { .. }) && connection.stage == Stage::Flushing;
        if bytes > 0 {
            // Deliveries that a full buffer held back may go on now.
            self.parts.shard.sent(id);
            self.again = true;
        }
        if finished {
            self.linger(id, now);
        }
    }

    /// Everything is sent: our side ends, and the peer's last bytes are thrown away.
    fn linger(&mut self, id: ConnId, now: Now) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.stage = Stage::Lingering;
        watch(&self.poller, id, connection, Interest { read: true, write: false });
        let shut = connection.socket.shutdown(std::net::Shutdown::Write);
        self.parts.shard.closed(id, now);
        self.again = true;
        if shut.is_err() {
            self.connections.remove(id);
        }
    }

    fn say_farewells(&mut self, now: Now) {
        while let Some((at, id)) = self.farewells.front().copied()
            && at <= now.mono_us
        {
            self.farewells.pop_front();
            self.lose(id, now);
        }
    }

    /// The connection is gone; the shard is told unless it knows.
    fn lose(&mut self, id: ConnId, now: Now) {
        let Some(connection) = self.connections.remove(id) else { return };
        if connection.stage != Stage::Lingering {
            self.parts.shard.closed(id, now);
            self.again = true;
        }
        self.inbound.recycle(connection.leftover);
    }

    fn announce(&mut self) {
        if !self.announced && self.parts.shard.status().ready {
            self.announced = true;
            self.notify(Notice::Ready(self.parts.id));
        }
    }

    fn notify(&self, notice: Notice) {
        // When nobody listens any more, the node is already on its way out.
        let _ = self.parts.notices.send(notice);
    }
}

/// Changes what a connection is watched for, if that is a change.
fn watch(poller: &Poller, id: ConnId, connection: &mut Connection, interest: Interest) {
    if connection.interest != interest {
        connection.interest = interest;
        // It fails only for a socket that is not watched, whose end has been told already.
        let _ = poller.change(&connection.socket, id.0, interest);
    }
}

fn log(shard: ShardId, level: LogLevel, line: &str) {
    let shard = shard.0;
    match level {
        LogLevel::Info => tracing::info!(shard, "{line}"),
        LogLevel::Warn => tracing::warn!(shard, "{line}"),
        LogLevel::Error => tracing::error!(shard, "{line}"),
    }
}
