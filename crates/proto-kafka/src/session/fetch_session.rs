//! A fetch session: the client names its partitions once, then only what changed, and is told only what changed.
//!
//! In: the partitions a request names and forgets. Out: what is to be read now, and what of it is worth telling.
//! Never: more than one session per connection; a client with an older one is told so and begins anew.

use std::collections::VecDeque;

use base::{Map, Set, map, set};

use super::reply::Topic;
use crate::map::{self as codes, Code};

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
    pub(super) fn accept(&mut self, claim: Claim, by_id: bool) -> Result<(), Code> {
        match claim {
            _ if claim.id != self.id => Err(codes::FETCH_SESSION_ID_NOT_FOUND),
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
        let is_news = has_batches || bounds.is_none() || entry.told != bounds;
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
        assert_eq!(session.accept(Claim { id: 8, epoch: 1 }, false), Err(70));
        assert_eq!(session.accept(Claim { id: 7, epoch: 2 }, false), Err(71));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, true), Err(106));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, false), Ok(()));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, false), Err(71));
        session.epoch = i32::MAX;
        assert_eq!(session.accept(Claim { id: 7, epoch: i32::MAX }, false), Ok(()));
        assert_eq!(session.accept(Claim { id: 7, epoch: 1 }, false), Ok(()), "the number turns over to 1");
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
