//! Decides for each disk operation of a shard where it is done: inline or on a thread for the log, for files made and
//! replaced, or for space given back, or on one of several for reads. Readers wait for no file that is being filled, and
//! a new segment waits for no thousand holes.
//!
//! Small writes are done by the shard's own thread when no other write is under way: the hand-over would cost more
//! than the sync of one. They are done after the turn's sends, so that a confirm never waits for the next sync.
//! Operations of one file that depend on each other keep their order, whichever threads do them. Writes keep theirs
//! whatever their files: one is begun when those before it are durable, and none after one that failed.

use std::sync::Arc;

use commitlog::disk::{DiskDone, DiskOp, FileName, OpId};

use super::calls::Calls;
use super::files::Files;
use super::lane::{Lane, padded_bytes};
use crate::mailbox::Mailbox;
use crate::supervise::Notices;

/// Bytes up to which a write is done inline: a window of a hundred messages of 1 KiB still is.
const INLINE_MAX: u64 = 128 << 10;
/// Reads done at once: what comes next is on its way while what was read is checked and sent.
const READERS: usize = 6;

/// One shard's door to its files.
#[derive(Debug)]
pub struct Adapter<C> {
    files: Arc<Files<C>>,
    log: Lane,
    reads: Lane,
    making: Lane,
    freeing: Lane,
    flying: Vec<Flying>,
    parked: Vec<DiskOp>,
    inline: Vec<DiskOp>,
    inline_bytes: u64,
}

/// An operation under way.
#[derive(Debug)]
struct Flying {
    id: OpId,
    place: Place,
    file: FileName,
    touch: Touch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Inline,
    Log,
    Reads,
    Making,
    Freeing,
}

impl Place {
    /// Whether operations of both places keep the order in which they were given, as far as they need one: reads do
    /// not.
    fn keeps_order_with(self, other: Place) -> bool {
        let of_log = |place| matches!(place, Place::Inline | Place::Log);
        self == other || (of_log(self) && of_log(other))
    }
}

/// What of its file an operation touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Read(u64, u64),
    Write(u64, u64),
    Whole,
}

impl Touch {
    fn depends_on(self, other: Touch) -> bool {
        match (self, other) {
            (Touch::Read(..), Touch::Read(..)) => false,
            (Touch::Whole, _) | (_, Touch::Whole) => true,
            (Touch::Read(a, b) | Touch::Write(a, b), Touch::Read(c, d) | Touch::Write(c, d)) => {
                a < d && c < b
            }
        }
    }
}

impl<C: Calls> Adapter<C> {
    /// The adapter of the shard whose completions go to `mailbox`.
    pub fn start(
        name: &str,
        files: Arc<Files<C>>,
        mailbox: &Arc<Mailbox>,
        notices: &Notices,
    ) -> Result<Adapter<C>, String> {
        let lane = |names: &[String]| Lane::start(names, &files, mailbox, notices);
        let readers: Vec<String> = (0..READERS).map(|number| format!("{name}-read-{number}")).collect();
        Ok(Adapter {
            log: lane(&[format!("{name}-log")])?,
            reads: lane(&readers)?,
            making: lane(&[format!("{name}-files")])?,
            freeing: lane(&[format!("{name}-space")])?,
            files,
            flying: Vec::new(),
            parked: Vec::new(),
            inline: Vec::new(),
            inline_bytes: 0,
        })
    }

    /// Takes an operation. Inline ones wait for [`Adapter::work_inline`].
    pub fn submit(&mut self, op: DiskOp) {
        if self.must_wait(&op, self.parked.len()) {
            self.parked.push(op);
        } else {
            self.begin(op);
        }
    }

    /// Does the small writes, blocking; true when there were any.
    pub fn work_inline(&mut self, mut completed: impl FnMut(DiskDone)) -> bool {
        if self.inline.is_empty() {
            return false;
        }
        let ops = std::mem::take(&mut self.inline);
        self.inline_bytes = 0;
        self.flying.retain(|flying| flying.place != Place::Inline);
        for op in &ops {
            let done = self.files.perform(op);
            self.files.calls().completing(&done);
            completed(done);
        }
        self.unpark();
        true
    }

    /// A thread has reported the end of an operation.
    pub fn finished(&mut self, id: OpId) {
        if let Some(at) = self.flying.iter().position(|flying| flying.id == id) {
            self.flying.swap_remove(at);
        }
        self.unpark();
    }

    /// Where crash tests listen.
    pub fn calls(&self) -> &Arc<C> {
        self.files.calls()
    }

    fn begin(&mut self, op: DiskOp) {
        let (id, file, touch) = parts(&op);
        let place = self.place(&op);
        let (id, file) = (id, file.clone());
        match place {
            Place::Inline => self.inline.push(op),
            Place::Log => {
                self.hand_over_inline();
                self.log.push(op);
            }
            Place::Reads => self.reads.push(op),
            Place::Making => self.making.push(op),
            Place::Freeing => self.freeing.push(op),
        }
        self.flying.push(Flying { id, place, file, touch });
    }

    fn place(&mut self, op: &DiskOp) -> Place {
        let DiskOp::Write { blocks, .. } = op else { return usual_place(op) };
        let bytes = self.inline_bytes + padded_bytes(blocks);
        if bytes > INLINE_MAX || self.flying.iter().any(|flying| flying.place == Place::Log) {
            return Place::Log;
        }
        self.inline_bytes = bytes;
        Place::Inline
    }

    /// What waits to be done inline goes to the log thread, ahead of what would have overtaken it there.
    fn hand_over_inline(&mut self) {
        for op in self.inline.drain(..) {
            self.log.push(op);
        }
        self.inline_bytes = 0;
        for flying in self.flying.iter_mut().filter(|flying| flying.place == Place::Inline) {
            flying.place = Place::Log;
        }
    }

    /// Whether `op` depends on something under way elsewhere, or on one of the first `before` parked ones. Writes that
    /// are under way are no matter to a write: all are done by one thread, in order.
    fn must_wait(&self, op: &DiskOp, before: usize) -> bool {
        let (_, file, touch) = parts(op);
        let own = usual_place(op);
        let flying = self.flying.iter();
        let mut blocking = flying.filter(|other| !own.keeps_order_with(other.place) && other.file == *file);
        blocking.any(|other| touch.depends_on(other.touch))
            || self.parked[..before].iter().any(|other| {
                let (_, other_file, other_touch) = parts(other);
                let are_writes = usual_place(other) == Place::Log && own == Place::Log;
                are_writes || (other_file == file && touch.depends_on(other_touch))
            })
    }

    fn unpark(&mut self) {
        let mut at = 0;
        while at < self.parked.len() {
            if self.must_wait(&self.parked[at], at) {
                at += 1;
            } else {
                let op = self.parked.remove(at);
                self.begin(op);
            }
        }
    }
}

/// Where such an operation is done; a small write may be done inline instead.
fn usual_place(op: &DiskOp) -> Place {
    match op {
        DiskOp::Write { .. } => Place::Log,
        DiskOp::Read { .. } => Place::Reads,
        DiskOp::Create { .. } | DiskOp::Prepare { .. } | DiskOp::Put { .. } => Place::Making,
        DiskOp::Punch { .. } | DiskOp::Delete { .. } => Place::Freeing,
    }
}

fn parts(op: &DiskOp) -> (OpId, &FileName, Touch) {
    match op {
        DiskOp::Write { id, file, offset, blocks } => {
            (*id, file, Touch::Write(*offset, offset + padded_bytes(blocks)))
        }
        DiskOp::Read { id, file, offset, bytes } => {
            (*id, file, Touch::Read(*offset, offset.saturating_add(*bytes as u64)))
        }
        DiskOp::Punch { id, file, offset, bytes } => {
            (*id, file, Touch::Write(*offset, offset.saturating_add(*bytes)))
        }
        DiskOp::Create { id, file, .. }
        | DiskOp::Prepare { id, file, .. }
        | DiskOp::Put { id, file, .. }
        | DiskOp::Delete { id, file } => (*id, file, Touch::Whole),
    }
}
