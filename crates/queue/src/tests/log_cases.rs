//! Single cases of logs, committed offsets and what is still needed of entries.

use ::model::batch::{Encoding, HEADER, KAFKA_MIN, Producer, Summary};
use ::model::commit::{Commit, CommitOffset, Forget, Forgotten};
use ::model::entry::{COORDINATOR, ENTRY_HEADER, LOG, OPERATION_HEADER};
use ::model::rewrite::REWRITE_HEADER;
use ::model::{
    EntryBuilder, Index, NodeId, OpSequence, OperationKind, Origin, Protocol, QueueId, Replaced, Seq, ShardId,
};
use base::{Block, Pool, Prng};

use super::record;
use crate::liveness::Ledger;
use crate::log_state::LogChunk;
use crate::{AppendOutcome, AppendRefusal, Effect, GroupMachine, LivePiece, LogState};

const TOPIC: QueueId = QueueId(5);
const OFFSETS: QueueId = QueueId(6);
const QUEUES: [QueueId; 2] = [QueueId(1), QueueId(2)];

fn origin() -> Origin {
    Origin::new(NodeId(2), ShardId(1), 1)
}

/// A group with a log, a coordinator and two queues, whose every entry is kept.
struct Fed {
    machine: GroupMachine,
    next: u64,
    time_ms: u64,
    blocks: Vec<Block>,
    effects: Vec<Effect>,
}

impl Fed {
    fn new() -> Fed {
        let (blocks, effects) = (Vec::new(), Vec::new());
        let mut fed = Fed { machine: GroupMachine::new(), next: 1, time_ms: 1000, blocks, effects };
        fed.apply(|entry| {
            entry.operation(OperationKind::Configure, LOG, TOPIC, b"t");
            entry.operation(OperationKind::Configure, COORDINATOR, OFFSETS, b"");
        });
        fed
    }

    fn apply<R>(&mut self, fill: impl FnOnce(&mut EntryBuilder) -> R) {
        let mut entry = EntryBuilder::new(&Pool::default(), 0, origin(), OpSequence(self.next));
        fill(&mut entry);
        self.next = entry.next_sequence().0;
        let block = entry.seal(self.time_ms, 0);
        self.effects.clear();
        let index = Index(self.blocks.len() as u64 + 1);
        self.machine.apply(index, block.as_slice(), &mut self.effects).unwrap();
        self.blocks.push(block);
    }

    fn add_queues(&mut self) {
        self.apply(|entry| {
            for queue in QUEUES {
                entry.operation(OperationKind::Configure, 0, queue, b"");
            }
        });
    }

    fn append(&mut self, producer: Option<(i16, i32)>, span: u32) -> Result<AppendOutcome, AppendRefusal> {
        let summary = batch(producer, span);
        self.apply(|entry| entry.append_batch(TOPIC, &summary, &[7; KAFKA_MIN]));
        let answers: Vec<_> = self.effects.iter().filter_map(answer).collect();
        assert_eq!(answers.len(), 1, "one answer for each append");
        answers[0]
    }

    /// What a rewrite of the batch at this offset would replace now.
    fn replaced(&self, first: u64, left_out: u32) -> Replaced {
        let chunk = self.log().chunk(first).unwrap();
        Replaced { first, index: chunk.index, at: chunk.at, left_out }
    }

    /// Rewrites the batch at this offset, which loses so many records, and says whether that took place.
    fn rewrite(&mut self, first: u64, left_out: u32) -> bool {
        let (replaced, span) = (self.replaced(first, left_out), self.log().chunk(first).unwrap().span);
        self.rewrite_as(replaced, span)
    }

    fn rewrite_as(&mut self, replaced: Replaced, span: u32) -> bool {
        let summary = Summary { count: span - replaced.left_out, ..batch(None, span) };
        self.apply(|entry| entry.rewrite(TOPIC, &replaced, &summary, &[7; KAFKA_MIN]));
        self.effects.iter().any(|effect| matches!(effect, Effect::Rewritten { log: TOPIC, .. }))
    }

    fn drop_offsets(&mut self, first: u64, last: u64) {
        self.apply(|entry| entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(first), Seq(last))]));
    }

    fn log(&self) -> &LogState {
        self.machine.log(TOPIC).unwrap()
    }

    fn pieces(&self, index: u64) -> Vec<LivePiece> {
        let mut pieces = Vec::new();
        self.machine.live_pieces(Index(index), self.blocks[index as usize - 1].as_slice(), &mut pieces);
        pieces
    }

    fn checkpoint(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(self.machine.freeze().encode(usize::MAX, &mut bytes));
        bytes
    }
}

fn answer(effect: &Effect) -> Option<Result<AppendOutcome, AppendRefusal>> {
    match effect {
        Effect::Appended { log: TOPIC, answer, .. } => Some(*answer),
        _ => None,
    }
}

fn batch(producer: Option<(i16, i32)>, span: u32) -> Summary {
    Summary {
        encoding: Encoding::KafkaV2,
        count: span,
        span,
        timestamp_max: 900,
        producer: producer.map(|(epoch, base_sequence)| Producer { id: 9, epoch, base_sequence }),
        ..Summary::new(Protocol::Kafka, 950)
    }
}

fn stored(base: u64, span: u64, repeat: bool) -> Result<AppendOutcome, AppendRefusal> {
    Ok(AppendOutcome { base, end: base + span, repeat })
}

fn commit(group: &str, offset: u64) -> Vec<u8> {
    let offsets = vec![CommitOffset { log: TOPIC, offset, epoch: Some(0), metadata: "m" }];
    let mut body = Vec::new();
    Commit { group, offsets }.encode(&mut body);
    body
}

#[test]
fn a_batch_costs_what_is_said() {
    assert_eq!(size_of::<LogChunk>(), 56);
}

#[test]
fn the_drawing_of_a_log_and_of_offsets_in_a_checkpoint_holds() {
    let mut fed = Fed::new();
    fed.append(Some((1, 0)), 3).unwrap();
    fed.append(None, 70).unwrap();
    fed.apply(|entry| entry.operation(OperationKind::Commit, 0, OFFSETS, &commit("gr", 7)));
    fed.apply(|entry| entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(5), Seq(6))]));
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &4u64.to_le_bytes()));
    fed.append(Some((1, 3)), 2).unwrap();
    let bytes = fed.checkpoint();
    #[rustfmt::skip]
    let head = [
        4, 0, 1, 0,  7, 0, 0, 0, 0, 0, 0, 0,  0xe8, 3, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0, 0, 0, 0, 0,
        // The place: eight operations, seven answers; of the appends the base offsets.
        1, 0, 2, 0,  1, 0, 0, 0,  8, 7, 0, 0,  1, 1,  1, 1,  1, 0,  1, 3,  2, 2,  1, 4,  1, 73,
    ];
    #[rustfmt::skip]
    let log = [
        // Id and configuration, start 4, end 75, highest timestamp 900, one epoch, two chunks, one producer.
        5, 0, 0, 0, 0, 0, 0, 0,  1, b't',  4, 75,  0x84, 3, 0, 0, 0, 0, 0, 0,  1, 2, 1,  0, 0,
        // At 3, entry 3, 70 offsets with removed ones, 70 records, taken in at 950, at 64 in the entry, 157 bytes; offsets 5 and 6 gone.
        3, 3, 0xb2, 4, 70,  0x84, 3, 0, 0, 0, 0, 0, 0,  0xec, 14,  64, 0x9d, 1,
        12, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        0, 4, 16, 2,  0x84, 3, 0, 0, 0, 0, 0, 0,  0xec, 14,  64, 0x9d, 1,
        // Producer 9 in epoch 1: two batches.
        9, 1, 0, 0xe8, 7, 2,  0, 2, 0,  3, 4, 73,
    ];
    #[rustfmt::skip]
    let offsets = [
        6, 0, 0, 0, 0, 0, 0, 0,  0, 1,  2, b'g', b'r', 0xe8, 7, 1,
        5, 0, 0, 0, 0, 0, 0, 0,  7, 1, 0xe8, 7, 1, b'm',
    ];
    assert_eq!(bytes, [&head[..], &log, &offsets].concat());
    let read = GroupMachine::decode(&bytes).unwrap();
    assert_eq!(read.hash(), fed.machine.hash());
    assert_eq!(read.kept_ranges(), [(Index(3), Index(3)), (Index(7), Index(7))]);
    // The format before had two flags behind the offsets.
    let before = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let log = before(&before(&log, &[3, 3, 0xb2, 4], &[3, 3, 0x9a, 2]), &[0, 4, 16, 2], &[0, 4, 8, 2]);
    let bytes = [&[3][..], &head[1..], &log, &offsets].concat();
    assert_eq!(GroupMachine::decode(&bytes).unwrap().hash(), fed.machine.hash());
}

#[test]
fn no_cut_or_flipped_checkpoint_panics_and_no_cut_one_is_believed() {
    let mut fed = Fed::new();
    for at in 0..20 {
        fed.append(Some((0, at * 3)), 3).unwrap();
        let group = format!("group-{at}");
        fed.apply(|entry| entry.operation(OperationKind::Commit, 0, OFFSETS, &commit(&group, 7)));
    }
    fed.apply(|entry| entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(5), Seq(6)), (Seq(9), Seq(9))]));
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &4u64.to_le_bytes()));
    fed.rewrite(6, 2);
    fed.rewrite(9, 1);
    let bytes = fed.checkpoint();
    for cut in 0..bytes.len() {
        assert!(GroupMachine::decode(&bytes[..cut]).is_err());
    }
    let mut prng = Prng::new(7);
    for _ in 0..4_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + prng.below(4) {
            let at = prng.below(damaged.len() as u64) as usize;
            damaged[at] = prng.draw() as u8;
        }
        let Ok(mut machine) = GroupMachine::decode(&damaged) else { continue };
        // What is believed must also hold together under use.
        for block in &fed.blocks[fed.blocks.len() - 4..] {
            let index = Index(machine.applied().0.saturating_add(1));
            if index > machine.applied() {
                machine.apply(index, block.as_slice(), &mut Vec::new()).unwrap();
            }
        }
        machine.hash();
        machine.logs().for_each(|(_, log)| assert!(log.chunks_from(0).count() <= 20));
    }
}

#[test]
fn no_bytes_make_apply_panic_and_a_refused_entry_changes_nothing() {
    let mut fed = Fed::new();
    fed.add_queues();
    fed.append(Some((0, 0)), 3).unwrap();
    fed.apply(|entry| {
        entry.append(&[QUEUES[0], TOPIC], false, 0, &record(b"x"));
        entry.append_batch(TOPIC, &batch(Some((0, 3)), 2), &[7; KAFKA_MIN]);
        entry.operation(OperationKind::Trim, 0, TOPIC, &1u64.to_le_bytes());
        entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(2), Seq(4))]);
        entry.operation(OperationKind::Commit, 0, OFFSETS, &commit("g", 3));
        let mut body = Vec::new();
        Forget { group: "g", what: Forgotten::Logs(vec![TOPIC]) }.encode(&mut body);
        entry.operation(OperationKind::Forget, 0, OFFSETS, &body);
        entry.operation(OperationKind::Part, 0, TOPIC, &[1, 0, 0, 0, 9]);
        entry.append_parts(&[TOPIC], true);
        let replaced = Replaced { first: 0, index: Index(3), at: 64, left_out: 1 };
        entry.rewrite(TOPIC, &replaced, &batch(None, 3), &[7; KAFKA_MIN]);
    });
    let mut prng = Prng::new(6);
    let whole = fed.blocks[3].as_slice();
    for _ in 0..4_000 {
        let mut bytes = whole.to_vec();
        for _ in 0..prng.below(4) {
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = prng.draw() as u8;
        }
        bytes.truncate(bytes.len() - prng.below(3) as usize);
        let mut machine = GroupMachine::new();
        for (at, block) in fed.blocks[..3].iter().enumerate() {
            machine.apply(Index(at as u64 + 1), block.as_slice(), &mut Vec::new()).unwrap();
        }
        let (before, mut effects) = (machine.hash(), Vec::new());
        if machine.apply(Index(4), &bytes, &mut effects).is_err() {
            assert_eq!(machine.hash(), before);
            assert_eq!(effects, []);
        }
        let mut pieces = Vec::new();
        machine.live_pieces(Index(4), &bytes, &mut pieces);
        let end = |piece: &LivePiece| piece.start as usize + piece.length as usize;
        assert!(pieces.iter().all(|piece| piece.length > 0 && end(piece) <= bytes.len()));
    }
}

#[test]
fn a_repeat_is_answered_as_before_whatever_happened_since() {
    let mut fed = Fed::new();
    assert_eq!(fed.append(Some((0, 0)), 3), stored(0, 3, false));
    assert_eq!(fed.append(Some((0, 0)), 3), stored(0, 3, true), "the producer's repeat is there once");
    assert_eq!(fed.append(Some((0, 4)), 3), Err(AppendRefusal::OutOfSequence));
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &u64::MAX.to_le_bytes()));
    assert!(fed.effects.contains(&Effect::Freed(Index(2))));
    let expected = [stored(0, 3, false), stored(0, 3, true), Err(AppendRefusal::OutOfSequence)];
    for (at, expected) in expected.into_iter().enumerate() {
        let (mut effects, before) = (Vec::new(), fed.log().end());
        let index = Index(100 + at as u64);
        fed.machine.apply(index, fed.blocks[1 + at].as_slice(), &mut effects).unwrap();
        assert_eq!(effects.iter().filter_map(answer).collect::<Vec<_>>(), [expected]);
        assert!(effects.contains(&Effect::Freed(index)), "nothing of a repeat is held");
        assert_eq!(fed.log().end(), before);
    }
}

#[test]
fn what_is_refused_or_there_already_holds_nothing() {
    let mut fed = Fed::new();
    assert_eq!(fed.append(Some((1, 0)), 3), stored(0, 3, false));
    assert_eq!(fed.append(Some((1, 5)), 3), Err(AppendRefusal::OutOfSequence));
    assert_eq!(fed.append(Some((0, 3)), 3), Err(AppendRefusal::StaleProducer));
    assert_eq!(fed.append(Some((1, 0)), 3), stored(0, 3, true));
    assert_eq!(fed.machine.kept_ranges(), [(Index(2), Index(2))]);
    fed.apply(|entry| entry.operation(OperationKind::Delete, 0, TOPIC, &[]));
    assert!(fed.effects.contains(&Effect::Deleted { queue: TOPIC, messages: 3 }));
    assert!(fed.effects.contains(&Effect::Freed(Index(2))));
    assert_eq!(fed.append(Some((1, 3)), 3), Err(AppendRefusal::NoLog));
    assert_eq!(fed.machine.kept_ranges(), []);
}

#[test]
fn a_log_is_trimmed_by_whole_batches_and_a_batch_goes_with_its_last_offset() {
    let mut fed = Fed::new();
    for _ in 0..3 {
        fed.append(None, 10).unwrap();
    }
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &15u64.to_le_bytes()));
    assert_eq!((fed.log().start(), fed.log().chunk(0).map(|chunk| chunk.first)), (15, Some(10)));
    assert_eq!(fed.log().records(), 20);
    fed.apply(|entry| entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(16), Seq(19))]));
    assert_eq!(fed.log().chunk(15).map(|chunk| chunk.first), Some(10), "offset 15 is left");
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &16u64.to_le_bytes()));
    assert_eq!(fed.log().chunk(15).map(|chunk| chunk.first), Some(20), "nothing from 16 on was left of it");
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &3u64.to_le_bytes()));
    let answered = |effect: &Effect| matches!(effect, Effect::Answered { value: 16, .. });
    assert!(fed.effects.iter().any(answered), "the start never falls");
    assert!(!fed.effects.contains(&Effect::Trimmed { log: TOPIC }));
    assert_eq!((fed.log().records(), fed.log().bytes()), (10, (HEADER + KAFKA_MIN) as u64));
}

/// A log of three batches of ten, the first two with 150 bytes more than a rewrite has.
fn three_batches() -> Fed {
    let mut fed = Fed::new();
    for producer in [Some((0, 0)), Some((0, 10)), None] {
        let summary = batch(producer, 10);
        fed.apply(|entry| entry.append_batch(TOPIC, &summary, &[7; KAFKA_MIN + 150]));
    }
    fed
}

#[test]
fn a_rewrite_takes_the_place_of_a_batch_and_changes_nothing_else() {
    let mut fed = three_batches();
    fed.drop_offsets(10, 17);
    let (before, records) = (fed.log().bytes(), fed.log().records());
    let chunk = |fed: &Fed| {
        let chunk = fed.log().chunk(12).unwrap();
        (chunk.first, chunk.span, chunk.records, chunk.timestamp_max, fed.log().removed_of(&chunk))
    };
    let was = chunk(&fed);
    assert!(fed.rewrite(10, 8));
    let bytes = (HEADER + KAFKA_MIN) as u32;
    assert!(fed.effects.contains(&Effect::Rewritten { log: TOPIC, before: bytes + 150, after: bytes }));
    assert!(
        fed.effects.contains(&Effect::Freed(Index(3)))
            && !fed.effects.contains(&Effect::Grown { log: TOPIC })
    );
    assert_eq!((chunk(&fed), fed.log().bytes()), (was, before - 150));
    assert_eq!((fed.log().records(), fed.log().end()), (records, 30));
    let found = fed.log().chunk(12).unwrap();
    let at = (ENTRY_HEADER + OPERATION_HEADER + REWRITE_HEADER) as u32;
    assert_eq!((found.index, found.at, found.bytes, found.left_out), (Index(6), at, bytes, 8));
    assert_eq!(fed.pieces(6), [LivePiece { log: TOPIC, at, ordinal: 0, start: at, length: bytes }]);
    // The producer goes on, and what it had sent is known.
    assert_eq!(fed.append(Some((0, 10)), 10), stored(10, 10, true));
    assert_eq!(fed.append(Some((0, 20)), 1), stored(30, 1, false));
    // The next one needs what was removed since, and says where this one is.
    fed.drop_offsets(18, 18);
    assert!(fed.rewrite(10, 9));
    assert_eq!(fed.pieces(6), []);
    assert_eq!(fed.log().bytes(), before - 150 + u64::from(bytes));
    fed.drop_offsets(19, 19);
    assert!(fed.effects.contains(&Effect::Freed(Index(10))), "the last one is gone");
    assert_eq!(fed.log().chunk(10).map(|chunk| chunk.first), Some(20));
}

#[test]
fn a_rewrite_of_what_is_not_there_any_more_is_void_and_holds_nothing() {
    let mut fed = three_batches();
    fed.drop_offsets(10, 17);
    let replaced = fed.replaced(10, 8);
    assert!(!fed.rewrite_as(Replaced { first: 11, ..replaced }, 10), "another offset");
    assert!(!fed.rewrite_as(Replaced { index: Index(4), ..replaced }, 10), "another entry");
    assert!(!fed.rewrite_as(Replaced { at: 65, ..replaced }, 10), "another place");
    assert!(!fed.rewrite_as(replaced, 9), "other offsets");
    assert!(!fed.rewrite_as(Replaced { left_out: 9, ..replaced }, 10), "without what is there");
    assert!(fed.effects.contains(&Effect::Freed(Index(fed.blocks.len() as u64))));
    assert!(fed.rewrite_as(replaced, 10));
    let now = fed.machine.hash();
    assert!(!fed.rewrite_as(replaced, 10), "once is enough");
    assert!(fed.effects.contains(&Effect::Freed(Index(fed.blocks.len() as u64))));
    assert_ne!(fed.machine.hash(), now, "but for the number of the last operation");
    // What was removed before the rewrite was applied stays removed.
    let replaced = fed.replaced(0, 2);
    fed.drop_offsets(0, 4);
    assert!(fed.rewrite_as(replaced, 10));
    let chunk = fed.log().chunk(0).unwrap();
    assert_eq!((fed.log().removed_of(&chunk), chunk.left_out), (5, 2));
    // A batch that went as a whole does not come back.
    for gone in [OperationKind::Trim, OperationKind::Drop] {
        let replaced = fed.replaced(if gone == OperationKind::Trim { 0 } else { 20 }, 0);
        match gone {
            OperationKind::Trim => fed.apply(|entry| entry.operation(gone, 0, TOPIC, &10u64.to_le_bytes())),
            _ => fed.drop_offsets(20, 29),
        }
        assert!(!fed.rewrite_as(replaced, 10), "{gone:?}");
    }
    fed.apply(|entry| entry.operation(OperationKind::Delete, 0, TOPIC, &[]));
    assert!(!fed.rewrite_as(replaced, 10), "no log");
    assert_eq!(fed.machine.kept_ranges(), []);
}

#[test]
fn what_is_needed_is_known_though_a_rewrite_stands_behind_what_follows_it() {
    let mut fed = three_batches();
    fed.drop_offsets(0, 8);
    fed.drop_offsets(20, 28);
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &1u64.to_le_bytes()));
    assert!(fed.rewrite(20, 9) && fed.rewrite(0, 8));
    for machine in [&fed.machine, &GroupMachine::decode(&fed.checkpoint()).unwrap()] {
        assert_eq!(machine.hash(), fed.machine.hash());
        let needed = |index| machine.needs(TOPIC, Index(index), Index(index));
        assert_eq!((1..=10).filter(|index| needed(*index)).collect::<Vec<_>>(), [3, 8, 9]);
        assert!(machine.needs(TOPIC, Index(4), Index(8)) && !machine.needs(TOPIC, Index(4), Index(7)));
        assert_eq!(machine.kept_ranges(), [(Index(3), Index(3)), (Index(8), Index(9))]);
        let log = machine.log(TOPIC).unwrap();
        let places: Vec<_> = log.chunks_from(0).map(|chunk| (chunk.first, chunk.index.0)).collect();
        assert_eq!(places, [(0, 9), (10, 3), (20, 8)]);
        assert_eq!(log.bytes(), fed.log().bytes());
        for chunk in log.chunks_from(0) {
            assert!(machine.needs_piece(TOPIC, chunk.index, chunk.at, 0));
        }
        let appended = OPERATION_HEADER as u32 + ENTRY_HEADER as u32;
        assert!(!machine.needs_piece(TOPIC, Index(2), appended, 0), "it is elsewhere now");
        let live = machine.live_batches(Index(3), std::iter::once((TOPIC, appended)));
        assert_eq!(live, Some(vec![true]));
    }
    // Whatever is appended behind it lies in later entries still.
    fed.append(None, 3).unwrap();
    assert!(fed.machine.needs(TOPIC, Index(10), Index(10)));
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &30u64.to_le_bytes()));
    assert_eq!(fed.machine.kept_ranges(), [(Index(10), Index(10))]);
}

#[test]
fn what_is_removed_behind_the_back_of_the_start_leaves_no_trace() {
    let mut fed = Fed::new();
    fed.append(None, 10).unwrap();
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &5u64.to_le_bytes()));
    // Compaction decided so before the trim was applied.
    fed.apply(|entry| entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(1), Seq(3))]));
    let chunk = fed.log().chunk(5).unwrap();
    assert!(!fed.log().has_removed(&chunk) && fed.log().records() == 10);
    let machine = GroupMachine::decode(&fed.checkpoint()).unwrap();
    assert_eq!(machine.log(TOPIC).unwrap().records(), 10);
    fed.apply(|entry| entry.ranges(OperationKind::Drop, 0, TOPIC, [(Seq(4), Seq(6))]));
    let chunk = fed.log().chunk(5).unwrap();
    assert_eq!(fed.log().removed_of(&chunk), 2);
}

#[test]
fn retention_lets_the_oldest_go_while_enough_is_left() {
    let mut fed = Fed::new();
    for _ in 0..5 {
        fed.append(None, 10).unwrap();
    }
    let one = (HEADER + KAFKA_MIN) as u64;
    let bound = |bytes, before, limit| fed.log().retention_bound(bytes, before, limit);
    assert_eq!(
        [bound(None, None, 9), bound(Some(5 * one), None, 9), bound(Some(4 * one + 1), None, 9)],
        [0; 3]
    );
    assert_eq!(
        [bound(Some(4 * one), None, 9), bound(Some(one), None, 9), bound(Some(0), None, 9)],
        [10, 40, 50]
    );
    assert_eq!(bound(Some(0), None, 2), 20, "no more than asked for");
    assert_eq!([bound(None, Some((900, 951)), 9), bound(None, Some((901, 951)), 9)], [0, 50]);
    assert_eq!(bound(None, Some((901, 950)), 9), 0, "however old they said they were, they have only come");
    assert_eq!(bound(Some(4 * one), Some((901, 951)), 3), 30, "either is enough");
}

#[test]
fn retention_has_a_bound_whatever_times_and_sizes_there_are() {
    let times = [i64::MIN, -1, 0, i64::MAX];
    for (timestamp_max, ingest) in times.iter().flat_map(|time| times.map(|ingest| (*time, ingest))) {
        let mut fed = Fed::new();
        let summary = Summary { timestamp_max, ingest, ..batch(None, 1) };
        fed.apply(|entry| entry.append_batch(TOPIC, &summary, &[7; KAFKA_MIN]));
        let bound = |bytes, before| fed.log().retention_bound(bytes, before, usize::MAX);
        let told = format!("{timestamp_max} taken at {ingest}");
        assert_eq!([bound(None, Some((i64::MIN, i64::MIN))), bound(Some(u64::MAX), None)], [0, 0], "{told}");
        let ends = timestamp_max < i64::MAX && ingest < i64::MAX;
        assert_eq!(bound(None, Some((i64::MAX, i64::MAX))), u64::from(ends), "{told}");
        assert_eq!(bound(Some(0), Some((i64::MIN, i64::MIN))), 1, "{told}");
    }
}

#[test]
fn rows_and_what_has_no_time_age_from_when_they_were_taken_in() {
    let cases = [
        (Encoding::KafkaV2, 5, 5),
        (Encoding::KafkaV2, 2000, 2000),
        (Encoding::KafkaV2, -1, 950),
        (Encoding::Rows, 5, 950),
        (Encoding::Rows, i64::MAX, 950),
    ];
    for (encoding, timestamp_max, since) in cases {
        let mut log = LogState::new(b"");
        let summary = Summary { encoding, timestamp_max, ..batch(None, 1) };
        let mut machine = GroupMachine::new();
        let mut effects = Vec::new();
        let mut ledger = Ledger { live: &mut machine.live, effects: &mut effects, current: Index(1) };
        log.append((Index(1), 64), &summary, 200, &mut ledger);
        let bound = |before| log.retention_bound(None, Some((before, i64::MAX)), 9);
        assert_eq!([bound(since), bound(since + 1)], [0, 1], "{encoding:?} of {timestamp_max}");
    }
}

#[test]
fn a_checkpoint_that_does_not_say_when_batches_came_is_read() {
    let mut fed = Fed::new();
    fed.append(None, 3).unwrap();
    let mut bytes = fed.checkpoint();
    let times = [&900u64.to_le_bytes()[..], &[0xec, 14]].concat();
    let at = bytes.windows(10).position(|window| window == times).expect("the batch's times");
    bytes.drain(at + 8..at + 10);
    // Three offsets, no flags.
    bytes[at - 2] = 12;
    bytes[0] = 2;
    let read = GroupMachine::decode(&bytes).unwrap();
    let chunk = read.log(TOPIC).unwrap().chunk(0).unwrap();
    assert_eq!((chunk.timestamp_max, chunk.taken_ms, chunk.end()), (900, 1000, 3));
}

#[test]
fn an_expired_group_is_forgotten_unless_it_committed_again() {
    let mut fed = Fed::new();
    fed.apply(|entry| entry.operation(OperationKind::Commit, 0, OFFSETS, &commit("g", 3)));
    let coordinator = fed.machine.coordinator(OFFSETS).unwrap();
    let idle = |now_ms| coordinator.idle(now_ms, 2000).map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!((idle(3000), idle(3001)), (vec![], vec!["g"]));
    let forget = |time| {
        let mut body = Vec::new();
        Forget { group: "g", what: Forgotten::UnlessSince(time) }.encode(&mut body);
        body
    };
    fed.apply(|entry| entry.operation(OperationKind::Forget, 0, OFFSETS, &forget(1000)));
    let committed = fed.machine.coordinator(OFFSETS).unwrap().group("g").unwrap().offset(TOPIC).cloned();
    assert_eq!(committed.map(|committed| (committed.offset, committed.epoch)), Some((3, Some(0))));
    fed.apply(|entry| entry.operation(OperationKind::Forget, 0, OFFSETS, &forget(1001)));
    assert!(fed.machine.coordinator(OFFSETS).unwrap().group("g").is_none());
}

#[test]
fn a_commit_of_nothing_says_that_a_group_is_alive_and_makes_none() {
    let mut fed = Fed::new();
    let mut nothing = Vec::new();
    Commit { group: "g", offsets: Vec::new() }.encode(&mut nothing);
    fed.apply(|entry| entry.operation(OperationKind::Commit, 0, OFFSETS, &nothing));
    assert_eq!(fed.machine.coordinator(OFFSETS).unwrap().groups().count(), 0);
    fed.apply(|entry| entry.operation(OperationKind::Commit, 0, OFFSETS, &commit("g", 3)));
    fed.time_ms += 500;
    fed.apply(|entry| entry.operation(OperationKind::Commit, 0, OFFSETS, &nothing));
    let group = fed.machine.coordinator(OFFSETS).unwrap().group("g").unwrap();
    assert_eq!(group.touched_ms(), 1500);
    assert_eq!(group.offset(TOPIC).map(|committed| (committed.offset, committed.time_ms)), Some((3, 1000)));
}

#[test]
fn pieces_of_queues_leave_out_what_is_settled_and_pieces_of_logs_are_whole() {
    let mut fed = Fed::new();
    fed.add_queues();
    let row = record(b"0123456789").encoded_len() as u32;
    fed.apply(|entry| {
        for _ in 0..10 {
            entry.append(&QUEUES[..1], false, 0, &record(b"0123456789"));
        }
        entry.append_batch(TOPIC, &batch(None, 2), &[7; KAFKA_MIN]);
    });
    let head = (ENTRY_HEADER + OPERATION_HEADER + HEADER) as u32;
    let log_at = head + 10 * row + OPERATION_HEADER as u32;
    let piece = |log: QueueId, at, ordinal, start, length| LivePiece { log, at, ordinal, start, length };
    let of_log = piece(TOPIC, log_at, 0, log_at, (HEADER + KAFKA_MIN) as u32);
    assert_eq!(fed.pieces(3), [piece(QUEUES[0], head, 0, head, 10 * row), of_log]);
    // Rows 1 to 7 are more than what is kept for being between (in tests: 100 bytes), row 9 alone is not.
    fed.apply(|entry| {
        entry.ranges(OperationKind::Settle, 0, QUEUES[0], [(Seq(1), Seq(6)), (Seq(8), Seq(8))])
    });
    let behind = piece(QUEUES[0], head, 7, head + 7 * row, 3 * row);
    assert_eq!(fed.pieces(3), [piece(QUEUES[0], head, 0, head, row), behind, of_log]);
    fed.apply(|entry| entry.operation(OperationKind::Trim, 0, TOPIC, &2u64.to_le_bytes()));
    fed.apply(|entry| entry.ranges(OperationKind::Settle, 0, QUEUES[0], [(Seq(0), Seq(0))]));
    assert_eq!(fed.pieces(3), [behind]);
    fed.apply(|entry| entry.ranges(OperationKind::Settle, 0, QUEUES[0], [(Seq(0), Seq(9))]));
    assert_eq!(fed.pieces(3), []);
}

#[test]
fn what_several_need_is_one_piece_of_nobody_and_parts_are_whole() {
    let mut fed = Fed::new();
    fed.add_queues();
    let row = record(b"0123456789").encoded_len() as u32;
    fed.apply(|entry| {
        let all = [QUEUES[0], QUEUES[1], TOPIC];
        for _ in 0..3 {
            entry.append(&all, false, 0, &record(b"0123456789"));
        }
    });
    let log_at = (ENTRY_HEADER + OPERATION_HEADER + 4 + 3 * 8) as u32;
    let head = log_at + HEADER as u32;
    let piece =
        |log: u64, at, ordinal, start, length| LivePiece { log: QueueId(log), at, ordinal, start, length };
    let of_log = piece(TOPIC.0, log_at, 0, log_at, HEADER as u32 + 3 * row);
    assert_eq!(fed.pieces(3), [of_log, piece(0, head, 0, head, 3 * row)]);
    fed.apply(|entry| entry.ranges(OperationKind::Settle, 0, QUEUES[0], [(Seq(0), Seq(1))]));
    fed.apply(|entry| {
        entry.ranges(OperationKind::Settle, 0, QUEUES[1], [(Seq(0), Seq(0)), (Seq(2), Seq(2))])
    });
    assert_eq!(fed.pieces(3), [of_log, piece(0, head, 1, head + row, 2 * row)]);
    fed.apply(|entry| entry.ranges(OperationKind::Settle, 0, QUEUES[1], [(Seq(1), Seq(1))]));
    assert_eq!(fed.pieces(3), [of_log, piece(1, head, 2, head + 2 * row, row)]);
    let mut bytes = Vec::new();
    record(b"0123456789").encode(&mut bytes);
    fed.apply(|entry| {
        entry.operation(OperationKind::Part, 0, QUEUES[0], &bytes[..9]);
        entry.operation(OperationKind::Part, 0, QUEUES[0], &bytes[9..]);
    });
    fed.apply(|entry| entry.append_parts(&[QUEUES[0], TOPIC], false));
    let first = (ENTRY_HEADER + OPERATION_HEADER) as u32;
    let second = first + 9 + OPERATION_HEADER as u32;
    assert_eq!(fed.pieces(7), [piece(0, first, 0, first, 9), piece(0, second, 0, second, row - 9)]);
    assert_eq!(fed.pieces(8), [], "what names the parts is not needed");
    fed.apply(|entry| entry.operation(OperationKind::Delete, 0, TOPIC, &[]));
    assert_eq!(fed.pieces(7).len(), 2);
    fed.apply(|entry| entry.operation(OperationKind::Delete, 0, QUEUES[0], &[]));
    assert_eq!(fed.pieces(7), []);
}
