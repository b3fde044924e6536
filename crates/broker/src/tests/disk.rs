//! A disk in memory. What it is asked takes effect when it is completed; completing may be held up.

use std::collections::{BTreeMap, VecDeque};

use base::Pool;
use commitlog::disk::{Disk, DiskDone, DiskOp};

#[derive(Default)]
pub(super) struct MemoryDisk {
    files: BTreeMap<String, Vec<u8>>,
    waiting: VecDeque<DiskOp>,
    pool: Pool,
    /// Nothing is completed while it is set.
    pub held_up: bool,
}

impl MemoryDisk {
    pub(super) fn ask(&mut self, op: DiskOp) {
        self.waiting.push_back(op);
    }

    pub(super) fn next_done(&mut self) -> Option<DiskDone> {
        if self.held_up {
            return None;
        }
        let op = self.waiting.pop_front()?;
        Some(self.carry_out(op))
    }

    /// The power fails: what was not completed never was.
    pub(super) fn lose_power(&mut self) {
        self.waiting.clear();
        self.held_up = false;
    }

    fn carry_out(&mut self, op: DiskOp) -> DiskDone {
        let mut read = self.pool.block(&[]);
        let id = match op {
            DiskOp::Create { id, file, bytes } | DiskOp::Prepare { id, file, bytes, .. } => {
                self.files.insert(file.to_string(), vec![0; bytes as usize]);
                id
            }
            DiskOp::Write { id, file, offset, blocks } => {
                let content = self.files.get_mut(&*file).expect("a file that exists");
                let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.padded().to_vec()).collect();
                content[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                id
            }
            DiskOp::Read { id, file, offset, bytes } => {
                read = self.pool.block(&self.files[&*file][offset as usize..][..bytes]);
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
            DiskOp::Punch { id, .. } => id,
        };
        DiskDone { id, result: Ok(read) }
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
