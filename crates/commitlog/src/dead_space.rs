//! Dead space that files of runs still hold: blocks that nobody needs and that were not given back yet.
//!
//! In: what was found dead, and the files that go or are written again. Out: what is to be given back, from the file
//! that began to die first. A file that died whole until then goes with one operation instead of thousands, and a
//! segment of it can be written again. Never: a hole of a file that was forgotten.

use std::collections::{BTreeMap, VecDeque};

use base::{Bug, planted};

use crate::disk::FileName;

/// Offset and bytes, whole pages.
pub(crate) type Hole = (u64, u64);

/// What one file holds.
#[derive(Debug)]
struct DeadPart {
    /// Counts the files in the order in which they began to die.
    number: u64,
    holes: VecDeque<Hole>,
}

/// What all files hold.
#[derive(Debug, Default)]
pub(crate) struct DeadSpace {
    files: BTreeMap<FileName, DeadPart>,
    bytes: u64,
    counted: u64,
}

impl DeadSpace {
    /// Of all files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// These parts of a file are dead.
    pub fn add(&mut self, file: &FileName, holes: Vec<Hole>) {
        if holes.is_empty() {
            return;
        }
        self.counted += 1;
        let new = DeadPart { number: self.counted, holes: VecDeque::new() };
        let part = self.files.entry(file.clone()).or_insert(new);
        self.bytes += holes.iter().map(|(_, bytes)| bytes).sum::<u64>();
        part.holes.extend(holes);
    }

    /// A file goes, or is written again.
    pub fn forget(&mut self, file: &FileName) {
        if planted(Bug::PunchReused) {
            return;
        }
        if let Some(part) = self.files.remove(file) {
            self.bytes -= part.holes.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
    }

    /// Takes the oldest holes of the oldest file, as far as more than `most` bytes are held.
    pub fn beyond(&mut self, most: u64) -> Option<(FileName, Vec<Hole>)> {
        if self.bytes <= most {
            return None;
        }
        let (file, part) = self.files.iter_mut().min_by_key(|(_, part)| part.number)?;
        let (file, mut taken) = (file.clone(), Vec::new());
        while self.bytes > most
            && let Some(hole) = part.holes.pop_front()
        {
            self.bytes -= hole.1;
            taken.push(hole);
        }
        if part.holes.is_empty() {
            self.files.remove(&file);
        }
        Some((file, taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_no_more_than_is_too_much() {
        let mut dead = DeadSpace::default();
        let [a, b] = ["b", "a"].map(FileName::from);
        dead.add(&a, vec![(0, 10), (20, 10)]);
        dead.add(&b, vec![(0, 10)]);
        dead.add(&a, vec![(40, 10)]);
        assert_eq!(dead.beyond(40), None);
        assert_eq!(dead.beyond(25), Some((a.clone(), vec![(0, 10), (20, 10)])));
        assert_eq!(dead.beyond(25), None);
        assert_eq!(dead.beyond(0), Some((a.clone(), vec![(40, 10)])));
        dead.add(&a, vec![(60, 10)]);
        assert_eq!(dead.beyond(0), Some((b, vec![(0, 10)])), "that file began to die before");
        assert_eq!((dead.beyond(0), dead.beyond(0)), (Some((a, vec![(60, 10)])), None));
    }

    #[test]
    fn a_file_that_went_holds_nothing() {
        let mut dead = DeadSpace::default();
        let [a, b] = ["a", "b"].map(FileName::from);
        dead.add(&a, vec![(0, 10)]);
        dead.add(&b, vec![(0, 5)]);
        dead.forget(&a);
        dead.forget(&a);
        assert_eq!(dead.beyond(5), None);
        assert_eq!((dead.beyond(0), dead.beyond(0)), (Some((b, vec![(0, 5)])), None));
    }
}
