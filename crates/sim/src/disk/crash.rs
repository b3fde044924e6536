//! What a power cut makes of the operations under way.
//!
//! Of each file, and of the writes of each shard, some operations had been carried out without anybody having heard of
//! it, at most one was in the middle, the rest had not begun. A write in the middle leaves any subset of its sectors, a file being made may be
//! missing, short or whole, a put leaves the old content or the new, a deletion the file or nothing.

use base::Prng;
use commitlog::disk::DiskOp;

use super::{SECTOR, UnderWay, VirtualDisk, padded};

/// Which sectors of a torn write arrived.
#[derive(Clone, Copy, Debug)]
enum Torn {
    Nothing,
    Everything,
    Some(u64),
    Before(usize),
    From(usize),
    AllBut(usize),
}

impl Torn {
    fn draw(prng: &mut Prng, sectors: usize) -> Torn {
        let place = prng.below(sectors as u64) as usize;
        match prng.below(8) {
            0 | 1 => Torn::Nothing,
            2 => Torn::Everything,
            3 => Torn::Before(place),
            4 => Torn::From(place),
            5 => Torn::AllBut(place),
            _ => Torn::Some(1 + prng.below(15)),
        }
    }

    fn arrived(self, sector: usize, prng: &mut Prng) -> bool {
        match self {
            Torn::Nothing => false,
            Torn::Everything => true,
            Torn::Some(sixteenths) => prng.chance(sixteenths, 16),
            Torn::Before(end) => sector < end,
            Torn::From(start) => sector >= start,
            Torn::AllBut(missing) => sector != missing,
        }
    }
}

impl VirtualDisk {
    /// Cuts the power: nothing is under way any more.
    pub fn crash(&mut self, prng: &mut Prng) {
        let mut under_way = std::mem::take(&mut self.under_way);
        under_way.sort_by_key(|op| op.due_us);
        let mut unfinished: Vec<UnderWay> = Vec::new();
        for op in under_way {
            let is_refused = self.errors.refuses(op.shard, &op.op);
            if is_refused || unfinished.iter().any(|before| op.follows(before)) {
                self.tally.lost_writes += u64::from(op.is_write());
            } else if prng.chance(1, 2) {
                self.tally.hidden_writes += u64::from(op.is_write());
                self.apply(&op.op);
                continue;
            } else {
                self.leave_behind(&op.op, prng);
            }
            unfinished.push(op);
        }
        self.errors.heal();
    }

    /// Leaves of an operation what an end in its middle may leave.
    pub(super) fn leave_behind(&mut self, op: &DiskOp, prng: &mut Prng) {
        match op {
            DiskOp::Write { file, offset, blocks, .. } => {
                self.tear(file, *offset as usize, &padded(blocks), prng);
            }
            DiskOp::Create { file, bytes, .. } | DiskOp::Prepare { file, bytes, .. } => match prng.below(4) {
                0 => {}
                1 => drop(self.files.insert(file.to_string(), Vec::new())),
                2 => drop(self.files.insert(file.to_string(), vec![0; *bytes as usize])),
                _ => drop(self.files.insert(file.to_string(), vec![0; prng.below(*bytes) as usize])),
            },
            DiskOp::Put { file, content, .. } => {
                self.tally.cut_puts += 1;
                let content = content.concat();
                match prng.below(3) {
                    0 => {}
                    1 => {
                        let cut = prng.below(content.len() as u64 + 1) as usize;
                        self.files.insert(format!("{file}.tmp"), content[..cut].to_vec());
                    }
                    _ => self.apply(op),
                }
            }
            DiskOp::Delete { .. } | DiskOp::Punch { .. } if prng.chance(1, 2) => self.apply(op),
            DiskOp::Delete { .. } | DiskOp::Punch { .. } | DiskOp::Read { .. } => {}
        }
    }

    fn tear(&mut self, file: &str, offset: usize, bytes: &[u8], prng: &mut Prng) {
        let torn = Torn::draw(prng, bytes.len() / SECTOR);
        let arrived: Vec<bool> = (0..bytes.len() / SECTOR).map(|at| torn.arrived(at, prng)).collect();
        match (arrived.contains(&true), arrived.contains(&false)) {
            (true, true) => self.tally.torn_writes += 1,
            (true, false) => self.tally.hidden_writes += 1,
            (false, _) => self.tally.lost_writes += 1,
        }
        let Some(content) = self.files.get_mut(file) else { return };
        for (at, _) in arrived.iter().enumerate().filter(|(_, arrived)| **arrived) {
            let (from, to) = (offset + at * SECTOR, offset + (at + 1) * SECTOR);
            if content.len() >= to {
                content[from..to].copy_from_slice(&bytes[at * SECTOR..(at + 1) * SECTOR]);
                self.atlas.overwritten(file, from, SECTOR);
            }
        }
    }
}
