//! From one generation to the next: who is waited for, how long, and what ends the waiting.

use base::{Bug, planted};
use model::LogRefusal;
use model::membership::Joined;

use crate::Settings;
use crate::group::{First, Group, Phase, Preparing};
use crate::member::Member;
use crate::outbox::Outbox;

impl Group {
    /// Milliseconds the slowest member may take to join again.
    fn rebalance_us(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_us).max().unwrap_or(1000)
    }

    /// Begins to gather the next generation, unless that is under way already; ends it if everybody is there.
    pub(crate) fn rebalance(&mut self, settings: &Settings, now_us: u64, out: &mut Outbox) {
        if !matches!(self.phase, Phase::Preparing(_)) {
            self.prepare(settings, now_us, out);
        }
        self.complete_if_all_joined(now_us, out);
    }

    fn prepare(&mut self, settings: &Settings, now_us: u64, out: &mut Outbox) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.sync_ticket.take() {
                out.synced(ticket, Err(LogRefusal::Rebalancing));
                let deadline = member.touch(now_us);
                self.soonest_us = self.soonest_us.min(deadline);
            }
        }
        self.unsynced.clear();
        self.sync_deadline_us = u64::MAX;
        let whole_us = self.rebalance_us();
        let delay_us = u64::from(settings.initial_delay_ms) * 1000;
        let preparing = if self.phase == Phase::Empty && delay_us > 0 {
            let remaining_us = whole_us.saturating_sub(delay_us);
            let first = Some(First { remaining_us, grown: false });
            Preparing { deadline_us: now_us.saturating_add(delay_us), first }
        } else {
            // The planted bug waits for everybody who was there.
            let whole_us = if planted(Bug::GatherForEver) { u64::MAX } else { whole_us };
            Preparing { deadline_us: now_us.saturating_add(whole_us), first: None }
        };
        self.wake_by(preparing.deadline_us);
        self.phase = Phase::Preparing(preparing);
    }

    /// Somebody came that the first generation did not expect.
    pub(crate) fn grow_first(&mut self) {
        if let Phase::Preparing(Preparing { first: Some(first), .. }) = &mut self.phase {
            first.grown = true;
        }
    }

    /// Ends the gathering when nobody is missing; the first generation waits for those it cannot know of.
    pub(crate) fn complete_if_all_joined(&mut self, now_us: u64, out: &mut Outbox) {
        if let Phase::Preparing(Preparing { first: None, .. }) = self.phase
            && self.pending.is_empty()
            && self.members.values().all(|member| member.joining)
        {
            self.complete(now_us, out);
        }
    }

    /// The time to gather is over.
    pub(crate) fn gathering_ends(&mut self, settings: &Settings, now_us: u64, out: &mut Outbox) {
        let Phase::Preparing(preparing) = self.phase else { return };
        match preparing.first {
            Some(First { remaining_us, grown: true }) if remaining_us > 0 => {
                let delay_us = remaining_us.min(u64::from(settings.initial_delay_ms) * 1000);
                let first = Some(First { remaining_us: remaining_us - delay_us, grown: false });
                let deadline_us = now_us.saturating_add(delay_us);
                self.phase = Phase::Preparing(Preparing { deadline_us, first });
                self.wake_by(deadline_us);
            }
            _ => self.complete(now_us, out),
        }
    }

    /// The next generation is made of those who have joined, and of static members, who keep their place until their
    /// session ends.
    fn complete(&mut self, now_us: u64, out: &mut Outbox) {
        let missing = |(id, member): (&String, &Member)| {
            (!member.joining && member.instance.is_none()).then(|| id.clone())
        };
        let missing: Vec<String> = self.members.iter().filter_map(missing).collect();
        missing.iter().for_each(|id| self.take_out(id, out));
        if self.members.is_empty() {
            return self.empty();
        }
        if !self.elect_leader() {
            // Only static members are left and none has come: their sessions decide.
            let deadline_us = now_us.saturating_add(self.rebalance_us());
            self.phase = Phase::Preparing(Preparing { deadline_us, first: None });
            return self.wake_by(deadline_us);
        }
        self.advance_generation();
        self.protocol = self.elect_protocol();
        self.phase = Phase::Completing;
        self.unsynced = self.members.keys().cloned().collect();
        self.sync_deadline_us = now_us.saturating_add(self.rebalance_us());
        self.wake_by(self.sync_deadline_us);
        self.announce(now_us, out);
    }

    fn elect_leader(&mut self) -> bool {
        if self.members.get(&self.leader).is_some_and(|leader| leader.joining) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.joining).map(|(id, _)| id.clone());
        let found = joined.is_some();
        self.leader = joined.unwrap_or_else(|| std::mem::take(&mut self.leader));
        found
    }

    /// Tells everybody of the new generation.
    fn announce(&mut self, now_us: u64, out: &mut Outbox) {
        let mut roster = Some(self.roster());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let members = if self.is_leader(&id) { roster.take().unwrap_or_default() } else { Vec::new() };
            let joined = Joined { members, ..self.joined(&id) };
            let member = self.members.get_mut(&id).expect("its id was just listed");
            member.joining = false;
            member.is_new = false;
            // Whatever it owned belongs to an older generation.
            member.assignment.clear();
            let deadline_us = member.touch(now_us);
            if let Some(ticket) = member.join_ticket.take() {
                out.joined(ticket, Ok(joined));
            }
            self.wake_by(deadline_us);
        }
    }

    /// The current generation as a member that does not lead it learns of it.
    pub(crate) fn joined(&self, member: &str) -> Joined {
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            member: member.to_owned(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }

    /// The last member has left.
    fn empty(&mut self) {
        self.advance_generation();
        self.phase = Phase::Empty;
        self.emptied = true;
        self.protocol_type.clear();
        self.protocol.clear();
        self.leader.clear();
        self.unsynced.clear();
        self.sync_deadline_us = u64::MAX;
    }

    /// A member is gone: the others share anew.
    pub(crate) fn remove(&mut self, id: &str, settings: &Settings, now_us: u64, out: &mut Outbox) {
        self.take_out(id, out);
        if self.members.is_empty() {
            self.empty();
        } else {
            self.rebalance(settings, now_us, out);
        }
    }

    /// An id was given and is not expected any more.
    pub(crate) fn remove_pending(&mut self, id: &str, now_us: u64, out: &mut Outbox) {
        if self.pending.remove(id).is_some() {
            self.complete_if_all_joined(now_us, out);
        }
    }

    /// Does what is due.
    pub(crate) fn expire(&mut self, settings: &Settings, now_us: u64, out: &mut Outbox) {
        let due = self.pending.iter().filter(|(_, deadline)| **deadline <= now_us);
        let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        due.iter().for_each(|id| self.remove_pending(id, now_us, out));
        let dead = self.members.iter().filter(|(_, member)| member.expires_us() <= now_us);
        let dead: Vec<String> = dead.map(|(id, _)| id.clone()).collect();
        for id in dead {
            // What came of the removal of another may have given it more time.
            if self.members.get(&id).is_some_and(|member| member.expires_us() <= now_us) {
                self.remove(&id, settings, now_us, out);
            }
        }
        if let Phase::Preparing(preparing) = self.phase
            && preparing.deadline_us <= now_us
        {
            self.gathering_ends(settings, now_us, out);
        }
        if self.sync_deadline_us <= now_us {
            self.syncing_ends(settings, now_us, out);
        }
        self.soonest_us = self.next_deadline();
    }

    /// Whoever has not asked for an assignment by now is not going to.
    fn syncing_ends(&mut self, settings: &Settings, now_us: u64, out: &mut Outbox) {
        self.sync_deadline_us = u64::MAX;
        let silent = std::mem::take(&mut self.unsynced);
        if silent.is_empty() {
            return;
        }
        silent.iter().for_each(|id| self.take_out(id, out));
        if self.members.is_empty() {
            self.empty();
        } else {
            self.rebalance(settings, now_us, out);
        }
    }
}
