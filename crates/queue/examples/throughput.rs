//! Nanoseconds per message of the queue machines alone: enqueue, hand out, settle, checkpoint.
//!
//! Medians over the batches, less what reading the clock costs, so that a busy machine does not show.
//!
//! `cargo run --release -p queue --example throughput`
#![allow(clippy::disallowed_methods)] // A measurement reads the clock.

use std::time::Instant;

use base::{Block, Pool};
use model::entry::HAND_OUT;
use model::{
    ConnId, ConsumerId, EntryBuilder, Index, Lane, OpSequence, OperationKind, Origin, Protocol, QueueId,
    Record, Seq, ShardId,
};
use queue::{ConsumerKey, Delivery, Fetched, GroupMachine, Subscription};

const QUEUE: QueueId = QueueId(1);

fn record(body: &[u8]) -> Record<'_> {
    Record { routing_key: "q", prefix: &[0, 0], body: Some(body), ..Record::bare(Protocol::Amqp091) }
}

struct Bench {
    pool: Pool,
    machine: GroupMachine,
    sequence: OpSequence,
    index: u64,
    effects: Vec<queue::Effect>,
}

impl Bench {
    fn entry(&mut self, fill: impl FnOnce(&mut EntryBuilder)) -> Block {
        let mut entry = EntryBuilder::new(&self.pool, 0, Origin(1), self.sequence);
        fill(&mut entry);
        self.sequence = entry.next_sequence();
        entry.seal(1, 0)
    }

    fn apply(&mut self, block: &Block) {
        self.index += 1;
        self.effects.clear();
        let applied = self.machine.apply(Index(self.index), block.as_slice(), &mut self.effects);
        assert!(applied.is_ok(), "{applied:?}");
    }
}

fn fresh() -> Bench {
    let mut bench = Bench {
        pool: Pool::default(),
        machine: GroupMachine::new(),
        sequence: OpSequence(1),
        index: 0,
        effects: Vec::new(),
    };
    let configure =
        bench.entry(|entry| drop_number(entry.operation(OperationKind::Configure, 0, QUEUE, b"")));
    bench.apply(&configure);
    bench
}

fn drop_number(_: OpSequence) {}

fn subscription(settled: bool, consumer: u32) -> Subscription {
    Subscription {
        key: ConsumerKey { shard: ShardId(0), conn: ConnId(1), consumer: ConsumerId(consumer) },
        lane: Lane(1),
        settled,
        exclusive: false,
        priority: 0,
        messages: None,
        bytes: i64::MAX,
    }
}

/// Keeps up: each batch is enqueued, handed out and settled before the next.
fn keep_up(batch: u64, total: u64, consumers: u32) {
    let mut bench = fresh();
    let mut delivery = Delivery::new(bench.machine.queue(QUEUE).expect("configured"), &bench.pool.clone());
    for consumer in 0..consumers {
        delivery.subscribe(subscription(false, consumer)).expect("not exclusive");
    }
    let (mut enqueue, mut hand, mut settle) = (Vec::new(), Vec::new(), Vec::new());
    let mut out = Vec::new();
    let mut next = 0;
    for _ in 0..total / batch {
        let append = bench.entry(|entry| {
            (0..batch)
                .for_each(|_| drop_number(entry.append(&[QUEUE], HAND_OUT != 0, 0, &record(&[7; 100]))));
        });
        let start = Instant::now();
        bench.apply(&append);
        enqueue.push(start.elapsed().as_nanos());
        let start = Instant::now();
        let state = bench.machine.queue(QUEUE).expect("configured");
        delivery.fill(state, u64::MAX, &mut |_| Some(Fetched::entry(append.clone())), &mut out);
        let mut handed = 0;
        for handed_out in out.drain(..) {
            handed += handed_out.items.len() as u64;
        }
        hand.push(start.elapsed().as_nanos());
        assert_eq!(handed, batch);
        let (first, last) = (Seq(next), Seq(next + batch - 1));
        next += batch;
        let settlement =
            bench.entry(|entry| drop_number(entry.ranges(OperationKind::Settle, 0, QUEUE, [(first, last)])));
        let start = Instant::now();
        bench.apply(&settlement);
        delivery.on_settled(first, last);
        settle.push(start.elapsed().as_nanos());
    }
    let clock = median((0..1000).map(|_| Instant::now().elapsed().as_nanos()).collect());
    let per = |samples: Vec<u128>| median(samples).saturating_sub(clock) as f64 / batch as f64;
    println!(
        "batches of {batch:>5}, {consumers} consumers: enqueue {:6.1}  hand out {:6.1}  settle {:6.1} ns/message",
        per(enqueue),
        per(hand),
        per(settle)
    );
}

fn median(mut samples: Vec<u128>) -> u128 {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// A backlog: all enqueued first, then a frozen view written while nothing is consumed, then settled.
fn backlog(batch: u64, total: u64) {
    let mut bench = fresh();
    let append = |bench: &mut Bench| {
        bench.entry(|entry| {
            (0..batch).for_each(|_| drop_number(entry.append(&[QUEUE], true, 0, &record(&[7; 4]))));
        })
    };
    let before = resident();
    for _ in 0..total / batch {
        let block = append(&mut bench);
        bench.apply(&block);
    }
    let held = resident().saturating_sub(before) as f64 / total as f64;
    let start = Instant::now();
    let mut view = bench.machine.freeze();
    let freeze = start.elapsed();
    let (mut slices, mut longest, mut bytes) = (0, 0, 0);
    let mut out = Vec::new();
    loop {
        let start = Instant::now();
        out.clear();
        let done = view.encode(64 << 10, &mut out);
        longest = longest.max(start.elapsed().as_micros());
        (slices, bytes) = (slices + 1, bytes + out.len());
        if done {
            break;
        }
    }
    let thaw = Instant::now();
    let block = append(&mut bench);
    bench.apply(&block);
    println!(
        "backlog of {total} in batches of {batch}: {held:.2} bytes/message, freeze {freeze:?}, first entry after it \
         {:?}, checkpoint {bytes} bytes in {slices} slices of at most {longest} us",
        thaw.elapsed()
    );
}

/// Resident memory of this process in bytes, where the system tells.
fn resident() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/statm") else { return 0 };
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn main() {
    for batch in [1, 10, 100, 1000] {
        keep_up(batch, 2_000_000, 1);
    }
    keep_up(1000, 2_000_000, 8);
    backlog(200, 10_000_000);
    backlog(1, 5_000_000);
}
