//! One disk operation on real files: what each [`DiskOp`] means in system calls.
//!
//! Owns the open handles, the choice between direct and buffered writes, and the poison: after one failed write of
//! the log or one failed sync of anything, nothing is ever written here again, because what the kernel then says
//! of the data can no longer be believed. New files appear under their name only when they are complete.

use std::io::{self, IoSlice, IoSliceMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use base::{Block, BlockBuilder, Map, PAGE, Pool};
use commitlog::disk::{Disk, DiskDone, DiskOp, FileName};

use super::calls::{Access, Calls, OpenFile};

/// Bytes of zeros written at a time, so that the log's own writes get their turn in between.
const ZERO_PIECE: usize = 1 << 20;
/// Handles kept open; beyond it all are closed and opened again as needed.
const HANDLES_MAX: usize = 128;
/// Parts of one vectored write.
const PARTS: usize = 64;
/// What an unfinished file is called until it is complete.
const UNFINISHED: &str = "tmp";

/// Reads of so many bytes are mostly windows over what lies in order.
const SCAN_MIN: usize = 512 << 10;

type Handles = Map<(FileName, Use), Arc<OpenFile>>;

/// What an open handle is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Use {
    Scan,
    Pick,
    Change,
}

impl Use {
    fn of(access: Access) -> Use {
        match access {
            Access::Scan => Use::Scan,
            Access::Pick => Use::Pick,
            Access::Fill { .. } | Access::Log { .. } => Use::Change,
        }
    }
}

/// The files below one data directory.
#[derive(Debug)]
pub struct Files<C> {
    root: PathBuf,
    calls: Arc<C>,
    direct: bool,
    pool: Pool,
    handles: Mutex<Handles>,
    poison: OnceLock<String>,
}

/// Why an operation failed, and whether the shard may write again.
#[derive(Debug)]
enum Failure {
    Harmless(String),
    Poisonous(String),
}

impl<C: Calls> Files<C> {
    /// The files below `root`, which exists. Writes a probe to find out whether direct IO works there.
    pub fn new(root: &Path, calls: Arc<C>, pool: Pool) -> Files<C> {
        let probe = root.join(format!("probe.{UNFINISHED}"));
        let direct = calls.takes_direct_writes(&probe);
        // An unfinished file by name: if it stays, the next start removes it.
        let _ = std::fs::remove_file(&probe);
        Files::with_direct(root, calls, pool, direct)
    }

    /// As [`Files::new`], with direct IO as given.
    pub fn with_direct(root: &Path, calls: Arc<C>, pool: Pool, direct: bool) -> Files<C> {
        let handles = Mutex::new(base::map(0));
        Files { root: root.to_path_buf(), calls, direct, pool, handles, poison: OnceLock::new() }
    }

    /// Whether log writes go past the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// The layer everything goes through.
    pub fn calls(&self) -> &Arc<C> {
        &self.calls
    }

    /// Does one operation, blocking.
    pub fn perform(&self, op: &DiskOp) -> DiskDone {
        let (id, result) = match op {
            DiskOp::Write { id, file, offset, blocks } => {
                (*id, self.changing(|| self.write(file, *offset, blocks)))
            }
            DiskOp::Create { id, file, bytes } => (*id, self.changing(|| self.create(file, *bytes))),
            DiskOp::Prepare { id, file, bytes, written: true } => {
                (*id, self.changing(|| self.prepare(file, *bytes)))
            }
            DiskOp::Prepare { id, file, bytes, written: false } => {
                (*id, self.changing(|| self.create(file, *bytes)))
            }
            DiskOp::Put { id, file, content } => (*id, self.changing(|| self.replace(file, content))),
            DiskOp::Delete { id, file } => (*id, self.changing(|| self.delete(file))),
            DiskOp::Read { id, file, offset, bytes } => (*id, self.read_block(file, *offset, *bytes)),
            DiskOp::Punch { id, file, offset, bytes } => {
                (*id, self.changing(|| self.punch(file, *offset, *bytes)))
            }
        };
        DiskDone { id, result }
    }

    /// Does several reads of one file that lie one behind the other as one; each gets its completion.
    pub fn read_run(&self, run: &[DiskOp]) -> Vec<DiskDone> {
        // Whatever is in the way of reading them together is found again, and told, by reading each.
        self.read_together(run).unwrap_or_else(|| run.iter().map(|op| self.perform(op)).collect())
    }

    fn read_together(&self, run: &[DiskOp]) -> Option<Vec<DiskDone>> {
        let Some(DiskOp::Read { file, offset, .. }) = run.first() else { return None };
        let mut builders = Vec::with_capacity(run.len());
        for op in run {
            let DiskOp::Read { id, bytes, .. } = op else { return None };
            builders.push((*id, *bytes, self.pool.builder(bytes.next_multiple_of(PAGE))));
        }
        let mut parts = Vec::with_capacity(run.len());
        let (mut wanted, mut left) = (0, builders.len());
        for (_, bytes, builder) in &mut builders {
            left -= 1;
            // What lies between one and the next is read too; behind the last, the file may end.
            let length = if left > 0 { bytes.next_multiple_of(PAGE) } else { *bytes };
            wanted += length;
            parts.push(IoSliceMut::new(builder.extend(length)));
        }
        let handle = self.handle(file, Access::Pick).ok()?;
        let read = self.calls.read_parts(&handle, *offset, &mut parts).ok()?;
        let done = |(id, bytes, mut builder): (_, _, BlockBuilder)| {
            builder.truncate(bytes);
            DiskDone { id, result: Ok(builder.freeze()) }
        };
        (read == wanted).then(|| builders.into_iter().map(done).collect())
    }

    fn changing(&self, act: impl FnOnce() -> Result<(), Failure>) -> Result<Block, String> {
        if let Some(reason) = self.poison.get() {
            return Err(format!("nothing is written any more since an earlier failure: {reason}"));
        }
        match act() {
            Ok(()) => Ok(self.pool.block(&[])),
            Err(Failure::Harmless(reason)) => Err(reason),
            Err(Failure::Poisonous(reason)) => {
                // Another thread may have been first; its reason is as good.
                let _ = self.poison.set(reason.clone());
                Err(reason)
            }
        }
    }

    fn write(&self, file: &FileName, offset: u64, blocks: &[Block]) -> Result<(), Failure> {
        let act = || {
            let handle = self.handle(file, Access::Log { direct: self.direct })?;
            let slices: Vec<&[u8]> = blocks.iter().map(|block| block.padded()).collect();
            self.write_all(&handle, offset, &slices)?;
            if handle.synced_by_write() { Ok(()) } else { self.calls.sync(&handle) }
        };
        act().map_err(|error| Failure::Poisonous(told("write and sync", file, &error)))
    }

    fn write_all(&self, handle: &OpenFile, mut offset: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut at = 0;
        let mut skip = 0;
        while at < slices.len() {
            let mut parts = [IoSlice::new(&[]); PARTS];
            let mut filled = 0;
            for slice in slices[at..].iter().take(PARTS) {
                parts[filled] = IoSlice::new(if filled == 0 { &slice[skip..] } else { slice });
                filled += 1;
            }
            let wanted: usize = parts[..filled].iter().map(|part| part.len()).sum();
            let written = if wanted == 0 { 0 } else { self.calls.write(handle, offset, &parts[..filled])? };
            if written == 0 && wanted > 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            (at, skip) = advanced(slices, at, skip + written, wanted == 0, filled);
        }
        Ok(())
    }

    fn create(&self, file: &FileName, bytes: u64) -> Result<(), Failure> {
        self.appear(file, false, false, |handle| self.calls.allocate(handle, bytes))
    }

    fn prepare(&self, file: &FileName, bytes: u64) -> Result<(), Failure> {
        let direct = self.direct && bytes.is_multiple_of(PAGE as u64);
        let mut zeros = self.pool.builder(ZERO_PIECE);
        zeros.extend(ZERO_PIECE).fill(0);
        self.appear(file, false, direct, |handle| {
            self.calls.allocate(handle, bytes)?;
            let mut offset = 0;
            while offset < bytes {
                let piece = (bytes - offset).min(ZERO_PIECE as u64) as usize;
                self.write_all(handle, offset, &[&zeros.as_slice()[..piece]])?;
                offset += piece as u64;
            }
            Ok(())
        })
    }

    fn replace(&self, file: &FileName, content: &[Vec<u8>]) -> Result<(), Failure> {
        let slices: Vec<&[u8]> = content.iter().map(Vec::as_slice).collect();
        self.appear(file, true, false, |handle| self.write_all(handle, 0, &slices))
    }

    /// Fills a temporary file and gives it its name, durably.
    fn appear(
        &self,
        file: &FileName,
        replace: bool,
        direct: bool,
        fill: impl FnOnce(&OpenFile) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let path = self.root.join(&**file);
        let harmless = |error: io::Error| Failure::Harmless(told("make", file, &error));
        let poisonous = |error: io::Error| Failure::Poisonous(told("sync", file, &error));
        if !replace && path.exists() {
            return Err(harmless(io::ErrorKind::AlreadyExists.into()));
        }
        let directory = path.parent().ok_or_else(|| harmless(io::ErrorKind::InvalidInput.into()))?;
        self.ensure_directory(directory).map_err(harmless)?;
        let unfinished = unfinished_name(&path);
        let handle = self.calls.open(&unfinished, Access::Fill { direct }).map_err(harmless)?;
        if let Err(error) = fill(&handle) {
            // What was begun is worthless; if it cannot be removed either, the next start does it.
            let _ = self.calls.remove(&unfinished);
            return Err(harmless(error));
        }
        self.calls.sync(&handle).map_err(poisonous)?;
        self.calls.rename(&unfinished, &path).map_err(harmless)?;
        self.forget(file);
        self.calls.sync_directory(directory).map_err(poisonous)
    }

    fn ensure_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        self.ensure_directory(parent)?;
        match self.calls.make_directory(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.calls.sync_directory(parent),
        }
    }

    fn delete(&self, file: &FileName) -> Result<(), Failure> {
        self.forget(file);
        let path = self.root.join(&**file);
        match self.calls.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::Harmless(told("delete", file, &error)));
            }
            _ => {}
        }
        let Some(directory) = path.parent() else { return Ok(()) };
        let poisonous = |error| Failure::Poisonous(told("sync the directory of", file, &error));
        self.calls.sync_directory(directory).map_err(poisonous)
    }

    fn punch(&self, file: &FileName, offset: u64, bytes: u64) -> Result<(), Failure> {
        let handle = self.handle(file, Access::Log { direct: false });
        let punched = handle.and_then(|handle| self.calls.punch(&handle, offset, bytes));
        punched.map_err(|error| Failure::Harmless(told("give back space of", file, &error)))
    }

    fn read_block(&self, file: &FileName, offset: u64, bytes: usize) -> Result<Block, String> {
        let mut builder: BlockBuilder = self.pool.builder(bytes);
        let access = if bytes >= SCAN_MIN { Access::Scan } else { Access::Pick };
        let read = self.read_into(file, access, offset, builder.extend(bytes));
        match read {
            Ok(read) if read == bytes => Ok(builder.freeze()),
            Ok(read) => Err(format!("read {file}: only {read} of {bytes} bytes at {offset}")),
            Err(error) => Err(told("read", file, &error)),
        }
    }

    fn read_into(&self, file: &FileName, access: Access, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let handle = self.handle(file, access)?;
        let mut filled = 0;
        while filled < into.len() {
            match self.calls.read(&handle, offset + filled as u64, &mut into[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(filled)
    }

    fn handle(&self, file: &FileName, access: Access) -> io::Result<Arc<OpenFile>> {
        let key = (file.clone(), Use::of(access));
        if let Some(handle) = self.lock().get(&key) {
            return Ok(handle.clone());
        }
        let handle = Arc::new(self.calls.open(&self.root.join(&**file), access)?);
        let mut handles = self.lock();
        if handles.len() >= HANDLES_MAX {
            handles.clear();
        }
        handles.insert(key, handle.clone());
        Ok(handle)
    }

    fn forget(&self, file: &FileName) {
        let mut handles = self.lock();
        for handle in [Use::Scan, Use::Pick, Use::Change] {
            handles.remove(&(file.clone(), handle));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Handles> {
        // A panic while it was held left at worst a missing handle, which is opened again.
        self.handles.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<C: Calls> Disk for Files<C> {
    fn list(&self, directory: &str) -> Result<Vec<(String, u64)>, String> {
        let mut found = Vec::new();
        list_into(&self.root, &self.root.join(directory), &mut found)
            .map_err(|error| told("list", directory, &error))?;
        found.sort();
        // After a kill the kernel may show bytes that no disk has yet: what is believed from here on must be durable.
        for (file, _) in &found {
            self.handle(&FileName::from(file.as_str()), Access::Scan)
                .and_then(|handle| self.calls.sync(&handle))
                .map_err(|error| told("sync", file, &error))?;
        }
        Ok(found)
    }

    fn read(&self, file: &str, offset: u64, into: &mut [u8]) -> Result<usize, String> {
        let read = self.read_into(&FileName::from(file), Access::Scan, offset, into);
        read.map_err(|error| told("read", file, &error))
    }
}

/// Where the next write begins: slice and place in it, after `written` bytes counted from the start of slice `at`.
fn advanced(
    slices: &[&[u8]],
    mut at: usize,
    mut written: usize,
    empty: bool,
    filled: usize,
) -> (usize, usize) {
    if empty {
        return (at + filled, 0);
    }
    while at < slices.len() && written >= slices[at].len() {
        written -= slices[at].len();
        at += 1;
    }
    (at, written)
}

fn list_into(root: &Path, directory: &Path, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let status = std::fs::metadata(&path)?;
        if status.is_dir() {
            list_into(root, &path, found)?;
        } else if !is_unfinished(&path)
            && let Ok(name) = path.strip_prefix(root)
        {
            found.push((name.to_string_lossy().into_owned(), status.len()));
        }
    }
    Ok(())
}

fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Whether a file was begun and never completed.
fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == UNFINISHED)
}

/// Removes what an interrupted run began and never completed, below `directory`.
pub fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_unfinished(&path)?;
        } else if is_unfinished(&path) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn told(what: &str, file: &str, error: &io::Error) -> String {
    format!("cannot {what} {file}: {error}")
}
