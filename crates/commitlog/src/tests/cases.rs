//! One promise at a time.

use base::{Block, PAGE, Prng};
use model::{GroupId, Index, QueueId, ShardId, Term};

use super::model::small_config;
use super::virtual_disk::VirtualDisk;
use crate::disk::{DiskDone, DiskOp};
use crate::{CommitLog, Config, FlushId, HardState, LogEvent, Lookup, OpenError, PiecePlan, RecoveredGroup};

pub const G: GroupId = GroupId(7);

/// One log, one disk, and what has happened.
pub struct Bench {
    pub disk: VirtualDisk,
    pub log: CommitLog,
    config: Config,
    pub events: Vec<LogEvent>,
}

impl Bench {
    pub fn new(config: Config) -> Bench {
        let disk = VirtualDisk { pool: config.pool.clone(), ..VirtualDisk::default() };
        let (log, _) = CommitLog::open(config.clone(), &disk).unwrap();
        Bench { disk, log, config, events: Vec::new() }
    }

    fn block(&self, bytes: &[u8]) -> Block {
        self.config.pool.block(bytes)
    }

    pub fn append(&mut self, index: u64, bytes: &[u8]) -> FlushId {
        let block = self.block(bytes);
        self.log.append(G, Term(1), Index(index), block)
    }

    pub fn ops(&mut self) -> Vec<DiskOp> {
        std::iter::from_fn(|| self.log.poll_op()).collect()
    }

    /// Flushes and completes everything until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            let flushed = self.log.flush();
            let ops = self.ops();
            self.disk.under_way.extend(ops);
            if !flushed && self.disk.under_way.is_empty() {
                return;
            }
            for done in self.disk.complete_all() {
                self.log.completed(done);
            }
            self.events.extend(std::iter::from_fn(|| self.log.poll_event()));
        }
    }

    fn reopen(&mut self) -> Vec<RecoveredGroup> {
        let (log, recovered) = CommitLog::open(self.config.clone(), &self.disk).unwrap();
        self.log = log;
        recovered
    }

    fn checkpoint(&mut self, index: u64, kept: &[(u64, u64)]) {
        let kept = kept.iter().map(|(first, last)| (Index(*first), Index(*last))).collect();
        self.log.checkpoint(G, Index(index), Term(1), vec![b"state".to_vec()], kept);
    }

    fn load(&mut self, index: u64) -> Result<Vec<u8>, OpenError> {
        self.log.load(&self.disk, G, Index(index)).map(|block| block.as_slice().to_vec())
    }
}

#[test]
fn a_tiny_flush_is_one_page_and_a_large_payload_is_not_copied() {
    let mut bench = Bench::new(small_config());
    bench.append(1, b"first");
    bench.settle();
    bench.append(2, b"second");
    let large = bench.block(&[9; 40_000]);
    let address = large.as_slice().as_ptr();
    assert!(bench.log.flush());
    let ops = bench.ops();
    let [DiskOp::Write { offset, blocks, .. }] = &ops[..] else { panic!("{ops:?}") };
    assert_eq!((*offset, blocks.len(), blocks[0].padded().len()), (2 * PAGE as u64, 1, PAGE));
    bench.disk.under_way.extend(ops);
    bench.settle();
    bench.log.append(G, Term(1), Index(3), large);
    assert!(bench.log.flush());
    let ops = bench.ops();
    let write = ops.iter().find_map(|op| match op {
        DiskOp::Write { blocks, .. } => Some(blocks),
        _ => None,
    });
    let payload = write.unwrap().last().unwrap();
    assert_eq!(payload.as_slice().as_ptr(), address);
    bench.disk.under_way.extend(ops);
    bench.settle();
    bench.reopen();
    assert_eq!(bench.load(3), Ok(vec![9; 40_000]));
    assert_eq!(bench.load(1), Ok(b"first".to_vec()));
}

#[test]
fn a_small_flush_waits_for_the_one_under_way_and_nothing_makes_none() {
    let mut bench = Bench::new(small_config());
    assert!(!bench.log.flush() && bench.log.is_idle() && bench.log.is_drained());
    let first = bench.append(1, b"a");
    assert!(bench.log.flush() && !bench.log.is_idle());
    let second = bench.append(2, b"b");
    assert!(first < second && !bench.log.flush());
    bench.settle();
    let durable: Vec<FlushId> = bench
        .events
        .iter()
        .filter_map(|event| if let LogEvent::Durable(flush) = event { Some(*flush) } else { None })
        .collect();
    assert_eq!(durable, [first, second]);
    assert!(bench.log.is_drained());
}

#[test]
fn a_large_flush_is_given_to_the_disk_behind_the_one_under_way_and_no_third() {
    let mut bench = Bench::new(small_config());
    for index in 1..=3 {
        bench.append(index, &[index as u8; 20_000]);
        assert_eq!(bench.log.flush(), index < 3);
    }
    let write = |op| if let DiskOp::Write { id, .. } = op { Some(id) } else { None };
    let writes: Vec<_> = bench.ops().into_iter().filter_map(write).collect();
    assert_eq!(writes.len(), 2);
    let failed = |id| DiskDone { id, result: Err("failed".into()) };
    writes.into_iter().for_each(|id| bench.log.completed(failed(id)));
    assert!(matches!(bench.log.poll_event(), Some(LogEvent::Failed(_))));
    assert!(bench.log.poll_event().is_none() && !bench.log.flush(), "nothing is written any more");
}

#[test]
fn a_commit_index_alone_rides_and_costs_no_flush() {
    let mut bench = Bench::new(small_config());
    let state = |commit| HardState { term: Term(1), vote: 2, commit: Index(commit) };
    bench.log.save(G, state(0));
    bench.append(1, b"a");
    bench.settle();
    bench.log.save(G, state(1));
    assert!(!bench.log.flush());
    bench.append(2, b"b");
    bench.settle();
    assert_eq!(bench.reopen()[0].hard_state, state(1));
}

#[test]
fn a_failed_write_is_the_end_and_is_said_once() {
    let mut bench = Bench::new(small_config());
    bench.append(1, b"a");
    bench.log.flush();
    let ops = bench.ops();
    bench.disk.under_way.extend(ops);
    let mut prng = Prng::new(1);
    while !bench.disk.under_way.is_empty() {
        let writes = matches!(bench.disk.under_way[0], DiskOp::Write { .. });
        let done = if writes { bench.disk.fail(0, &mut prng) } else { bench.disk.complete(0) };
        bench.log.completed(done.unwrap());
    }
    bench.append(2, b"b");
    bench.checkpoint(1, &[]);
    assert!(!bench.log.flush());
    assert!(matches!(bench.log.poll_event(), Some(LogEvent::Failed(why)) if why == "the disk failed"));
    assert!(bench.log.poll_event().is_none() && bench.log.poll_op().is_none());
}

#[test]
fn segments_are_reused_for_ever_when_groups_are_checkpointed_as_asked() {
    let mut bench = Bench::new(small_config());
    bench.log.save(GroupId(8), HardState { term: Term(3), vote: 2, commit: Index(0) });
    bench.settle();
    for index in 1..=2000 {
        bench.append(index, &[index as u8; 700]);
        bench.settle();
        if let Some(group) = bench.log.wants_checkpoint() {
            assert_eq!(group, G, "an idle group needs none");
            bench.checkpoint(index, &[(index, index)]);
        }
    }
    let stats = bench.log.stats();
    assert!(stats.segments <= 5 && stats.segments_reused > 100, "{stats:?}");
    assert!(bench.disk.files.len() <= 6, "{:?}", bench.disk.files.keys());
    let recovered = bench.reopen();
    assert_eq!(recovered[1].hard_state, HardState { term: Term(3), vote: 2, commit: Index(0) });
}

#[test]
fn segments_that_nobody_needs_are_given_back_and_only_those() {
    let mut bench = Bench::new(small_config());
    for index in 1..=400 {
        bench.append(index, &[index as u8; 700]);
        bench.settle();
    }
    let files = |bench: &Bench| bench.disk.files.keys().filter(|name| name.contains("segment")).count();
    let grown = files(&bench);
    bench.checkpoint(399, &[(2, 2)]);
    bench.settle();
    assert!(grown > 20, "{grown}");
    let _ = bench.log.work();
    bench.settle();
    // One and a half times the four segments that a ring has at least.
    assert_eq!(files(&bench), 6, "of {grown}");
    bench.log.set_scarce(true);
    assert_eq!(bench.log.wants_checkpoint(), Some(G), "what was settled since is to be let go");
    let _ = bench.log.work();
    bench.settle();
    // The newest, the one with a kept entry, the one being prepared or two spare ones.
    assert!(files(&bench) <= 5, "{:?}", bench.disk.files.keys());
    for _ in 0..2 {
        assert_eq!(bench.load(2).unwrap(), [2; 700]);
        assert_eq!(bench.load(400).unwrap(), [400_u16 as u8; 700]);
        assert_eq!(bench.reopen()[0].entries, [(Index(400), Term(1))]);
    }
}

#[test]
fn the_segment_of_the_last_durable_flush_stays_in_the_ring() {
    let mut bench = Bench::new(small_config());
    bench.log.enable_evacuation();
    bench.append(1, b"first");
    bench.settle();
    bench.append(2, &[2; 300_000]);
    bench.settle();
    bench.checkpoint(2, &[(2, 2)]);
    bench.settle();
    bench.append(3, &[3; 40_000]);
    assert!(bench.log.flush());
    // The next segment is being begun, and never becomes durable.
    let (writes, _): (Vec<DiskOp>, Vec<DiskOp>) =
        bench.ops().into_iter().partition(|op| matches!(op, DiskOp::Write { .. }));
    assert_eq!(writes.len(), 1);
    for _ in 0..20 {
        let _ = bench.log.work();
        let ops = bench.ops();
        bench.disk.under_way.extend(ops);
        for done in bench.disk.complete_all() {
            bench.log.completed(done);
        }
        while let Some(event) = bench.log.poll_event() {
            if let LogEvent::Evacuating { group, index, .. } = event {
                let whole = PiecePlan { log: QueueId(1), at: 0, ordinal: 0, start: 0, length: 300_000 };
                bench.log.evacuate(group, index, &[whole]);
            }
        }
    }
    assert_eq!(bench.log.stats().adopted_segments, 0);
    assert_eq!(bench.reopen()[0].checkpoint.as_ref().map(|found| found.index), Some(Index(2)));
    assert_eq!(bench.load(2), Ok(vec![2; 300_000]));
}

#[test]
fn kept_entries_hold_their_segment_until_they_are_let_go() {
    let mut bench = Bench::new(small_config());
    for index in 1..=400 {
        bench.append(index, &[index as u8; 700]);
        bench.settle();
        if bench.log.wants_checkpoint().is_some() {
            bench.checkpoint(index, &[(2, 3)]);
        }
    }
    bench.settle();
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Gone));
    let held = bench.log.stats().segments;
    let recovered = bench.reopen();
    assert!(recovered[0].entries[0].0 > Index(300));
    assert_eq!(bench.load(2), Ok(vec![2; 700]));
    assert_eq!(bench.load(3), Ok(vec![3; 700]));
    assert_eq!(bench.log.term(G, Index(3)), Some(Term(1)));
    bench.checkpoint(400, &[]);
    bench.settle();
    assert!(bench.load(2).is_err());
    assert!(bench.log.stats().segments_free >= held - 1);
}

#[test]
fn an_entry_is_read_once_however_many_ask_within_a_budget() {
    let mut bench = Bench::new(Config { cache_bytes_max: 0, read_bytes_max: 10_000, ..small_config() });
    for index in 1..=3 {
        bench.append(index, &[index as u8; 6000]);
    }
    bench.settle();
    assert!(bench.log.cached(G, Index(1)).is_none());
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Pending));
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Pending));
    assert!(matches!(bench.log.read(G, Index(4)), Lookup::Gone));
    bench.events.clear();
    bench.settle();
    let [LogEvent::Loaded { index: Index(1), block: Ok(block), .. }] = &bench.events[..] else {
        panic!("{:?}", bench.events)
    };
    assert_eq!(block.as_slice(), [1; 6000]);
    assert_eq!(bench.log.stats().reads, 1);
    assert!(matches!(bench.log.read(G, Index(2)), Lookup::Pending));
}

#[test]
fn a_damaged_entry_is_reported_when_read_and_stays_known() {
    let mut bench = Bench::new(Config { cache_bytes_max: 0, ..small_config() });
    bench.append(1, &[1; 6000]);
    bench.settle();
    bench.disk.files.get_mut("shard-0/segment-0.log").unwrap()[9000] ^= 1;
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Pending));
    bench.events.clear();
    bench.settle();
    assert!(
        matches!(&bench.events[..], [LogEvent::Loaded { block: Err(why), .. }] if why.contains("damaged"))
    );
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Pending), "it is asked again, not forgotten");
}

#[test]
fn an_entry_larger_than_a_segment_gets_a_file_of_its_own_size() {
    let mut bench = Bench::new(small_config());
    bench.append(1, b"small");
    bench.settle();
    bench.append(2, &vec![2; 17 << 20]);
    bench.append(3, b"small again");
    bench.settle();
    assert_eq!(bench.reopen()[0].entries.len(), 3);
    assert_eq!(bench.load(2), Ok(vec![2; 17 << 20]));
    assert_eq!(bench.load(3), Ok(b"small again".to_vec()));
    bench.append(4, b"goes on");
    bench.settle();
    assert_eq!(bench.reopen()[0].entries.len(), 4);
}

#[test]
fn a_removed_group_leaves_nothing_and_frees_its_segments() {
    let mut bench = Bench::new(small_config());
    for index in 1..=300 {
        bench.append(index, &[1; 700]);
        bench.settle();
    }
    bench.checkpoint(200, &[(1, 200)]);
    bench.settle();
    assert!(bench.log.stats().segments_free <= 1);
    bench.log.remove_group(G);
    bench.settle();
    assert!(bench.disk.files.keys().all(|name| !name.contains("checkpoint")));
    assert!(bench.reopen().is_empty());
    for index in 1..=60 {
        bench.append(index, &[1; 700]);
        bench.settle();
    }
    assert!(bench.log.stats().segments_reused > 0);
    assert_eq!(bench.reopen()[0].entries.len(), 60);
}

#[test]
fn damage_before_a_later_flush_says_where_and_what() {
    let mut bench = Bench::new(small_config());
    for index in 1..=3 {
        bench.append(index, b"payload");
        bench.settle();
    }
    let file = bench.disk.files.get_mut("shard-0/segment-0.log").unwrap();
    let at = file.windows(7).position(|window| window == b"payload").unwrap();
    file[at] ^= 1;
    let error = CommitLog::open(bench.config.clone(), &bench.disk).unwrap_err();
    let OpenError::Damaged { file, offset, lost, .. } = &error else { panic!("{error}") };
    assert_eq!((file.as_str(), *offset as usize), ("shard-0/segment-0.log", at));
    assert_eq!(lost, &[(G, Index(1), Index(1))]);
    assert!(error.to_string().contains("Group 7: entries 1 to 1 cannot be read."), "{error}");
}

#[test]
fn a_missing_segment_and_a_missing_end_are_damage() {
    let mut bench = Bench::new(small_config());
    for index in 1..=60 {
        bench.append(index, &[1; 700]);
        bench.settle();
    }
    for slot in 0..3 {
        let mut disk = bench.disk.clone();
        disk.files.remove(&format!("shard-0/segment-{slot}.log")).unwrap();
        let outcome = CommitLog::open(bench.config.clone(), &disk).map(|(_, recovered)| recovered);
        // Without anything that speaks of it, the loss of the last segment cannot be known.
        assert!(matches!(outcome, Err(OpenError::Damaged { .. })) || slot > 0, "slot {slot}: {outcome:?}");
    }
    bench.checkpoint(60, &[]);
    bench.settle();
    let newest = bench.log.stats().segments - 2;
    bench.disk.files.remove(&format!("shard-0/segment-{newest}.log")).unwrap();
    let outcome = CommitLog::open(bench.config.clone(), &bench.disk).map(|(_, recovered)| recovered);
    assert!(matches!(outcome, Err(OpenError::Damaged { .. })), "{outcome:?}");
}

#[test]
fn a_lost_first_write_into_a_reused_segment_is_damage() {
    let mut bench = Bench::new(small_config());
    let mut index = 0;
    let mut append = |bench: &mut Bench| {
        index += 1;
        bench.append(index, &[index as u8; 700]);
        bench.settle();
        index
    };
    loop {
        let before = bench.disk.files.clone();
        let index = append(&mut bench);
        let begun = before.iter().find(|(name, old)| {
            let now = bench.disk.files.get(*name).filter(|_| name.contains("/segment-"));
            old[0] != 0 && now.is_some_and(|now| now[..PAGE] != old[..PAGE])
        });
        let Some((name, old)) = begun.filter(|_| index > 200) else {
            if bench.log.wants_checkpoint().is_some() {
                bench.checkpoint(index, &[(index, index)]);
            }
            continue;
        };
        append(&mut bench);
        assert!(CommitLog::open(bench.config.clone(), &bench.disk).is_ok());
        let file = bench.disk.files.get_mut(name).unwrap();
        file[..2 * PAGE].copy_from_slice(&old[..2 * PAGE]);
        let outcome = CommitLog::open(bench.config.clone(), &bench.disk).map(|(_, recovered)| recovered);
        assert!(matches!(outcome, Err(OpenError::Damaged { .. })), "{outcome:?}");
        return;
    }
}

#[test]
fn arbitrary_bytes_never_panic_and_are_never_taken_for_a_log() {
    let config = small_config();
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut disk = VirtualDisk::default();
        for slot in 0..prng.below(3) {
            let length = prng.below(40_000);
            let bytes = (0..length).map(|_| prng.draw() as u8).collect();
            disk.files.insert(format!("shard-0/segment-{slot}.log"), bytes);
        }
        let (_, recovered) = CommitLog::open(config.clone(), &disk).unwrap();
        assert!(recovered.is_empty());
    }
}

#[test]
fn real_files_with_their_pages_shuffled_and_overwritten_never_panic() {
    let mut bench = Bench::new(small_config());
    for index in 1..=80 {
        bench.append(index, &[1; 900]);
        bench.settle();
        if index % 30 == 0 {
            bench.checkpoint(index, &[(index - 3, index)]);
        }
    }
    bench.settle();
    let names: Vec<String> = bench.disk.files.keys().cloned().collect();
    let mut refused = 0;
    for seed in 0..400 {
        let mut prng = Prng::new(seed);
        let mut disk = bench.disk.clone();
        for _ in 0..1 + prng.below(3) {
            let content = disk.files.get_mut(prng.pick(&names)).unwrap();
            let (from, to) = (prng.below(content.len() as u64), prng.below(content.len() as u64));
            match prng.below(3) {
                0 => content.truncate(from as usize),
                1 => content[from as usize..].fill(prng.draw() as u8),
                _ => {
                    let (from, to) = (from as usize / PAGE * PAGE, to as usize / PAGE * PAGE);
                    let length = PAGE.min(content.len() - from.max(to));
                    content.copy_within(from..from + length, to);
                }
            }
            if content.is_empty() {
                break;
            }
        }
        match CommitLog::open(bench.config.clone(), &disk) {
            Ok((mut log, recovered)) => {
                for (index, _) in recovered.iter().flat_map(|group| &group.entries) {
                    assert_eq!(log.load(&disk, G, *index).unwrap().as_slice(), [1; 900]);
                }
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn files_of_a_newer_version_are_refused_by_name() {
    let mut bench = Bench::new(small_config());
    bench.append(1, b"a");
    bench.settle();
    let header = crate::segment::SegmentHeader {
        shard: ShardId(0),
        generation: 1,
        first: 1,
        previous: crate::segment::Link::default(),
        floor: 1,
    };
    let newer = header.encode_as(0, 2);
    let file = bench.disk.files.get_mut("shard-0/segment-0.log").unwrap();
    file[..newer.len()].copy_from_slice(&newer);
    let error = CommitLog::open(bench.config.clone(), &bench.disk).unwrap_err();
    assert_eq!(error, OpenError::Newer { file: "shard-0/segment-0.log".into(), version: 2 });
}

#[test]
fn released_entries_leave_the_memory_once_durable() {
    let mut bench = Bench::new(small_config());
    bench.append(1, b"a");
    bench.log.release(G, Index(1));
    assert!(bench.log.cached(G, Index(1)).is_some(), "it can be read from nowhere else");
    bench.settle();
    bench.log.release(G, Index(1));
    assert!(bench.log.cached(G, Index(1)).is_none());
    assert_eq!(bench.log.stats().cache_bytes, 0);
}

#[test]
fn payload_pages_that_pretend_to_be_flushes_do_not_count_without_the_salt() {
    for salted in [false, true] {
        let mut bench = Bench::new(small_config());
        let mut index = 0;
        while bench.log.tail.first == bench.log.tail.first_before || bench.log.tail.first_before == 0 {
            index += 1;
            bench.append(index, &[1; 5000]);
            bench.settle();
        }
        let tail = bench.log.tail;
        let salt = if salted { tail.salt } else { 0 };
        let header = crate::flush::FlushHeader {
            generation: tail.link.generation,
            number: 1 << 40,
            length: PAGE as u32,
            head_length: 64,
            ..Default::default()
        };
        let mut pages = Vec::new();
        for page in 1..=9 {
            let offset = tail.link.end + page * PAGE as u32;
            pages.extend_from_slice(&header.encode(offset, salt).0);
            pages.resize(page as usize * PAGE, 0);
        }
        bench.append(index + 1, &pages);
        bench.settle();
        assert_eq!(bench.log.tail.link.generation, tail.link.generation, "it went where it was meant for");
        // The flush is torn: its header did not land.
        let slot = tail.slot.unwrap();
        let file = bench.disk.files.get_mut(&format!("shard-0/segment-{slot}.log")).unwrap();
        file[tail.link.end as usize..][..512].fill(0);
        let outcome = CommitLog::open(bench.config.clone(), &bench.disk);
        assert_eq!(outcome.is_err(), salted);
    }
}
