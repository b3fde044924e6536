//! A directory that goes when the test ends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    /// On a real file system.
    pub fn on_disk() -> Scratch {
        Scratch::below(&std::env::temp_dir())
    }

    /// In memory where the machine offers that: what a crash leaves is made by hand, not by the file system.
    pub fn in_memory() -> Scratch {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Scratch::below(memory) } else { Scratch::on_disk() }
    }

    fn below(parent: &Path) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("waystation-crash-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch { path: path.canonicalize().expect("it exists") }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
