//! A thread that does disk operations in the order they were given and reports each through the mailbox; or several
//! threads, for operations that need no order.
//!
//! Which operations go to which of a shard's lanes is the adapter's business. Waiting reads that lie one behind the
//! other become one read. Writes never: one is begun when the one before is durable.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use base::PAGE;
use commitlog::disk::DiskOp;

use super::calls::Calls;
use super::files::Files;
use crate::mailbox::{Letter, Mailbox};
use crate::supervise::{Notices, spawn};

/// Reads taken together at most.
const RUN_MAX: usize = 64;
/// Bytes of reads taken together at most.
const READ_RUN_BYTES: usize = 1 << 20;

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

/// The near end of the threads. Dropping it ends them after the operations that were given.
#[derive(Debug)]
pub struct Lane {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    /// Starts a thread of each name.
    pub fn start<C: Calls>(
        names: &[String],
        files: &Arc<Files<C>>,
        mailbox: &Arc<Mailbox>,
        notices: &Notices,
    ) -> Result<Lane, String> {
        let mut lane = Lane { queue: Arc::new(Queue::default()), threads: Vec::with_capacity(names.len()) };
        for name in names {
            let (far, files, mailbox) = (lane.queue.clone(), files.clone(), mailbox.clone());
            lane.threads.push(spawn(name, notices, move || run(&far, &files, &mailbox))?);
        }
        Ok(lane)
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
        self.queue.filled.notify_all();
        for thread in self.threads.drain(..) {
            // A panic over there has already been reported by the supervisor.
            let _ = thread.join();
        }
    }
}

fn run<C: Calls>(queue: &Queue, files: &Files<C>, mailbox: &Mailbox) {
    while let Some(work) = next(queue) {
        let done = match &work[..] {
            [single] => vec![files.perform(single)],
            reads => files.read_run(reads),
        };
        mailbox.push_all(done.into_iter().map(Letter::Disk));
    }
}

/// The next operation, with the reads directly behind it that continue it.
fn next(queue: &Queue) -> Option<Vec<DiskOp>> {
    let mut waiting = queue.lock();
    while waiting.ops.is_empty() {
        if waiting.closed {
            return None;
        }
        waiting = queue.filled.wait(waiting).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
    let mut run = Vec::from_iter(waiting.ops.pop_front());
    let mut bytes = run.first().map_or(0, bytes_read);
    while run.len() < RUN_MAX
        && let (Some(last), Some(following)) = (run.last(), waiting.ops.front())
        && continues(last, following)
        && bytes + bytes_read(following) <= READ_RUN_BYTES
    {
        bytes += bytes_read(following);
        run.extend(waiting.ops.pop_front());
    }
    Some(run)
}

fn bytes_read(op: &DiskOp) -> usize {
    if let DiskOp::Read { bytes, .. } = op { *bytes } else { 0 }
}

/// Whether both are reads and `following` begins at the next page behind `last`.
fn continues(last: &DiskOp, following: &DiskOp) -> bool {
    match (last, following) {
        (DiskOp::Read { file, offset, bytes, .. }, DiskOp::Read { file: file_2, offset: offset_2, .. }) => {
            let end =
                offset.checked_add(*bytes as u64).and_then(|end| end.checked_next_multiple_of(PAGE as u64));
            file == file_2 && offset.is_multiple_of(PAGE as u64) && end == Some(*offset_2)
        }
        _ => false,
    }
}

/// Bytes that the blocks take in the file.
pub fn padded_bytes(blocks: &[base::Block]) -> u64 {
    blocks.iter().map(|block| block.padded().len() as u64).sum()
}
