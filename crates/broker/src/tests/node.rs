//! A node of one or several shards, turned by hand, and what its connections ask and hear.

use std::collections::VecDeque;

use auth::{Authenticator, User};
use base::{Now, Pool};
use model::{
    Arguments, Change, ConnId, ConsumerId, Delivered, Event, Lane, Limits, NodeId, Outcome, Peer, Protocol,
    Publish, QueueDeclaration, QueueId, Record, Request, Seq, Settlement, ShardId, Subscribe,
};

use super::disk::MemoryDisk;
use crate::{Broker, Notice, Parcel, Settings};

pub(super) const LANE: Lane = Lane(1);

/// A connection: its shard and its number.
pub(super) type Client = (usize, ConnId);

pub(super) struct Node {
    pub brokers: Vec<Broker>,
    pub disks: Vec<MemoryDisk>,
    mail: VecDeque<(ShardId, ShardId, Parcel)>,
    events: Vec<(Client, Event)>,
    now: Now,
    boot: u32,
    groups: u32,
    limits: Limits,
    connections: u64,
    /// By shard: whether anything happened since its last turn. As in a real loop, nothing else calls for one.
    stirred: Vec<bool>,
}

impl Node {
    /// A started node.
    pub(super) fn start(shards: u16, groups: u32) -> Node {
        Node::with_limits(shards, groups, Limits::default())
    }

    /// A started node with bounds of its own.
    pub(super) fn with_limits(shards: u16, groups: u32, limits: Limits) -> Node {
        let mut node = Node {
            brokers: Vec::new(),
            disks: (0..shards).map(|_| MemoryDisk::default()).collect(),
            mail: VecDeque::new(),
            events: Vec::new(),
            now: Now { mono_us: 1_000_000, wall_ms: 1_700_000_000_000 },
            boot: 0,
            groups,
            limits,
            connections: 0,
            stirred: vec![true; usize::from(shards)],
        };
        node.boot();
        node
    }

    fn boot(&mut self) {
        self.boot += 1;
        self.brokers = (0..self.disks.len()).map(|shard| self.open(shard)).collect();
        self.stirred.fill(true);
        self.run();
        assert!(self.brokers.iter().all(Broker::is_ready), "every shard serves");
    }

    fn open(&self, shard: usize) -> Broker {
        let settings = Settings {
            node: NodeId(1),
            shard: ShardId(shard as u16),
            shards: self.disks.len() as u16,
            groups: self.groups,
            boot: self.boot,
            seed: 7,
            read_block: |_| None,
            write_block: |properties| format!("{properties:?}").into_bytes(),
            segment_bytes: 64 << 10,
            ring_bytes_max: 256 << 10,
            limits: self.limits.clone(),
        };
        let guest = User { name: "guest".into(), password_hash: auth::plain(b"guest"), loopback_only: true };
        Broker::open_shard(
            settings,
            Authenticator::new([guest]),
            Pool::default(),
            &self.disks[shard],
            self.now,
        )
        .expect("a sound disk")
    }

    /// Everything in memory is lost and what was not yet written with it; the node starts again.
    pub(super) fn restart(&mut self) {
        self.disks.iter_mut().for_each(MemoryDisk::lose_power);
        self.mail.clear();
        self.events.clear();
        self.boot();
    }

    /// As [`Node::restart`], after so many milliseconds.
    pub(super) fn stop_for(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.wall_ms += ms;
        self.restart();
    }

    /// As [`Node::restart`], on empty disks.
    pub(super) fn wipe(&mut self) {
        self.disks.iter_mut().for_each(|disk| *disk = MemoryDisk::default());
        self.mail.clear();
        self.events.clear();
        self.boot();
    }

    pub(super) fn hold_up_disks(&mut self, held_up: bool) {
        self.disks.iter_mut().for_each(|disk| disk.held_up = held_up);
    }

    /// Every shard is told that publishers are to be held back, or that they may go on.
    pub(super) fn set_alarm(&mut self, reason: Option<&'static str>) {
        self.brokers.iter_mut().for_each(|broker| broker.set_alarm(reason));
        self.stirred.fill(true);
        self.run();
    }

    /// Turns until nothing moves any more, without letting time pass.
    pub(super) fn run(&mut self) {
        while self.turn() {}
    }

    /// As [`Node::run`], after so many milliseconds.
    pub(super) fn run_after(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.wall_ms += ms;
        self.run();
    }

    /// The calendar is set forward; no time passes.
    pub(super) fn set_wall_forward(&mut self, ms: u64) {
        self.now.wall_ms += ms;
    }

    /// The clock.
    pub(super) fn mono_us(&self) -> u64 {
        self.now.mono_us
    }

    /// One turn of every shard that has something to do; false if none has.
    pub(super) fn turn(&mut self) -> bool {
        let mut moved = false;
        for (shard, broker) in self.brokers.iter_mut().enumerate() {
            while let Some(done) = self.disks[shard].next_done() {
                broker.completed(done);
                self.stirred[shard] = true;
            }
            let is_due = broker.deadline().is_some_and(|due| due <= self.now.mono_us);
            if !std::mem::take(&mut self.stirred[shard]) && !is_due {
                continue;
            }
            moved = true;
            broker.finish(self.now);
            while let Some((conn, event)) = broker.poll_event() {
                self.events.push(((shard, conn), event));
                broker.unsent(conn, 0);
                self.stirred[shard] = true;
            }
            while let Some(op) = broker.poll_op() {
                self.disks[shard].ask(op);
            }
            while let Some((to, parcel)) = broker.poll_parcel() {
                self.mail.push_back((ShardId(shard as u16), to, parcel));
            }
            while let Some(notice) = broker.poll_notice() {
                assert!(!matches!(notice, Notice::Halt(_)), "{notice:?}");
            }
        }
        while let Some((from, to, parcel)) = self.mail.pop_front() {
            self.brokers[usize::from(to.0)].receive(from, parcel);
            self.stirred[usize::from(to.0)] = true;
        }
        moved
    }

    /// An admitted connection.
    pub(super) fn connect(&mut self, shard: usize) -> Client {
        self.connections += 1;
        let client = (shard, ConnId(self.connections));
        let peer = Peer { address: "127.0.0.1:1".into(), local: "127.0.0.1:2".into(), loopback: true };
        self.brokers[shard].connected(client.1, peer);
        self.ask(client, Request::Authenticate { user: "guest", password: b"guest" });
        self.ask(client, Request::Enter { vhost: "/" });
        self.run();
        assert!(matches!(self.heard(client)[..], [Event::Admitted, Event::Entered]));
        client
    }

    pub(super) fn disconnect(&mut self, client: Client) {
        self.stirred[client.0] = true;
        self.brokers[client.0].disconnected(client.1);
    }

    /// One request; the node does not turn yet.
    pub(super) fn ask(&mut self, client: Client, request: Request<'_>) {
        self.stirred[client.0] = true;
        self.brokers[client.0].handle(client.1, request);
    }

    /// What the client was told since it was last asked for.
    pub(super) fn heard(&mut self, client: Client) -> Vec<Event> {
        let mut heard = Vec::new();
        self.events.retain(|(to, event)| {
            if *to == client {
                heard.push(event.clone());
            }
            *to != client
        });
        heard
    }

    pub(super) fn declaration(name: &str) -> QueueDeclaration {
        QueueDeclaration {
            name: name.into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Arguments::default(),
        }
    }

    /// Declares a durable queue and says how many messages and consumers it has.
    pub(super) fn declare(&mut self, client: Client, name: &str) -> (u64, u32) {
        self.ask_change(client, Change::DeclareQueue(Node::declaration(name)));
        self.run();
        match &self.heard(client)[..] {
            [Event::Declared(LANE, _, messages, consumers)] => (*messages, *consumers),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a queue without creating it.
    pub(super) fn passive(&mut self, client: Client, name: &str) -> Vec<Event> {
        let declaration = QueueDeclaration { passive: true, ..Node::declaration(name) };
        self.ask_change(client, Change::DeclareQueue(declaration));
        self.run();
        self.heard(client)
    }

    pub(super) fn ask_change(&mut self, client: Client, change: Change) {
        self.ask(client, Request::Change { lane: LANE, change });
    }

    pub(super) fn bind(&mut self, client: Client, exchange: &str, queue: &str) {
        let (exchange, queue) = (exchange.to_owned(), queue.to_owned());
        let bind = Change::BindQueue { exchange, queue, key: String::new(), arguments: Arguments::default() };
        self.ask_change(client, bind);
        self.run();
        assert!(matches!(self.heard(client)[..], [Event::Done(LANE)]));
    }

    /// Publishes to an exchange, without a turn.
    pub(super) fn publish_to(&mut self, client: Client, exchange: &str, key: &str, token: u64, body: &[u8]) {
        let record = Record {
            exchange,
            routing_key: key,
            prefix: &[0, 0],
            body: Some(body),
            ..Record::bare(Protocol::Amqp091)
        };
        let publish = Publish { lane: LANE, token, mandatory: false, record, also: &[], headers: |_| None };
        self.ask(client, Request::Publish(publish));
    }

    /// Publishes to a queue, without a turn.
    pub(super) fn publish(&mut self, client: Client, queue: &str, token: u64, body: &str) {
        self.publish_to(client, "", queue, token, body.as_bytes());
    }

    /// Starts a consumer, without a turn.
    pub(super) fn subscribe(&mut self, client: Client, consumer: u32, queue: &str, credit: Option<u32>) {
        self.ask(
            client,
            Request::Subscribe(Subscribe {
                filter: None,
                lane: LANE,
                consumer: ConsumerId(consumer),
                queue,
                settled: false,
                exclusive: false,
                priority: 0,
                credit,
                start: None,
            }),
        );
    }

    pub(super) fn settle(&mut self, client: Client, (queue, seq): (QueueId, Seq), outcome: Outcome) {
        let one = Settlement { queue, first: seq, last: seq, outcome };
        self.ask(client, Request::Settle { lane: LANE, settlements: &[one] });
    }

    /// Nothing is remembered for anybody: all that was asked and published has been answered.
    pub(super) fn assert_nothing_waits(&self) {
        for broker in &self.brokers {
            let door = &broker.door;
            assert!(door.pending.is_empty(), "{:?}", door.pending);
            assert!(door.changes.is_empty(), "{:?}", door.changes);
            assert!(door.spread.is_empty() && broker.host.waits.is_empty() && broker.host.changes.is_empty());
            assert!(broker.host.groups.iter().all(|group| group.asked.is_empty()));
            assert!(door.connections.values().all(|connection| connection.unconfirmed_bytes == 0));
            assert!(door.group_of.keys().all(|queue| broker.topology.queue_by_id(*queue).is_some()));
        }
    }
}

/// What was delivered among the events: where it stands, its body, whether it is redelivered.
pub(super) fn delivered(events: &[Event]) -> Vec<((QueueId, Seq), String, bool)> {
    let mut all = Vec::new();
    for event in events {
        let (Event::Delivered(delivered) | Event::Got(delivered, _)) = event else { continue };
        all.extend(
            delivered
                .items
                .iter()
                .map(|item| ((delivered.queue, item.seq), body_at(delivered, item.at), item.redelivered)),
        );
    }
    all
}

fn body_at(delivered: &Delivered, at: u32) -> String {
    let (record, _) = Record::decode(&delivered.block.as_slice()[at as usize..]).expect("a row");
    String::from_utf8_lossy(record.body.unwrap_or_default()).into_owned()
}

/// The bodies of what was delivered.
pub(super) fn bodies(events: &[Event]) -> Vec<String> {
    delivered(events).into_iter().map(|(_, body, _)| body).collect()
}

/// The tokens confirmed, in the order of their confirms.
pub(super) fn confirmed(events: &[Event]) -> Vec<u64> {
    let mut tokens = Vec::new();
    for event in events {
        match event {
            Event::Confirmed(LANE, first, last) => tokens.extend(*first..=*last),
            Event::Rejected(..) => panic!("{event:?}"),
            _ => {}
        }
    }
    tokens
}
