//! Where the bytes of old entries come from: this shard's memory, the ring, or a run that has what is left of them.

use commitlog::{CommitLog, Location, Lookup, Piece, PieceLookup, Prefetch};
use model::{GroupId, Index, QueueId};
use queue::{Fetched, Wanted};

use super::group::{GroupLog, Loaded, QueueGroup, Reader};

/// Entries asked for ahead of the one that is missing: a backlog is read in order.
const READ_AHEAD: u64 = 16;

/// What is asked for besides what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// The entries behind it: a queue's messages are in most of them, and one may be in several.
    Entries(Reader),
    /// Nothing: whoever asks knows better what comes next.
    Nothing,
}

/// The bytes wanted for a queue or log, if they are in memory; else they are being read, and whoever waits is told.
pub(crate) fn find(
    group: (&GroupLog, &mut Loaded, GroupId),
    commit_log: &mut CommitLog,
    log: QueueId,
    wanted: Wanted,
    ahead: Ahead,
) -> Option<Fetched> {
    let (group_log, loaded, group) = group;
    let index = wanted.index;
    if let GroupLog::Memory { entries, .. } = group_log {
        return entries.get(&index).cloned().map(Fetched::entry);
    }
    if let Some(block) = commit_log.cached(group, index) {
        return Some(Fetched::entry(block.clone()));
    }
    if let Ahead::Entries(reader) = ahead {
        loaded.asks(reader, log, wanted);
    }
    if let Some(block) = loaded.find(index) {
        return Some(Fetched::entry(block.clone()));
    }
    match commit_log.location(group, index) {
        Location::Ring => read_entry(loaded, commit_log, group, index, ahead),
        Location::Runs => match loaded.find_piece(log, wanted) {
            Some(piece) => Some(piece.clone()),
            None => read_piece(commit_log, group, log, wanted),
        },
        Location::Gone => unreachable!("entry {index} of group {group} is needed and gone"),
    }
}

fn read_entry(
    loaded: &Loaded,
    commit_log: &mut CommitLog,
    group: GroupId,
    index: Index,
    ahead: Ahead,
) -> Option<Fetched> {
    match commit_log.read(group, index) {
        Lookup::Ready(block) => Some(Fetched::entry(block)),
        Lookup::Pending if ahead == Ahead::Nothing => None,
        Lookup::Pending => {
            let ahead = (1..=READ_AHEAD).map(|ahead| Index(index.0 + ahead));
            for ahead in ahead.filter(|ahead| loaded.find(*ahead).is_none()) {
                commit_log.prefetch(group, ahead);
            }
            None
        }
        Lookup::Gone => unreachable!("entry {index} of group {group} is in the ring and gone"),
    }
}

fn read_piece(commit_log: &mut CommitLog, group: GroupId, log: QueueId, wanted: Wanted) -> Option<Fetched> {
    let Wanted { index, at, ordinal } = wanted;
    match commit_log.read_piece(group, log, index, at, ordinal) {
        PieceLookup::Ready(piece) => Some(fetched(piece)),
        PieceLookup::Pending => None,
        PieceLookup::Gone => unreachable!("what {log} needs of entry {index} of group {group} is in no run"),
    }
}

/// Reads into memory what will be wanted for a log, where that is possible at once.
pub(crate) fn prefetch(
    group: (&GroupLog, &Loaded, GroupId),
    commit_log: &mut CommitLog,
    log: QueueId,
    (index, at): (Index, u32),
) -> Prefetch {
    let (group_log, loaded, group) = group;
    if matches!(group_log, GroupLog::Memory { .. }) || loaded.find(index).is_some() {
        return Prefetch::Known;
    }
    match commit_log.location(group, index) {
        Location::Ring => commit_log.prefetch(group, index),
        Location::Runs => commit_log.prefetch_piece(group, log, index, at),
        Location::Gone => Prefetch::Known,
    }
}

/// A piece as the queues know it.
pub(crate) fn fetched(piece: Piece) -> Fetched {
    let Piece { block, entry_at, start, ordinal, length, .. } = piece;
    Fetched { block, entry_at, start, ordinal, length }
}

impl QueueGroup {
    /// What [`find`] needs to know of a group.
    pub(crate) fn bytes(&mut self) -> (&GroupLog, &mut Loaded, GroupId) {
        (&self.log, &mut self.loaded, self.id)
    }
}
