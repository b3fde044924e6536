//! The shard's own part: send buffers that wander between connections, and the drain.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;

use base::{Now, Pool};
use commitlog::disk::{Disk, DiskDone, DiskOp};
use model::{ConnId, Limits, NodeId, Peer, ShardId};

use crate::{Config, Door, Output, Shard};

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
        let config = Config {
            node: NodeId(1),
            shard: ShardId(0),
            shards: 1,
            groups: 1,
            boot: 1,
            seed: 5,
            segment_bytes: 64 << 10,
            ring_bytes_max: 1 << 30,
            limits: Limits::default(),
            users: Vec::new(),
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
