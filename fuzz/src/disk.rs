//! A disk in memory that does at once and whole whatever it is asked.

use std::collections::BTreeMap;

use base::{Block, Pool};
use commitlog::disk::{Disk, DiskDone, DiskOp};

/// Files by name.
#[derive(Clone, Default)]
pub struct MemoryDisk(pub BTreeMap<String, Vec<u8>>);

impl MemoryDisk {
    /// Does one operation.
    pub fn perform(&mut self, op: DiskOp) -> DiskDone {
        let (id, result) = match op {
            DiskOp::Create { id, file, bytes } | DiskOp::Prepare { id, file, bytes, .. } => {
                let before = self.0.insert(file.to_string(), vec![0; bytes as usize]);
                assert!(before.is_none(), "{file} exists");
                (id, Ok(Vec::new()))
            }
            DiskOp::Write { id, file, offset, blocks } => {
                let bytes: Vec<u8> = blocks.iter().flat_map(|block| block.padded().iter().copied()).collect();
                let content = self.0.get_mut(&*file).expect("a file that was made");
                content[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                (id, Ok(Vec::new()))
            }
            DiskOp::Read { id, file, offset, bytes } => {
                let content = self.0.get(&*file).and_then(|content| content.get(offset as usize..));
                let read = content.and_then(|content| content.get(..bytes));
                (id, read.map(<[u8]>::to_vec).ok_or_else(|| "the file is too short".into()))
            }
            DiskOp::Put { id, file, content } => {
                self.0.insert(file.to_string(), content.concat());
                (id, Ok(Vec::new()))
            }
            DiskOp::Delete { id, file } => {
                let gone = self.0.remove(&*file);
                (id, gone.map(|_| Vec::new()).ok_or_else(|| "no such file".into()))
            }
            DiskOp::Punch { id, file, offset, bytes } => {
                let range = offset as usize..(offset + bytes) as usize;
                if let Some(hole) = self.0.get_mut(&*file).and_then(|content| content.get_mut(range)) {
                    hole.fill(0);
                }
                (id, Ok(Vec::new()))
            }
        };
        let block = |bytes: Vec<u8>| -> Block { Pool::default().block(&bytes) };
        DiskDone { id, result: result.map(block) }
    }
}

impl Disk for MemoryDisk {
    fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String> {
        let below = |name: &str| name.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
        let files = self.0.iter().filter(|(name, _)| below(name));
        Ok(files.map(|(name, content)| (name.clone(), content.len() as u64)).collect())
    }

    fn read(&self, file: &str, offset: u64, into: &mut [u8]) -> Result<usize, String> {
        let content = self.0.get(file).ok_or("no such file")?;
        let rest = content.get(offset as usize..).unwrap_or(&[]);
        let length = into.len().min(rest.len());
        into[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }
}
