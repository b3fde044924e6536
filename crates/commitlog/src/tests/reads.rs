//! One budget for all reads of a shard: never more under way than it holds, and nobody waits for ever.

use base::Prng;
use model::Index;

use super::cases::{Bench, G};
use super::model::small_config;
use crate::disk::DiskOp;
use crate::{Config, LogEvent, Lookup, Prefetch};

const BUDGET: usize = 20_000;
const SMALL: usize = 3000;
const LARGE: usize = 19_000;

/// Entries of `sizes` bytes, none of them in memory for long.
fn bench(cache_bytes_max: usize, sizes: impl Iterator<Item = usize>) -> Bench {
    let config = Config { cache_bytes_max, read_bytes_max: BUDGET, ..small_config() };
    let mut bench = Bench::new(config);
    for (number, size) in sizes.enumerate() {
        bench.append(number as u64 + 1, &vec![number as u8; size]);
        bench.settle();
    }
    bench.events.clear();
    bench
}

impl Bench {
    /// Bytes of reads under way.
    fn reading(&mut self) -> usize {
        let ops = self.ops();
        self.disk.under_way.extend(ops);
        let bytes = |op: &DiskOp| if let DiskOp::Read { bytes, .. } = op { *bytes } else { 0 };
        self.disk.under_way.iter().map(bytes).sum()
    }

    fn end_one(&mut self, place: usize) {
        if let Some(done) = self.disk.complete(place) {
            self.log.completed(done);
        }
        self.events.extend(std::iter::from_fn(|| self.log.poll_event()));
    }

    fn has_loaded(&self, wanted: u64) -> bool {
        let is_it = |event: &LogEvent| matches!(event, LogEvent::Loaded { index, .. } if index.0 == wanted);
        self.events.iter().any(is_it)
    }
}

#[test]
fn reads_under_way_stay_within_the_budget_and_every_one_asked_for_comes() {
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let sizes: Vec<usize> = (0..40).map(|_| 1 + prng.below(8000) as usize).collect();
        let mut bench = bench(if seed % 2 == 0 { 0 } else { 60_000 }, sizes.iter().copied());
        let mut asked = 0;
        let mut most = 0;
        for _ in 0..400 {
            let index = Index(1 + prng.below(40));
            match prng.below(3) {
                0 => asked += usize::from(matches!(bench.log.read(G, index), Lookup::Pending)),
                1 => drop(bench.log.prefetch(G, index)),
                _ if !bench.disk.under_way.is_empty() => {
                    let place = prng.below(bench.disk.under_way.len() as u64) as usize;
                    bench.end_one(place);
                }
                _ => {}
            }
            most = most.max(bench.reading());
        }
        assert!(most <= BUDGET && most > BUDGET / 2, "{most}");
        while bench.reading() > 0 {
            assert!(bench.reading() <= BUDGET);
            bench.end_one(0);
        }
        let loaded =
            bench.events.iter().filter(|event| matches!(event, LogEvent::Loaded { block: Ok(_), .. }));
        // Asked for again while it waits or is read, it comes once.
        assert!(loaded.clone().count() <= asked);
        for index in 1..=40 {
            bench.events.clear();
            let is_pending = matches!(bench.log.read(G, Index(index)), Lookup::Pending);
            bench.settle();
            assert_eq!(bench.has_loaded(index), is_pending, "nothing of what was before stands in its way");
        }
    }
}

#[test]
fn steady_small_reads_do_not_starve_a_large_one() {
    let small = 40;
    let mut bench = bench(0, (0..small).map(|_| SMALL).chain([LARGE]));
    let large = small as u64 + 1;
    let mut next = (1..=small as u64).cycle();
    // As many small ones as there is room for, and from then on always another as soon as one is there.
    for _ in 0..10 {
        bench.log.read(G, Index(next.next().expect("a cycle")));
    }
    assert!(matches!(bench.log.read(G, Index(large)), Lookup::Pending));
    let mut ended = 0;
    while !bench.has_loaded(large) {
        assert!(bench.reading() <= BUDGET.max(LARGE + base::PAGE));
        assert!(ended < 20, "{ended} small ones were read and the large one still waits");
        bench.end_one(0);
        ended += 1;
        bench.log.read(G, Index(next.next().expect("a cycle")));
    }
}

#[test]
fn what_is_read_ahead_leaves_room_for_who_asks_and_is_told_to_nobody() {
    let mut bench = bench(60_000, [SMALL; 40].into_iter());
    for index in 1..=40 {
        bench.log.release(G, Index(index));
    }
    let begun = |index| matches!(bench.log.prefetch(G, Index(index)), Prefetch::Begun(_));
    let begun = (1..=40).map(begun).filter(|begun| *begun).count();
    assert!(begun > 0 && bench.reading() <= BUDGET / 2, "{begun}");
    assert_eq!(bench.log.prefetch(G, Index(1)), Prefetch::Known);
    assert_eq!(bench.log.prefetch(G, Index(40)), Prefetch::NoRoom);
    let before = bench.reading();
    assert!(matches!(bench.log.read(G, Index(40)), Lookup::Pending));
    assert!(bench.reading() > before, "there is room for what is waited for");
    // What was begun for nobody is told when somebody has come to wait for it.
    assert!(matches!(bench.log.read(G, Index(2)), Lookup::Pending));
    bench.settle();
    assert!(bench.has_loaded(40) && bench.has_loaded(2) && !bench.has_loaded(1));
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Ready(block) if block.as_slice() == [0; SMALL]));
}

#[test]
fn an_entry_that_is_cut_while_it_waits_is_told_to_have_left() {
    let mut bench = bench(0, [LARGE, SMALL].into_iter());
    assert!(matches!(bench.log.read(G, Index(1)), Lookup::Pending));
    assert!(matches!(bench.log.read(G, Index(2)), Lookup::Pending));
    let group = bench.log.remove_group(G);
    bench.log.flush();
    bench.settle();
    assert!(group.0 > 0);
    let left = |event: &LogEvent| matches!(event, LogEvent::Left { index: Index(2), .. });
    assert!(bench.events.iter().any(left) && !bench.has_loaded(2), "{:?}", bench.events);
}
