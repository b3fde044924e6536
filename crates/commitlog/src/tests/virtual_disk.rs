//! A disk in memory. An operation takes effect when it is completed; a crash leaves of those under way whatever a
//! real disk might: any subset of the sectors, a file or none.

use std::collections::{BTreeMap, VecDeque};

use base::{Block, Pool, Prng};

use crate::disk::{Disk, DiskDone, DiskOp, OpId};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub struct VirtualDisk {
    pub files: BTreeMap<String, Vec<u8>>,
    pub under_way: VecDeque<DiskOp>,
    pub pool: Pool,
    /// A write has failed: none is begun any more.
    pub is_poisoned: bool,
    /// Where the last completed write went, and the one that a crash interrupted after it.
    pub last_writes: Vec<(String, u64)>,
}

pub fn id_of(op: &DiskOp) -> OpId {
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

pub fn file_of(op: &DiskOp) -> &str {
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

pub fn is_write(op: &DiskOp) -> bool {
    matches!(op, DiskOp::Write { .. })
}

/// Whether `op` is begun only when that other one, asked for before, has ended.
fn follows(op: &DiskOp, before: &DiskOp) -> bool {
    let is_read = |op: &DiskOp| matches!(op, DiskOp::Read { .. });
    let of_one_file = file_of(before) == file_of(op) && !(is_read(before) && is_read(op));
    of_one_file || (is_write(before) && is_write(op))
}

fn bytes_of(blocks: &[Block]) -> Vec<u8> {
    blocks.iter().flat_map(|block| block.padded().iter().copied()).collect()
}

impl VirtualDisk {
    /// Completes the operation at `place` of those under way, if it may overtake all before it.
    pub fn complete(&mut self, place: usize) -> Option<DiskDone> {
        let op = &self.under_way[place];
        if self.under_way.iter().take(place).any(|before| follows(op, before)) {
            return None;
        }
        let op = self.under_way.remove(place)?;
        if self.is_poisoned && is_write(&op) {
            return Some(DiskDone { id: id_of(&op), result: Err("an earlier write failed".into()) });
        }
        Some(DiskDone { id: id_of(&op), result: self.apply(op) })
    }

    /// Completes everything in order.
    pub fn complete_all(&mut self) -> Vec<DiskDone> {
        std::iter::from_fn(|| if self.under_way.is_empty() { None } else { self.complete(0) }).collect()
    }

    fn apply(&mut self, op: DiskOp) -> Result<Block, String> {
        match op {
            DiskOp::Create { file, bytes, .. } | DiskOp::Prepare { file, bytes, .. } => {
                let old = self.files.insert(file.to_string(), vec![0; bytes as usize]);
                assert!(old.is_none(), "{file} exists");
            }
            DiskOp::Write { file, offset, blocks, .. } => {
                let bytes = bytes_of(&blocks);
                assert!(offset.is_multiple_of(4096) && bytes.len().is_multiple_of(4096));
                let content = self.files.get_mut(&*file).expect("a file that exists");
                content[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                self.last_writes = vec![(file.to_string(), offset)];
            }
            DiskOp::Read { file, offset, bytes, .. } => {
                assert!(offset.is_multiple_of(4096));
                return Ok(self.pool.block(&self.files[&*file][offset as usize..][..bytes]));
            }
            DiskOp::Put { file, content, .. } => {
                self.files.insert(file.to_string(), content.concat());
            }
            DiskOp::Delete { file, .. } => {
                self.files.remove(&*file).ok_or("no such file")?;
            }
            DiskOp::Punch { file, offset, bytes, .. } => {
                assert!(offset.is_multiple_of(4096) && bytes.is_multiple_of(4096));
                let content = self.files.get_mut(&*file).ok_or("no such file")?;
                content[offset as usize..][..bytes as usize].fill(0);
            }
        }
        Ok(self.pool.block(&[]))
    }

    /// Fails the operation at `place`, leaving some of it done; none that it follows may be before it.
    pub fn fail(&mut self, place: usize, prng: &mut Prng) -> Option<DiskDone> {
        let op = &self.under_way[place];
        if self.under_way.iter().take(place).any(|before| follows(op, before)) {
            return None;
        }
        let op = self.under_way.remove(place)?;
        let id = id_of(&op);
        let is_refused = self.is_poisoned && is_write(&op);
        self.is_poisoned |= is_write(&op);
        if !is_refused {
            self.tear(op, prng);
        }
        Some(DiskDone { id, result: Err("the disk failed".into()) })
    }

    /// Power is lost.
    pub fn crash(&mut self, prng: &mut Prng) {
        let mut unfinished: Vec<DiskOp> = Vec::new();
        while let Some(op) = self.under_way.pop_front() {
            let is_refused = self.is_poisoned && is_write(&op);
            if is_refused || unfinished.iter().any(|before| follows(&op, before)) {
                unfinished.push(op);
            } else if prng.chance(1, 3) && !matches!(op, DiskOp::Read { .. }) {
                let _ = self.apply(op);
            } else {
                unfinished.push(op.clone());
                self.tear(op, prng);
            }
        }
        self.is_poisoned = false;
    }

    /// Does some of an operation.
    fn tear(&mut self, op: DiskOp, prng: &mut Prng) {
        match op {
            DiskOp::Write { file, offset, blocks, .. } => {
                let bytes = bytes_of(&blocks);
                let content = self.files.get_mut(&*file).expect("a file that exists");
                self.last_writes.push((file.to_string(), offset));
                let style = prng.below(5);
                let sectors = (bytes.len() / SECTOR) as u64;
                let some = prng.below(sectors);
                for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                    let lands = match style {
                        0 => false,
                        1 => number as u64 == some,
                        2 => number as u64 != some,
                        3 => (number as u64) < some,
                        _ => prng.chance(1, 2),
                    };
                    if lands {
                        content[offset as usize + number * SECTOR..][..SECTOR].copy_from_slice(sector);
                    }
                }
            }
            DiskOp::Prepare { file, bytes, .. } | DiskOp::Create { file, bytes, .. } => {
                if prng.chance(1, 2) {
                    let length = if prng.chance(1, 2) { bytes } else { prng.below(bytes) };
                    self.files.insert(file.to_string(), vec![0; length as usize]);
                }
            }
            DiskOp::Delete { file, .. } => {
                if prng.chance(1, 2) {
                    self.files.remove(&*file);
                }
            }
            DiskOp::Put { .. } | DiskOp::Punch { .. } if prng.chance(1, 3) => drop(self.apply(op)),
            DiskOp::Put { .. } | DiskOp::Read { .. } | DiskOp::Punch { .. } => {}
        }
    }
}

impl Disk for VirtualDisk {
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
