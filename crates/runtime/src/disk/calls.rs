//! The system calls of the disk adapter, and the two moments a crash test must see besides them.
//!
//! Every provided method is the real thing; [`System`] is the production layer and overrides nothing. A test
//! overrides methods to record what was asked, or to let it fail.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use base::{PAGE, Pool};
use commitlog::disk::DiskDone;
use model::ConnId;
use rustix::fs::{Advice, FallocateFlags, Mode, OFlags};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read through the page cache, mostly in order: the kernel may read ahead.
    Scan,
    /// To read through the page cache, here and there: the kernel reads what it is asked for. Else what stands behind a
    /// few pieces of one log, which is another's, would be read with them.
    Pick,
    /// To fill a new (or left-over temporary) file, synced once at its end.
    Fill {
        /// Past the page cache.
        direct: bool,
    },
    /// To write parts of an existing file: with `direct`, past the page cache and durable when a write returns;
    /// without, durable after a sync.
    Log {
        /// Past the page cache, and each write synced.
        direct: bool,
    },
}

/// An open file and what it was opened as.
#[derive(Debug)]
pub struct OpenFile {
    /// The descriptor.
    pub fd: OwnedFd,
    /// Where it was found.
    pub path: PathBuf,
    /// What for.
    pub access: Access,
}

impl OpenFile {
    /// Whether a write is durable when it returns.
    pub fn synced_by_write(&self) -> bool {
        self.access == Access::Log { direct: true }
    }
}

/// The system calls made for the shards' files, and hooks for what a crash test orders them against.
pub trait Calls: Send + Sync + 'static {
    /// Whether files where `probe` can be made take direct writes. Some file systems refuse the flag, some take it and
    /// fail the write: only a write tells.
    fn takes_direct_writes(&self, probe: &Path) -> bool {
        let page = Pool::default().block(&[0; PAGE]);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::DIRECT | OFlags::DSYNC | OFlags::CLOEXEC;
        let file = rustix::fs::open(probe, flags, Mode::RUSR | Mode::WUSR);
        file.and_then(|file| rustix::io::pwrite(file, page.padded(), 0)) == Ok(PAGE)
    }

    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<OpenFile> {
        let flags = match access {
            Access::Scan | Access::Pick => OFlags::RDONLY,
            Access::Fill { direct } => OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | direct_flag(direct),
            Access::Log { direct: true } => OFlags::WRONLY | OFlags::DIRECT | OFlags::DSYNC,
            Access::Log { direct: false } => OFlags::WRONLY,
        };
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::open(path, flags | OFlags::CLOEXEC, mode)?;
        if access == Access::Pick {
            // Advice: reading works without.
            let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Random);
        }
        Ok(OpenFile { fd, path: path.to_path_buf(), access })
    }

    /// Gives an empty file its blocks and length.
    fn allocate(&self, file: &OpenFile, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&file.fd, FallocateFlags::empty(), 0, bytes) {
            // A file system without extents: the length alone must do.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(rustix::fs::ftruncate(&file.fd, bytes)?),
            other => Ok(other?),
        }
    }

    /// Writes at `offset`; may be short.
    fn write(&self, file: &OpenFile, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pwritev(&file.fd, parts, offset))?)
    }

    /// Reads what stands at `offset` into one part behind the other; may be short.
    fn read_parts(&self, file: &OpenFile, offset: u64, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::preadv(&file.fd, &mut *parts, offset))?)
    }

    /// Reads at `offset`; may be short.
    fn read(&self, file: &OpenFile, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::pread(&file.fd, &mut *into, offset))?)
    }

    /// Gives the space of a range back, which then reads as zeros.
    fn punch(&self, file: &OpenFile, offset: u64, bytes: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&file.fd, flags, offset, bytes)?)
    }

    /// Makes the file's content (and length) durable.
    fn sync(&self, file: &OpenFile) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&file.fd)?)
    }

    /// Makes a directory's entries durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(rustix::fs::fsync(fd)?)
    }

    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    /// Makes a directory.
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    /// A completion is about to be given to the shard.
    fn completing(&self, _done: &DiskDone) {}

    /// These bytes are about to be offered to a connection's socket.
    fn sending(&self, _conn: ConnId, _parts: &[IoSlice<'_>]) {}

    /// The socket took this many of the bytes just offered.
    fn sent(&self, _conn: ConnId, _bytes: usize) {}
}

fn direct_flag(direct: bool) -> OFlags {
    if direct { OFlags::DIRECT } else { OFlags::empty() }
}

/// The operating system, unobserved.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Calls for System {}
