//! All groups of one coordinator: requests in, answers out, deadlines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::{Now, Prng};
use model::LogRefusal;
use model::membership::{GroupAnswer, Join, Membership, Sync};

use crate::Settings;
use crate::group::Group;
use crate::join::Arrival;
use crate::outbox::Outbox;

/// Bytes of a group's name.
const NAME_MAX: usize = 1024;

/// Characters of a client's own name that become part of its member id.
const PREFIX_MAX: usize = 128;

/// Groups with their members. A ticket is chosen by whoever asks, unique among what is not answered yet.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    prng: Prng,
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    /// When each group that waits for something is to be looked at.
    wakes: BTreeSet<(u64, Arc<str>)>,
    out: Outbox,
    /// Groups whose last member has left, until somebody asks.
    emptied: VecDeque<Arc<str>>,
    /// Groups that are created begin at this generation, which no group that is gone has gone beyond.
    generation: i32,
    now_us: u64,
}

impl Coordinator {
    /// A coordinator without groups; member ids are drawn from `seed`, which must differ between starts.
    pub fn new(settings: Settings, seed: u64) -> Coordinator {
        Coordinator {
            generation: settings.generation_base.max(0),
            settings,
            prng: Prng::new(seed),
            groups: BTreeMap::new(),
            wakes: BTreeSet::new(),
            out: Outbox::default(),
            emptied: VecDeque::new(),
            now_us: 0,
        }
    }

    /// A member enters. The answer comes when everybody is there.
    pub fn join(&mut self, ticket: u64, join: Join, now: Now) {
        self.now_us = now.mono_us;
        let name = join.group.clone();
        if let Err(refusal) = self.try_join(ticket, join) {
            self.out.joined(ticket, Err(refusal));
        }
        self.after(&name);
    }

    fn try_join(&mut self, ticket: u64, join: Join) -> Result<(), LogRefusal> {
        check_name(&join.group)?;
        let settings = &self.settings;
        if !(settings.session_min_ms..=settings.session_max_ms).contains(&join.session_timeout_ms) {
            return Err(LogRefusal::InvalidSessionTimeout);
        }
        let bytes: usize = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
        self.check_size("metadata", bytes)?;
        let is_new = join.member.is_empty();
        if is_new && !self.groups.contains_key(join.group.as_str()) {
            self.create(&join.group)?;
        }
        let id = if is_new { self.draw_id(&join) } else { String::new() };
        let group = self.groups.get_mut(join.group.as_str()).ok_or(LogRefusal::UnknownMember)?;
        let arrival =
            Arrival { ticket, join, settings: &self.settings, now_us: self.now_us, out: &mut self.out };
        if is_new { group.join_anew(arrival, id) } else { group.join_again(arrival) }
    }

    fn create(&mut self, name: &str) -> Result<(), LogRefusal> {
        if self.groups.len() >= self.settings.groups_max {
            let text = format!("there are {} groups, as many as there may be", self.settings.groups_max);
            return Err(LogRefusal::Unavailable(text, false));
        }
        let name: Arc<str> = name.into();
        self.groups.insert(name.clone(), Group::new(name, self.generation));
        Ok(())
    }

    fn check_size(&self, what: &str, bytes: usize) -> Result<(), LogRefusal> {
        let most = self.settings.metadata_max;
        if bytes <= most {
            return Ok(());
        }
        Err(LogRefusal::Invalid(format!("{bytes} bytes of {what} are more than the {most} that are taken")))
    }

    fn draw_id(&mut self, join: &Join) -> String {
        let prefix: String =
            join.instance.as_ref().unwrap_or(&join.client_id).chars().take(PREFIX_MAX).collect();
        let [a, b] = [self.prng.draw(), self.prng.draw()];
        let (a, b, c) = (a >> 32, a >> 16 & 0xffff, (a & 0xffff, b >> 48, b & 0xffff_ffff_ffff));
        format!("{prefix}-{a:08x}-{b:04x}-{:04x}-{:04x}-{:012x}", c.0, c.1, c.2)
    }

    /// A member wants its assignment, or brings everybody's. The answer comes when the leader has brought them.
    pub fn sync(&mut self, ticket: u64, sync: Sync, now: Now) {
        self.now_us = now.mono_us;
        let name = sync.who.group.clone();
        if let Err(refusal) = self.try_sync(ticket, sync) {
            self.out.synced(ticket, Err(refusal));
        }
        self.after(&name);
    }

    fn try_sync(&mut self, ticket: u64, sync: Sync) -> Result<(), LogRefusal> {
        check_name(&sync.who.group)?;
        let largest = sync.assignments.iter().map(|(_, assignment)| assignment.len()).max();
        self.check_size("assignment", largest.unwrap_or(0))?;
        let group = self.groups.get_mut(sync.who.group.as_str()).ok_or(LogRefusal::UnknownMember)?;
        group.sync(ticket, sync, self.now_us, &mut self.out)
    }

    /// A member is still there.
    pub fn heartbeat(&mut self, ticket: u64, who: &Membership, now: Now) {
        self.now_us = now.mono_us;
        let result = check_name(&who.group).and_then(|()| {
            let group = self.groups.get_mut(who.group.as_str()).ok_or(LogRefusal::UnknownMember)?;
            group.heartbeat(who, now.mono_us)
        });
        self.out.answer(ticket, GroupAnswer::Done(result));
        self.after(&who.group);
    }

    /// Members leave, each named by its id, its instance or both.
    pub fn leave(&mut self, ticket: u64, group: &str, members: &[(String, Option<String>)], now: Now) {
        self.now_us = now.mono_us;
        let result =
            check_name(group).map(|()| members.iter().map(|member| self.leave_one(group, member)).collect());
        self.out.answer(ticket, GroupAnswer::Left(result));
        self.after(group);
    }

    fn leave_one(&mut self, group: &str, member: &(String, Option<String>)) -> Result<(), LogRefusal> {
        let group = self.groups.get_mut(group).ok_or(LogRefusal::UnknownMember)?;
        group.leave(member, &self.settings, self.now_us, &mut self.out)
    }

    /// Whether offsets may be committed in the name of `who`; a commit of a member is a sign of life. Whoever is no
    /// member may commit while there are none.
    pub fn may_commit(&mut self, who: &Membership, now: Now) -> Result<(), LogRefusal> {
        self.now_us = now.mono_us;
        check_name(&who.group)?;
        let result = match self.groups.get_mut(who.group.as_str()) {
            Some(group) => group.may_commit(who, now.mono_us),
            None if who.generation < 0 => Ok(()),
            // It was a member before this coordinator began.
            None => Err(LogRefusal::StaleGeneration),
        };
        self.after(&who.group);
        result
    }

    /// Forgets a group without members; whether there is anything else of it, the keeper of its offsets knows.
    pub fn delete(&mut self, group: &str) -> Result<(), LogRefusal> {
        check_name(group)?;
        match self.groups.get_mut(group) {
            None => Err(LogRefusal::UnknownGroup),
            Some(group) if !group.members.is_empty() => Err(LogRefusal::GroupNotEmpty),
            Some(found) => {
                found.pending.clear();
                self.after(group);
                Ok(())
            }
        }
    }

    /// The client that waits for this answer is gone. It stays a member until its session ends.
    pub fn cancel(&mut self, ticket: u64) {
        let Some(name) = self.out.forget(ticket) else { return };
        if let Some(group) = self.groups.get_mut(&name) {
            group.cancel(ticket, self.now_us);
        }
        self.after(&name);
    }

    /// Does what is due: sessions end, generations go on without those who have not come.
    pub fn tick(&mut self, now: Now) {
        self.now_us = now.mono_us;
        while let Some((_, name)) = self.wakes.first().filter(|(wake, _)| *wake <= now.mono_us).cloned() {
            self.wakes.pop_first();
            let group = self.groups.get_mut(&name).expect("what is woken exists");
            group.wake_us = u64::MAX;
            group.expire(&self.settings, now.mono_us, &mut self.out);
            self.after(&name);
        }
    }

    /// When [`Coordinator::tick`] has something to do at the earliest, in microseconds of the clock that never goes back.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wakes.first().map(|(wake, _)| *wake)
    }

    /// The next answer and the ticket of its request.
    pub fn poll(&mut self) -> Option<(u64, GroupAnswer)> {
        self.out.take()
    }

    /// The next group whose last member has left. By now it may have others.
    pub fn poll_emptied(&mut self) -> Option<Arc<str>> {
        self.emptied.pop_front()
    }

    /// Sees to it that the group is looked at in time, or not at all when nobody is there.
    fn after(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if std::mem::take(&mut group.emptied) {
            self.emptied.push_back(group.name.clone());
        }
        if group.is_deserted() {
            self.wakes.remove(&(group.wake_us, group.name.clone()));
            self.generation = self.generation.max(group.generation);
            self.groups.remove(name);
        } else if group.soonest_us < group.wake_us {
            self.wakes.remove(&(group.wake_us, group.name.clone()));
            group.wake_us = group.soonest_us;
            self.wakes.insert((group.wake_us, group.name.clone()));
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.out.waiting()
    }
}

impl Group {
    fn cancel(&mut self, ticket: u64, now_us: u64) {
        let waits = |member: &crate::member::Member| {
            member.join_ticket == Some(ticket) || member.sync_ticket == Some(ticket)
        };
        let Some((id, member)) = self.members.iter_mut().find(|(_, member)| waits(member)) else { return };
        if member.join_ticket.take_if(|waiting| *waiting == ticket).is_some() {
            member.joining = false;
        } else {
            member.sync_ticket = None;
        }
        let id = id.clone();
        self.touch(&id, now_us);
    }
}

fn check_name(group: &str) -> Result<(), LogRefusal> {
    if (1..=NAME_MAX).contains(&group.len()) { Ok(()) } else { Err(LogRefusal::InvalidGroup) }
}
