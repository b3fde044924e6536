//! What the log knows of one group: where its entries stand, which of those below its checkpoint are kept, and what
//! of it holds back the reuse of segments.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Bug, planted};
use model::{Index, Term};

use crate::checkpoint::Waiting;
use crate::evacuation::NotedPiece;
use crate::runs::has_moved;

/// What a replica must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The term.
    pub term: Term,
    /// Who got this node's vote in that term, 0 nobody.
    pub vote: u64,
    /// The commit index as far as known.
    pub commit: Index,
}

impl HardState {
    /// Takes what is newer of another state of the same replica; neither term nor commit index goes back.
    pub(crate) fn join(&mut self, other: HardState) {
        if (other.term, other.vote) > (self.term, self.vote) {
            (self.term, self.vote) = (other.term, other.vote);
        }
        self.commit = self.commit.max(other.commit);
    }
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    /// 0 while its flush has no place yet.
    pub generation: u64,
    pub flush: u64,
    pub term: Term,
    /// Offset of the frame header in the segment.
    pub frame: u32,
    /// Offset of the payload in the segment.
    pub payload: u32,
    pub length: u32,
    /// Checksum of the payload.
    pub crc: u32,
    pub slot: u32,
    /// Which frame of its flush.
    pub ordinal: u32,
}

/// Old frames that a flush not yet durable cuts: until it is, they are the truth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    oldest: u64,
    by: u64,
}

/// Ranges of indexes, inclusive.
pub(crate) type Ranges<'a> = &'a [(Index, Index)];

/// One group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// The durable checkpoint.
    pub index: Index,
    pub term: Term,
    /// Sequence number of its file, 0 if there is none.
    pub file: u64,
    /// The floor it names.
    pub floor: u64,
    /// The entries above it, contiguous.
    pub entries: VecDeque<At>,
    /// Those at or below it that are still needed, ascending.
    pub kept: Vec<(Index, At)>,
    /// What is known of the content of some of these entries.
    pub noted: BTreeMap<Index, Arc<[NotedPiece]>>,
    pub hard_state: HardState,
    /// The flush of the newest durable frame with a hard state that no durable checkpoint holds, 0 if none.
    pub saved_durable: u64,
    /// The newest frame with a hard state: flush and offset in its head.
    pub saved: Option<(u64, u32)>,
    pub cut: Option<Cut>,
    /// Bytes appended since the last checkpoint was asked for.
    pub bytes_since: u64,
    /// The newest generation when the last checkpoint was asked for.
    pub asked_in: u64,
    /// A checkpoint is wanted soon, for the space that it gives back.
    pub is_urged: bool,
    /// Checkpoints asked for, the first perhaps under way.
    pub checkpoints: VecDeque<Waiting>,
    /// A checkpoint that replaces the log is not durable yet.
    pub jumping: bool,
    /// The flush that says that the group is no more, 0 while it is.
    pub removed: u64,
    /// Its last file is being deleted.
    pub is_leaving: bool,
}

impl Group {
    /// Wants a checkpoint soon, if there is anything above the last one.
    pub fn urge(&mut self) {
        self.is_urged = !self.entries.is_empty();
    }

    pub fn last(&self) -> Index {
        Index(self.index.0 + self.entries.len() as u64)
    }

    /// Where the entry stands, if it is held.
    pub fn at(&self, index: Index) -> Option<&At> {
        if index > self.index {
            return self.entries.get((index.0 - self.index.0 - 1) as usize);
        }
        let place = self.kept.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(&self.kept[place].1)
    }

    pub fn at_mut(&mut self, index: Index) -> Option<&mut At> {
        let place = index.0.checked_sub(self.index.0 + 1)?;
        self.entries.get_mut(place as usize)
    }

    /// The hard state as a frame of that flush may have it: a commit index must not speak for entries that come
    /// later, where a restart would take it for that of others with the same index, which they cut.
    pub fn hard_state_in(&self, flush: u64) -> HardState {
        let here = self.entries.partition_point(|at| at.flush <= flush) as u64;
        HardState { commit: self.hard_state.commit.min(Index(self.index.0 + here)), ..self.hard_state }
    }

    /// Adds an entry, cutting what is at or above its index; returns the last index that was cut. Flushes up to
    /// `durable` are.
    pub fn push(&mut self, index: Index, at: At, durable: u64) -> Option<Index> {
        let last = self.last();
        assert!(index > self.index && index.0 <= last.0 + 1, "an entry follows the log or cuts it");
        let keep = (index.0 - self.index.0 - 1) as usize;
        if index > last {
            self.entries.push_back(at);
            return None;
        }
        self.noted.split_off(&index);
        let oldest = self.entries[keep].flush.min(self.needs_cut_from(durable));
        self.cut = Some(Cut { oldest, by: at.flush });
        if planted(Bug::ResurrectCutSuffix) {
            self.entries[keep] = at;
            return None;
        }
        self.entries.truncate(keep);
        self.entries.push_back(at);
        Some(last)
    }

    /// As [`Group::push`], of a frame read back: false if it does not follow the log.
    pub fn replay(&mut self, index: Index, at: At) -> bool {
        if index <= self.index {
            return true;
        }
        let keep = index.0 - self.index.0 - 1;
        if keep > self.entries.len() as u64 {
            return false;
        }
        if planted(Bug::CutIsNotRemembered) && keep < self.entries.len() as u64 {
            self.entries[keep as usize] = at;
            return true;
        }
        self.entries.truncate(keep as usize);
        self.entries.push_back(at);
        true
    }

    /// The oldest flush needed to recover the group, when everything up to flush `durable` is durable.
    pub fn needs_from(&self, durable: u64) -> u64 {
        let entries = self.entries.front().map_or(u64::MAX, |at| at.flush);
        let removed = if self.removed == 0 { u64::MAX } else { self.removed };
        entries.min(self.needs_cut_from(durable)).min(removed).min(self.needs_saved_from())
    }

    fn needs_cut_from(&self, durable: u64) -> u64 {
        self.cut.filter(|cut| cut.by > durable).map_or(u64::MAX, |cut| cut.oldest)
    }

    /// The flush of the hard state that only a frame holds.
    pub fn needs_saved_from(&self) -> u64 {
        match self.saved_durable {
            0 => u64::MAX,
            _ if planted(Bug::ForgetVoteOnRecycle) => u64::MAX,
            flush => flush,
        }
    }

    /// Whether a flush above `durable` cuts entries: what a crash would leave of the group is not what is known.
    pub fn is_cutting(&self, durable: u64) -> bool {
        self.cut.is_some_and(|cut| cut.by > durable)
    }

    /// The first entry that is left above a checkpoint at `index`, which `jump` says replaces the log.
    pub fn entry_above(&self, index: Index, jump: bool) -> Option<&At> {
        if jump { None } else { self.entries.get((index.0 - self.index.0) as usize) }
    }

    /// Makes `index` the durable checkpoint and keeps `ranges` of what is at or below it. The entries between the
    /// old and the new one that are not kept are forgotten. `change` hears of each that begins (true) or ceases to
    /// be kept. Entries in `moved` are kept elsewhere.
    pub fn advance(
        &mut self,
        (index, term): (Index, Term),
        (ranges, moved): (Ranges<'_>, Ranges<'_>),
        jump: bool,
        mut change: impl FnMut(&At, bool),
    ) {
        let kept = self.held(index, ranges, moved);
        kept.iter().filter(|(i, _)| *i > self.index).for_each(|(_, at)| change(at, true));
        let mut still = kept.iter().map(|(index, _)| *index).peekable();
        for (old, at) in &self.kept {
            while still.next_if(|index| index < old).is_some() {}
            if still.peek() != Some(old) {
                change(at, false);
            }
        }
        let settled = (index.0 - self.index.0).min(self.entries.len() as u64) as usize;
        self.entries.drain(..if jump { self.entries.len() } else { settled });
        (self.index, self.term, self.kept) = (index, term, kept);
        let mut noted = std::mem::take(&mut self.noted);
        noted.retain(|index, _| self.at(*index).is_some());
        self.noted = noted;
    }

    /// The entries of `ranges` at or below `index` that are in the ring, with where they stand; all others are in
    /// `moved`.
    pub fn held(&self, index: Index, ranges: Ranges<'_>, moved: Ranges<'_>) -> Vec<(Index, At)> {
        let mut held = Vec::new();
        for (first, last) in ranges.iter().copied() {
            assert!(first <= last && last <= index, "kept ranges are at or below the checkpoint");
            let below = self.kept.partition_point(|(index, _)| *index < first);
            let old = self.kept[below..].iter().take_while(|(index, _)| *index <= last);
            let before = held.len();
            held.extend(old.copied());
            let from = Index(first.0.max(self.index.0 + 1));
            let young = (from.0..=last.0).map_while(|i| Some((Index(i), *self.at(Index(i))?)));
            held.extend(young);
            let mut next = first;
            for (index, _) in &held[before..] {
                let whole = *index == next || has_moved(moved, next, Index(index.0 - 1));
                assert!(whole, "a kept entry is held");
                next = Index(index.0 + 1);
            }
            assert!(next > last || has_moved(moved, next, last), "a kept entry is held");
        }
        assert!(held.is_sorted_by(|a, b| a.0 < b.0), "kept ranges ascend");
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(flush: u64) -> At {
        At {
            generation: 1,
            flush,
            term: Term(1),
            frame: 0,
            payload: 0,
            length: 0,
            crc: 0,
            slot: 0,
            ordinal: 0,
        }
    }

    fn group(entries: u64) -> Group {
        let mut group = Group::default();
        for index in 1..=entries {
            assert_eq!(group.push(Index(index), at(index), 0), None);
        }
        group
    }

    #[test]
    fn an_entry_cuts_what_is_above_it_and_the_cut_frames_hold_the_floor_until_it_is_durable() {
        let mut group = group(5);
        assert_eq!(group.push(Index(2), at(9), 8), Some(Index(5)));
        assert_eq!(group.last(), Index(2));
        group.advance((Index(1), Term(1)), (&[], &[]), false, |_, _| {});
        assert_eq!(group.needs_from(8), 2);
        assert_eq!(group.needs_from(9), 9);
    }

    #[test]
    fn checkpoints_keep_what_they_name_and_forget_the_rest() {
        let mut group = group(10);
        let mut live = 0i64;
        let mut count = |_: &At, begins: bool| live += if begins { 1 } else { -1 };
        let ranges = [(Index(2), Index(3)), (Index(6), Index(6))];
        group.advance((Index(6), Term(1)), (&ranges, &[]), false, &mut count);
        assert!(group.at(Index(1)).is_none() && group.at(Index(3)).is_some() && group.at(Index(7)).is_some());
        assert_eq!(group.needs_from(100), 7);
        let ranges = [(Index(3), Index(3)), (Index(7), Index(8))];
        group.advance((Index(8), Term(1)), (&ranges, &[]), false, &mut count);
        let kept: Vec<u64> = group.kept.iter().map(|(index, _)| index.0).collect();
        assert_eq!(kept, [3, 7, 8]);
        assert_eq!(live, 3);
    }

    #[test]
    fn terms_votes_and_commit_never_go_back() {
        let state = |term, vote, commit| HardState { term: Term(term), vote, commit: Index(commit) };
        let mut newest = state(3, 0, 5);
        newest.join(state(3, 2, 4));
        assert_eq!(newest, state(3, 2, 5));
        newest.join(state(2, 1, 9));
        assert_eq!(newest, state(3, 2, 9));
        newest.join(state(4, 0, 0));
        assert_eq!(newest, state(4, 0, 9));
    }
}
