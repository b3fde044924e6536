//! The library's view of the log: terms of everything above the checkpoint, and the bytes of what is not applied
//! yet. It shows what is *appended*, not what is synced; what is durable is told apart (`Replica::durable`).
//!
//! The library reads synchronously and takes errors for the end of the world, so whatever it may ask for is held
//! here in memory. Entries at or below the applied index are asked for only on behalf of a follower.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

#[derive(Debug)]
pub(crate) struct Tail {
    /// The checkpoint's index and term.
    base: (u64, u64),
    /// (first index, term) of each run of equal terms above the base, ascending.
    terms: Vec<(u64, u64)>,
    last: u64,
    /// Bytes of `data_first..=last`.
    data: VecDeque<Bytes>,
    data_first: u64,
    hard_state: HardState,
    voters: Vec<u64>,
}

impl Tail {
    pub(crate) fn new(base: (u64, u64), hard_state: HardState, voters: Vec<u64>) -> Tail {
        Tail {
            base,
            terms: Vec::new(),
            last: base.0,
            data: VecDeque::new(),
            data_first: base.0 + 1,
            hard_state,
            voters,
        }
    }

    /// Appends an entry; at or below the last index it cuts the suffix first.
    pub(crate) fn append(&mut self, index: u64, term: u64, data: Bytes) {
        assert!(index <= self.last + 1 && index > self.base.0, "the log has no gaps");
        if index <= self.last {
            self.cut(index);
        }
        if self.terms.last().is_none_or(|(_, newest)| *newest != term) {
            self.terms.push((index, term));
        }
        self.data.push_back(data);
        self.last = index;
    }

    fn cut(&mut self, from: u64) {
        assert!(from >= self.data_first, "an applied entry is never cut");
        self.data.truncate((from - self.data_first) as usize);
        while self.terms.last().is_some_and(|(first, _)| *first >= from) {
            self.terms.pop();
        }
        self.last = from - 1;
    }

    /// The bytes up to `index` are not needed here any more.
    pub(crate) fn applied(&mut self, index: u64) {
        while self.data_first <= index && !self.data.is_empty() {
            self.data.pop_front();
            self.data_first += 1;
        }
    }

    /// A checkpoint at `index` is durable: what lies below is the checkpoint's.
    pub(crate) fn compact(&mut self, index: u64) {
        if index <= self.base.0 || index >= self.data_first {
            return;
        }
        let Some(term) = self.term_of(index) else { return };
        while self.terms.len() > 1 && self.terms[1].0 <= index + 1 {
            self.terms.remove(0);
        }
        if let Some(first) = self.terms.first_mut() {
            first.0 = first.0.max(index + 1);
        }
        self.base = (index, term);
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        if index < self.base.0 || index > self.last {
            return None;
        }
        self.terms.iter().rev().find(|(first, _)| *first <= index).map(|(_, term)| *term)
    }
}

impl raft::Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = ConfState::from((self.voters.clone(), Vec::new()));
        Ok(RaftState::new(self.hard_state.clone(), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.data_first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut entries = Vec::with_capacity((high - low) as usize);
        for index in low..high {
            let data = &self.data[(index - self.data_first) as usize];
            size += data.len() as u64;
            if size > limit && !entries.is_empty() {
                break;
            }
            let term = self.term(index)?;
            entries.push(Entry { index, term, data: data.clone(), ..Entry::default() });
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.base.0 { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or(raft::Error::Store(missing))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail() -> Tail {
        let mut tail = Tail::new((10, 2), HardState::default(), vec![1]);
        for (index, term) in [(11, 2), (12, 3), (13, 3), (14, 5)] {
            tail.append(index, term, Bytes::from(vec![index as u8]));
        }
        tail
    }

    #[test]
    fn terms_are_known_from_the_checkpoint_to_the_end() {
        let tail = tail();
        let terms: Vec<_> = (9..=15).map(|index| tail.term_of(index)).collect();
        assert_eq!(terms, [None, Some(2), Some(2), Some(3), Some(3), Some(5), None]);
    }

    #[test]
    fn a_later_entry_of_the_same_index_cuts_the_suffix() {
        let mut tail = tail();
        tail.append(12, 6, Bytes::from_static(b"new"));
        assert_eq!((tail.term_of(12), tail.term_of(13), tail.last), (Some(6), None, 12));
        let read = raft::Storage::entries(&tail, 11, 13, None, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(read.iter().map(|e| (e.index, e.term)).collect::<Vec<_>>(), [(11, 2), (12, 6)]);
    }

    #[test]
    fn applied_bytes_leave_and_a_checkpoint_moves_the_base() {
        let mut tail = tail();
        tail.applied(13);
        tail.compact(12);
        assert_eq!(raft::Storage::first_index(&tail).unwrap(), 13);
        let terms: Vec<_> = (11..=14).map(|index| tail.term_of(index)).collect();
        assert_eq!(terms, [None, Some(3), Some(3), Some(5)]);
        assert!(raft::Storage::entries(&tail, 13, 14, None, GetEntriesContext::empty(false)).is_err());
        assert_eq!(
            raft::Storage::entries(&tail, 14, 15, None, GetEntriesContext::empty(false)).unwrap().len(),
            1
        );
    }
}
