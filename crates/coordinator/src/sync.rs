//! Bringing and fetching assignments, heartbeats, and leaving.

use base::{Bug, planted};
use model::LogRefusal;
use model::membership::{Membership, Sync, Synced};

use crate::Settings;
use crate::group::{Group, Phase};
use crate::outbox::Outbox;

impl Group {
    /// A member wants its assignment; the leader brings everybody's.
    pub(crate) fn sync(
        &mut self,
        ticket: u64,
        sync: Sync,
        now_us: u64,
        out: &mut Outbox,
    ) -> Result<(), LogRefusal> {
        let who = &sync.who;
        self.check_generation(who)?;
        let differs = |given: &Option<String>, had: &str| given.as_deref().is_some_and(|given| given != had);
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(LogRefusal::InconsistentProtocol);
        }
        match self.phase {
            Phase::Empty => Err(LogRefusal::UnknownMember),
            Phase::Preparing(_) => Err(LogRefusal::Rebalancing),
            Phase::Completing => {
                let leads = self.is_leader(&who.member);
                self.wait_for_assignment(ticket, &who.member, out);
                if leads {
                    self.share(sync.assignments, now_us, out);
                }
                Ok(())
            }
            Phase::Stable => {
                self.unsynced.remove(&who.member);
                self.touch(&who.member, now_us);
                let synced = self.synced(&who.member);
                out.synced(ticket, Ok(synced));
                Ok(())
            }
        }
    }

    fn check_generation(&self, who: &Membership) -> Result<(), LogRefusal> {
        self.check_current(&who.member, who.instance.as_deref())?;
        let stale = who.generation != self.generation;
        if stale { Err(LogRefusal::StaleGeneration) } else { Ok(()) }
    }

    fn wait_for_assignment(&mut self, ticket: u64, id: &str, out: &mut Outbox) {
        self.unsynced.remove(id);
        let member = self.members.get_mut(id).expect("it was just found");
        if let Some(earlier) = member.sync_ticket.replace(ticket) {
            out.synced(earlier, Err(LogRefusal::Rebalancing));
        }
        out.waits(ticket, &self.name);
    }

    /// The leader has decided: who is not named gets nothing.
    fn share(&mut self, assignments: Vec<(String, Vec<u8>)>, now_us: u64, out: &mut Outbox) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.phase = Phase::Stable;
        let waiting = |(id, member): (&String, &mut crate::member::Member)| {
            member.sync_ticket.take().map(|ticket| (id.clone(), ticket))
        };
        let waiting: Vec<_> = self.members.iter_mut().filter_map(waiting).collect();
        for (id, ticket) in waiting {
            self.touch(&id, now_us);
            let synced = self.synced(&id);
            out.synced(ticket, Ok(synced));
        }
    }

    fn synced(&self, id: &str) -> Synced {
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        // The planted bug gives everybody the leader's part.
        let id = if planted(Bug::ShareOfLeader) { &self.leader } else { id };
        let assignment = self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default();
        Synced { protocol_type, protocol, assignment }
    }

    /// Still there.
    pub(crate) fn heartbeat(&mut self, who: &Membership, now_us: u64) -> Result<(), LogRefusal> {
        self.check_generation(who)?;
        self.touch(&who.member, now_us);
        match self.phase {
            Phase::Empty => Err(LogRefusal::UnknownMember),
            Phase::Preparing(_) => Err(LogRefusal::Rebalancing),
            Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// One member leaves, named by its id, its instance or both.
    pub(crate) fn leave(
        &mut self,
        (id, instance): &(String, Option<String>),
        settings: &Settings,
        now_us: u64,
        out: &mut Outbox,
    ) -> Result<(), LogRefusal> {
        let by_instance = instance.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        let leaving = if id.is_empty() {
            by_instance.ok_or(LogRefusal::UnknownMember)?
        } else if self.pending.contains_key(id) {
            self.remove_pending(id, now_us, out);
            return Ok(());
        } else {
            self.check_current(id, instance.as_deref())?;
            id.clone()
        };
        self.remove(&leaving, settings, now_us, out);
        Ok(())
    }

    /// Whether offsets may be committed in the name of `who`; a commit is a sign of life.
    pub(crate) fn may_commit(&mut self, who: &Membership, now_us: u64) -> Result<(), LogRefusal> {
        if who.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        if who.generation < 0 && who.member.is_empty() && who.instance.is_none() {
            // Only members commit while there are some.
            return Err(LogRefusal::UnknownMember);
        }
        // The planted bug asks for the member alone.
        match planted(Bug::CommitByStaleGeneration) {
            true => self.check_current(&who.member, who.instance.as_deref())?,
            false => self.check_generation(who)?,
        }
        self.touch(&who.member, now_us);
        match self.phase {
            // It was told of a generation and has not got its part of it.
            Phase::Completing => Err(LogRefusal::Rebalancing),
            _ => Ok(()),
        }
    }
}
