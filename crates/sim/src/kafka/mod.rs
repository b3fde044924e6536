//! Kafka's side of a run: clients of raw protocol bytes, what they wrote, read, were told and committed.
//!
//! In: chances to act, bytes from the node, crashes. Out: bytes for the node, the first broken promise. What is checked
//! is in [`journal`] and [`groups`].

mod batch;
mod groups;
mod journal;
mod link;
mod member;
mod plan;
mod producer;
mod reader;
mod wire;

use std::collections::BTreeMap;

use base::Prng;

pub use journal::Seen;
pub use plan::{Keeping, Plan, Topic};

use crate::client::Fault;
use crate::node::Node;
use groups::Groups;
use journal::Journal;
use link::{Ask, Link, With};
use member::Member;
use producer::Producer;
use reader::Reader;
use wire::{Fields, PutFields, code};

/// What a client does.
#[derive(Debug)]
enum Mind {
    Founder(Founder),
    Producer(Producer),
    Reader(Reader),
    Member(Member),
}

impl Mind {
    fn lost(&mut self) {
        match self {
            Mind::Founder(_) => {}
            Mind::Producer(producer) => producer.lost(),
            Mind::Reader(reader) => reader.lost(),
            Mind::Member(member) => member.lost(),
        }
    }

    fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        match self {
            Mind::Founder(founder) => founder.act(link, with),
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
            Mind::Producer(producer) => producer.answered(ask, fields, with),
            Mind::Reader(reader) => reader.answered(ask, fields, with),
            Mind::Member(member) => member.answered(ask, fields, link, with),
        }
    }
}

/// Creates the topics, or finds them.
#[derive(Debug, Default)]
struct Founder {
    /// How many are there for certain.
    founded: usize,
}

impl Founder {
    fn act(&mut self, link: &mut Link, with: &mut With<'_>) {
        let Some(topic) = with.journal.topics.get(self.founded).filter(|_| link.under_way() == 0) else {
            return;
        };
        let mut body = Vec::new();
        body.i32(1);
        body.text(&topic.name);
        if topic.by_itself {
            body.i8(1);
            return link.ask(wire::METADATA, Ask::Find, &body);
        }
        body.i32(topic.partitions);
        body.i16(1);
        body.i32(0);
        let configs = topic.configs();
        body.i32(configs.len() as i32);
        for (name, value) in configs {
            body.text(name);
            body.text(&value);
        }
        body.i32(30_000);
        body.i8(0);
        link.ask(wire::CREATE_TOPICS, Ask::Create, &body);
    }

    fn answered(&mut self, ask: &Ask, mut fields: Fields<'_>, with: &mut With<'_>) -> Result<(), Fault> {
        let why = match ask {
            Ask::Create => {
                fields.take(8)?;
                fields.text()?;
                fields.i16()?
            }
            Ask::Find => {
                fields.i32()?;
                fields.list(|node| {
                    node.i32()?;
                    node.text()?;
                    node.i32()?;
                    node.text().map(drop)
                })?;
                fields.text()?;
                fields.take(8)?;
                fields.i16()?
            }
            other => return link::greeting(other, fields),
        };
        match why {
            code::NONE | code::TOPIC_ALREADY_EXISTS => self.founded += 1,
            code::LEADER_NOT_AVAILABLE | code::REQUEST_TIMED_OUT => {}
            why => {
                let topic = &with.journal.topics[self.founded].name;
                return Err(("L10", format!("creating '{topic}' is refused with {why}")));
            }
        }
        Ok(())
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
    /// Whether all topics are there.
    is_founded: bool,
    writers: u64,
    /// Everything that writers with numbers wrote who are gone.
    written: BTreeMap<u64, Vec<journal::RecordId>>,
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
            is_founded: false,
            writers: 0,
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
        self.clients = stay;
        if !self.is_founded {
            self.clients.push(Client::new(Mind::Founder(Founder::default())));
        }
        for _ in counts[0]..self.plan.producers {
            self.writers += 1;
            let producer = Producer::new(self.writers, prng.chance(2, 3));
            self.clients.push(Client::new(Mind::Producer(producer)));
        }
        (counts[1]..self.plan.readers)
            .for_each(|_| self.clients.push(Client::new(Mind::Reader(Reader::default()))));
        (counts[2]..self.plan.members)
            .for_each(|_| self.clients.push(Client::new(Mind::Member(Member::default()))));
    }

    fn dismiss(&mut self, client: Client) {
        if let Mind::Producer(producer) = client.mind
            && let Some(writer) = producer.numbered()
        {
            self.written.insert(writer, producer.written);
        }
    }

    /// Every client reads what has come; `acts`: and does what it likes.
    pub fn turn(&mut self, acts: bool, around: &mut Around<'_>) -> Result<(), Fault> {
        let now = around.node.now.wall_ms as i64;
        self.journal.wall_max_ms = self.journal.wall_max_ms.max(now);
        for at in 0..self.clients.len() {
            self.turn_of(at, acts, around)?;
        }
        self.is_founded |= self.clients.iter().any(
            |client| matches!(&client.mind, Mind::Founder(founder) if founder.founded == self.plan.topics.len()),
        );
        Ok(())
    }

    fn turn_of(&mut self, at: usize, acts: bool, around: &mut Around<'_>) -> Result<(), Fault> {
        let Around { node, prng, is_damaged } = around;
        let (wall_ms, is_damaged) = (node.now.wall_ms as i64, *is_damaged);
        let Side { plan, journal, groups, clients, is_founded, .. } = self;
        let mut with = With { plan, journal, groups, prng, wall_ms, is_damaged };
        let client = &mut clients[at];
        client.read(node, &mut with)?;
        let founds = matches!(client.mind, Mind::Founder(_));
        if acts && (founds != *is_founded) && with.prng.chance(2, 3) {
            match &mut client.link {
                None => client.link = Some(Link::new(node, with.prng)),
                Some(link) => client.mind.act(link, &mut with),
            }
        }
        if let Some(link) = &mut client.link {
            link.flush(node);
        }
        if acts && with.prng.chance(plan.disconnect, 400) {
            self.hang_up(at, around.node);
        }
        Ok(())
    }

    fn hang_up(&mut self, at: usize, node: &mut Node) {
        if let Some(link) = self.clients[at].link.take() {
            link.hang_up(node);
            self.clients[at].mind.lost();
        }
    }

    /// All clients go without a word.
    pub fn hang_up_all(&mut self, node: &mut Node) {
        (0..self.clients.len()).for_each(|at| self.hang_up(at, node));
    }

    /// Whether everything asked was answered.
    pub fn is_quiet(&self) -> bool {
        self.clients.iter().filter_map(|client| client.link.as_ref()).all(|link| link.under_way() == 0)
    }

    /// What is waited for.
    pub fn waits_for(&self) -> String {
        self.clients.iter().filter_map(|client| client.link.as_ref()).map(Link::waits_for).collect()
    }

    /// The node has died.
    pub fn crashed(&mut self) {
        self.clients.iter_mut().for_each(Client::lost);
        let now = self.journal.crashed();
        self.groups.crashed(now);
    }

    /// Nobody is there any more but one, who reads everything; nothing happens where there are no topics.
    pub fn begin_audit(&mut self) {
        for client in std::mem::take(&mut self.clients) {
            self.dismiss(client);
        }
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
    }

    /// The auditor goes; what it found must be complete.
    pub fn end_audit(&mut self, node: &mut Node) -> Result<(), Fault> {
        self.hang_up_all(node);
        self.clients.clear();
        self.journal.has_no_holes(&self.written)
    }
}
