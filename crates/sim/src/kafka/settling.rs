//! G5: once nobody comes or goes any more, a consumer group settles: all of its members are in one generation and share
//! all partitions. A static member that begins anew then gets its share again, nobody else hears of it, and its former
//! self is told to go.
//!
//! In: turns in which members only do what they must. Out: whether it has settled, or what is missing.

use base::Prng;

use super::link::Link;
use super::member::Member;
use super::{Acts, Client, Mind, Side};
use crate::client::Fault;
use crate::node::Node;

/// Microseconds beyond a session within which a group settles: sessions of who went end, then the others join anew.
const SETTLE_US: u64 = 15_000_000;

impl Side {
    /// Microseconds within which a group settles.
    pub fn settles_within_us(&self) -> u64 {
        self.plan.session_ms.unsigned_abs() as u64 * 1000 + SETTLE_US
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.clients.iter().filter_map(|client| match &client.mind {
            Mind::Member(member) => Some(member),
            _ => None,
        })
    }

    /// Whether there is a group that can settle.
    pub fn has_group(&self) -> bool {
        self.is_founded && self.members().next().is_some()
    }

    /// Whether all members share all partitions, and nobody else is there.
    pub fn has_settled(&self) -> bool {
        let mut shared = Vec::new();
        let mut count = 0;
        for member in self.members() {
            let Some((generation, sharers, spots)) = member.share().filter(|_| member.is_alive()) else {
                return false;
            };
            let is_newest = generation == self.groups.newest(super::member::GROUP);
            if !is_newest || sharers != self.members().count() {
                return false;
            }
            count += 1;
            shared.extend(spots);
        }
        shared.sort_unstable();
        count > 0 && shared.into_iter().eq(0..self.journal.spots())
    }

    /// What keeps it from settling.
    pub fn unsettled(&self) -> Fault {
        let waits: String =
            self.clients.iter().filter_map(|client| client.link.as_ref()).map(Link::waits_for).collect();
        let members: Vec<&Member> = self.members().collect();
        ("G5", format!("the group does not settle:{waits} {members:?}"))
    }

    /// One static member begins anew, where there is one; it must get what it has.
    pub fn restart_static(&mut self) -> bool {
        self.journal.seen.settled_groups += 1;
        (0..self.clients.len()).any(|at| self.restart(at, true))
    }

    /// Some static members begin anew, and in the place of some others there are new ones, perhaps while others come and
    /// go.
    pub(super) fn restart_some(&mut self, acts: Acts, node: &mut Node, prng: &mut Prng) {
        if acts != Acts::Anything || self.plan.restart == 0 {
            return;
        }
        for at in (0..self.clients.len()).rev() {
            if prng.chance(self.plan.restart, 100) && (prng.chance(1, 3) || !self.restart(at, false)) {
                self.replace(at, node, prng);
            }
        }
    }

    /// A member is gone for good, without a word, and perhaps another one comes.
    fn replace(&mut self, at: usize, node: &mut Node, prng: &mut Prng) {
        let is_member = matches!(&self.clients[at].mind, Mind::Member(_));
        // Whose former self waits to be told must come.
        if !is_member || self.members().any(|member| !member.is_alive()) {
            return;
        }
        self.hang_up(at, node);
        self.journal.seen.vanished += 1;
        match prng.chance(2, 3) && self.members().filter(|member| member.is_alive()).count() > 1 {
            // Only its session tells the others.
            true => drop(self.clients.remove(at)),
            false => self.clients[at] = Client::new(Mind::Member(self.new_member(prng))),
        }
    }

    /// A member that never was, static or not.
    pub(super) fn new_member(&mut self, prng: &mut Prng) -> Member {
        self.instances += 1;
        Member::new(prng.chance(self.plan.statics, 100).then_some(self.instances))
    }

    fn restart(&mut self, at: usize, keeps: bool) -> bool {
        let Mind::Member(member) = &mut self.clients[at].mind else { return false };
        if !member.may_begin_anew() {
            return false;
        }
        let another = member.begin_as_another(keeps);
        let began = another.is_some();
        self.clients.extend(another.map(|member| Client::new(Mind::Member(member))));
        began
    }
}
