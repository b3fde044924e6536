//! A thread that does disk operations in the order they were given and reports each through the mailbox.
//!
//! Which operations go to which of a shard's lanes is the adapter's business. Waiting writes that lie one behind the
//! other become one write and one sync.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use commitlog::disk::DiskOp;

use super::calls::Calls;
use super::files::Files;
use crate::mailbox::{Letter, Mailbox};
use crate::supervise::{Notices, spawn};

/// Writes taken together at most.
const RUN_MAX: usize = 64;

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ops: VecDeque<DiskOp>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is sound between any two of its own steps.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The near end of the thread. Dropping it ends the thread after the operations it has taken.
#[derive(Debug)]
pub struct Lane {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread.
    pub fn start<C: Calls>(
        name: &str,
        files: Arc<Files<C>>,
        mailbox: Arc<Mailbox>,
        notices: &Notices,
    ) -> Result<Lane, String> {
        let queue = Arc::new(Queue::default());
        let far = queue.clone();
        let thread = spawn(name, notices, move || run(&far, &files, &mailbox))?;
        Ok(Lane { queue, thread: Some(thread) })
    }

    /// Adds an operation.
    pub fn push(&self, op: DiskOp) {
        self.queue.lock().ops.push_back(op);
        self.queue.filled.notify_one();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.filled.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic over there has already been reported by the supervisor.
            let _ = thread.join();
        }
    }
}

fn run<C: Calls>(queue: &Queue, files: &Files<C>, mailbox: &Mailbox) {
    while let Some(work) = next(queue) {
        let done = match &work[..] {
            [single] => vec![files.perform(single)],
            run => files.write_run(run),
        };
        mailbox.push_all(done.into_iter().map(Letter::Disk));
    }
}

/// The next operation, with the writes directly behind it that continue it.
fn next(queue: &Queue) -> Option<Vec<DiskOp>> {
    let mut waiting = queue.lock();
    while waiting.ops.is_empty() {
        if waiting.closed {
            return None;
        }
        waiting = queue.filled.wait(waiting).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
    let mut run = Vec::from_iter(waiting.ops.pop_front());
    while run.len() < RUN_MAX
        && let (Some(last), Some(following)) = (run.last(), waiting.ops.front())
        && continues(last, following)
    {
        run.extend(waiting.ops.pop_front());
    }
    Some(run)
}

/// Whether `following` writes where `last` ends.
fn continues(last: &DiskOp, following: &DiskOp) -> bool {
    match (last, following) {
        (
            DiskOp::Write { file, offset, blocks, .. },
            DiskOp::Write { file: file_2, offset: offset_2, .. },
        ) => file == file_2 && offset + padded_bytes(blocks) == *offset_2,
        _ => false,
    }
}

/// Bytes that the blocks take in the file.
pub fn padded_bytes(blocks: &[base::Block]) -> u64 {
    blocks.iter().map(|block| block.padded().len() as u64).sum()
}
