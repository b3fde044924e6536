//! Kafka's side of a run: clients of raw protocol bytes, what they wrote, read, were told and committed.
//!
//! In: chances to act, bytes from the node, crashes. Out: bytes for the node, the first broken promise.
//!
//! Which check shows what, over all crashes and faults:
//!
//! ```text
//! K1   an offset holds one record            journal: what is acknowledged, read or streamed is learned once;
//!                                            caretaker: nothing of a deleted topic appears in one of its name
//! K2   what was acknowledged is read         journal: nothing known may be missing where somebody reads
//! K3   everything acknowledged is there      journal, when all is at rest: the audits of Kafka's and of AMQP's readers
//! K4   no aborted record is read             producer, journal: no transaction begins, its batches are refused and never
//! K5   nor one that is not committed         read, nothing aborted is told of; so both hold, and shown is no more
//! K6   a record has one offset               journal: sent again or not
//! K7   readers meet no gaps                  journal: from answer to answer
//! K8   nor within one answer                 journal: from batch to batch and from record to record
//! K9   each writer's order holds             journal; producer: no batch is taken that follows a missing one
//! K14  ends and starts never fall            journal: against what was known when it was asked; stable is the end, and
//!                                            who reads gets there, once all is at rest
//! K15  times, compaction, start and end      journal; what a topic keeps, of which nothing young and not too much goes
//! G1   a partition has one owner             groups: who is of an older generation or has begun anew does nothing more
//! G2   committed is durable                  groups
//! G3   committed does not go back            groups
//! G4   nor is it said to be missing          groups
//! G5   groups settle                         member: nobody waits too long; settling: all get all, who returns keeps its
//! G6   offsets of transactions               link, producer: nothing that makes transactions is offered or given
//! G7   out of range only where it is         journal
//! L12  a nearly full disk takes nothing      producer: what is acknowledged was not sent while all were held back
//! ```
//!
//! One node cannot show: what K4, K5 and G6 say of transactions that exist, as there are none; K14 and G7 where the
//! leader changes; G2 where the coordinator moves.

mod batch;
mod caretaker;
mod fetching;
mod founder;
mod groups;
mod journal;
mod link;
mod member;
mod plan;
mod producer;
mod reader;
mod settling;
mod snappy;
mod stream_link;
mod streaming;
mod wire;

use std::collections::BTreeMap;

use base::Prng;

pub use journal::Seen;
pub use plan::{Keeping, Plan, Topic};

use crate::client::Fault;
use crate::node::Node;
use caretaker::Caretaker;
use founder::Founder;
use groups::Groups;
use journal::Journal;
use link::{Ask, Link, With};
use member::Member;
use producer::Producer;
use reader::Reader;
use streaming::Streamer;
use wire::Fields;

/// What a client does.
#[derive(Debug)]
enum Mind {
    Founder(Founder),
    Caretaker(Caretaker),
    Producer(Producer),
    Reader(Reader),
    Member(Member),
}

impl Mind {
    fn lost(&mut self) {
        match self {
            Mind::Founder(_) | Mind::Caretaker(_) => {}
            Mind::Producer(producer) => producer.lost(),
            Mind::Reader(reader) => reader.lost(),
            Mind::Member(member) => member.lost(),
        }
    }

    fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        match self {
            Mind::Founder(founder) => founder.act(link, with),
            Mind::Caretaker(caretaker) => caretaker.act(link, with),
            Mind::Producer(producer) => producer.act(link, with),
            Mind::Reader(reader) => reader.act(link, with),
            Mind::Member(member) => member.act(link, with),
        }
    }

    fn answered(
        &mut self,
        ask: Ask,
        answer: &[u8],
        link: &mut Link,
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        let fields = Fields(answer);
        match self {
            Mind::Founder(founder) => founder.answered(&ask, fields, with),
            Mind::Caretaker(caretaker) => caretaker.answered(&ask, fields, with),
            Mind::Producer(producer) => producer.answered(ask, fields, with),
            Mind::Reader(reader) => reader.answered(ask, fields, with),
            Mind::Member(member) => member.answered(ask, fields, link, with),
        }
    }
}

/// A client: one connection at a time.
#[derive(Debug)]
struct Client {
    mind: Mind,
    link: Option<Link>,
}

impl Client {
    fn new(mind: Mind) -> Client {
        Client { mind, link: None }
    }

    fn read(&mut self, node: &mut Node, with: &mut With<'_>) -> Result<(), Fault> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let is_there = link.receive(node);
        while let Some((ask, answer)) = link.answer()? {
            self.mind.answered(ask, &answer, &mut link, with)?;
        }
        if !is_there {
            return Err(("L10", "the node hung up on a client of Kafka".to_owned()));
        }
        self.link = Some(link);
        Ok(())
    }

    fn lost(&mut self) {
        if self.link.take().is_some() {
            self.mind.lost();
        }
    }
}

/// Kafka's side of a run.
#[derive(Debug)]
pub(crate) struct Side {
    plan: Plan,
    journal: Journal,
    groups: Groups,
    clients: Vec<Client>,
    streamers: Vec<Streamer>,
    /// Whether all topics are there.
    is_founded: bool,
    writers: u64,
    instances: u32,
    /// Everything that writers with numbers wrote who are gone.
    written: BTreeMap<u64, Vec<journal::RecordId>>,
}

/// What clients may do in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acts {
    /// Nothing new.
    Nothing,
    /// Members come in and stay, nobody else asks for anything.
    Settles,
    /// What they like.
    Anything,
}

/// What a client's turn needs of the run.
pub(crate) struct Around<'a> {
    /// The node.
    pub node: &'a mut Node,
    /// Chance.
    pub prng: &'a mut Prng,
    /// Whether what is stored may have been damaged since the start.
    pub is_damaged: bool,
}

impl Side {
    /// The side of a run with such a plan.
    pub fn new(plan: &Plan, is_loud: bool) -> Side {
        Side {
            plan: plan.clone(),
            journal: Journal::new(&plan.topics, is_loud),
            groups: Groups::default(),
            clients: Vec::new(),
            streamers: Vec::new(),
            is_founded: false,
            writers: 0,
            instances: 0,
            written: BTreeMap::new(),
        }
    }

    /// What was seen.
    pub fn seen(&self) -> Seen {
        self.journal.seen
    }

    /// The node was started: some of the clients are the ones that were there before, others are new.
    pub fn hire(&mut self, prng: &mut Prng) {
        let mut counts = [0; 3];
        let mut stay = Vec::new();
        for client in std::mem::take(&mut self.clients) {
            let kind = match &client.mind {
                // What it founded before may have been lost.
                Mind::Founder(_) => continue,
                Mind::Caretaker(_) => {
                    stay.push(client);
                    continue;
                }
                Mind::Member(member) if !member.is_alive() => continue,
                Mind::Producer(_) => 0,
                Mind::Reader(_) => 1,
                Mind::Member(_) => 2,
            };
            match kind {
                _ if prng.chance(1, 5) => self.dismiss(client),
                kind => {
                    counts[kind] += 1;
                    stay.push(client);
                }
            }
        }
        let has_caretaker = stay.iter().any(|client| matches!(client.mind, Mind::Caretaker(_)));
        if self.plan.cares && !has_caretaker {
            stay.push(Client::new(Mind::Caretaker(Caretaker::default())));
        }
        self.clients = stay;
        if !self.is_founded {
            self.clients.push(Client::new(Mind::Founder(Founder::default())));
        }
        for _ in counts[0]..self.plan.producers {
            self.writers += 1;
            let producer = Producer::new(self.writers, prng.chance(2, 3), prng.chance(1, 3));
            self.clients.push(Client::new(Mind::Producer(producer)));
        }
        (counts[1]..self.plan.readers)
            .for_each(|_| self.clients.push(Client::new(Mind::Reader(Reader::new(prng.chance(1, 2))))));
        for _ in counts[2]..self.plan.members {
            let member = self.new_member(prng);
            self.clients.push(Client::new(Mind::Member(member)));
        }
        self.hire_streamers(prng);
    }

    fn hire_streamers(&mut self, prng: &mut Prng) {
        self.streamers.retain(|_| !prng.chance(1, 5));
        for _ in self.streamers.len()..self.plan.streamers {
            self.writers += 1;
            self.streamers.push(Streamer::new(self.writers));
        }
    }

    fn dismiss(&mut self, client: Client) {
        if let Mind::Producer(producer) = client.mind
            && let Some(writer) = producer.numbered()
        {
            self.written.insert(writer, producer.written);
        }
    }

    /// What the node's clock says now.
    pub fn see_clock(&mut self, now_ms: u64) {
        self.journal.see_clock(now_ms as i64);
    }

    /// Every client reads what has come and does what it may.
    pub fn turn(&mut self, acts: Acts, around: &mut Around<'_>) -> Result<(), Fault> {
        self.see_clock(around.node.now.wall_ms);
        for at in 0..self.clients.len() {
            self.turn_of(at, acts, around)?;
        }
        self.clients.retain_mut(|client| match (&client.mind, &client.link) {
            (Mind::Member(member), None) => !member.is_gone(),
            _ => true,
        });
        self.restart_some(acts, around.node, around.prng);
        self.turn_of_streamers(acts, around)?;
        self.audit_streams();
        self.is_founded |= self.clients.iter().any(
            |client| matches!(&client.mind, Mind::Founder(founder) if founder.founded == self.plan.topics.len()),
        );
        Ok(())
    }

    fn turn_of(&mut self, at: usize, acts: Acts, around: &mut Around<'_>) -> Result<(), Fault> {
        let Around { node, prng, is_damaged } = around;
        let (wall_ms, mono_us, is_damaged) = (node.now.wall_ms as i64, node.now.mono_us, *is_damaged);
        let held_back = node.holds_back();
        let Side { plan, journal, groups, clients, is_founded, .. } = self;
        let mut with = With { plan, journal, groups, prng, wall_ms, mono_us, is_damaged, held_back };
        let client = &mut clients[at];
        client.read(node, &mut with)?;
        let may = match (&client.mind, acts) {
            (_, Acts::Nothing) => false,
            (Mind::Founder(_), Acts::Anything) => !*is_founded,
            (Mind::Member(member), _) => *is_founded && !member.is_gone(),
            (_, Acts::Anything) => *is_founded,
            (_, Acts::Settles) => false,
        };
        if may && with.prng.chance(2, 3) {
            match &mut client.link {
                None => client.link = Some(Link::new(node, with.prng)),
                Some(link) => match &mut client.mind {
                    Mind::Member(member) if acts == Acts::Settles => member.settle(link, &mut with),
                    mind => mind.act(link, &mut with),
                },
            }
        }
        if let Some(link) = &mut client.link {
            link.flush(node);
        }
        let is_gone = matches!(&client.mind, Mind::Member(member) if member.is_gone());
        if is_gone || acts == Acts::Anything && with.prng.chance(plan.disconnect, 400) {
            self.hang_up(at, around.node);
        }
        Ok(())
    }

    fn turn_of_streamers(&mut self, acts: Acts, around: &mut Around<'_>) -> Result<(), Fault> {
        let Around { node, prng, is_damaged } = around;
        let (wall_ms, mono_us, is_damaged) = (node.now.wall_ms as i64, node.now.mono_us, *is_damaged);
        let held_back = node.holds_back();
        let Side { plan, journal, groups, streamers, is_founded, .. } = self;
        let mut with = With { plan, journal, groups, prng, wall_ms, mono_us, is_damaged, held_back };
        for streamer in streamers {
            streamer.read(node, &mut with)?;
            if *is_founded && acts == Acts::Anything && with.prng.chance(2, 3) {
                match streamer.is_connected() {
                    true => streamer.act(&mut with),
                    false => streamer.connect(node, with.prng),
                }
            }
            streamer.flush(node);
            if acts == Acts::Anything && with.prng.chance(plan.disconnect, 400) {
                streamer.hang_up(node);
            }
        }
        Ok(())
    }

    /// What a reader of Kafka has found to its end, a reader of streams must find too.
    fn audit_streams(&mut self) {
        let is_read = |client: &Client| matches!(&client.mind, Mind::Reader(reader) if reader.has_read(self.journal.spots()));
        if self.journal.is_audited && self.streamers.is_empty() && self.clients.iter().any(is_read) {
            self.streamers.push(Streamer::auditor(self.journal.present()));
        }
    }

    fn hang_up(&mut self, at: usize, node: &mut Node) {
        if let Some(link) = self.clients[at].link.take() {
            link.hang_up(node);
            if let Mind::Caretaker(caretaker) = &mut self.clients[at].mind {
                caretaker.hung_up();
            }
            self.clients[at].mind.lost();
        }
    }

    /// All clients go without a word.
    pub fn hang_up_all(&mut self, node: &mut Node) {
        (0..self.clients.len()).for_each(|at| self.hang_up(at, node));
        self.streamers.iter_mut().for_each(|streamer| streamer.hang_up(node));
    }

    /// Whether everything asked was answered.
    pub fn is_quiet(&self) -> bool {
        let mut links = self.clients.iter().filter_map(|client| client.link.as_ref());
        links.all(|link| link.under_way() == 0) && self.streamers.iter().all(Streamer::is_quiet)
    }

    /// Whether everything asked was answered that publishes nothing.
    pub fn reads_are_answered(&self) -> bool {
        let writes = |client: &&Client| matches!(client.mind, Mind::Producer(_) | Mind::Caretaker(_));
        let mut links =
            self.clients.iter().filter(|client| !writes(client)).filter_map(|client| client.link.as_ref());
        links.all(|link| link.under_way() == 0)
    }

    /// What is waited for.
    pub fn waits_for(&self) -> String {
        let links = self.clients.iter().filter_map(|client| client.link.as_ref());
        links.map(Link::waits_for).chain(self.streamers.iter().map(Streamer::waits_for)).collect()
    }

    /// The node has died.
    pub fn crashed(&mut self) {
        for client in &mut self.clients {
            client.lost();
            match &mut client.mind {
                Mind::Caretaker(caretaker) => caretaker.crashed(),
                Mind::Member(member) => member.crashed(),
                _ => {}
            }
        }
        self.streamers.iter_mut().for_each(Streamer::lost);
        let now = self.journal.crashed();
        self.groups.crashed(now);
    }

    /// Nobody is there any more but one, who reads everything; nothing happens where there are no topics.
    pub fn begin_audit(&mut self) {
        for client in std::mem::take(&mut self.clients) {
            self.dismiss(client);
        }
        self.streamers.clear();
        self.journal.begin_audit();
        if self.is_founded {
            self.clients.push(Client::new(Mind::Reader(Reader::auditor())));
        }
    }

    /// Whether everything was read.
    pub fn is_audited(&self) -> bool {
        let spots = self.journal.spots();
        self.clients
            .iter()
            .all(|client| matches!(&client.mind, Mind::Reader(reader) if reader.has_read(spots)))
            && (!self.is_founded || self.streamers.iter().any(Streamer::has_read))
    }

    /// The auditor goes; what it found must be complete.
    pub fn end_audit(&mut self, node: &mut Node) -> Result<(), Fault> {
        self.hang_up_all(node);
        self.clients.clear();
        self.streamers.clear();
        self.journal.has_no_holes(&self.written)
    }
}
