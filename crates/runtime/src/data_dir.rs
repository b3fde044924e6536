//! The data directory: one process at a time, a known format, a start number that rises.
//!
//! ```text
//! waystation-data/lock        held (flock) while a process runs here; contains its number
//! waystation-data/node        this file's own format, node id, start number, shards, groups
//! waystation-data/shard-N/    belongs to shard N
//! ```
//! The node file is replaced as a whole and synced before anything is served, so a start number is never used twice.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use model::NodeId;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::disk::remove_unfinished;

/// The format written, and the highest understood.
const VERSION: u32 = 1;

/// What a data directory says about its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    version: u32,
    /// The node.
    node: u16,
    /// How many times it was started.
    pub boot: u32,
    /// Its shards.
    pub shards: u16,
    /// Its queue groups.
    pub groups: u32,
}

impl NodeFile {
    /// The node's id.
    pub fn node(&self) -> NodeId {
        NodeId(self.node)
    }
}

/// A data directory that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: std::fs::File,
}

impl DataDir {
    /// Takes the directory, making it if it is missing.
    pub fn lock(path: &Path) -> Result<DataDir, String> {
        let told = |what: &str, error: std::io::Error| format!("cannot {what} {}: {error}", path.display());
        std::fs::create_dir_all(path).map_err(|error| {
            match path.ancestors().find(|above| above.is_file()) {
                Some(file) => format!(
                    "cannot use {} as data directory: {} is a file; choose another directory with --data-dir",
                    path.display(),
                    file.display()
                ),
                None => told("make the data directory", error),
            }
        })?;
        let path = path.canonicalize().map_err(|error| told("find the data directory", error))?;
        let lock = path.join("lock");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)
            .map_err(|error| format!("cannot open {}: {error}", lock.display()))?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Without its number the message is still true.
            let _ = file.read_to_string(&mut holder);
            return Err(format!(
                "data directory {} is locked by another waystation process (pid {}); stop it or choose another \
                 directory with --data-dir",
                path.display(),
                holder.trim()
            ));
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| format!("cannot write {}: {error}", lock.display()))?;
        remove_unfinished(&path).map_err(|error| format!("cannot tidy up {}: {error}", path.display()))?;
        Ok(DataDir { path, _lock: file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a start: checks the format and the wanted numbers, raises the start number, durably.
    pub fn begin_start(&self, shards: Option<u16>, groups: Option<u32>) -> Result<NodeFile, String> {
        let node = match self.read()? {
            Some(known) => self.again(known, shards, groups)?,
            None => first(shards, groups),
        };
        self.write(&node)?;
        Ok(node)
    }

    fn again(&self, known: NodeFile, shards: Option<u16>, groups: Option<u32>) -> Result<NodeFile, String> {
        let fixed = |what: &str, wanted: u32, there: u32| {
            format!(
                "data directory {} was made with {there} {what}, and {wanted} are configured; the number cannot \
                 change: configure {there} or nothing",
                self.path.display()
            )
        };
        if let Some(shards) = shards.filter(|shards| *shards != known.shards) {
            return Err(fixed("shards", shards.into(), known.shards.into()));
        }
        if let Some(groups) = groups.filter(|groups| *groups != known.groups) {
            return Err(fixed("groups", groups, known.groups));
        }
        let boot = known.boot.checked_add(1).ok_or("this node has been started too often")?;
        Ok(NodeFile { boot, ..known })
    }

    fn read(&self) -> Result<Option<NodeFile>, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = self.path.join("node");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return self.must_be_empty(),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let damaged = |error: toml::de::Error| format!("{} is damaged: {}", path.display(), error.message());
        let Versioned { version } = toml::from_str(&text).map_err(damaged)?;
        if version > VERSION {
            return Err(format!(
                "data directory {} was written by a newer waystation (format {version}; this one knows formats up \
                 to {VERSION}): start that version, or use another directory",
                self.path.display()
            ));
        }
        toml::from_str(&text).map_err(damaged).map(Some)
    }

    /// Shards without a node file are not a fresh directory: starting over would give numbers out again.
    fn must_be_empty(&self) -> Result<Option<NodeFile>, String> {
        let entries = std::fs::read_dir(&self.path);
        let entries = entries.map_err(|error| format!("cannot list {}: {error}", self.path.display()))?;
        let shard = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("shard-");
        if entries.flatten().any(|entry| shard(&entry)) {
            return Err(format!(
                "data directory {} has shards but its file 'node' is missing; restore it from a backup, or use \
                 another directory",
                self.path.display()
            ));
        }
        Ok(None)
    }

    fn write(&self, node: &NodeFile) -> Result<(), String> {
        let path = self.path.join("node");
        let told = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
        let text =
            toml::to_string(node).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let unfinished = self.path.join("node.tmp");
        let mut file = std::fs::File::create(&unfinished).map_err(told)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(told)?;
        std::fs::rename(&unfinished, &path).map_err(told)?;
        std::fs::File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(told)
    }
}

fn first(shards: Option<u16>, groups: Option<u32>) -> NodeFile {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // One core is left for the log threads, HTTP and the kernel's share.
    let shards = shards.unwrap_or(cores.saturating_sub(1).clamp(1, 256) as u16);
    NodeFile { version: VERSION, node: 1, boot: 1, shards, groups: groups.unwrap_or(shards.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn every_start_has_a_higher_number_and_the_same_shards() {
        let scratch = Scratch::new();
        for boot in 1..4 {
            let dir = DataDir::lock(&scratch.path).expect("free");
            let node = dir.begin_start(Some(3), None).expect("a start");
            assert_eq!((node.boot, node.shards, node.groups, node.node()), (boot, 3, 3, NodeId(1)));
        }
        let dir = DataDir::lock(&scratch.path).expect("free");
        assert_eq!(dir.begin_start(None, None).expect("a start").shards, 3, "as it was made");
        let refusal = dir.begin_start(Some(2), None).expect_err("refused");
        assert!(refusal.contains("made with 3 shards, and 2 are configured"), "{refusal}");
    }

    #[test]
    fn a_second_process_is_told_who_holds_the_lock() {
        let scratch = Scratch::new();
        let _held = DataDir::lock(&scratch.path).expect("free");
        let refusal = DataDir::lock(&scratch.path).expect_err("held");
        let pid = format!("locked by another waystation process (pid {})", std::process::id());
        assert!(refusal.contains(&pid), "{refusal}");
    }

    #[test]
    fn a_file_where_the_directory_should_be_is_named() {
        let scratch = Scratch::new();
        let file = scratch.path.join("file");
        std::fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("below")] {
            let refusal = DataDir::lock(&path).expect_err("refused");
            let told =
                format!("cannot use {} as data directory: {} is a file", path.display(), file.display());
            assert!(refusal.starts_with(&told) && refusal.contains("--data-dir"), "{refusal}");
        }
    }

    #[test]
    fn a_newer_damaged_or_missing_node_file_is_refused() {
        let scratch = Scratch::new();
        let dir = DataDir::lock(&scratch.path).expect("free");
        let node = scratch.path.join("node");
        for (text, complaint) in
            [("version = 2\nnew = true\n", "newer waystation (format 2"), ("version =", "damaged")]
        {
            std::fs::write(&node, text).expect("written");
            let refusal = dir.begin_start(None, None).expect_err("refused");
            assert!(refusal.contains(complaint), "{refusal}");
        }
        std::fs::remove_file(&node).expect("removed");
        std::fs::create_dir(scratch.path.join("shard-0")).expect("made");
        let refusal = dir.begin_start(None, None).expect_err("refused");
        assert!(refusal.contains("'node' is missing"), "{refusal}");
    }
}
