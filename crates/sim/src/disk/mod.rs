//! The imagined disk of a node: files with what would survive a power cut, and operations under way.
//!
//! In: disk operations of the shards, faults, crashes. Out: completions, and the blocking reads of a start. An
//! operation takes effect when it completes; a crash before that leaves what [`crash`] makes of it. Operations of one
//! file are carried out in order but for reads among themselves, so are the writes of a shard, all others in any order,
//! as the contract of `commitlog::disk` says.

mod atlas;
mod crash;
mod errors;
mod room;

use std::collections::{BTreeMap, VecDeque};

use base::{PAGE, Pool, Prng, crc32c};
use commitlog::disk::{Disk, DiskDone, DiskOp, FileName, OpId};

pub use atlas::Atlas;
pub use errors::Errors;

/// Bytes that are written whole or not at all.
pub const SECTOR: usize = 512;
/// Completed writes remembered per shard, as places where damage hurts.
const HISTORY: usize = 24;

/// How long operations take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most microseconds of one operation.
    pub most_us: u64,
    /// One in so many takes a hundred times as long; 0: none.
    pub slow_one_in: u64,
}

#[derive(Debug)]
struct UnderWay {
    shard: u16,
    op: DiskOp,
    due_us: u64,
}

impl UnderWay {
    fn is_write(&self) -> bool {
        matches!(self.op, DiskOp::Write { .. })
    }

    /// Whether it is begun only when that other one, asked for before, has ended.
    fn follows(&self, other: &UnderWay) -> bool {
        let are_writes = self.is_write() && other.is_write() && self.shard == other.shard;
        let is_read = |op: &DiskOp| matches!(op, DiskOp::Read { .. });
        let are_reads = is_read(&self.op) && is_read(&other.op);
        are_writes || (file_of(&self.op) == file_of(&other.op) && !are_reads)
    }
}

/// A completed write.
#[derive(Clone, Debug)]
struct Written {
    file: FileName,
    offset: usize,
    before: Vec<u8>,
    bytes: usize,
}

/// What the disk has done so far.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Tally {
    pub writes: u64,
    pub queued_writes: u64,
    pub reads: u64,
    pub puts: u64,
    pub errors: u64,
    pub lost_writes: u64,
    pub torn_writes: u64,
    pub hidden_writes: u64,
    pub cut_puts: u64,
    pub reordered: u64,
    pub recycled: u64,
    pub deleted_segments: u64,
    pub prepared: u64,
    pub flips: u64,
    pub misdirected: u64,
}

/// The disk.
#[derive(Debug)]
pub struct VirtualDisk {
    files: BTreeMap<String, Vec<u8>>,
    under_way: Vec<UnderWay>,
    history: Vec<VecDeque<Written>>,
    /// The last completed write of each shard's log.
    last_of_log: Vec<Option<Written>>,
    /// Bytes that fit, others' included; `None`: any number.
    capacity: Option<u64>,
    /// Whether something failed because nothing was free.
    pub has_run_out: bool,
    /// Where it was damaged.
    pub atlas: Atlas,
    /// Which operations are going to fail.
    pub errors: Errors,
    /// How long operations take.
    pub pace: Pace,
    /// What has happened.
    pub tally: Tally,
    pool: Pool,
}

impl VirtualDisk {
    /// An empty disk of a node with so many shards.
    pub fn new(shards: u16, pace: Pace, pool: Pool) -> VirtualDisk {
        VirtualDisk {
            files: BTreeMap::new(),
            under_way: Vec::new(),
            history: vec![VecDeque::new(); usize::from(shards)],
            last_of_log: vec![None; usize::from(shards)],
            capacity: None,
            has_run_out: false,
            atlas: Atlas::default(),
            errors: Errors::default(),
            pace,
            tally: Tally::default(),
            pool,
        }
    }

    /// Takes an operation; returns a digest of it for the trace.
    pub fn submit(&mut self, shard: u16, op: DiskOp, now_us: u64, prng: &mut Prng) -> u32 {
        let digest = digest_of(&op);
        let mut takes = 1 + prng.below(self.pace.most_us);
        if self.pace.slow_one_in > 0 && prng.chance(1, self.pace.slow_one_in) {
            takes *= 100;
        }
        let mut op = UnderWay { shard, op, due_us: now_us + takes };
        let before = self.under_way.iter().filter(|other| op.follows(other));
        let after = before.map(|other| other.due_us + 1).max().unwrap_or(0);
        op.due_us = op.due_us.max(after);
        self.tally.queued_writes += u64::from(
            op.is_write() && self.under_way.iter().any(|other| op.follows(other) && other.is_write()),
        );
        self.under_way.push(op);
        digest
    }

    /// When the next operation ends.
    pub fn next_due_us(&self) -> Option<u64> {
        self.under_way.iter().map(|op| op.due_us).min()
    }

    /// Whether something is on its way into runs, or being named there.
    pub fn moves(&self) -> bool {
        self.under_way.iter().any(|op| is_of_runs(file_of(&op.op)))
    }

    /// Carries out what is due for a shard and returns the completions, with whether each failed by design.
    pub fn complete(&mut self, shard: u16, now_us: u64, prng: &mut Prng) -> Vec<DiskDone> {
        let mut done = Vec::new();
        loop {
            let due =
                self.under_way.iter().enumerate().filter(|(_, op)| op.shard == shard && op.due_us <= now_us);
            let Some((at, _)) = due.min_by_key(|(_, op)| op.due_us) else { return done };
            self.tally.reordered += u64::from(at > 0);
            let op = self.under_way.remove(at);
            done.push(self.carry_out(op, prng));
        }
    }

    fn carry_out(&mut self, UnderWay { shard, op, .. }: UnderWay, prng: &mut Prng) -> DiskDone {
        let id = id_of(&op);
        let empty = Ok(self.pool.block(&[]));
        if self.errors.refuses(shard, &op) {
            return DiskDone { id, result: Err("an earlier write failed".into()) };
        }
        let lacks_room = self.lacks_room(&op);
        if let Some(why) = self.errors.strikes(shard, &op, lacks_room) {
            self.tally.errors += 1;
            // What a failed operation left behind is unknown.
            self.leave_behind(&op, prng);
            return DiskDone { id, result: Err(why) };
        }
        let result = match &op {
            DiskOp::Read { file, offset, bytes, .. } => self.read_exactly(file, *offset as usize, *bytes),
            DiskOp::Write { file, offset, blocks, .. } => {
                let bytes = padded(blocks);
                let begun = self.files.get(&**file).is_some_and(|content| content.first() != Some(&0));
                self.tally.recycled += u64::from(*offset == 0 && begun);
                self.remember(shard, file, *offset as usize, bytes.len());
                self.write(file, *offset as usize, &bytes);
                empty
            }
            other => {
                self.tally.prepared += u64::from(matches!(other, DiskOp::Prepare { .. }));
                let is_segment = file_of(other).contains("/segment-");
                self.tally.deleted_segments +=
                    u64::from(is_segment && matches!(other, DiskOp::Delete { .. }));
                self.apply(other);
                empty
            }
        };
        DiskDone { id, result }
    }

    fn read_exactly(&mut self, file: &str, offset: usize, bytes: usize) -> Result<base::Block, String> {
        self.tally.reads += 1;
        let content = self.files.get(file).ok_or_else(|| format!("{file}: no such file"))?;
        let part = content.get(offset..offset + bytes).ok_or_else(|| format!("{file}: ends early"))?;
        Ok(self.pool.block(part))
    }

    fn remember(&mut self, shard: u16, file: &FileName, offset: usize, bytes: usize) {
        let before = self.files.get(&**file).and_then(|content| content.get(offset..offset + bytes));
        let before = before.unwrap_or(&[]).to_vec();
        let written = Written { file: file.clone(), offset, before, bytes };
        if file.contains("/segment-") {
            self.last_of_log[usize::from(shard)] = Some(written.clone());
        }
        let history = &mut self.history[usize::from(shard)];
        history.push_back(written);
        if history.len() > HISTORY {
            history.pop_front();
        }
    }

    /// Writes all of it.
    fn write(&mut self, file: &str, offset: usize, bytes: &[u8]) {
        self.tally.writes += 1;
        self.atlas.overwritten(file, offset, bytes.len());
        let content = self.files.entry(file.to_owned()).or_default();
        if content.len() < offset + bytes.len() {
            content.resize(offset + bytes.len(), 0);
        }
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Everything but reads and writes, whole.
    fn apply(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Create { file, bytes, .. } | DiskOp::Prepare { file, bytes, .. } => {
                self.atlas.forget(file);
                self.files.insert(file.to_string(), vec![0; *bytes as usize]);
            }
            DiskOp::Put { file, content, .. } => {
                self.tally.puts += 1;
                self.atlas.forget(file);
                self.files.insert(file.to_string(), content.concat());
            }
            DiskOp::Delete { file, .. } => {
                self.atlas.forget(file);
                self.files.remove(&**file);
            }
            DiskOp::Write { file, offset, blocks, .. } => {
                self.write(file, *offset as usize, &padded(blocks));
            }
            DiskOp::Punch { file, offset, bytes, .. } => {
                let range = *offset as usize..(*offset + *bytes) as usize;
                self.atlas.overwritten(file, range.start, range.len());
                if let Some(hole) = self.files.get_mut(&**file).and_then(|content| content.get_mut(range)) {
                    hole.fill(0);
                }
            }
            DiskOp::Read { .. } => {}
        }
    }

    /// A digest of everything at rest.
    pub fn digest(&self) -> u64 {
        let mut digest = 0u64;
        for (name, content) in &self.files {
            digest = digest.rotate_left(7) ^ u64::from(crc32c(name.as_bytes()));
            digest = digest.rotate_left(7) ^ u64::from(crc32c(content));
        }
        digest
    }
}

impl Disk for VirtualDisk {
    fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String> {
        let below = format!("{directory}/");
        let files = self.files.iter().filter(|(name, _)| name.starts_with(&below));
        Ok(files.map(|(name, content)| (name.clone(), content.len() as u64)).collect())
    }

    fn read(&self, file: &str, offset: u64, into: &mut [u8]) -> Result<usize, String> {
        let content = self.files.get(file).ok_or_else(|| format!("{file}: no such file"))?;
        let rest = content.get(offset as usize..).unwrap_or(&[]);
        let length = rest.len().min(into.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}

fn padded(blocks: &[base::Block]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in blocks {
        bytes.extend_from_slice(block.padded());
    }
    assert!(bytes.len().is_multiple_of(PAGE), "writes are whole pages");
    bytes
}

fn id_of(op: &DiskOp) -> OpId {
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

fn file_of(op: &DiskOp) -> &FileName {
    match op {
        DiskOp::Create { file, .. }
        | DiskOp::Prepare { file, .. }
        | DiskOp::Write { file, .. }
        | DiskOp::Read { file, .. }
        | DiskOp::Put { file, .. }
        | DiskOp::Delete { file, .. }
        | DiskOp::Punch { file, .. } => file,
    }
}

/// Whether it is a run or names them.
fn is_of_runs(file: &str) -> bool {
    file.contains("/run-") || file.contains("/manifest-")
}

fn digest_of(op: &DiskOp) -> u32 {
    let (kind, number, content) = match op {
        DiskOp::Create { bytes, .. } => (1, *bytes, 0),
        DiskOp::Prepare { bytes, .. } => (2, *bytes, 0),
        DiskOp::Write { offset, blocks, .. } => {
            (3, *offset, blocks.iter().fold(0u32, |all, block| all.rotate_left(5) ^ crc32c(block.as_slice())))
        }
        DiskOp::Read { offset, bytes, .. } => (4, *offset ^ (*bytes as u64) << 40, 0),
        DiskOp::Put { content, .. } => {
            (5, 0, content.iter().fold(0u32, |all, part| all.rotate_left(5) ^ crc32c(part)))
        }
        DiskOp::Delete { .. } => (6, 0, 0),
        DiskOp::Punch { offset, bytes, .. } => (7, *offset ^ *bytes << 32, 0),
    };
    crc32c(file_of(op).as_bytes()) ^ crc32c(&number.to_le_bytes()).rotate_left(kind) ^ content
}
