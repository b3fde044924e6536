//! What a disk may hold after a crash at the end of a record.
//!
//! What was certain is kept. Of every other write each sector is kept or lost by chance; so is every change of a
//! directory, except that a file once gone is not found under its old name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::Prng;

use crate::recorder::Step;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug)]
enum Rest {
    Lost,
    Kept,
    ByChance,
}

impl Rest {
    fn keeps(self, prng: &mut Prng) -> bool {
        match self {
            Rest::Lost => false,
            Rest::Kept => true,
            Rest::ByChance => prng.chance(1, 2),
        }
    }
}

#[derive(Debug, Default)]
struct File {
    bytes: u64,
    pieces: Vec<(u64, Vec<u8>)>,
}

/// Makes the files of `steps`, recorded below `from`, below `to`.
pub fn build(steps: &[Step], from: &Path, to: &Path, prng: &mut Prng) {
    let rest = *prng.pick(&[Rest::Lost, Rest::Kept, Rest::ByChance, Rest::ByChance]);
    let files = contents(steps, rest, prng);
    for step in steps {
        if let Step::MakeDirectory(path) = step {
            std::fs::create_dir_all(place(path, from, to)).expect("made");
        }
    }
    for (path, number) in names(steps, rest, prng) {
        let file = &files[&number];
        let made = std::fs::File::create(place(&path, from, to)).expect("made");
        made.set_len(file.bytes).expect("sized");
        for (offset, bytes) in &file.pieces {
            made.write_all_at(bytes, *offset).expect("written");
        }
    }
}

/// The record of a disk that lost the log writes of `range` although it said otherwise.
pub fn without_writes(steps: &[Step], range: Range<usize>) -> Vec<Step> {
    let lost = |(at, step): (usize, &Step)| match step {
        Step::Write { file, offset, .. } if range.contains(&at) => {
            Step::Write { file: *file, offset: *offset, bytes: Arc::from([]) }
        }
        other => other.clone(),
    };
    steps.iter().enumerate().map(lost).collect()
}

fn place(path: &Path, from: &Path, to: &Path) -> PathBuf {
    to.join(path.strip_prefix(from).expect("below the data directory"))
}

/// Of two syncs that overlap, on two threads, the one that began first may return last: it takes nothing back.
fn rises(until: &mut usize, begun: usize) {
    *until = begun.max(*until);
}

/// For every file, the last step that a sync of it covers.
fn certain_until(steps: &[Step]) -> BTreeMap<usize, usize> {
    let mut until = BTreeMap::new();
    for step in steps {
        if let Step::Synced { file, begun } = step {
            rises(until.entry(*file).or_default(), *begun);
        }
    }
    until
}

fn contents(steps: &[Step], rest: Rest, prng: &mut Prng) -> BTreeMap<usize, File> {
    let until = certain_until(steps);
    let mut written: Vec<usize> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Written { step } => Some(*step),
            _ => None,
        })
        .collect();
    written.sort_unstable();
    let mut files: BTreeMap<usize, File> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let certain = |file: &usize| {
            until.get(file).is_some_and(|until| at < *until) || written.binary_search(&at).is_ok()
        };
        match step {
            Step::Create { file, .. } => drop(files.insert(*file, File::default())),
            Step::Allocate { file, bytes } if certain(file) || rest.keeps(prng) => {
                let file = files.get_mut(file).expect("created before");
                file.bytes = file.bytes.max(*bytes);
            }
            Step::Write { file, offset, bytes } => {
                let sure = certain(file);
                let file = files.get_mut(file).expect("created before");
                for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                    if sure || rest.keeps(prng) {
                        file.keep(offset + (sector * SECTOR) as u64, bytes);
                    }
                }
            }
            _ => {}
        }
    }
    files
}

impl File {
    fn keep(&mut self, offset: u64, bytes: &[u8]) {
        self.bytes = self.bytes.max(offset + bytes.len() as u64);
        match self.pieces.last_mut() {
            Some((start, piece)) if *start + piece.len() as u64 == offset => piece.extend_from_slice(bytes),
            _ => self.pieces.push((offset, bytes.to_vec())),
        }
    }
}

fn names(steps: &[Step], rest: Rest, prng: &mut Prng) -> BTreeMap<PathBuf, usize> {
    let mut until: BTreeMap<&Path, usize> = BTreeMap::new();
    for step in steps {
        if let Step::DirectorySynced { path, begun } = step {
            rises(until.entry(path.as_path()).or_default(), *begun);
        }
    }
    let mut present: BTreeMap<PathBuf, usize> = BTreeMap::new();
    // What the running system saw: which file a name meant when it was changed.
    let mut seen: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        let mut happens = |path: &Path| {
            let directory = path.parent().expect("in a directory");
            until.get(directory).is_some_and(|until| at < *until) || rest.keeps(prng)
        };
        match step {
            Step::Create { file, path } => {
                seen.insert(path.clone(), *file);
                if happens(path) {
                    present.insert(path.clone(), *file);
                }
            }
            Step::Rename { from, to } => {
                let file = seen.remove(from).expect("it was there");
                seen.insert(to.clone(), file);
                if happens(to) {
                    present.remove(from);
                    present.insert(to.clone(), file);
                }
            }
            Step::Remove { path } => {
                seen.remove(path);
                if happens(path) {
                    present.remove(path);
                }
            }
            _ => {}
        }
    }
    present
}
