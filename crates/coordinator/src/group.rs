//! The state of one group, and what does not depend on where it is in its life.
//!
//! Invariants: the phase is empty exactly when there are no members; every static instance belongs to a member;
//! the leader is a member, unless the next generation is being gathered, which elects one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Bug, planted};
use model::LogRefusal;
use model::membership::{GroupPhase, MemberMetadata};

use crate::member::Member;
use crate::outbox::Outbox;

/// Where a group is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No members.
    Empty,
    /// Members are joining.
    Preparing(Preparing),
    /// The leader is to bring the assignments.
    Completing,
    /// Everybody can have theirs.
    Stable,
}

/// Members are joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Preparing {
    /// When it goes on without those who have not come.
    pub deadline_us: u64,
    /// For the first generation after there was nobody.
    pub first: Option<First>,
}

/// The first generation waits for members it cannot know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct First {
    /// How much longer it may wait.
    pub remaining_us: u64,
    /// Somebody came since it was last put off.
    pub grown: bool,
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub name: Arc<str>,
    pub generation: i32,
    pub protocol_type: String,
    /// Of the current generation.
    pub protocol: String,
    pub leader: String,
    pub phase: Phase,
    pub members: BTreeMap<String, Member>,
    /// Member ids by instance.
    pub statics: BTreeMap<String, String>,
    /// Ids that were given to members who are to join with them, and until when.
    pub pending: BTreeMap<String, u64>,
    /// Who has not asked for the assignment of this generation, and until when that may take.
    pub unsynced: BTreeSet<String>,
    pub sync_deadline_us: u64,
    /// No deadline of the group comes before this.
    pub soonest_us: u64,
    /// When the coordinator looks at the group; `u64::MAX` for never.
    pub wake_us: u64,
    /// The last member has left since the coordinator last looked.
    pub emptied: bool,
}

impl Group {
    pub(crate) fn new(name: Arc<str>, generation: i32) -> Group {
        Group {
            name,
            generation,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            phase: Phase::Empty,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            sync_deadline_us: u64::MAX,
            soonest_us: u64::MAX,
            wake_us: u64::MAX,
            emptied: false,
        }
    }

    /// Nobody is there and nobody is expected.
    pub(crate) fn is_deserted(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn is_leader(&self, member: &str) -> bool {
        self.leader == member
    }

    pub(crate) fn phase(&self) -> GroupPhase {
        match self.phase {
            Phase::Empty => GroupPhase::Empty,
            Phase::Preparing(_) => GroupPhase::PreparingRebalance,
            Phase::Completing => GroupPhase::CompletingRebalance,
            Phase::Stable => GroupPhase::Stable,
        }
    }

    /// Something is to happen at `deadline_us`.
    pub(crate) fn wake_by(&mut self, deadline_us: u64) {
        self.soonest_us = self.soonest_us.min(deadline_us);
    }

    /// The next deadline there is.
    pub(crate) fn next_deadline(&self) -> u64 {
        let joining = match self.phase {
            Phase::Preparing(preparing) => preparing.deadline_us,
            _ => u64::MAX,
        };
        let members = self.members.values().map(Member::expires_us);
        let all = members.chain(self.pending.values().copied()).chain([joining, self.sync_deadline_us]);
        all.min().unwrap_or(u64::MAX)
    }

    /// The member, after a check that it is who it says.
    pub(crate) fn current(&mut self, id: &str, instance: Option<&str>) -> Result<&mut Member, LogRefusal> {
        self.check_current(id, instance)?;
        self.members.get_mut(id).ok_or(LogRefusal::UnknownMember)
    }

    pub(crate) fn check_current(&self, id: &str, instance: Option<&str>) -> Result<(), LogRefusal> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                // The planted bug knows the instance and asks for no more.
                Some(_) if planted(Bug::StaticNotFenced) => return Ok(()),
                Some(holder) if holder != id => return Err(LogRefusal::FencedMember),
                Some(_) => (),
                None => return Err(LogRefusal::UnknownMember),
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(LogRefusal::UnknownMember) }
    }

    /// A sign of life of a member.
    pub(crate) fn touch(&mut self, id: &str, now_us: u64) {
        if let Some(member) = self.members.get_mut(id) {
            let deadline = member.touch(now_us);
            self.wake_by(deadline);
        }
    }

    /// Whether all members but `itself`, who may have changed its mind, know one of these ways of sharing.
    pub(crate) fn supports(
        &self,
        protocol_type: &str,
        protocols: &[(String, Vec<u8>)],
        itself: Option<&str>,
    ) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let others = || self.members.iter().filter(|(id, _)| Some(id.as_str()) != itself);
        let by_all = |name: &str| others().all(|(_, member)| member.supports(name));
        self.protocol_type == protocol_type && protocols.iter().any(|(name, _)| by_all(name))
    }

    /// The way of sharing that all know and most want; among equals the one the leader wants more.
    pub(crate) fn elect_protocol(&self) -> String {
        let leader = self.members.get(&self.leader).expect("the leader is a member");
        let by_all = |name: &str| self.members.values().all(|member| member.supports(name));
        let candidates: Vec<&str> =
            leader.protocols.iter().map(|(name, _)| name.as_str()).filter(|name| by_all(name)).collect();
        let mut votes = vec![0u32; candidates.len()];
        for member in self.members.values() {
            let wanted =
                member.protocols.iter().find_map(|(name, _)| candidates.iter().position(|c| c == name));
            if let Some(at) = wanted {
                votes[at] += 1;
            }
        }
        // The first of the highest: `max_by_key` would take the last.
        let most = votes.iter().max().copied().unwrap_or(0);
        let at = votes.iter().position(|count| *count == most);
        at.map(|at| candidates[at].to_owned()).unwrap_or_default()
    }

    /// What the leader learns of everybody.
    pub(crate) fn roster(&self) -> Vec<MemberMetadata> {
        let seen = |(id, member): (&String, &Member)| MemberMetadata {
            member: id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(&self.protocol).to_vec(),
        };
        self.members.iter().map(seen).collect()
    }

    /// Takes a member out without caring what that means for the others.
    pub(crate) fn take_out(&mut self, id: &str, out: &mut Outbox) {
        let Some(mut member) = self.members.remove(id) else { return };
        // Whoever is still there joins again.
        member.refuse(out, &LogRefusal::UnknownMember);
        self.unsynced.remove(id);
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|holder| holder == id)
        {
            self.statics.remove(instance);
        }
    }

    pub(crate) fn advance_generation(&mut self) {
        // The planted bug does so only when the last member leaves.
        if planted(Bug::GenerationStays) && !self.members.is_empty() {
            return;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }
}
