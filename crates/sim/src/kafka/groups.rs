//! What consumer groups were told and what they committed, and every promise that can be checked against it.
//!
//! In: generations, assignments, commits and committed offsets, in the order in which clients learned of them. Out: the
//! first broken promise: G1 a partition has one owner per generation, and what is of an older one, or of a static member
//! that has begun anew since, is refused; G2 what
//! was committed is durable; G3 it never goes back; G4 it is never said to be missing.

use std::collections::BTreeMap;

use super::link::{Instance, Name};
use crate::client::Fault;

type Checked<T = ()> = Result<T, Fault>;

/// A commit of one partition.
#[derive(Clone, Copy, Debug)]
struct Commit {
    offset: u64,
    sent: u64,
    /// When its answer came, or when it was clear that it comes no more.
    ended: Option<u64>,
    is_acked: bool,
}

/// One consumer group.
#[derive(Debug, Default)]
pub(super) struct Group {
    commits: BTreeMap<usize, Vec<Commit>>,
    /// Who leads each generation.
    leaders: BTreeMap<i32, String>,
    owners: BTreeMap<(i32, usize), String>,
    newest: i32,
    /// How often each static member has begun anew, and since when that is known.
    begun: BTreeMap<u32, (u32, u64)>,
}

/// All groups, by name.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<String, Group>);

impl Groups {
    fn group(&mut self, name: &str) -> &mut Group {
        self.0.entry(name.to_owned()).or_default()
    }

    /// The newest generation that a member was told of; -1 before the first.
    pub fn newest(&self, name: &str) -> i32 {
        self.0.get(name).map_or(-1, |group| group.newest)
    }

    /// A member is told of a generation; `newest` is what was known when it asked. Returns whether it is a new one.
    pub fn joined(&mut self, name: &str, generation: i32, leader: &str, newest: i32) -> Checked<bool> {
        let (group, leader) = (self.group(name), person(leader));
        if generation < newest {
            return Err(("G1", format!("generation {generation} of '{name}' comes after {newest}")));
        }
        group.newest = group.newest.max(generation);
        match group.leaders.get(&generation) {
            Some(other) if other != leader => {
                Err(("G1", format!("generation {generation} of '{name}' has leaders {other} and {leader}")))
            }
            Some(_) => Ok(false),
            None => {
                group.leaders.insert(generation, leader.to_owned());
                Ok(true)
            }
        }
    }

    /// A static member has begun anew and is let in.
    pub fn begun(&mut self, name: &str, (number, times): Instance, now: u64) {
        let begun = self.group(name).begun.entry(number).or_insert((times, now));
        if begun.0 < times {
            *begun = (times, now);
        }
    }

    /// Something that a member asked for was done in its name.
    pub fn may(&mut self, group: &str, name: Name, what: &str) -> Checked {
        let Name { generation, newest, instance, asked } = name;
        if (0..newest).contains(&generation) {
            let text = format!("generation {generation} of '{group}' {what} after {newest} had begun");
            return Err(("G1", text));
        }
        let begun = instance.and_then(|(number, _)| self.group(group).begun.get(&number).copied());
        match (instance, begun) {
            (Some((number, times)), Some((newer, since))) if times < newer && since < asked => {
                Err(("G1", format!("static member {number} of '{group}' {what}, and it has begun anew")))
            }
            _ => Ok(()),
        }
    }

    /// A member owns a partition in a generation.
    pub fn owns(&mut self, name: &str, generation: i32, spot: usize, member: &str) -> Checked {
        let member = person(member);
        let owners = &mut self.group(name).owners;
        let owner = owners.entry((generation, spot)).or_insert_with(|| member.to_owned());
        if owner == member {
            return Ok(());
        }
        Err(("G1", format!("partition {spot} is of {owner} and of {member} in generation {generation}")))
    }

    /// An offset is about to be committed; returns its number.
    pub fn commit(&mut self, name: &str, spot: usize, offset: u64, now: u64) -> usize {
        let commits = self.group(name).commits.entry(spot).or_default();
        commits.push(Commit { offset, sent: now, ended: None, is_acked: false });
        commits.len() - 1
    }

    /// A commit was answered: taken, or certainly not.
    pub fn commit_answered(&mut self, name: &str, spot: usize, number: usize, is_taken: bool, now: u64) {
        let commit = self.group(name).commits.get_mut(&spot).and_then(|commits| commits.get_mut(number));
        let Some(commit) = commit else { return };
        (commit.ended, commit.is_acked) = (Some(now), is_taken);
        if !is_taken {
            // As if it had never been.
            commit.sent = u64::MAX;
        }
    }

    /// The node has died: what was not answered by now comes no more, or has happened.
    pub fn crashed(&mut self, now: u64) {
        let commits = self.0.values_mut().flat_map(|group| group.commits.values_mut()).flatten();
        commits.filter(|commit| commit.ended.is_none()).for_each(|commit| commit.ended = Some(now));
    }

    /// A committed offset was asked for at `asked`, and here is the answer.
    pub fn committed(&mut self, name: &str, spot: usize, found: Option<u64>, asked: u64) -> Checked {
        let none = Vec::new();
        let commits = self.0.get(name).and_then(|group| group.commits.get(&spot)).unwrap_or(&none);
        // What was acknowledged before the question, and sent after another had ended, has taken its place.
        let sure =
            commits.iter().filter(|commit| commit.is_acked && commit.ended.is_some_and(|at| at < asked));
        let last_sure = sure.map(|commit| commit.sent).max();
        let Some(found) = found else {
            return match last_sure {
                None => Ok(()),
                Some(_) => {
                    Err(("G4", format!("'{name}' committed to partition {spot}, and it is forgotten")))
                }
            };
        };
        let may_be = |commit: &&Commit| {
            commit.sent != u64::MAX && last_sure.is_none_or(|sure| commit.ended.is_none_or(|end| end >= sure))
        };
        let possible: Vec<u64> = commits.iter().filter(may_be).map(|commit| commit.offset).collect();
        if possible.contains(&found) {
            return Ok(());
        }
        let what = format!("'{name}' committed {possible:?} to partition {spot}, and {found} is there");
        Err((if last_sure.is_some() { "G3" } else { "G2" }, what))
    }
}

/// Who a member is, whatever id it has by now: a static member keeps its name.
pub(super) fn person(id: &str) -> &str {
    let end = id.strip_prefix("static-").and_then(|rest| rest.find('-'));
    end.map_or(id, |end| &id[.."static-".len() + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken<T>(checked: Checked<T>) -> &'static str {
        checked.err().map_or("", |fault| fault.0)
    }

    #[test]
    fn a_good_life_breaks_nothing() {
        let mut groups = Groups::default();
        assert_eq!(groups.joined("g", 5, "a", -1), Ok(true));
        assert_eq!(groups.joined("g", 5, "a", 5), Ok(false));
        assert_eq!(groups.owns("g", 5, 0, "a"), Ok(()));
        assert_eq!(groups.committed("g", 0, None, 1), Ok(()));
        let first = groups.commit("g", 0, 7, 2);
        // Under way: it may be there or not.
        assert_eq!(
            (groups.committed("g", 0, None, 3), groups.committed("g", 0, Some(7), 3)),
            (Ok(()), Ok(()))
        );
        groups.commit_answered("g", 0, first, true, 4);
        assert_eq!(groups.committed("g", 0, Some(7), 5), Ok(()));
        let refused = groups.commit("g", 0, 8, 6);
        groups.commit_answered("g", 0, refused, false, 7);
        groups.commit("g", 0, 9, 8);
        groups.crashed(9);
        assert_eq!(
            (groups.committed("g", 0, Some(7), 10), groups.committed("g", 0, Some(9), 10)),
            (Ok(()), Ok(()))
        );
    }

    #[test]
    fn who_has_begun_anew_is_who_it_was_and_its_former_self_is_nobody() {
        let mut groups = Groups::default();
        groups.joined("g", 5, "static-3-a-b", -1).unwrap();
        assert_eq!(groups.joined("g", 5, "static-3-c", 5), Ok(false));
        groups.owns("g", 5, 0, "static-3-a-b").unwrap();
        assert_eq!(groups.owns("g", 5, 0, "static-3-c"), Ok(()));
        let name = |times, asked| Name { generation: 5, newest: 5, instance: Some((3, times)), asked };
        groups.begun("g", (3, 1), 10);
        assert_eq!(groups.may("g", name(0, 9), "lives on"), Ok(()), "it was asked before that was known");
        assert_eq!(groups.may("g", name(1, 11), "lives on"), Ok(()));
        assert_eq!(broken(groups.may("g", name(0, 11), "lives on")), "G1");
        let stale = Name { newest: 6, ..name(1, 11) };
        assert_eq!(broken(groups.may("g", stale, "lives on")), "G1");
        assert_eq!(broken(groups.owns("g", 5, 0, "static-4-a")), "G1");
    }

    #[test]
    fn each_promise_is_noticed_when_broken() {
        let mut groups = Groups::default();
        groups.joined("g", 5, "a", -1).unwrap();
        assert_eq!(broken(groups.joined("g", 5, "b", -1)), "G1");
        assert_eq!(broken(groups.joined("g", 4, "a", 5)), "G1");
        groups.owns("g", 5, 0, "a").unwrap();
        assert_eq!(broken(groups.owns("g", 5, 0, "b")), "G1");
        assert_eq!(broken(groups.committed("g", 0, Some(1), 1)), "G2");
        for (offset, at) in [(3, 2), (4, 10)] {
            let number = groups.commit("g", 0, offset, at);
            groups.commit_answered("g", 0, number, true, at + 1);
        }
        assert_eq!(broken(groups.committed("g", 0, Some(3), 12)), "G3");
        assert_eq!(broken(groups.committed("g", 0, None, 12)), "G4");
    }
}
