//! What the disk under the servers can do, measured before them: figures without it cannot be compared.
//!
//! In: a directory. Out: the time of one small durable write and the rate of large ones. Leaves nothing behind.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use crate::error::Result;

const SMALL: usize = 4 << 10;
const SMALL_WRITES: usize = 300;
const LARGE: usize = 1 << 20;
const LARGE_WRITES: usize = 256;

/// The limits of a disk, as one thread meets them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Half of all 4 KiB overwrites were on disk within this many microseconds.
    pub(crate) small_us: f64,
    /// Overwriting 1 MiB at a time, each synced.
    pub(crate) large_mb_per_second: f64,
}

/// Writes into a file in `dir`, which is filled first, as a log's segments are.
pub(crate) fn measure(dir: &Path) -> Result<Limits> {
    let path = dir.join("disk-probe");
    let limits = File::create(&path).map_err(Into::into).and_then(|file| probe(file, LARGE_WRITES));
    fs::remove_file(&path)?;
    limits
}

fn probe(mut file: File, large_writes: usize) -> Result<Limits> {
    let block = vec![0x5a; LARGE];
    for _ in 0..large_writes {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    let start = Instant::now();
    for _ in 0..large_writes {
        file.write_all(&block)?;
        file.sync_data()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    file.seek(SeekFrom::Start(0))?;
    let mut times = Vec::with_capacity(SMALL_WRITES);
    for _ in 0..SMALL_WRITES {
        let start = Instant::now();
        file.write_all(&block[..SMALL])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let megabytes = (large_writes * LARGE) as f64 / 1e6;
    Ok(Limits { small_us: times[SMALL_WRITES / 2], large_mb_per_second: megabytes / seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_limits_and_keeps_nothing() {
        let dir = std::env::temp_dir().join(format!("bench-disk-test-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let limits = probe(File::create(dir.join("probe")).unwrap(), 2).unwrap();
        assert!(limits.small_us > 0.0 && limits.large_mb_per_second.is_finite());
        fs::remove_dir_all(dir).unwrap();
    }
}
