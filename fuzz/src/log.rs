//! A commit log on a disk in memory, driven by drawn operations.

use std::collections::BTreeMap;

use base::Pool;
use commitlog::{CommitLog, Config, HardState, OpenError, RecoveredGroup};
use model::{GroupId, Index, ShardId, Term};

use crate::{Draws, MemoryDisk};

/// Whose log it is.
pub const SHARD: ShardId = ShardId(0);

/// What is known of one group: its term, the index of its first entry and of the one behind its last.
#[derive(Clone, Copy)]
struct Known {
    term: u64,
    from: u64,
    next: u64,
}

/// A log with segments as small as can be.
pub fn open(disk: &MemoryDisk) -> Result<(CommitLog, Vec<RecoveredGroup>), OpenError> {
    let config = Config { segment_bytes: 4 * 4096, ..Config::new(SHARD, Pool::default()) };
    CommitLog::open(config, disk)
}

/// Flushes, and does all that is asked of the disk.
pub fn settle(log: &mut CommitLog, disk: &mut MemoryDisk) {
    loop {
        log.flush();
        let Some(op) = log.poll_op() else { break };
        log.completed(disk.perform(op));
        while log.poll_event().is_some() {}
    }
}

/// The files of a log in which `count` things have happened.
pub fn written(draws: &mut Draws<'_>, count: u16) -> MemoryDisk {
    let mut disk = MemoryDisk::default();
    let (mut log, _) = open(&disk).expect("an empty disk is an empty log");
    let mut groups: BTreeMap<u32, Known> = BTreeMap::new();
    let pool = Pool::default();
    for _ in 0..count {
        let group = 1 + u32::from(draws.below(3));
        let known = groups.entry(group).or_insert(Known { term: 1, from: 1, next: 1 });
        let what = draws.below(10);
        match what {
            0..5 => {
                let size = draws.pick(&[0, 1, 60, 3000, 4096, 40_000]);
                let payload = pool.block(&vec![draws.byte(); size]);
                log.append(GroupId(group), Term(known.term), Index(known.next), payload);
                known.next += 1;
            }
            5 if known.next > known.from => {
                // A new leader cuts the last entry.
                (known.term, known.next) = (known.term + 1, known.next - 1);
                log.append(GroupId(group), Term(known.term), Index(known.next), pool.block(&[9; 9]));
                known.next += 1;
            }
            6 | 7 => {
                let hard_state = HardState { term: Term(known.term), vote: 1, commit: Index(known.from - 1) };
                log.save(GroupId(group), hard_state);
            }
            8 if known.next > known.from => {
                let last = Index(known.next - 1);
                let term = log.term(GroupId(group), last).expect("the last entry");
                let kept = if draws.flag() { vec![(last, last)] } else { vec![] };
                log.checkpoint(GroupId(group), last, term, vec![vec![5; 30]], kept);
                known.from = known.next;
            }
            _ => settle(&mut log, &mut disk),
        }
    }
    settle(&mut log, &mut disk);
    disk
}
