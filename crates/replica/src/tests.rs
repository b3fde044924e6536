//! One group over a commit log in memory: what is committed when, and what a restart finds.

use std::collections::{BTreeMap, VecDeque};

use base::{Block, Pool};
use commitlog::disk::{Disk, DiskDone, DiskOp};
use commitlog::{CommitLog, Config, LogEvent, RecoveredGroup};
use model::{GroupId, Index, NodeId, ShardId};

use crate::{Committed, Replica, Role};

const GROUP: GroupId = GroupId(3);

#[derive(Default)]
struct MemoryDisk {
    files: BTreeMap<String, Vec<u8>>,
    waiting: VecDeque<DiskOp>,
}

impl MemoryDisk {
    fn complete(&mut self, pool: &Pool) -> Option<DiskDone> {
        let id = match self.waiting.pop_front()? {
            DiskOp::Create { id, file, bytes } | DiskOp::Prepare { id, file, bytes, .. } => {
                self.files.insert(file.to_string(), vec![0; bytes as usize]);
                id
            }
            DiskOp::Write { id, file, offset, blocks } => {
                let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.padded().to_vec()).collect();
                let content = self.files.get_mut(&*file).expect("a file that exists");
                content[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                id
            }
            DiskOp::Put { id, file, content } => {
                self.files.insert(file.to_string(), content.concat());
                id
            }
            DiskOp::Delete { id, file } => {
                self.files.remove(&*file);
                id
            }
            DiskOp::Read { .. } | DiskOp::Punch { .. } => panic!("nothing is read here, nothing is trimmed"),
        };
        Some(DiskDone { id, result: Ok(pool.block(&[])) })
    }
}

impl Disk for MemoryDisk {
    fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String> {
        let below = self.files.iter().filter(|(name, _)| name.starts_with(&format!("{directory}/")));
        Ok(below.map(|(name, content)| (name.clone(), content.len() as u64)).collect())
    }

    fn read(&self, file: &str, offset: u64, into: &mut [u8]) -> Result<usize, String> {
        let content = self.files.get(file).ok_or("no such file")?;
        let from = (offset as usize).min(content.len());
        let length = into.len().min(content.len() - from);
        into[..length].copy_from_slice(&content[from..from + length]);
        Ok(length)
    }
}

struct Bench {
    pool: Pool,
    disk: MemoryDisk,
    log: CommitLog,
    replica: Replica,
    /// What was committed and applied, without the entries that open a term.
    applied: Vec<(u64, Vec<u8>)>,
    checkpointed: Vec<Index>,
}

impl Bench {
    fn new() -> Bench {
        let (pool, disk) = (Pool::default(), MemoryDisk::default());
        let (mut log, recovered) = open(&pool, &disk);
        assert!(recovered.is_empty());
        let replica = Replica::create(NodeId(1), GROUP, pool.clone(), &mut log).expect("a new group");
        Bench { pool, disk, log, replica, applied: Vec::new(), checkpointed: Vec::new() }
    }

    /// As [`Bench::reopen`], and it stands for election.
    fn restart(&mut self) -> Vec<Committed> {
        let replay = self.reopen();
        self.replica.campaign(&mut self.log).expect("no halt");
        replay
    }

    /// The power fails and comes back; returns what is to be applied before anything else.
    fn reopen(&mut self) -> Vec<Committed> {
        self.disk.waiting.clear();
        let (log, recovered) = open(&self.pool, &self.disk);
        self.log = log;
        let group = recovered.iter().find(|group| group.group == GROUP).expect("the group is there");
        let opened = Replica::open(NodeId(1), group, self.pool.clone(), &mut self.log, &self.disk);
        let (replica, replay) = opened.expect("a sound log");
        self.replica = replica;
        replay
    }

    fn propose(&mut self, bytes: &[u8]) {
        self.replica.propose(self.pool.block(bytes)).expect("it leads");
        self.replica.advance(&mut self.log).expect("no halt");
    }

    /// Writes what is due and asks the disk for it; nothing is completed.
    fn flush(&mut self) {
        self.log.flush();
        while let Some(op) = self.log.poll_op() {
            self.disk.waiting.push_back(op);
        }
    }

    /// Completes everything and applies what was committed by it.
    fn run(&mut self) {
        loop {
            self.apply();
            self.flush();
            let Some(done) = self.disk.complete(&self.pool) else { break };
            self.log.completed(done);
            while let Some(event) = self.log.poll_event() {
                match event {
                    LogEvent::Durable(flush) => {
                        self.replica.durable(flush, &mut self.log).expect("no halt");
                    }
                    LogEvent::Checkpointed { index, .. } => {
                        self.replica.checkpointed(index);
                        self.checkpointed.push(index);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn apply(&mut self) {
        self.replica.advance(&mut self.log).expect("no halt");
        while let Some(Committed { index, term, block }) = self.replica.poll_committed() {
            self.replica.applied(index, term).expect("no halt");
            self.note(index, &block);
        }
    }

    fn note(&mut self, index: Index, block: &Block) {
        if !block.is_empty() {
            self.applied.push((index.0, block.as_slice().to_vec()));
        }
    }

    fn bytes(&self) -> Vec<&[u8]> {
        self.applied.iter().map(|(_, bytes)| bytes.as_slice()).collect()
    }
}

fn open(pool: &Pool, disk: &MemoryDisk) -> (CommitLog, Vec<RecoveredGroup>) {
    let config = Config { segment_bytes: 64 << 10, ..Config::new(ShardId(0), pool.clone()) };
    CommitLog::open(config, disk).expect("a sound log")
}

#[test]
fn a_single_voter_leads_once_the_entry_of_its_term_is_applied() {
    let mut bench = Bench::new();
    bench.flush();
    assert_eq!(bench.replica.role(), Role::Follower);
    bench.run();
    assert_eq!(bench.replica.role(), Role::Leader);
    assert!(bench.applied.is_empty());
}

#[test]
fn what_is_proposed_to_one_that_does_not_lead_comes_back() {
    let mut bench = Bench::new();
    bench.run();
    bench.reopen();
    let given_back = bench.replica.propose(bench.pool.block(b"early")).expect_err("it does not lead");
    assert_eq!(given_back.as_slice(), b"early");
    assert_eq!(bench.replica.uncommitted_bytes(), 0);
    bench.replica.campaign(&mut bench.log).expect("no halt");
    bench.run();
    bench.propose(b"late");
    bench.run();
    assert_eq!(bench.bytes(), [b"late"]);
}

#[test]
fn entries_are_committed_in_order_once_they_are_durable() {
    let mut bench = Bench::new();
    bench.run();
    for bytes in [b"a", b"b", b"c"] {
        bench.propose(bytes);
        bench.flush();
        bench.apply();
        assert!(bench.applied.is_empty(), "nothing is durable yet");
    }
    assert_eq!(bench.replica.uncommitted_bytes(), 3);
    bench.run();
    assert_eq!(bench.bytes(), [b"a", b"b", b"c"]);
    assert!(bench.applied.is_sorted_by(|a, b| a.0 + 1 == b.0));
    assert_eq!(bench.replica.uncommitted_bytes(), 0);
    assert_eq!(bench.replica.applied_at().0, Index(bench.applied[2].0));
}

#[test]
fn a_proposed_block_is_the_one_that_is_committed() {
    let mut bench = Bench::new();
    bench.run();
    let block = bench.pool.block(b"once");
    let at = block.as_slice().as_ptr();
    bench.replica.propose(block).expect("it leads");
    bench.flush();
    while let Some(done) = {
        bench.replica.advance(&mut bench.log).expect("no halt");
        bench.flush();
        bench.disk.complete(&bench.pool)
    } {
        bench.log.completed(done);
        while let Some(event) = bench.log.poll_event() {
            if let LogEvent::Durable(flush) = event {
                bench.replica.durable(flush, &mut bench.log).expect("no halt");
            }
        }
    }
    let committed = bench.replica.poll_committed().expect("it is durable");
    assert_eq!(committed.block.as_slice().as_ptr(), at, "no copy was made");
}

#[test]
fn a_restart_finds_all_that_was_committed_in_its_order() {
    let mut bench = Bench::new();
    bench.run();
    for bytes in [b"a", b"b", b"c"] {
        bench.propose(bytes);
        bench.run();
    }
    bench.propose(b"z");
    bench.flush();
    let term = bench.replica.term();
    let before = std::mem::take(&mut bench.applied);
    for Committed { index, block, .. } in bench.restart() {
        bench.note(index, &block);
    }
    assert_eq!(bench.replica.role(), Role::Follower, "not before an entry of the new term is applied");
    bench.run();
    assert_eq!(bench.applied, before, "what was not durable never was");
    assert!(bench.replica.role() == Role::Leader && bench.replica.term() > term);
    bench.propose(b"d");
    bench.run();
    assert_eq!(bench.bytes().last(), Some(&b"d".as_slice()));
}

#[test]
fn behind_a_checkpoint_only_what_is_above_it_is_replayed() {
    let mut bench = Bench::new();
    bench.run();
    for round in 0..3 {
        for bytes in [b"a", b"b"] {
            bench.propose(bytes);
            bench.run();
        }
        let (index, term) = bench.replica.applied_at();
        bench.log.checkpoint(GROUP, index, term, vec![b"state".to_vec()], Vec::new());
        bench.run();
        assert_eq!(bench.checkpointed.last(), Some(&index));
        assert_eq!(bench.replica.applied_at(), (index, term), "its term is known still");
        bench.propose(b"c");
        bench.run();
        bench.applied.clear();
        for Committed { index, block, .. } in bench.restart() {
            bench.note(index, &block);
        }
        bench.run();
        assert_eq!(bench.bytes(), [b"c"], "round {round}");
    }
}
