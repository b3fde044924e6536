//! Entering a group, for the first time or again.

use base::{Bug, planted};
use model::LogRefusal;
use model::membership::{Join, Joined};

use crate::Settings;
use crate::group::{Group, Phase};
use crate::member::Member;
use crate::outbox::Outbox;

/// One join on its way into a group.
pub(crate) struct Arrival<'a> {
    pub ticket: u64,
    pub join: Join,
    pub settings: &'a Settings,
    pub now_us: u64,
    pub out: &'a mut Outbox,
}

impl Group {
    /// Somebody without an id; `id` was drawn for it.
    pub(crate) fn join_anew(&mut self, arrival: Arrival<'_>, id: String) -> Result<(), LogRefusal> {
        let Arrival { join, settings, now_us, .. } = &arrival;
        let holder = join.instance.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        if !self.supports(&join.protocol_type, &join.protocols, holder.as_deref()) {
            return Err(LogRefusal::InconsistentProtocol);
        }
        if let Some(holder) = holder {
            self.replace_static(arrival, &holder, id);
            return Ok(());
        }
        if self.members.len() + self.pending.len() >= settings.members_max {
            let text = format!("the group has {} members, as many as there may be", settings.members_max);
            return Err(LogRefusal::GroupFull(text));
        }
        if join.instance.is_none() && join.id_required {
            let deadline_us = now_us.saturating_add(u64::from(join.session_timeout_ms) * 1000);
            self.pending.insert(id.clone(), deadline_us);
            self.wake_by(deadline_us);
            return Err(LogRefusal::MemberIdRequired(id));
        }
        self.add(arrival, id);
        Ok(())
    }

    /// Somebody with an id.
    pub(crate) fn join_again(&mut self, arrival: Arrival<'_>) -> Result<(), LogRefusal> {
        let join = &arrival.join;
        if !self.supports(&join.protocol_type, &join.protocols, Some(&join.member)) {
            return Err(LogRefusal::InconsistentProtocol);
        }
        if self.pending.contains_key(&join.member) {
            if join.instance.is_some() {
                return Err(LogRefusal::UnknownMember);
            }
            self.pending.remove(&join.member);
            let id = join.member.clone();
            self.add(arrival, id);
            return Ok(());
        }
        let leads = self.is_leader(&join.member);
        let member = self.current(&join.member, join.instance.as_deref())?;
        let same = member.matches(&join.protocols);
        match self.phase {
            // Its answer may have been lost.
            Phase::Completing if same => self.tell_again(arrival, leads),
            Phase::Stable if same && !leads => self.tell_again(arrival, false),
            // The leader joins again because it knows of something that the others must share anew.
            _ => self.enter_again(arrival),
        }
        Ok(())
    }

    fn tell_again(&mut self, arrival: Arrival<'_>, leads: bool) {
        let id = arrival.join.member;
        self.touch(&id, arrival.now_us);
        let members = if leads { self.roster() } else { Vec::new() };
        arrival.out.joined(arrival.ticket, Ok(Joined { members, ..self.joined(&id) }));
    }

    fn add(&mut self, arrival: Arrival<'_>, id: String) {
        let Arrival { ticket, join, settings, now_us, out } = arrival;
        let mut member = Member::new(&join);
        member.joining = true;
        member.join_ticket = Some(ticket);
        member.deadline_us = now_us.saturating_add(u64::from(settings.new_member_ms) * 1000);
        out.waits(ticket, &self.name);
        self.wake_by(member.deadline_us);
        if let Some(instance) = &join.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type;
            self.leader.clone_from(&id);
        }
        self.members.insert(id, member);
        self.grow_first();
        self.rebalance(settings, now_us, out);
    }

    fn enter_again(&mut self, arrival: Arrival<'_>) {
        let Arrival { ticket, join, settings, now_us, out } = arrival;
        self.wait_for_generation(&join.member, &join, ticket, out);
        self.rebalance(settings, now_us, out);
    }

    /// The member's join waits; an earlier one of it that still does was given up by its client.
    fn wait_for_generation(&mut self, id: &str, join: &Join, ticket: u64, out: &mut Outbox) {
        let member = self.members.get_mut(id).expect("it was just found");
        member.describe(join);
        member.joining = true;
        if let Some(earlier) = member.join_ticket.replace(ticket) {
            out.joined(earlier, Err(LogRefusal::Rebalancing));
        }
        out.waits(ticket, &self.name);
    }

    /// A static member has come back under its lasting name: it takes the place of its former self.
    fn replace_static(&mut self, arrival: Arrival<'_>, old: &str, id: String) {
        let Arrival { ticket, join, settings, now_us, out } = arrival;
        let mut member = self.members.remove(old).expect("a static instance belongs to a member");
        member.refuse(out, &LogRefusal::FencedMember);
        member.describe(&join);
        let former_leader = self.leader.clone();
        if self.leader == old {
            self.leader.clone_from(&id);
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        let awaits_sync = self.unsynced.remove(old);
        let deadline_us = member.touch(now_us);
        member.is_new = false;
        self.members.insert(id.clone(), member);
        self.wake_by(deadline_us);
        // The planted bug takes it for somebody new.
        let is_new = planted(Bug::StaticLosesPlace);
        if self.phase == Phase::Stable && self.elect_protocol() == self.protocol && !is_new {
            if awaits_sync {
                self.unsynced.insert(id.clone());
            }
            let joined = self.keep_assignment(&id, &former_leader, join.can_skip_assignment);
            return out.joined(ticket, Ok(joined));
        }
        // The leader may have been told of the former self, so that its assignments would miss the new one.
        self.wait_for_generation(&id, &join, ticket, out);
        self.rebalance(settings, now_us, out);
    }

    /// What a static member learns that goes on where its former self ended. A leader that cannot skip the assignment
    /// is not told that it leads: it would share anew what nobody joined for.
    fn keep_assignment(&self, id: &str, former_leader: &str, can_skip: bool) -> Joined {
        let mut joined = self.joined(id);
        if !can_skip {
            joined.leader = former_leader.to_owned();
        } else if self.is_leader(id) {
            joined.skip_assignment = true;
            joined.members = self.roster();
        }
        joined
    }
}
