//! Room on the disk: publishers are held back well before it runs out, and go on by themselves when there is room.
//!
//! Consuming, settling and deleting keep working meanwhile, because they are what makes room.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::mailbox::{Letter, Mailbox};

/// How often the free bytes are counted.
const INTERVAL: Duration = Duration::from_millis(100);
/// As [`INTERVAL`], when there is little more than the least: what publishers write meanwhile must fit into it.
const INTERVAL_NEAR: Duration = Duration::from_millis(5);
/// Fewer free bytes than so many times the least are little more.
const NEAR: u64 = 4;
/// After so many of them the shards are told again while it lasts, so that they go on making room.
const REMIND: u32 = 10;
const REASON: &str = "the disk is nearly full";

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
        let (mut alarmed, mut told) = (false, 0_u32);
        let mut interval = Duration::ZERO;
        loop {
            tokio::time::sleep(interval).await;
            interval = INTERVAL;
            let free = match rustix::fs::statvfs(&self.directory) {
                Ok(status) => status.f_bavail.saturating_mul(status.f_frsize),
                // A file system that cannot be asked cannot be judged; writing to it will tell.
                Err(_) => continue,
            };
            if !alarmed && free < self.least.saturating_mul(NEAR) {
                interval = INTERVAL_NEAR;
            }
            if self.is_short(free, alarmed) != alarmed {
                alarmed = !alarmed;
                self.log(alarmed, free);
            } else if !alarmed || told < REMIND {
                told = told.saturating_add(1);
                continue;
            }
            told = 0;
            for shard in &shards {
                shard.push(Letter::Alarm(alarmed.then_some(REASON)));
            }
        }
    }

    /// It takes a quarter more than the least to go on, lest it go to and fro.
    fn is_short(&self, free: u64, alarmed: bool) -> bool {
        free < if alarmed { self.least.saturating_add(self.least / 4) } else { self.least }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_begins_below_the_least_and_ends_clearly_above() {
        let room = Room { directory: PathBuf::new(), least: 100 };
        assert!(!room.is_short(100, false) && room.is_short(99, false));
        assert!(room.is_short(124, true) && !room.is_short(125, true));
    }
}
