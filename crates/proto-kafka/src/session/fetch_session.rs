//! Fetch sessions: the client names its partitions once, then only what changed, and is told only what changed.
//!
//! In: the partitions a request names and forgets. Out: what is to be read now, and what of it is worth telling.
//! Never: more sessions or partitions of a connection than its bounds; the session that was used longest ago goes, and
//! its client is told so and begins anew. Sessions end with their connection.

use std::collections::VecDeque;

use base::{Bug, Map, Set, map, planted, set};

use super::reply::Topic;
use crate::map::{self as codes, Code};
use crate::wire::decoder::ITEMS_MAX;

/// One partition of a topic.
pub(super) type Key = (Topic, i32);

/// What is wanted of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub offset: i64,
    pub max_bytes: i32,
    pub epoch: i32,
}

/// A partition as the session remembers it.
#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    /// What the client was told last: the log's first offset and its end. `None`: it must be told in any case.
    told: Option<(u64, u64)>,
}

/// What a request says of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub id: i32,
    pub epoch: i32,
}

/// What a claim amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// No session.
    Single,
    /// A session begins.
    Begin,
    /// A session goes on.
    Continue,
}

impl Claim {
    /// Whether the claim begins, ends or continues a session.
    pub(super) fn form(self) -> Form {
        match self.epoch {
            -1 => Form::Single,
            0 => Form::Begin,
            _ => Form::Continue,
        }
    }
}

/// Sessions of one connection.
pub(super) const SESSIONS_MAX: usize = 16;

/// All sessions of a connection, the one used longest ago first.
#[derive(Debug, Default)]
pub(super) struct FetchSessions {
    all: VecDeque<FetchSession>,
}

impl FetchSessions {
    /// The session of this id.
    pub(super) fn find(&mut self, id: i32) -> Option<&mut FetchSession> {
        self.all.iter_mut().find(|session| session.id == id)
    }

    /// The session a claim continues, which counts on.
    pub(super) fn continued(&mut self, claim: Claim, by_id: bool) -> Result<&mut FetchSession, Code> {
        let at = self.all.iter().position(|session| session.id == claim.id);
        let at = at.ok_or(codes::FETCH_SESSION_ID_NOT_FOUND)?;
        self.all[at].accept(claim, by_id)?;
        let session = self.all.remove(at).expect("it was just found");
        self.all.push_back(session);
        Ok(self.all.back_mut().expect("it was just put there"))
    }

    /// Adds a session; others go where there would be too many, or too many partitions in all.
    pub(super) fn add(&mut self, session: FetchSession) {
        self.all.push_back(session);
        self.bound();
    }

    /// Ends sessions, the one used longest ago first and the newest never, until the bounds hold.
    pub(super) fn bound(&mut self) {
        let partitions = |all: &VecDeque<FetchSession>| all.iter().map(FetchSession::len).sum::<usize>();
        while self.all.len() > 1 && (self.all.len() > SESSIONS_MAX || partitions(&self.all) > ITEMS_MAX) {
            self.all.pop_front();
        }
    }

    /// Ends the session of this id.
    pub(super) fn end(&mut self, id: i32) {
        self.all.retain(|session| session.id != id);
    }

    /// Ends all of them.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}

/// One session.
#[derive(Debug)]
pub(super) struct FetchSession {
    pub id: i32,
    /// The number the next request must carry.
    epoch: i32,
    by_id: bool,
    entries: Map<Key, Entry>,
    /// In which order they are read: who got something stands behind those who did not.
    order: VecDeque<Key>,
}

impl FetchSession {
    /// A session of the partitions of one full request.
    pub(super) fn begin(id: i32, by_id: bool, wanted: Vec<(Key, Wanted)>) -> FetchSession {
        let mut session =
            FetchSession { id, epoch: 1, by_id, entries: map(u64::from(id as u32)), order: VecDeque::new() };
        session.update(wanted, Vec::new());
        session
    }

    /// Whether a claim continues this session; counts on if so.
    fn accept(&mut self, claim: Claim, by_id: bool) -> Result<(), Code> {
        match claim {
            _ if claim.epoch != self.epoch => Err(codes::INVALID_FETCH_SESSION_EPOCH),
            _ if by_id != self.by_id => Err(codes::FETCH_SESSION_TOPIC_ID_ERROR),
            _ => {
                self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
                Ok(())
            }
        }
    }

    /// Takes in what a request names and forgets.
    pub(super) fn update(&mut self, wanted: Vec<(Key, Wanted)>, forgotten: Vec<Key>) {
        let before = self.entries.len();
        for key in &forgotten {
            self.entries.remove(key);
        }
        if self.entries.len() < before {
            self.order.retain(|key| self.entries.contains_key(key));
        }
        for (key, wanted) in wanted {
            match self.entries.get_mut(&key) {
                // The planted bug stays where it was.
                Some(_) if planted(Bug::FetchSessionForgetsPlace) => {}
                Some(entry) => entry.wanted = wanted,
                None => {
                    self.entries.insert(key.clone(), Entry { wanted, told: None });
                    self.order.push_back(key);
                }
            }
        }
    }

    /// How many partitions it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Everything that is read now, in order.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (Key, Wanted)> {
        let found = self.order.iter().filter_map(|key| Some((key, self.entries.get(key)?)));
        found.map(|(key, entry)| (key.clone(), entry.wanted))
    }

    /// Whether a partition has something to tell that the client does not know: `None` for an error.
    pub(super) fn is_news(&mut self, key: &Key, bounds: Option<(u64, u64)>, has_batches: bool) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return bounds.is_none() || has_batches };
        // The planted bug tells of an end once and not of how it moves.
        let is_known = entry.told.is_some() && planted(Bug::FetchSessionTellsOnce);
        let is_news = has_batches || bounds.is_none() || entry.told != bounds && !is_known;
        entry.told = bounds;
        is_news
    }

    /// Those that got batches are read last next time.
    pub(super) fn put_behind<'k>(&mut self, served: impl Iterator<Item = &'k Key>) {
        let mut behind: Set<&Key> = set(0);
        behind.extend(served);
        if behind.is_empty() {
            return;
        }
        let (last, first) = self.order.drain(..).partition::<VecDeque<_>, _>(|key| behind.contains(key));
        self.order = first;
        self.order.extend(last);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn key(name: &str) -> Key {
        (Topic::Name(Arc::from(name)), 0)
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted { offset, max_bytes: 10, epoch: -1 }
    }

    fn session() -> FetchSession {
        let all = ["a", "b", "c"].map(|name| (key(name), wanted(0)));
        FetchSession::begin(7, false, all.to_vec())
    }

    #[test]
    fn only_the_next_number_continues_a_session() {
        let mut session = session();
        assert_eq!(session.accept(Claim { id: 7, epoch: 2 }, false), Err(71));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, true), Err(106));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, false), Ok(()));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, false), Err(71));
        session.epoch = i32::MAX;
        assert_eq!(session.accept(Claim { id: 7, epoch: i32::MAX }, false), Ok(()));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, false), Ok(()), "the number turns over to 1");
    }

    #[test]
    fn several_sessions_go_on_beside_each_other_and_the_stalest_makes_room() {
        let mut sessions = FetchSessions::default();
        let begin = |id| FetchSession::begin(id, false, vec![(key("a"), wanted(0))]);
        (1..=SESSIONS_MAX as i32).for_each(|id| sessions.add(begin(id)));
        let code =
            |sessions: &mut FetchSessions, id, epoch| sessions.continued(Claim { id, epoch }, false).err();
        assert_eq!(code(&mut sessions, 1, 1), None);
        assert_eq!(code(&mut sessions, 2, 7), Some(71), "it stays where it is");
        assert_eq!(code(&mut sessions, 99, 1), Some(70));
        sessions.add(begin(99));
        assert_eq!(code(&mut sessions, 2, 1), Some(70), "the one used longest ago went");
        assert_eq!((code(&mut sessions, 1, 2), code(&mut sessions, 3, 1)), (None, None));
        sessions.end(3);
        assert_eq!(code(&mut sessions, 3, 2), Some(70));
    }

    #[test]
    fn sessions_have_a_bounded_number_of_partitions_together() {
        let mut sessions = FetchSessions::default();
        let half = |id| {
            let all = (0..ITEMS_MAX as i32 / 2).map(|at| ((Topic::Id(1), at), wanted(0))).collect();
            FetchSession::begin(id, true, all)
        };
        sessions.add(half(1));
        sessions.add(half(2));
        assert!(sessions.find(1).is_some() && sessions.find(2).is_some());
        sessions.add(half(3));
        assert!(sessions.find(1).is_none() && sessions.find(2).is_some() && sessions.find(3).is_some());
    }

    #[test]
    fn partitions_come_change_go_and_take_turns() {
        let mut session = session();
        session.update(vec![(key("b"), wanted(5)), (key("d"), wanted(1))], vec![key("a"), key("x")]);
        let now: Vec<_> = session.wanted().collect();
        assert_eq!(now, [(key("b"), wanted(5)), (key("c"), wanted(0)), (key("d"), wanted(1))]);
        session.put_behind([key("b"), key("d")].iter());
        let order: Vec<Key> = session.wanted().map(|(key, _)| key).collect();
        assert_eq!(order, [key("c"), key("b"), key("d")]);
    }

    #[test]
    fn what_the_client_knows_is_not_told_again() {
        let mut session = session();
        assert!(session.is_news(&key("a"), Some((0, 3)), false), "the first time");
        assert!(!session.is_news(&key("a"), Some((0, 3)), false));
        assert!(session.is_news(&key("a"), Some((0, 3)), true), "there are batches");
        assert!(session.is_news(&key("a"), Some((1, 3)), false), "the log's start moved");
        assert!(session.is_news(&key("a"), None, false), "an error");
        assert!(session.is_news(&key("a"), Some((1, 3)), false), "the error is over");
    }
}
