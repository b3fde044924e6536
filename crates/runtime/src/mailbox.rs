//! What other threads have for a shard: letters in a box that is emptied once per turn.
//!
//! A letter costs a lock, and a system call only when the shard sleeps. Nothing here is per message: a letter is a
//! connection, a batch of mail, a completion.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard};

use commitlog::disk::DiskDone;
use model::{ConnId, ShardId, Status};
use rustix::event::EventfdFlags;
use shard::Mail;

use crate::net::Arrival;

/// One letter.
#[derive(Debug)]
pub enum Letter {
    /// A connection was accepted.
    Arrived(Arrival),
    /// From another shard.
    Mail(ShardId, Mail),
    /// A disk operation ended.
    Disk(DiskDone),
    /// A password was checked.
    Verified(ConnId, bool),
    /// Somebody wants the shard's figures.
    Status(tokio::sync::oneshot::Sender<Status>),
    /// Publishers are to be held back while this is a reason.
    Alarm(Option<&'static str>),
    /// Finish what was taken, then say so.
    Drain,
    /// End every connection that is still there.
    HangUp,
    /// Leave the loop.
    Stop,
}

/// The box of one shard.
#[derive(Debug)]
pub struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    filled: AtomicBool,
    sleeping: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    /// An empty box.
    pub fn new() -> Result<Mailbox, String> {
        let bell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| format!("cannot make an event descriptor: {error}"))?;
        Ok(Mailbox {
            letters: Mutex::default(),
            filled: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            bell,
        })
    }

    /// Puts a letter in and wakes the shard if it sleeps.
    pub fn push(&self, letter: Letter) {
        self.push_all([letter]);
    }

    /// Puts several letters in and wakes the shard at most once.
    pub fn push_all(&self, letters: impl IntoIterator<Item = Letter>) {
        self.lock().extend(letters);
        self.filled.store(true, SeqCst);
        if self.sleeping.swap(false, SeqCst) {
            // Full means that it has been rung and not been heard yet: it will be.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Swaps the letters against the empty `into`.
    pub fn collect(&self, into: &mut Vec<Letter>) {
        if self.filled.swap(false, SeqCst) {
            std::mem::swap(&mut *self.lock(), into);
        }
    }

    /// Says that the shard is about to sleep. False when it must not, because there are letters.
    pub fn may_sleep(&self) -> bool {
        // Either this store is seen by whoever fills the box next, or the load sees what was filled before.
        self.sleeping.store(true, SeqCst);
        let may = !self.filled.load(SeqCst);
        if !may {
            self.sleeping.store(false, SeqCst);
        }
        may
    }

    /// Says that the shard is awake.
    pub fn awake(&self) {
        self.sleeping.store(false, SeqCst);
    }

    /// What becomes readable when a sleeping shard has a letter. Watch its edges: it is never read.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Letter>> {
        // The vector is sound between any two of its own steps.
        self.letters.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_box_forbids_sleep_and_a_sleeper_is_rung_for_once() {
        let mailbox = Mailbox::new().expect("an event descriptor");
        let mut letters = Vec::new();
        assert!(mailbox.may_sleep());
        mailbox.push(Letter::Drain);
        mailbox.push(Letter::Stop);
        let mut rings = [0; 8];
        rustix::io::read(mailbox.bell(), &mut rings).expect("the bell was rung");
        assert_eq!(u64::from_ne_bytes(rings), 1, "once for two letters");
        assert!(!mailbox.may_sleep());
        mailbox.collect(&mut letters);
        assert!(matches!(letters[..], [Letter::Drain, Letter::Stop]));
        assert!(mailbox.may_sleep());
    }
}
