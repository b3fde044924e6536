//! The log as its users see it: appending, flushing, completions and events.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Block, Bug, PAGE, Pool, planted};
use model::{GroupId, Index, QueueId, ShardId, Term};

use crate::cache::Cache;
use crate::dead_space::DeadSpace;
use crate::disk::{Disk, DiskDone, DiskOp, OpId};
use crate::error::OpenError;
use crate::evacuation::{Evacuation, NotedPiece, Place};
use crate::flushing::{InFlight, Tail};
use crate::frame::{Frame, Kind};
use crate::group::{At, Group, HardState};
use crate::naming::Naming;
use crate::open_flush::{OpenFlush, OpenFrame};
use crate::pieces::{BlockKey, Piece, Reading};
use crate::reading::Reads;
use crate::recover::{self, RecoveredGroup};
use crate::runs::{Run, Runs};
use crate::segment::{Ring, State};

/// How a log is built.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose log it is; names the directory.
    pub shard: ShardId,
    /// Bytes of a segment file, a multiple of the page, below 2 GiB. One flush that needs more gets a larger file.
    pub segment_bytes: u64,
    /// Bytes of memory for recent entries.
    pub cache_bytes_max: usize,
    /// Bytes of reads under way for readers and ahead of them; one read is always allowed.
    pub read_bytes_max: usize,
    /// Bytes of one flush; one entry is always allowed.
    pub flush_bytes_max: usize,
    /// Bytes of segments in use from which on the oldest are evacuated into runs; counts as at least four segments.
    pub ring_bytes_max: u64,
    /// Where blocks come from.
    pub pool: Pool,
}

impl Config {
    /// The usual sizes.
    pub fn new(shard: ShardId, pool: Pool) -> Config {
        Config {
            shard,
            segment_bytes: 64 << 20,
            cache_bytes_max: 64 << 20,
            read_bytes_max: 16 << 20,
            flush_bytes_max: 8 << 20,
            ring_bytes_max: 1 << 30,
            pool,
        }
    }
}

/// The number of a flush: when it is durable, so are all lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// Everything appended or saved under this flush or a lower one survives a power cut.
    Durable(FlushId),
    /// An entry asked for with [`CommitLog::read`].
    Loaded {
        /// Its group.
        group: GroupId,
        /// Its index.
        index: Index,
        /// The entry, or why it cannot be had: an error means that it is damaged or unreadable, never that it is
        /// not there.
        block: Result<Block, String>,
    },
    /// The checkpoint at this index is durable; entries below it that it did not keep are gone.
    Checkpointed {
        /// Its group.
        group: GroupId,
        /// Its index.
        index: Index,
    },
    /// An entry is about to leave the ring: answered with [`CommitLog::evacuate`], once, in the order of the events.
    Evacuating {
        /// Its group.
        group: GroupId,
        /// Its index, at or below the group's checkpoint.
        index: Index,
        /// The entry.
        entry: Block,
    },
    /// An entry of which these pieces were noted is about to leave the ring unread: answered like the one above, with
    /// some of them, or with [`CommitLog::show`] if they do not say enough.
    Adopting {
        /// Its group.
        group: GroupId,
        /// Its index, at or below the group's checkpoint.
        index: Index,
        /// What was noted.
        noted: Arc<[NotedPiece]>,
    },
    /// A piece asked for with [`CommitLog::read_piece`].
    LoadedPiece {
        /// Its group.
        group: GroupId,
        /// The log it was asked for.
        log: QueueId,
        /// Its entry.
        index: Index,
        /// Its place in the entry, as its owner knows it.
        at: u32,
        /// The row that was asked for, counted from there.
        ordinal: u32,
        /// The piece, or why it cannot be had: it is damaged, unreadable, or in no run although its entry left the
        /// ring, which is damage too for whoever needs it.
        piece: Result<Piece, String>,
    },
    /// An entry asked for with [`CommitLog::read`] was cut, forgotten or moved into a run while it waited to be read:
    /// whoever needs it looks again.
    Left {
        /// Its group.
        group: GroupId,
        /// Its index.
        index: Index,
    },
    /// A piece that was asked for was dropped while it was read: nobody needs it any more.
    Dropped {
        /// Its group.
        group: GroupId,
        /// The log it was asked for.
        log: QueueId,
        /// Its entry.
        index: Index,
        /// Its place in the entry, as its owner knows it.
        at: u32,
    },
    /// A write, a sync or a checkpoint failed: from now on nothing becomes durable and nothing is written.
    Failed(String),
}

/// Counters since the log was opened, and sizes now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segment files.
    pub segments: u64,
    /// Those that could be written next.
    pub segments_free: u64,
    /// How often a segment was written again.
    pub segments_reused: u64,
    /// Bytes of all segment files.
    pub ring_bytes: u64,
    /// Payload bytes of entries above their group's checkpoint and of kept ones.
    pub live_bytes: u64,
    /// Flushes written.
    pub syncs: u64,
    /// Frames written.
    pub frames: u64,
    /// Bytes written: segments, runs, manifests and checkpoints.
    pub bytes_written: u64,
    /// Of these, those of runs and manifests.
    pub run_bytes_written: u64,
    /// Of these, those of checkpoints.
    pub checkpoint_bytes_written: u64,
    /// Payload bytes appended.
    pub payload_bytes: u64,
    /// Bytes of memory held by recent entries and blocks of runs.
    pub cache_bytes: u64,
    /// Reads of entries from disk.
    pub reads: u64,
    /// Checkpoints made durable.
    pub checkpoints: u64,
    /// Runs.
    pub runs: u64,
    /// Bytes of the blocks in them.
    pub run_bytes: u64,
    /// The blocks in them.
    pub run_blocks: u64,
    /// Bytes of pieces moved out of the ring, adopted ones included.
    pub evacuated_bytes: u64,
    /// Segments that nothing kept holds any more since it was moved.
    pub evacuated_segments: u64,
    /// Segments that became runs themselves.
    pub adopted_segments: u64,
    /// Of these, those that went back to the ring.
    pub adopted_reused: u64,
    /// Bytes of dead blocks given back.
    pub punched_bytes: u64,
    /// Those of dead blocks that were not yet.
    pub dead_bytes: u64,
}

/// What an operation under way is for.
#[derive(Clone, Debug)]
pub(crate) enum UnderWay {
    Flush,
    Create,
    Prepare(u32),
    Put(GroupId),
    Delete(Option<GroupId>),
    Read { group: GroupId, index: Index, at: At, start: u32, is_ahead: bool },
    Block(Reading),
    Window { batch: u64, from: u32, window: Vec<Place> },
    PutRun { batch: u64 },
    PutManifest,
}

/// Operations asked for.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    queue: VecDeque<DiskOp>,
    under_way: BTreeMap<OpId, UnderWay>,
    count: u64,
}

impl Operations {
    pub fn ask(&mut self, what: UnderWay, op: impl FnOnce(OpId) -> DiskOp) {
        self.count += 1;
        let id = OpId(self.count);
        self.under_way.insert(id, what);
        self.queue.push_back(op(id));
    }
}

/// The commit log of one shard.
#[derive(Debug)]
pub struct CommitLog {
    pub(crate) config: Config,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) ring: Ring,
    pub(crate) tail: Tail,
    /// Flushes not yet written; the last one is being filled.
    pub(crate) open: VecDeque<OpenFlush>,
    pub(crate) spare: Vec<OpenFrame>,
    /// Flushes under way, which the disk writes one after the other.
    pub(crate) in_flight: VecDeque<InFlight>,
    next_number: u64,
    /// The last durable flush.
    pub(crate) durable: u64,
    /// No flush below it is needed for recovery, and a durable file says so.
    pub(crate) floor: u64,
    pub(crate) next_sequence: u64,
    pub(crate) checkpoints_waiting: usize,
    pub(crate) cache: Cache<(GroupId, Index)>,
    /// Blocks of runs.
    pub(crate) blocks: Cache<BlockKey>,
    pub(crate) reads: Reads,
    pub(crate) runs: Runs,
    pub(crate) dead: DeadSpace,
    pub(crate) naming: Option<Naming>,
    pub(crate) evacuation: Evacuation,
    pub(crate) operations: Operations,
    pub(crate) events: VecDeque<LogEvent>,
    /// The disk is nearly full.
    pub(crate) is_scarce: bool,
    /// The floor in the newest durable header, as far as this run wrote it.
    pub(crate) header_floor: u64,
    /// Segments were deleted for which a floor at least as high must be on disk.
    pub(crate) deleted_below: u64,
    pub(crate) failed: bool,
    pub(crate) stats: Stats,
}

impl CommitLog {
    /// Reads what is on disk. The groups come with the places of their entries; [`CommitLog::load`] has the content.
    pub fn open(config: Config, disk: &dyn Disk) -> Result<(CommitLog, Vec<RecoveredGroup>), OpenError> {
        assert!(config.segment_bytes.is_multiple_of(PAGE as u64) && config.segment_bytes >= 4 * PAGE as u64);
        assert!(config.segment_bytes < 1 << 31, "offsets in a segment are 32 bits");
        let (found, recovered) = recover::recover(&config, disk)?;
        let mut log = CommitLog {
            groups: found.groups,
            ring: found.ring,
            tail: found.tail,
            open: VecDeque::new(),
            spare: Vec::new(),
            in_flight: VecDeque::new(),
            next_number: found.next_number,
            durable: found.tail.link.number,
            floor: found.floor,
            next_sequence: found.next_sequence,
            checkpoints_waiting: 0,
            cache: Cache::new(config.cache_bytes_max),
            blocks: Cache::new(config.cache_bytes_max / 4),
            reads: Reads::new(config.read_bytes_max),
            runs: found.runs,
            dead: DeadSpace::default(),
            naming: None,
            evacuation: Evacuation::default(),
            operations: Operations::default(),
            events: VecDeque::new(),
            is_scarce: false,
            header_floor: 0,
            deleted_below: 0,
            failed: false,
            stats: Stats::default(),
            config,
        };
        log.open_another();
        log.finish_removals();
        for file in found.stale {
            log.operations.ask(UnderWay::Delete(None), |id| DiskOp::Delete { id, file });
        }
        log.delete_runs(Vec::new());
        if log.ring.segments.is_empty() {
            let bytes = log.config.segment_bytes;
            log.create_segment(bytes);
        }
        Ok((log, recovered))
    }

    /// Adds an entry to the open flush. `index` follows the group's last one, or cuts what is at and above it.
    pub fn append(&mut self, group: GroupId, term: Term, index: Index, payload: Block) -> FlushId {
        self.make_room(payload.len());
        let state = self.groups.entry(group).or_default();
        assert!(
            !state.jumping && state.removed == 0,
            "nothing is appended while the group is being replaced"
        );
        let open = self.open.back_mut().expect("a flush is always open");
        let (flush, ordinal) = (open.number, open.ordinal());
        let commit = state.hard_state.commit;
        let length = u32::try_from(payload.len()).expect("an entry is far below 4 GiB");
        let kind = Kind::Entry;
        let frame = Frame { kind, group, term, index, commit, length, payload_crc: 0, apart: None };
        let crc = open.entry(frame, &payload);
        let at = At { generation: 0, flush, term, frame: 0, payload: 0, length, crc, slot: 0, ordinal };
        if let Some(last) = state.push(index, at, self.durable) {
            (index.0..=last.0).for_each(|cut| self.cache.remove((group, Index(cut))));
        }
        state.bytes_since += u64::from(length);
        self.stats.payload_bytes += u64::from(length);
        self.cache.insert((group, index), payload, flush, self.durable);
        FlushId(flush)
    }

    /// Remembers term, vote and commit index. A change of the commit index alone opens no flush: it rides on the
    /// group's next frame, and a restart may know a lower one.
    pub fn save(&mut self, group: GroupId, hard_state: HardState) -> FlushId {
        let state = self.groups.entry(group).or_default();
        assert!(hard_state.term >= state.hard_state.term, "a term does not go back");
        let ballot = (hard_state.term, hard_state.vote);
        let only_commit = ballot == (state.hard_state.term, state.hard_state.vote);
        let commit = hard_state.commit.max(state.hard_state.commit);
        state.hard_state = HardState { commit, ..hard_state };
        if let Some((number, head)) = state.saved
            && let Some(open) = self.open.iter_mut().find(|open| open.number == number)
        {
            open.rewrite(head, &hard_state_frame(group, state.hard_state_in(number)));
            return FlushId(number);
        }
        let open = self.open.back_mut().expect("a flush is always open");
        if !only_commit {
            let frame = hard_state_frame(group, state.hard_state_in(open.number));
            state.saved = Some((open.number, open.push(frame)));
        }
        FlushId(open.number)
    }

    /// True when no flush is under way: one sealed now is written at once.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// True when nothing waits to become durable: no entry, no hard state, no checkpoint.
    pub fn is_drained(&self) -> bool {
        self.is_idle() && self.open[0].is_empty() && self.checkpoints_waiting == 0
    }

    /// Takes the outcome of an operation.
    pub fn completed(&mut self, done: DiskDone) {
        let Some(what) = self.operations.under_way.remove(&done.id) else { return };
        match (what, done.result) {
            (UnderWay::Read { group, index, at, start, is_ahead }, result) => {
                self.read_completed((group, index), at, (start, is_ahead), result);
            }
            (UnderWay::Block(reading), result) => self.block_read(reading, result),
            (UnderWay::Window { batch, from, window }, result) => {
                self.window_read(batch, from, window, result);
            }
            (UnderWay::PutRun { batch }, result) => self.run_put(batch, result),
            (UnderWay::PutManifest, result) => self.manifest_put(result),
            (UnderWay::Prepare(slot), Ok(_)) => self.ring.slot_mut(slot).state = State::Fresh,
            // The ring goes on in files created when they are needed.
            (UnderWay::Prepare(slot), Err(_)) => self.ring.segments.retain(|segment| segment.slot != slot),
            (UnderWay::Delete(Some(group)), Ok(_)) => self.removed(group),
            // A file too many is found and deleted at the next start.
            (UnderWay::Create, Ok(_)) | (UnderWay::Delete(_), _) => {}
            (UnderWay::Flush, Ok(_)) => self.flushed(),
            (UnderWay::Flush, Err(_)) if planted(Bug::ConfirmAfterFailedSync) => self.flushed(),
            (UnderWay::Put(group), Ok(_)) => self.checkpointed(group),
            (UnderWay::Flush | UnderWay::Put(_) | UnderWay::Create, Err(why)) => self.fail(why),
        }
    }

    /// The next operation to carry out.
    pub fn poll_op(&mut self) -> Option<DiskOp> {
        self.operations.queue.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }

    /// Counters and sizes. Walks all entries held: for whoever asks once a second, not once a step.
    pub fn stats(&self) -> Stats {
        let newest = self.tail.link.generation;
        let segments = &self.ring.segments;
        let free = |s: &&crate::segment::Segment| s.state == State::Fresh || s.reusable(self.floor, newest);
        let live = |group: &Group| {
            let kept = group.kept.iter().map(|(_, at)| at);
            group.entries.iter().chain(kept).map(|at| u64::from(at.length)).sum::<u64>()
        };
        let runs = self.runs.groups.values().flat_map(|group| &group.runs);
        Stats {
            segments: segments.len() as u64,
            segments_free: segments.iter().filter(free).count() as u64,
            ring_bytes: self.ring.bytes(),
            runs: runs.clone().count() as u64,
            run_bytes: runs.clone().map(Run::bytes).sum(),
            run_blocks: runs.map(|run| run.blocks.len() as u64).sum(),
            live_bytes: self.groups.values().map(live).sum(),
            dead_bytes: self.dead.bytes(),
            cache_bytes: (self.cache.bytes() + self.blocks.bytes()) as u64,
            ..self.stats
        }
    }

    pub(crate) fn open_another(&mut self) {
        let spare = std::mem::take(&mut self.spare);
        self.open.push_back(OpenFlush::new(self.next_number, &self.config.pool, spare));
        self.next_number += 1;
    }

    /// Opens another flush if the last one would grow too large.
    fn make_room(&mut self, bytes: usize) {
        let open = self.open.back().expect("a flush is always open");
        if !open.is_empty() && open.bytes() + bytes + PAGE > self.config.flush_bytes_max {
            self.open_another();
        }
    }

    /// Poisons the log: what a failed sync left on disk is unknown, and the next sync would not tell.
    pub(crate) fn fail(&mut self, why: String) {
        if !self.failed {
            self.failed = true;
            self.events.push_back(LogEvent::Failed(why));
        }
    }
}

/// A hard state as a frame.
pub(crate) fn hard_state_frame(group: GroupId, state: HardState) -> Frame {
    Frame {
        kind: Kind::HardState,
        group,
        term: state.term,
        index: Index(state.vote),
        commit: state.commit,
        length: 0,
        payload_crc: 0,
        apart: None,
    }
}
