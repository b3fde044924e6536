//! Proposing, persisting, committing: the loop around the library, with asynchronous persistence.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use base::{Block, Bug, Pool, planted};
use commitlog::disk::Disk;
use commitlog::{CommitLog, FlushId, OpenError, RecoveredGroup};
use model::{GroupId, Index, NodeId, Term};
use raft::eraftpb::{Entry, HardState, Message, MessageType};
use raft::{RawNode, StateRole};

use crate::tail::Tail;

/// A committed entry, to be applied now.
#[derive(Debug)]
pub struct Committed {
    /// Its place.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// Its bytes; empty for the entry with which a leader opens its term.
    pub block: Block,
}

/// What this replica is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, and has applied an entry of its own term.
    Leader,
    /// It does not lead, or not yet.
    Follower,
}

/// The library found its own state impossible; the group stands still, others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halted(pub String);

/// One group on this node.
pub struct Replica {
    group: GroupId,
    node: RawNode<Tail>,
    pool: Pool,
    /// Proposed blocks by index, until they are appended.
    proposed: VecDeque<(u64, Block)>,
    /// Appended blocks, until they are committed.
    appended: VecDeque<(u64, Block)>,
    /// Readies that wait for a flush: (number, flush).
    persisting: VecDeque<(u64, FlushId)>,
    committed: VecDeque<Committed>,
    applied: u64,
    /// The index of the first entry of the own term, once leading.
    opened_at: Option<u64>,
    uncommitted_bytes: usize,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica({}, applied {})", self.group, self.applied)
    }
}

impl Replica {
    /// Opens the group as recovered and returns the committed entries above its checkpoint, which the caller
    /// applies first. The library never reads them: it is started as having applied them.
    pub fn open(
        node: NodeId,
        recovered: &RecoveredGroup,
        pool: Pool,
        log: &mut CommitLog,
        disk: &dyn Disk,
    ) -> Result<(Replica, Vec<Committed>), OpenError> {
        let base = recovered.checkpoint.as_ref().map_or((0, 0), |c| (c.index.0, c.term.0));
        let commit = recovered.hard_state.commit.0.max(base.0);
        let hard_state = HardState {
            term: recovered.hard_state.term.0,
            vote: recovered.hard_state.vote,
            commit,
            ..HardState::default()
        };
        let mut tail = Tail::new(base, hard_state, vec![u64::from(node.0)]);
        let mut replay = Vec::new();
        let mut appended = VecDeque::new();
        for (index, term) in &recovered.entries {
            let block = log.load(disk, recovered.group, *index)?;
            tail.append(index.0, term.0, block.to_bytes());
            if index.0 <= commit {
                replay.push(Committed { index: *index, term: *term, block });
                tail.applied(index.0);
            } else {
                appended.push_back((index.0, block));
            }
        }
        let node = Self::library(node, commit, tail)?;
        let replica = Replica::with(recovered.group, node, pool, appended, commit);
        Ok((replica, replay))
    }

    /// Starts a group that has no log yet, and leads it as soon as its vote is durable.
    pub fn create(node: NodeId, group: GroupId, pool: Pool, log: &mut CommitLog) -> Result<Replica, String> {
        let tail = Tail::new((0, 0), HardState::default(), vec![u64::from(node.0)]);
        let node = Self::library(node, 0, tail).map_err(|error| error.to_string())?;
        let mut replica = Replica::with(group, node, pool, VecDeque::new(), 0);
        replica.campaign(log).map_err(|halted| halted.0)?;
        Ok(replica)
    }

    fn with(
        group: GroupId,
        node: RawNode<Tail>,
        pool: Pool,
        appended: VecDeque<(u64, Block)>,
        applied: u64,
    ) -> Replica {
        Replica {
            group,
            node,
            pool,
            proposed: VecDeque::new(),
            appended,
            persisting: VecDeque::new(),
            committed: VecDeque::new(),
            applied,
            opened_at: None,
            uncommitted_bytes: 0,
        }
    }

    fn library(node: NodeId, applied: u64, tail: Tail) -> Result<RawNode<Tail>, OpenError> {
        let config = raft::Config {
            id: u64::from(node.0),
            election_tick: 10,
            heartbeat_tick: 3,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: u64::MAX,
            max_committed_size_per_ready: u64::MAX,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        RawNode::new(&config, tail, &logger).map_err(|error| OpenError::Failed(error.to_string()))
    }

    /// Stands for election. A single voter wins as soon as its vote is durable.
    pub fn campaign(&mut self, log: &mut CommitLog) -> Result<(), Halted> {
        self.guarded(|replica| {
            // Refused only while a configuration change is not applied; there is none yet.
            let _ = replica.node.campaign();
        })?;
        self.advance(log)
    }

    /// Proposes one sealed entry. Gives it back when this replica does not lead: it definitely did not happen.
    pub fn propose(&mut self, block: Block) -> Result<(), Block> {
        let index = self.node.raft.raft_log.last_index() + 1;
        let entry = Entry { data: block.to_bytes(), ..Entry::default() };
        let mut message = Message { from: self.node.raft.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.mut_entries().push(entry);
        let size = block.len();
        self.proposed.push_back((index, block));
        let outcome = self.guarded(|replica| replica.node.step(message));
        if matches!(outcome, Ok(Ok(()))) {
            self.uncommitted_bytes += size;
            return Ok(());
        }
        match self.proposed.pop_back() {
            Some((_, block)) => Err(block),
            None => Ok(()),
        }
    }

    /// Takes what the library wants persisted to the log and collects what it has committed.
    pub fn advance(&mut self, log: &mut CommitLog) -> Result<(), Halted> {
        self.guarded(|replica| {
            while replica.node.has_ready() {
                replica.take_ready(log);
            }
        })
    }

    fn take_ready(&mut self, log: &mut CommitLog) {
        let mut ready = self.node.ready();
        let mut flush = ready.hs().map(|hard_state| log.save(self.group, to_log(hard_state)));
        if !ready.must_sync() {
            // Only the commit index moved: it rides along with whatever is written next.
            flush = None;
        }
        for entry in ready.take_entries() {
            flush = Some(self.append(entry, log));
        }
        for entry in ready.take_committed_entries() {
            self.commit(&entry);
        }
        let number = ready.number();
        self.node.advance_append_async(ready);
        match flush {
            Some(flush) if !planted(Bug::ApplyBeforeCommit) => self.persisting.push_back((number, flush)),
            _ if self.persisting.is_empty() => self.node.on_persist_ready(number),
            // Readies are persisted in order: this one goes with the one before.
            _ => {
                if let Some(last) = self.persisting.back_mut() {
                    last.0 = number;
                }
            }
        }
    }

    fn append(&mut self, entry: Entry, log: &mut CommitLog) -> FlushId {
        while self.proposed.front().is_some_and(|(index, _)| *index < entry.index) {
            self.proposed.pop_front();
        }
        let ours = self.proposed.front().is_some_and(|(index, block)| {
            *index == entry.index && block.as_slice().as_ptr() == entry.data.as_ptr()
        });
        let block = match ours.then(|| self.proposed.pop_front()).flatten() {
            Some((_, block)) => block,
            None => self.pool.block(&entry.data),
        };
        while self.appended.back().is_some_and(|(index, _)| *index >= entry.index) {
            self.appended.pop_back();
        }
        self.appended.push_back((entry.index, block.clone()));
        self.node.mut_store().append(entry.index, entry.term, entry.data);
        log.append(self.group, Term(entry.term), Index(entry.index), block)
    }

    fn commit(&mut self, entry: &Entry) {
        let Some((index, block)) = self.appended.pop_front() else {
            unreachable!("a committed entry was appended here")
        };
        assert_eq!(index, entry.index, "entries are committed in the order they were appended");
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(block.len());
        self.committed.push_back(Committed { index: Index(index), term: Term(entry.term), block });
    }

    /// Everything up to `flush` is on disk.
    pub fn durable(&mut self, flush: FlushId, log: &mut CommitLog) -> Result<(), Halted> {
        let mut number = None;
        while let Some((ready, _)) = self.persisting.front().filter(|(_, waits)| *waits <= flush) {
            number = Some(*ready);
            self.persisting.pop_front();
        }
        if let Some(number) = number {
            self.guarded(|replica| replica.node.on_persist_ready(number))?;
        }
        self.advance(log)
    }

    /// The next committed entry to apply.
    pub fn poll_committed(&mut self) -> Option<Committed> {
        self.committed.pop_front()
    }

    /// The machine has applied everything up to `index`.
    pub fn applied(&mut self, index: Index, term: Term) -> Result<(), Halted> {
        self.applied = index.0;
        if self.opened_at.is_none()
            && self.node.raft.state == StateRole::Leader
            && term.0 == self.node.raft.term
        {
            self.opened_at = Some(index.0);
        }
        self.node.mut_store().applied(index.0);
        self.guarded(|replica| replica.node.advance_apply_to(index.0))
    }

    /// A checkpoint at `index` is durable.
    pub fn checkpointed(&mut self, index: Index) {
        self.node.mut_store().compact(index.0);
    }

    /// Whether this replica may serve: it leads and has applied an entry of its own term.
    pub fn role(&self) -> Role {
        let leads = self.node.raft.state == StateRole::Leader && self.opened_at.is_some();
        if leads { Role::Leader } else { Role::Follower }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term(self.node.raft.term)
    }

    /// The last applied index and its term.
    pub fn applied_at(&self) -> (Index, Term) {
        let term = self.node.store().term_of(self.applied).unwrap_or(0);
        (Index(self.applied), Term(term))
    }

    /// Bytes proposed and not committed yet.
    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// A panic in the library is the group's end, not the node's.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> Result<T, Halted> {
        catch_unwind(AssertUnwindSafe(|| act(self))).map_err(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            Halted(format!("group {} halted: the consensus library found: {text}", self.group))
        })
    }
}

fn to_log(hard_state: &HardState) -> commitlog::HardState {
    commitlog::HardState {
        term: Term(hard_state.term),
        vote: hard_state.vote,
        commit: Index(hard_state.commit),
    }
}
