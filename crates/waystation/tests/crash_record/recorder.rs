//! Records what the broker asks of the disk and sends to its clients, in order.
//!
//! What may take effect is noted before it is asked for, what is certain after it has returned: both err on the side
//! of a worse disk.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use model::ConnId;
use runtime::disk::{Access, Calls, OpenFile, System};

pub const FAILURE: &str = "a failure for the test";

/// A connection: the thread of its shard, which alone knows it by that number.
pub type Peer = (u32, ConnId);

/// The number of this thread.
fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// One step of the record. Files are known by numbers, because names change.
#[derive(Clone, Debug)]
pub enum Step {
    MakeDirectory(PathBuf),
    Create {
        file: usize,
        path: PathBuf,
    },
    Allocate {
        file: usize,
        bytes: u64,
    },
    Write {
        file: usize,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    /// The write of an earlier step has returned and is durable.
    Written {
        step: usize,
    },
    /// A sync that began at an earlier step has returned.
    Synced {
        file: usize,
        begun: usize,
    },
    DirectorySynced {
        path: PathBuf,
        begun: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Send {
        to: Peer,
        bytes: Vec<u8>,
    },
    /// Only a place in the record.
    Mark,
}

#[derive(Debug, Default)]
struct Record {
    steps: Vec<Step>,
    names: BTreeMap<PathBuf, usize>,
    files: usize,
    log_writes: usize,
    log_syncs: usize,
    failed_at: Option<usize>,
}

/// The layer that records; the operating system does the work.
#[derive(Debug, Default)]
pub struct Recorder {
    record: Mutex<Record>,
    fail_write_at: Option<usize>,
    fail_sync_at: Option<usize>,
    /// As on a file system without direct writes: each write is followed by a sync.
    buffered: bool,
}

impl Recorder {
    /// As the default, and the log write of that number (from 1) fails once.
    pub fn failing_at(number: usize) -> Recorder {
        Recorder { fail_write_at: Some(number), ..Recorder::default() }
    }

    /// Without direct writes, and the log sync of that number (from 1) fails once.
    pub fn failing_sync_at(number: usize) -> Recorder {
        Recorder { fail_sync_at: Some(number), buffered: true, ..Recorder::default() }
    }

    /// The record so far.
    pub fn steps(&self) -> Vec<Step> {
        self.lock().steps.clone()
    }

    /// Where the record is now.
    pub fn position(&self) -> usize {
        self.lock().steps.len()
    }

    /// Where the failing write or sync would have been.
    pub fn failed_at(&self) -> Option<usize> {
        self.lock().failed_at
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no step panics")
    }

    fn push(&self, step: Step) -> usize {
        self.lock().push(step)
    }
}

impl Record {
    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    fn file(&self, path: &Path) -> usize {
        *self.names.get(path).expect("only files made under the recorder are used")
    }
}

impl Calls for Recorder {
    fn takes_direct_writes(&self, probe: &Path) -> bool {
        !self.buffered && System.takes_direct_writes(probe)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<OpenFile> {
        if let Access::Fill { .. } = access {
            let mut record = self.lock();
            let file = record.files;
            record.files += 1;
            record.names.insert(path.to_path_buf(), file);
            record.push(Step::Create { file, path: path.to_path_buf() });
        }
        System.open(path, access)
    }

    fn allocate(&self, file: &OpenFile, bytes: u64) -> io::Result<()> {
        let mut record = self.lock();
        let number = record.file(&file.path);
        record.push(Step::Allocate { file: number, bytes });
        drop(record);
        System.allocate(file, bytes)
    }

    fn write(&self, file: &OpenFile, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut record = self.lock();
        let number = record.file(&file.path);
        if let Access::Log { .. } = file.access {
            record.log_writes += 1;
            if self.fail_write_at == Some(record.log_writes) {
                record.failed_at = Some(record.push(Step::Mark));
                return Err(io::Error::other(FAILURE));
            }
        }
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let step = record.push(Step::Write { file: number, offset, bytes: bytes.into() });
        drop(record);
        let written = System.write(file, offset, parts)?;
        assert_eq!(
            written,
            parts.iter().map(|part| part.len()).sum::<usize>(),
            "regular files write all at once"
        );
        if file.synced_by_write() {
            self.push(Step::Written { step });
        }
        Ok(written)
    }

    fn sync(&self, file: &OpenFile) -> io::Result<()> {
        let (number, begun) = {
            let mut record = self.lock();
            if let Access::Log { .. } = file.access {
                record.log_syncs += 1;
                if self.fail_sync_at == Some(record.log_syncs) {
                    record.failed_at = Some(record.push(Step::Mark));
                    return Err(io::Error::other(FAILURE));
                }
            }
            (record.file(&file.path), record.steps.len())
        };
        System.sync(file)?;
        self.push(Step::Synced { file: number, begun });
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let begun = self.position();
        System.sync_directory(path)?;
        self.push(Step::DirectorySynced { path: path.to_path_buf(), begun });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut record = self.lock();
        let file = record.names.remove(from).expect("only files made under the recorder are used");
        record.names.insert(to.to_path_buf(), file);
        record.push(Step::Rename { from: from.to_path_buf(), to: to.to_path_buf() });
        drop(record);
        System.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut record = self.lock();
        record.names.remove(path);
        record.push(Step::Remove { path: path.to_path_buf() });
        drop(record);
        System.remove(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.push(Step::MakeDirectory(path.to_path_buf()));
        System.make_directory(path)
    }

    fn sending(&self, conn: ConnId, parts: &[IoSlice<'_>]) {
        let bytes = parts.iter().flat_map(|part| part.iter().copied()).collect();
        self.push(Step::Send { to: (thread(), conn), bytes });
    }

    fn sent(&self, conn: ConnId, taken: usize) {
        let mut record = self.lock();
        let last = record.steps.iter_mut().rev().find_map(|step| match step {
            Step::Send { to, bytes } if *to == (thread(), conn) => Some(bytes),
            _ => None,
        });
        last.expect("it was offered before").truncate(taken);
    }
}
