//! Room on the disk: publishers are held back well before it runs out, and go on by themselves when there is room.
//!
//! Consuming, settling and deleting keep working meanwhile, because they are what makes room. When which is due is
//! [`DiskAlarm`]'s to say.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shard::DiskAlarm;

use crate::mailbox::{Letter, Mailbox};

/// How long it takes until a file system is asked again that could not be.
const AGAIN: Duration = Duration::from_millis(100);

/// What is watched.
#[derive(Debug)]
pub struct Room {
    /// A directory of the file system.
    pub directory: PathBuf,
    /// Free bytes below which publishers are held back.
    pub least: u64,
}

impl Room {
    /// Watches for ever and tells the shards of every change.
    pub async fn watch(self, shards: Vec<Arc<Mailbox>>) {
        let mut alarm = DiskAlarm::new(self.least);
        let mut interval = Duration::ZERO;
        loop {
            tokio::time::sleep(interval).await;
            let free = match rustix::fs::statvfs(&self.directory) {
                Ok(status) => status.f_bavail.saturating_mul(status.f_frsize),
                // A file system that cannot be asked cannot be judged; writing to it will tell.
                Err(_) => {
                    interval = AGAIN;
                    continue;
                }
            };
            let counted = alarm.counted(free);
            interval = Duration::from_micros(counted.again_us);
            if counted.has_changed {
                self.log(alarm.is_on(), free);
            }
            let Some(reason) = counted.tell else { continue };
            for shard in &shards {
                shard.push(Letter::Alarm(reason));
            }
        }
    }

    fn log(&self, alarmed: bool, free: u64) {
        let (least, place) = (self.least, self.directory.display());
        if alarmed {
            tracing::warn!(
                "publishers are held back: {free} bytes are free at {place}, fewer than free_bytes_min ({least}); \
                 make room, they go on by themselves"
            );
        } else {
            tracing::info!("publishers go on: {free} bytes are free at {place}");
        }
    }
}
