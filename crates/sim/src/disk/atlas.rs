//! Damage to what was durable: where it is and what stood there, so that a run knows what to expect and can undo it.
//!
//! A disk that damages the very last write of a log cannot be told from one that never finished it, and no
//! single copy survives that: the last completed write of each shard's log is left alone.

use std::collections::BTreeMap;

use base::Prng;

use super::{SECTOR, VirtualDisk};

/// The damaged sectors, with what stood there.
#[derive(Clone, Debug, Default)]
pub struct Atlas {
    sectors: BTreeMap<(String, usize), Vec<u8>>,
}

impl Atlas {
    /// Whether anything is damaged.
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    pub(super) fn overwritten(&mut self, file: &str, offset: usize, bytes: usize) {
        if self.sectors.is_empty() {
            return;
        }
        for sector in offset / SECTOR..(offset + bytes).div_ceil(SECTOR) {
            self.sectors.remove(&(file.to_owned(), sector));
        }
    }

    pub(super) fn forget(&mut self, file: &str) {
        self.sectors.retain(|(name, _), _| name != file);
    }
}

impl VirtualDisk {
    /// Flips bits of one sector that was durable; false if there is none that may be damaged.
    pub fn flip(&mut self, prng: &mut Prng) -> bool {
        let Some((file, offset, bytes)) = self.victim(prng) else { return false };
        let at = offset + prng.below(bytes as u64) as usize;
        if self.is_protected(&file, at / SECTOR * SECTOR, SECTOR) {
            return false;
        }
        self.save(&file, at, 1);
        let Some(byte) = self.files.get_mut(&file).and_then(|content| content.get_mut(at)) else {
            return false;
        };
        *byte ^= 1 << prng.below(8);
        self.tally.flips += 1;
        true
    }

    /// Makes an earlier write look as if it had gone to another place.
    pub fn misdirect(&mut self, prng: &mut Prng) -> bool {
        let shard = prng.below(self.history.len() as u64) as usize;
        let history = &self.history[shard];
        if history.len() < 2 {
            return false;
        }
        let written = history[prng.below(history.len() as u64 - 1) as usize].clone();
        let (from, bytes) = (written.offset, written.bytes);
        let Some(content) = self.files.get(&*written.file) else { return false };
        let moved = content[from..from + bytes].to_vec();
        let pages = (content.len().saturating_sub(bytes)) / base::PAGE;
        let to = prng.below(pages as u64 + 1) as usize * base::PAGE;
        let protected = [from, to].iter().any(|at| self.is_protected(&written.file, *at, bytes));
        if protected || to.abs_diff(from) < bytes || written.before.len() != bytes {
            return false;
        }
        for (at, content) in [(from, &written.before), (to, &moved)] {
            self.save(&written.file, at, bytes);
            if let Some(file) = self.files.get_mut(&*written.file) {
                file[at..at + bytes].copy_from_slice(content);
            }
        }
        self.tally.misdirected += 1;
        true
    }

    /// Undoes all damage that was not written over since.
    pub fn restore(&mut self) {
        for ((file, sector), bytes) in std::mem::take(&mut self.atlas.sectors) {
            if let Some(content) = self.files.get_mut(&file) {
                content[sector * SECTOR..sector * SECTOR + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    /// An earlier write, or any file.
    fn victim(&self, prng: &mut Prng) -> Option<(String, usize, usize)> {
        let shard = prng.below(self.history.len() as u64) as usize;
        let history = &self.history[shard];
        if history.len() >= 2 && prng.chance(3, 4) {
            let written = &history[prng.below(history.len() as u64 - 1) as usize];
            return Some((written.file.to_string(), written.offset, written.bytes));
        }
        if self.files.is_empty() {
            return None;
        }
        let (name, content) = self.files.iter().nth(prng.below(self.files.len() as u64) as usize)?;
        (!content.is_empty()).then(|| (name.clone(), 0, content.len()))
    }

    /// Whether that range touches the last completed write of a shard's log. What is written to runs proves nothing
    /// of the log's end.
    fn is_protected(&self, file: &str, offset: usize, bytes: usize) -> bool {
        self.last_of_log.iter().flatten().any(|last| {
            *last.file == *file && offset < last.offset + last.bytes && last.offset < offset + bytes
        })
    }

    fn save(&mut self, file: &str, offset: usize, bytes: usize) {
        let Some(content) = self.files.get(file) else { return };
        for sector in offset / SECTOR..(offset + bytes).div_ceil(SECTOR) {
            let end = content.len().min((sector + 1) * SECTOR);
            let saved = content[sector * SECTOR..end].to_vec();
            self.atlas.sectors.entry((file.to_owned(), sector)).or_insert(saved);
        }
    }
}
