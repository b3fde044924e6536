//! Entries for a group of queues, built from drawn operations, some of them out of order or of an older start.

use base::{Block, Pool};
use model::batch::{Encoding, KAFKA_MIN, Summary};
use model::{
    EntryBuilder, Index, NodeId, OpSequence, OperationKind, Origin, Protocol, QueueId, Record, Replaced, Seq,
    ShardId,
};

use crate::Draws;

/// Builds entries and numbers their operations.
#[derive(Default)]
pub struct Entries {
    pool: Pool,
    next: [u64; 3],
}

fn record(body: &[u8]) -> Record<'_> {
    Record { routing_key: "q", prefix: &[0, 0], body: Some(body), ..Record::bare(Protocol::Amqp091) }
}

impl Entries {
    /// The next entry.
    pub fn entry(&mut self, draws: &mut Draws<'_>) -> Block {
        let who = usize::from(draws.below(3));
        // The third is the first one's place in a later start.
        let origin = Origin::new(NodeId(1), ShardId((who % 2) as u16), 1 + (who / 2) as u32);
        let next = self.next[who] + 1 + u64::from(draws.below(16) == 15);
        let mut builder = EntryBuilder::new(&self.pool, 0, origin, OpSequence(next));
        for _ in 0..1 + draws.below(4) {
            operation(draws, &mut builder);
        }
        if draws.below(16) != 15 {
            self.next[who] = builder.next_sequence().0 - 1;
        }
        builder.seal(draws.number(), 0)
    }
}

fn rewrite(draws: &mut Draws<'_>, builder: &mut EntryBuilder, queue: QueueId) {
    let (first, index) = (u64::from(draws.below(40)), Index(u64::from(draws.below(40))));
    let replaced = Replaced { first, index, at: 64, left_out: u32::from(draws.below(4)) };
    let span = 1 + u32::from(draws.below(70));
    let summary = Summary { encoding: Encoding::KafkaV2, count: 1, span, ..Summary::new(Protocol::Kafka, 5) };
    builder.rewrite(queue, &replaced, &summary, &[1; KAFKA_MIN]);
}

fn operation(draws: &mut Draws<'_>, builder: &mut EntryBuilder) {
    let queue = QueueId(1 + u64::from(draws.below(3)));
    let queues = [queue, QueueId(queue.0 % 3 + 1)];
    let queues = &queues[..1 + usize::from(draws.flag())];
    let kind = match draws.below(13) {
        0..3 => {
            for _ in 0..1 + draws.below(70) {
                builder.append(queues, draws.flag(), 5, &record(&[1; 9]));
            }
            return;
        }
        3 => {
            builder.append_parts(queues, draws.flag());
            return;
        }
        4 | 5 => OperationKind::Settle,
        6 => OperationKind::Return,
        7 => OperationKind::Drop,
        8 => {
            builder.operation(OperationKind::Part, 0, queue, draws.piece());
            return;
        }
        9 => {
            let bound = draws.number().to_le_bytes();
            builder.operation(OperationKind::HandOut, 0, queue, &bound);
            return;
        }
        10 => {
            builder.operation(OperationKind::Configure, 0, queue, draws.piece());
            return;
        }
        11 => {
            rewrite(draws, builder, queue);
            return;
        }
        _ => {
            builder.operation(OperationKind::Delete, 0, queue, &[]);
            return;
        }
    };
    let (mut ranges, mut end) = (Vec::new(), 0u64);
    for _ in 0..draws.below(4) {
        let first = end.saturating_add(u64::from(draws.below(40)));
        let last = first.saturating_add(draws.number()).min(u64::MAX - 1);
        if first < end || first > last {
            break;
        }
        ranges.push((Seq(first), Seq(last)));
        end = last + 1;
    }
    let flags = u8::from(kind == OperationKind::Return && draws.flag());
    builder.ranges(kind, flags, queue, ranges);
}
