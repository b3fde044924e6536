//! Single cases: what the random runs do not name, and what they reach too seldom.

use ::model::{
    ConnId, ConsumerId, EntryBuilder, Index, Lane, NodeId, OpSequence, OperationKind, Origin, QueueId, Seq,
    ShardId,
};
use base::{Block, Pool, Prng};

use super::record;
use crate::origins::WINDOW;
use crate::{
    ConsumerKey, Delivery, Effect, Fetched, Got, GroupMachine, Handed, QueueState, Subscription, Wanted,
};

const QUEUE: QueueId = QueueId(3);
const SHARD: u16 = 1;

fn origin(boot: u32) -> Origin {
    Origin::new(NodeId(2), ShardId(SHARD), boot)
}

/// A group whose every entry is kept, fed by one origin.
struct Fed {
    machine: GroupMachine,
    next: u64,
    blocks: Vec<Block>,
    effects: Vec<Effect>,
}

impl Fed {
    fn new() -> Fed {
        let mut fed = Fed { machine: GroupMachine::new(), next: 1, blocks: Vec::new(), effects: Vec::new() };
        fed.apply(|entry| entry.operation(OperationKind::Configure, 0, QUEUE, b"conf"));
        fed
    }

    fn apply<R>(&mut self, fill: impl FnOnce(&mut EntryBuilder) -> R) {
        let mut entry = EntryBuilder::new(&Pool::default(), 0, origin(1), OpSequence(self.next));
        fill(&mut entry);
        self.next = entry.next_sequence().0;
        let block = entry.seal(1000, 0);
        self.effects.clear();
        let index = Index(self.blocks.len() as u64 + 1);
        self.machine.apply(index, block.as_slice(), &mut self.effects).unwrap();
        self.blocks.push(block);
    }

    fn append(&mut self, count: usize) {
        self.apply(|entry| {
            (0..count).for_each(|_| drop_sequence(entry.append(&[QUEUE], true, 0, &record(b"hi"))))
        });
    }

    fn ranges(&mut self, kind: OperationKind, flags: u8, ranges: &[(u64, u64)]) {
        let ranges = ranges.iter().map(|(first, last)| (Seq(*first), Seq(*last)));
        self.apply(|entry| entry.ranges(kind, flags, QUEUE, ranges));
    }

    fn state(&self) -> &QueueState {
        self.machine.queue(QUEUE).unwrap()
    }

    fn fill(&self, delivery: &mut Delivery) -> Vec<Handed> {
        let mut out = Vec::new();
        let mut source =
            |wanted: Wanted| self.blocks.get(wanted.index.0 as usize - 1).cloned().map(Fetched::entry);
        delivery.fill(self.state(), u64::MAX, &mut source, &mut out);
        out
    }

    fn checkpoint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(self.machine.freeze().encode(usize::MAX, &mut bytes));
        bytes
    }
}

fn drop_sequence(_: OpSequence) {}

fn consumer(id: u32, messages: Option<u32>) -> Subscription {
    Subscription {
        key: ConsumerKey { shard: ShardId(0), conn: ConnId(1), consumer: ConsumerId(id) },
        lane: Lane(id as u16),
        settled: false,
        exclusive: false,
        priority: 0,
        messages,
        bytes: i64::MAX,
    }
}

fn places(handed: &Handed) -> Vec<u64> {
    handed.items.iter().map(|item| item.seq.0).collect()
}

#[test]
fn the_drawing_of_a_checkpoint_holds() {
    let mut fed = Fed::new();
    fed.append(5);
    fed.ranges(OperationKind::Settle, 0, &[(0, 0), (3, 3)]);
    fed.ranges(OperationKind::Return, ::model::entry::COUNT, &[(2, 2)]);
    fed.apply(|entry| entry.operation(OperationKind::Part, 0, QUEUE, &[16, 0, 0, 0, 9]));
    #[rustfmt::skip]
    let golden = [
        4, 0, 1, 0,  5, 0, 0, 0, 0, 0, 0, 0,  0xe8, 3, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0,  1, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        // The place: its number, boot and last sequence; one answer; 20 bytes expected in one piece.
        1, 0, 2, 0,  1, 0, 0, 0,  5, 1, 20, 1,  1, 1,  5, 64, 5,
        // The queue: its id and configuration, next place and bound 5, one run, one failure.
        3, 0, 0, 0, 0, 0, 0, 0,  4, b'c', b'o', b'n', b'f',  5, 5, 1, 1,
        // Its run: at place 0, entry 2, five messages with holes, one settled in front, rows from 160; the failure.
        0, 2, 22, 1, 160, 1,  8, 0, 0, 0, 0, 0, 0, 0,  2, 1,
    ];
    assert_eq!(fed.checkpoint(), golden);
    let read = GroupMachine::decode(&golden).unwrap();
    assert_eq!(read.hash(), fed.machine.hash());
    assert_eq!(read.kept_ranges(), [(Index(2), Index(2)), (Index(5), Index(5))]);
    // What was written before there were logs is read as well.
    let before = [&[1], &golden[1..32], &golden[48..]].concat();
    assert_eq!(GroupMachine::decode(&before).unwrap().hash(), fed.machine.hash());
}

#[test]
fn no_cut_or_flipped_checkpoint_panics_and_no_cut_one_is_believed() {
    let mut fed = Fed::new();
    fed.append(200);
    fed.ranges(OperationKind::Settle, 0, &[(3, 70), (90, 90)]);
    fed.ranges(OperationKind::Return, ::model::entry::COUNT, &[(71, 80)]);
    let bytes = fed.checkpoint();
    for cut in 0..bytes.len() {
        assert!(GroupMachine::decode(&bytes[..cut]).is_err());
    }
    let mut prng = Prng::new(5);
    for _ in 0..6_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + prng.below(4) {
            let at = prng.below(damaged.len() as u64) as usize;
            damaged[at] = prng.draw() as u8;
        }
        if let Ok(mut machine) = GroupMachine::decode(&damaged) {
            // What is believed must also hold together under use.
            let index = Index(machine.applied().0.saturating_add(1));
            let settle = fed.blocks[2].as_slice();
            if index > machine.applied() {
                machine.apply(index, settle, &mut Vec::new()).unwrap();
            }
            machine.hash();
        }
    }
}

#[test]
fn no_bytes_make_apply_panic_and_a_refused_entry_changes_nothing() {
    let mut fed = Fed::new();
    fed.append(3);
    fed.apply(|entry| {
        entry.append(&[QUEUE, QueueId(9)], false, 0, &record(b"x"));
        entry.ranges(OperationKind::Settle, 0, QUEUE, [(Seq(0), Seq(1))]);
        entry.operation(OperationKind::Part, 0, QUEUE, b"abcdef");
        entry.append_parts(&[QUEUE], true);
    });
    let mut prng = Prng::new(6);
    for _ in 0..6_000 {
        let mut bytes = prng.pick(&fed.blocks).as_slice().to_vec();
        for _ in 0..prng.below(4) {
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = prng.draw() as u8;
        }
        bytes.truncate(bytes.len() - prng.below(3) as usize);
        let mut machine = GroupMachine::new();
        for (at, block) in fed.blocks[..2].iter().enumerate() {
            machine.apply(Index(at as u64 + 1), block.as_slice(), &mut Vec::new()).unwrap();
        }
        let before = machine.hash();
        let mut effects = Vec::new();
        if machine.apply(Index(3), &bytes, &mut effects).is_err() {
            assert_eq!(machine.hash(), before);
            assert_eq!(effects, []);
        }
    }
}

#[test]
fn a_newer_entry_or_a_foreign_command_halts() {
    let mut machine = GroupMachine::new();
    let mut entry = EntryBuilder::new(&Pool::default(), 0, origin(1), OpSequence(1));
    entry.operation(OperationKind::Topology, 0, QUEUE, b"");
    assert!(machine.apply(Index(1), entry.seal(0, 0).as_slice(), &mut Vec::new()).is_err());
    let mut newer =
        EntryBuilder::new(&Pool::default(), 0, origin(1), OpSequence(1)).seal(0, 0).as_slice().to_vec();
    newer[2] += 1;
    assert!(machine.apply(Index(1), &newer, &mut Vec::new()).is_err());
    newer[2] -= 1;
    assert!(machine.apply(Index(1), &newer, &mut Vec::new()).is_ok());
}

#[test]
fn resending_any_suffix_of_the_operations_changes_nothing_but_the_index() {
    let mut fed = Fed::new();
    fed.append(4);
    fed.ranges(OperationKind::Drop, 0, &[(1, 2)]);
    fed.append(2);
    fed.apply(|entry| entry.operation(OperationKind::Delete, 0, QueueId(77), &[]));
    for from in 0..fed.blocks.len() {
        let mut again = fed.machine.clone();
        for (at, block) in fed.blocks[from..].iter().enumerate() {
            let mut effects = Vec::new();
            let index = Index(100 + at as u64);
            again.apply(index, block.as_slice(), &mut effects).unwrap();
            let last = OpSequence(fed.next - 1);
            assert!(effects.contains(&Effect::Applied { origin: origin(1), sequence: last }));
            assert!(effects.contains(&Effect::Freed(index)));
            assert!(!effects.iter().any(|effect| matches!(effect, Effect::Enqueued { .. })));
        }
        assert_eq!(again.kept_ranges(), fed.machine.kept_ranges());
        let answers = |machine: &mut GroupMachine, block: &Block, index: u64| {
            let mut effects = Vec::new();
            machine.apply(Index(index), block.as_slice(), &mut effects).unwrap();
            effects.retain(|effect| matches!(effect, Effect::Answered { .. }));
            effects
        };
        let dropped = Effect::Answered { origin: origin(1), sequence: OpSequence(3), value: 2 };
        assert_eq!(answers(&mut again, &fed.blocks[2], 200), [dropped]);
        // All that may differ is the index: brought to the same one, both are the same.
        fed.machine.clone_at(300, &mut again);
    }
}

impl GroupMachine {
    fn clone_at(&self, index: u64, other: &mut GroupMachine) {
        let mut own = self.clone();
        own.apply(Index(index), &[], &mut Vec::new()).unwrap();
        other.apply(Index(index), &[], &mut Vec::new()).unwrap();
        assert_eq!(own.hash(), other.hash());
    }
}

#[test]
fn answers_are_remembered_for_a_window_only() {
    let mut fed = Fed::new();
    for _ in 0..WINDOW + 44 {
        fed.ranges(OperationKind::Drop, 0, &[(0, 0)]);
    }
    let answered = |machine: &mut GroupMachine, block: &Block, index: u64| {
        let mut effects = Vec::new();
        machine.apply(Index(index), block.as_slice(), &mut effects).unwrap();
        effects.iter().any(|effect| matches!(effect, Effect::Answered { .. }))
    };
    assert!(answered(&mut fed.machine, &fed.blocks[WINDOW + 44], 10_000));
    assert!(answered(&mut fed.machine, &fed.blocks[45], 10_001), "as many as the window holds");
    assert!(!answered(&mut fed.machine, &fed.blocks[44], 10_002), "and no more");
}

#[test]
fn time_follows_the_stamp_but_never_back_and_never_in_leaps() {
    let mut machine = GroupMachine::new();
    let mut times = Vec::new();
    for (at, stamp) in [5_000, 6_000, 1_000, 10_000_000, 10_000_000].into_iter().enumerate() {
        let entry = EntryBuilder::new(&Pool::default(), 0, origin(1), OpSequence(1)).seal(stamp, 0);
        machine.apply(Index(at as u64 + 1), entry.as_slice(), &mut Vec::new()).unwrap();
        times.push(machine.time_ms());
    }
    assert_eq!(times, [5_000, 6_000, 6_000, 66_000, 126_000]);
}

#[test]
fn consumers_take_turns_across_calls_and_each_block_comes_in_one_piece() {
    let mut fed = Fed::new();
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    (1..=3).for_each(|id| delivery.subscribe(consumer(id, None)).unwrap());
    fed.append(4);
    let shares = |out: &[Handed]| out.iter().map(|h| (h.key.consumer.0, places(h))).collect::<Vec<_>>();
    let out = fed.fill(&mut delivery);
    assert_eq!(shares(&out), [(1, vec![0, 3]), (2, vec![1]), (3, vec![2])]);
    fed.append(1);
    fed.append(1);
    let out = fed.fill(&mut delivery);
    assert_eq!(shares(&out), [(2, vec![4]), (3, vec![5])]);
}

#[test]
fn an_entry_that_alternates_between_queues_is_still_one_piece() {
    let mut fed = Fed::new();
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    delivery.subscribe(consumer(1, None)).unwrap();
    fed.apply(|entry| {
        for _ in 0..5 {
            entry.append(&[QUEUE], true, 0, &record(b"hi"));
            entry.append(&[QueueId(9)], true, 0, &record(b"hi"));
        }
    });
    let out = fed.fill(&mut delivery);
    assert_eq!(out.iter().map(places).collect::<Vec<_>>(), [[0, 1, 2, 3, 4]]);
}

#[test]
fn what_comes_back_is_first_in_its_old_order_and_marked() {
    let mut fed = Fed::new();
    fed.append(3000);
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    assert_eq!(delivery.subscribe(consumer(1, Some(2500))), Ok(()));
    assert!(
        fed.fill(&mut delivery)[0].items.iter().all(|item| item.redelivered),
        "an earlier leader may have"
    );
    fed.append(1);
    delivery.on_returned(Seq(2), Seq(2));
    delivery.on_returned(Seq(0), Seq(1));
    delivery.on_returned(Seq(1020), Seq(1030));
    delivery.on_settled(Seq(1), Seq(1));
    delivery.on_settled(Seq(2000), Seq(5000));
    delivery.grant(consumer(1, None).key, 1000, 0);
    let out = fed.fill(&mut delivery);
    let all: Vec<u64> = [0, 2].into_iter().chain(1020..=1030).chain(2500..=3000).collect();
    let handed: Vec<u64> = out.iter().flat_map(places).collect();
    assert_eq!(handed, all);
    let last = out.last().and_then(|handed| handed.items.last()).unwrap();
    assert!(!last.redelivered, "enqueued after this leader began");
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let fed = Fed::new();
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    let alone = Subscription { exclusive: true, ..consumer(1, None) };
    delivery.subscribe(consumer(2, None)).unwrap();
    assert!(delivery.subscribe(alone).is_err());
    assert!(delivery.unsubscribe(consumer(2, None).key));
    delivery.subscribe(alone).unwrap();
    assert!(delivery.subscribe(consumer(2, None)).is_err());
    assert_eq!(delivery.on_deleted(), [(alone.key, alone.lane)]);
}

#[test]
fn byte_credit_and_the_callers_bound_stop_behind_the_message_that_exceeds_them() {
    let mut fed = Fed::new();
    fed.append(10);
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    let row = 25;
    delivery.subscribe(Subscription { bytes: 2 * row + 1, ..consumer(1, None) }).unwrap();
    let mut out = Vec::new();
    let mut source =
        |wanted: Wanted| fed.blocks.get(wanted.index.0 as usize - 1).cloned().map(Fetched::entry);
    let filled = delivery.fill(fed.state(), 2 * row as u64, &mut source, &mut out);
    assert!(filled.more && filled.bytes == 2 * row as u64);
    let filled = delivery.fill(fed.state(), u64::MAX, &mut source, &mut out);
    assert!(!filled.more && filled.bytes == row as u64);
    assert!(!delivery.has_credit());
    delivery.grant(consumer(1, None).key, 0, row - 1);
    assert!(!delivery.has_credit(), "the debt is paid first");
    delivery.grant(consumer(1, None).key, 0, 1);
    assert!(delivery.has_credit());
}

#[test]
fn taking_that_settles_names_ranges_to_settle() {
    let mut fed = Fed::new();
    fed.append(10);
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    delivery.subscribe(Subscription { settled: true, ..consumer(1, Some(4)) }).unwrap();
    fed.fill(&mut delivery);
    let mut source =
        |wanted: Wanted| fed.blocks.get(wanted.index.0 as usize - 1).cloned().map(Fetched::entry);
    let asker = (consumer(0, None).key, Lane(5));
    for expected in [4, 5] {
        match delivery.get(fed.state(), asker, expected == 5, &mut source) {
            Got::One(handed, ready) => assert_eq!((places(&handed), ready), (vec![expected], 9 - expected)),
            other => panic!("{other:?}"),
        }
    }
    let mut ranges = Vec::new();
    delivery.take_settled(&mut ranges);
    assert_eq!(ranges, [(Seq(0), Seq(3)), (Seq(5), Seq(5))]);
}

#[test]
fn a_block_that_lacks_a_row_is_asked_for_again_and_nothing_is_skipped() {
    let mut fed = Fed::new();
    fed.append(3);
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    delivery.subscribe(consumer(1, None)).unwrap();
    let whole = fed.blocks[1].as_slice();
    let cut = Pool::default().block(&whole[..whole.len() - 30]);
    let mut out = Vec::new();
    delivery.fill(fed.state(), u64::MAX, &mut |_| Some(Fetched::entry(cut.clone())), &mut out);
    assert_eq!(delivery.waiting_for(), Some(Index(2)));
    assert_eq!(places(&out[0]), [0]);
    assert_eq!(fed.fill(&mut delivery).iter().flat_map(places).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_backlog_costs_what_it_should() {
    assert!(size_of::<crate::queue_state::Run>() <= 40, "a message that came alone");
    let mut fed = Fed::new();
    for _ in 0..50 {
        fed.append(1000);
    }
    assert_eq!(fed.state().runs.len(), 50, "one run per append, not one item per message");
    // Wide ranges touch runs, not places.
    fed.ranges(OperationKind::Settle, 0, &[(10, 20), (25_500, u64::MAX - 1)]);
    assert_eq!(fed.state().runs.len(), 26);
    assert_eq!(fed.state().holes.len(), 2, "one in the middle, one at the end");
    assert_eq!(fed.state().counters().live, 25_500 - 11);
    fed.ranges(OperationKind::Settle, 0, &[(0, 9)]);
    assert_eq!(fed.state().holes.len(), 1, "no bits once everything settled is in front");
    assert_eq!(fed.state().oldest(), Some(Seq(21)));
}

#[test]
fn what_reached_nobody_comes_again_as_if_for_the_first_time() {
    let mut fed = Fed::new();
    fed.append(3);
    let mut delivery = Delivery::new(Fed::new().state(), &Pool::default());
    delivery.subscribe(consumer(1, None)).unwrap();
    let flags = |handed: Vec<Handed>| -> Vec<(u64, bool)> {
        handed.iter().flat_map(|h| &h.items).map(|item| (item.seq.0, item.redelivered)).collect()
    };
    assert_eq!(flags(fed.fill(&mut delivery)), [(0, false), (1, false), (2, false)]);
    delivery.on_returned(Seq(1), Seq(1));
    delivery.on_unseen(Seq(2), false);
    assert_eq!(flags(fed.fill(&mut delivery)), [(1, true), (2, false)]);
    delivery.on_returned(Seq(2), Seq(2));
    assert_eq!(flags(fed.fill(&mut delivery)), [(2, true)], "it reached somebody the second time");
}

#[test]
fn what_reached_nobody_but_comes_behind_later_ones_is_no_first_delivery() {
    let mut fed = Fed::new();
    fed.append(3);
    let mut delivery = Delivery::new(Fed::new().state(), &Pool::default());
    delivery.subscribe(consumer(1, None)).unwrap();
    fed.fill(&mut delivery);
    delivery.on_unseen(Seq(0), false);
    delivery.on_unseen(Seq(2), false);
    let handed = fed.fill(&mut delivery);
    let flags: Vec<_> = handed.iter().flat_map(|h| &h.items).map(|i| (i.seq.0, i.redelivered)).collect();
    assert_eq!(flags, [(0, true), (2, false)]);
}

#[test]
fn a_row_is_needed_until_it_is_settled() {
    let mut fed = Fed::new();
    fed.append(3);
    let mut delivery = Delivery::new(fed.state(), &Pool::default());
    let mut asked = None;
    let key = ConsumerKey { shard: ShardId(0), conn: ConnId(0), consumer: Default::default() };
    let got = delivery.get(fed.state(), (key, Lane(1)), false, &mut |wanted| {
        asked = Some(wanted);
        None
    });
    assert!(matches!(got, Got::Later));
    let Wanted { index, at, ordinal } = asked.unwrap();
    assert_eq!((index, ordinal), (Index(2), 0));
    let needs = |fed: &Fed| [0, 1, 2].map(|row| fed.machine.needs_piece(QUEUE, index, at, row));
    assert_eq!(needs(&fed), [true; 3]);
    fed.ranges(OperationKind::Settle, 0, &[(0, 0), (2, 2)]);
    assert_eq!(needs(&fed), [false, true, false]);
    assert!(!fed.machine.needs_piece(QueueId(99), index, at, 1), "nobody else asked for it");
    assert!(!fed.machine.needs_piece(QUEUE, index, at + 1, 1), "nor for another place");
    fed.apply(|entry| entry.operation(OperationKind::Delete, 0, QUEUE, &[]));
    assert_eq!(needs(&fed), [false; 3]);
}
