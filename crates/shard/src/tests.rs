//! The shard's own part: turns, send buffers that wander between connections, and the drain.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use base::{Now, Pool};
use commitlog::disk::{Disk, DiskDone, DiskOp};
use model::{ConnId, Limits, NodeId, Peer, ShardId};

use crate::{Config, Door, Output, Shard, User};

/// A disk on which nothing was ever written and nothing is read.
struct EmptyDisk;

impl Disk for EmptyDisk {
    fn list(&self, _directory: &str) -> Result<Vec<(String, u64)>, String> {
        Ok(Vec::new())
    }

    fn read(&self, file: &str, _offset: u64, _into: &mut [u8]) -> Result<usize, String> {
        Err(format!("{file} is not there"))
    }
}

struct Bench {
    shard: Shard,
    pool: Pool,
    now: Now,
    outputs: VecDeque<Output>,
    sent: BTreeMap<ConnId, usize>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_limits(Limits::default())
    }

    fn with_limits(limits: Limits) -> Bench {
        let guest = User { name: "guest".into(), password_hash: auth::plain(b"guest"), loopback_only: true };
        let config = Config {
            node: NodeId(1),
            shard: ShardId(0),
            shards: 1,
            groups: 1,
            boot: 1,
            seed: 5,
            segment_bytes: 64 << 10,
            ring_bytes_max: 1 << 30,
            limits,
            users: vec![guest],
        };
        let (pool, now) = (Pool::default(), Now { mono_us: 1_000_000, wall_ms: 1_000_000 });
        let shard = Shard::open(config, pool.clone(), &EmptyDisk, now).expect("an empty disk");
        let mut bench = Bench { shard, pool, now, outputs: VecDeque::new(), sent: BTreeMap::new() };
        bench.run();
        assert!(bench.shard.status().ready);
        bench
    }

    /// Turns until the disk has nothing more to do.
    fn run(&mut self) {
        loop {
            self.shard.finish(self.now);
            self.send();
            let mut done = Vec::new();
            while let Some(output) = self.shard.poll_output() {
                match output {
                    Output::Disk(op) => done.push(id_of(&op)),
                    other => self.outputs.push_back(other),
                }
            }
            if done.is_empty() {
                return;
            }
            for id in done {
                self.shard.completed(DiskDone { id, result: Ok(self.pool.block(&[])) });
            }
        }
    }

    fn send(&mut self) {
        let mut dirty = Vec::new();
        self.shard.dirty(&mut dirty);
        for conn in dirty {
            let buffer = self.shard.send_buffer(conn).expect("a connection");
            let all = buffer.len();
            assert!(buffer.slices(&mut [IoSlice::new(&[])]) > 0);
            buffer.advance(all);
            self.shard.sent(conn);
            *self.sent.entry(conn).or_default() += all;
        }
    }

    fn accept(&mut self, conn: u64) -> ConnId {
        let peer = Peer { address: "127.0.0.1:1".into(), local: "127.0.0.1:2".into(), loopback: true };
        self.shard.accepted(ConnId(conn), Door::Amqp, peer, self.now);
        ConnId(conn)
    }

    /// Gives all of this input, as many turns as that takes.
    fn give(&mut self, conn: ConnId, mut input: Vec<u8>) {
        while !input.is_empty() {
            let used = self.shard.received(conn, &input, self.now);
            input.drain(..used);
            self.run();
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono_us += ms * 1000;
        self.now.wall_ms += ms;
    }

    /// A connection with channel 1 open.
    fn enter(&mut self, conn: u64) -> ConnId {
        let conn = self.accept(conn);
        let mut login = vec![0; 4];
        login.extend_from_slice(b"\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US");
        let mut input = b"AMQP\x00\x00\x09\x01".to_vec();
        method(&mut input, 0, [10, 11], &login);
        method(&mut input, 0, [10, 31], &[7, 0, 0, 2, 0, 0, 0, 0]);
        method(&mut input, 0, [10, 40], b"\x01/\0\0");
        method(&mut input, 1, [20, 10], b"\0");
        self.give(conn, input);
        conn
    }

    fn closes(&mut self) -> Vec<ConnId> {
        let closes = self.outputs.iter().filter_map(|output| match output {
            Output::Close(conn) => Some(*conn),
            _ => None,
        });
        closes.collect()
    }

    fn is_drained(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Drained))
    }
}

fn method(out: &mut Vec<u8>, channel: u16, [class, number]: [u16; 2], arguments: &[u8]) {
    let payload = [&class.to_be_bytes()[..], &number.to_be_bytes(), arguments].concat();
    frame(out, 1, channel, &payload);
}

fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
}

/// A request of Kafka's protocol, of a client without a name.
fn request(key: i16, version: i16, fields: &[&[u8]]) -> Vec<u8> {
    let head = [&key.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 7, 0xff, 0xff]].concat();
    let payload = [&head[..], &fields.concat()].concat();
    [&(payload.len() as u32).to_be_bytes()[..], &payload].concat()
}

fn id_of(op: &DiskOp) -> commitlog::disk::OpId {
    match op {
        DiskOp::Create { id, .. }
        | DiskOp::Prepare { id, .. }
        | DiskOp::Write { id, .. }
        | DiskOp::Read { id, .. }
        | DiskOp::Put { id, .. }
        | DiskOp::Delete { id, .. }
        | DiskOp::Punch { id, .. } => *id,
    }
}

#[test]
fn a_buffer_that_was_lent_and_not_used_goes_back() {
    let mut bench = Bench::new();
    let talks = bench.accept(1);
    assert_eq!(bench.shard.received(talks, b"AMQP\x00\x00\x09\x01", bench.now), 8);
    bench.run();
    assert!(bench.sent[&talks] > 100, "it was greeted");
    assert_eq!(bench.shard.spare.len(), 1);
    let listens = bench.accept(2);
    bench.shard.received(listens, b"AMQ", bench.now);
    assert_eq!(bench.shard.spare.len(), 0, "it was lent");
    bench.run();
    assert_eq!(bench.shard.spare.len(), 1);
}

#[test]
fn a_turn_ends_after_its_bytes_and_the_next_connection_has_its_own() {
    const TURN: usize = 64 << 10;
    let mut bench = Bench::with_limits(Limits { turn_bytes_max: TURN, ..Limits::default() });
    let (greedy, modest) = (bench.enter(1), bench.enter(2));
    // Messages that lead nowhere: nothing but their number holds the connection back.
    let mut input = Vec::new();
    while input.len() < 10 * TURN {
        method(&mut input, 1, [60, 40], b"\0\0\0\x06nobody\0");
        frame(&mut input, 2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0]);
        frame(&mut input, 3, 1, &[b'x'; 1000]);
    }
    let (mut at, mut turns) = (0, 0);
    while at < input.len() {
        let used = bench.shard.received(greedy, &input[at..], bench.now);
        at += used;
        assert!(used <= TURN + TURN / 2, "{used} bytes in one turn");
        assert_eq!(bench.shard.hungry(greedy), at < input.len(), "what is left is for the next turn");
        let mut ask = Vec::new();
        method(&mut ask, 1, [20, 20], &[1]);
        assert_eq!(bench.shard.received(modest, &ask, bench.now), ask.len());
        let before = bench.sent[&modest];
        bench.run();
        assert!(bench.sent[&modest] > before, "it is answered in each turn");
        turns += 1;
    }
    assert!((7..=11).contains(&turns), "{turns} turns for ten turns' bytes");
}

#[test]
fn a_drain_ends_connections_before_and_behind_it() {
    let mut bench = Bench::new();
    let early = bench.accept(1);
    bench.shard.drain();
    bench.run();
    assert_eq!(bench.closes(), [early]);
    let late = bench.accept(2);
    bench.run();
    assert_eq!(bench.closes(), [early, late]);
    assert!(!bench.is_drained(), "both are still there");
    bench.shard.closed(early, bench.now);
    bench.shard.closed(late, bench.now);
    bench.run();
    assert!(bench.is_drained());
}

/// A shard that slept knows the time only when it is told: what a request may wait counts from when it came.
#[test]
fn a_request_waits_from_when_it_came_however_long_nothing_did() {
    let mut bench = Bench::new();
    let peer = Peer { address: "127.0.0.1:1".into(), local: "127.0.0.1:2".into(), loopback: true };
    let conn = ConnId(1);
    bench.shard.accepted(conn, Door::Kafka, peer, bench.now);
    bench.give(conn, request(3, 4, &[&[0, 0, 0, 1], b"\0\x01t", &[1]]));
    assert!(bench.sent[&conn] > 30, "the topic was made");
    bench.pass(900);
    let before = bench.sent[&conn];
    let (wait_ms, least, most) = (100_u32.to_be_bytes(), 1_u32.to_be_bytes(), 1000_u32.to_be_bytes());
    let place = [&[0; 4][..], &[0; 8], &most].concat();
    let fields: [&[u8]; 9] =
        [&[0xff; 4], &wait_ms, &least, &most, &[0], &[0, 0, 0, 1], b"\0\x01t", &[0, 0, 0, 1], &place];
    bench.give(conn, request(1, 4, &fields));
    assert_eq!(bench.sent[&conn], before, "it may wait for records");
    bench.pass(99);
    bench.run();
    assert_eq!(bench.sent[&conn], before);
    bench.pass(1);
    bench.run();
    assert!(bench.sent[&conn] > before, "there were none");
}
