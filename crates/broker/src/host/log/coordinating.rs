//! The coordinators hosted here: membership lives on this leader only, committed offsets in the replicated machine.

use std::sync::Arc;

use base::{Bug, planted};
use coordinator::{Coordinator, Settings};
use model::commit::{Commit, CommitOffset, Forget, Forgotten};
use model::membership::{CommittedOffset, GroupAnswer, GroupDescription, GroupPhase, Membership};
use model::{LogRefusal, OperationKind, QueueId, ShardId};
use topology::Target;

use crate::Broker;
use crate::door::outgoing::{Turn, Waits};
use crate::log_parcel::{CoordinatorQuestion, LogReply};
use crate::parcel::{Content, Ticket};

impl Broker {
    /// A question to a coordinator hosted here.
    pub(crate) fn coordinate(
        &mut self,
        from: ShardId,
        target: Target,
        ticket: Ticket,
        question: CoordinatorQuestion,
    ) {
        use CoordinatorQuestion as Question;
        let now = self.now;
        let reply = match question {
            Question::Join(join) => {
                let waiting = self.member_ticket(from, ticket);
                return self.with_coordinator(target.queue, |c| c.join(waiting, join, now));
            }
            Question::Sync(sync) => {
                let waiting = self.member_ticket(from, ticket);
                return self.with_coordinator(target.queue, |c| c.sync(waiting, sync, now));
            }
            Question::Heartbeat(who) => {
                let waiting = self.member_ticket(from, ticket);
                return self.with_coordinator(target.queue, |c| c.heartbeat(waiting, &who, now));
            }
            Question::Leave { group, members } => {
                let waiting = self.member_ticket(from, ticket);
                return self.with_coordinator(target.queue, |c| c.leave(waiting, &group, &members, now));
            }
            Question::Commit { who, offsets } => {
                return self.commit_offsets(from, target, ticket, &who, offsets);
            }
            Question::Forget { group, logs } => {
                return self.forget_offsets(from, target, ticket, &group, logs);
            }
            Question::Delete(group) => return self.delete_group(from, target, ticket, &group),
            Question::Offsets { group, logs } => {
                LogReply::Offsets(self.committed_offsets(target, &group, logs))
            }
            Question::List => LogReply::Group(GroupAnswer::Groups(self.list(target))),
            Question::Describe(group) => {
                LogReply::Group(GroupAnswer::Groups(vec![self.describe(target, &group)]))
            }
        };
        self.post.send(from, Content::LogReplied { ticket, reply: reply.into() });
    }

    fn member_ticket(&mut self, from: ShardId, ticket: Ticket) -> u64 {
        let logs = &mut self.host.logs;
        let waiting = logs.next_member_ticket;
        logs.next_member_ticket += 1;
        logs.waiting_members.insert(waiting, (from, ticket));
        waiting
    }

    /// The coordinator of that number, begun when first asked for.
    fn coordinator_mut(&mut self, slot: QueueId) -> &mut Coordinator {
        // No generation of an earlier start is ever valid again: each start has 65,536 of its own, and a cycle of
        // starts is longer than any member lives.
        let generation_base = ((self.settings.boot & 0x3fff) << 16) as i32;
        let settings = Settings { generation_base, ..Settings::default() };
        let seed = self.settings.seed ^ slot.0;
        let coordinators = &mut self.host.logs.coordinators;
        coordinators.entry(slot).or_insert_with(|| Coordinator::new(settings, seed))
    }

    fn with_coordinator(&mut self, slot: QueueId, act: impl FnOnce(&mut Coordinator)) {
        act(self.coordinator_mut(slot));
        self.pass_memberships(slot);
    }

    fn pass_memberships(&mut self, slot: QueueId) {
        let logs = &mut self.host.logs;
        let Some(coordinator) = logs.coordinators.get_mut(&slot) else { return };
        while let Some((waiting, answer)) = coordinator.poll() {
            if let Some((shard, ticket)) = logs.waiting_members.remove(&waiting) {
                let reply = LogReply::Group(answer);
                self.post.send(shard, Content::LogReplied { ticket, reply: reply.into() });
            }
        }
        let emptied: Vec<Arc<str>> = std::iter::from_fn(|| coordinator.poll_emptied()).collect();
        if emptied.is_empty() {
            return;
        }
        let Some(target) = self.topology.coordinators().iter().find(|target| target.queue == slot).copied()
        else {
            return;
        };
        for group in emptied.iter().filter(|group| self.has_offsets(target, group)).collect::<Vec<_>>() {
            self.touch_group(target, group);
        }
    }

    /// Time passes for members that are silent or awaited.
    pub(crate) fn tick_coordinators(&mut self) {
        let now = self.now;
        let due = |c: &Coordinator| c.next_deadline().is_some_and(|due| due <= now.mono_us);
        let due: Vec<QueueId> =
            self.host.logs.coordinators.iter().filter(|(_, c)| due(c)).map(|(slot, _)| *slot).collect();
        for slot in due {
            self.with_coordinator(slot, |coordinator| coordinator.tick(now));
        }
    }

    /// A member's connection is gone; its membership ends by its own timeout.
    pub(crate) fn cancel_member(&mut self, from: ShardId, ticket: Ticket) {
        let logs = &mut self.host.logs;
        let waiting = logs.waiting_members.iter().find(|(_, waits)| **waits == (from, ticket));
        let Some(waiting) = waiting.map(|(waiting, _)| *waiting) else { return };
        logs.waiting_members.remove(&waiting);
        logs.coordinators.values_mut().for_each(|coordinator| coordinator.cancel(waiting));
    }

    fn commit_offsets(
        &mut self,
        from: ShardId,
        target: Target,
        ticket: Ticket,
        who: &Membership,
        offsets: Vec<(QueueId, CommittedOffset)>,
    ) {
        let now = self.now;
        if let Err(refusal) = self.coordinator_mut(target.queue).may_commit(who, now) {
            let reply = LogReply::Committed(Err(refusal));
            return self.post.send(from, Content::LogReplied { ticket, reply: reply.into() });
        }
        if offsets.is_empty() {
            let reply = LogReply::Committed(Ok(()));
            return self.post.send(from, Content::LogReplied { ticket, reply: reply.into() });
        }
        let mut body = Vec::new();
        Commit { group: &who.group, offsets: offsets.iter().map(to_commit).collect() }.encode(&mut body);
        let reply = LogReply::Committed(Ok(()));
        if planted(Bug::AckCommitBeforeApply) {
            // The planted bug does not wait until it is so.
            self.post.send(from, Content::LogReplied { ticket, reply: reply.clone().into() });
        }
        self.write_offsets(target, OperationKind::Commit, &body, (from, ticket, reply));
    }

    /// Has the machine change committed offsets, and the reply sent once it has; or says that this cannot be yet.
    fn write_offsets(
        &mut self,
        target: Target,
        kind: OperationKind,
        body: &[u8],
        (to, ticket, reply): (ShardId, Ticket, LogReply),
    ) {
        let Some(at) = self.door.by_group.get(&target.group) else {
            let reply = not_yet(reply).into();
            return self.post.send(to, Content::LogReplied { ticket, reply });
        };
        let turn = Turn { pool: &self.pool, limits: &self.settings.limits, now: self.now };
        let waits = Waits::Reply { to, ticket, reply: reply.into() };
        self.door.outgoing[*at].awaited(turn, kind, target.queue, body, waits);
    }

    fn forget_offsets(
        &mut self,
        from: ShardId,
        target: Target,
        ticket: Ticket,
        group: &str,
        logs: Vec<(QueueId, String)>,
    ) {
        let known = self.has_offsets(target, group);
        let coordinator = self.coordinator_mut(target.queue);
        let refused: Vec<Result<(), LogRefusal>> = logs
            .iter()
            .map(|(_, topic)| match () {
                () if !known && !coordinator.exists(group) => Err(LogRefusal::UnknownGroup),
                () => coordinator.may_forget(group, topic),
            })
            .collect();
        let forgotten: Vec<QueueId> =
            logs.iter().zip(&refused).filter(|(_, r)| r.is_ok()).map(|((log, _), _)| *log).collect();
        let reply = LogReply::Forgotten(refused);
        if forgotten.is_empty() {
            return self.post.send(from, Content::LogReplied { ticket, reply: reply.into() });
        }
        let mut body = Vec::new();
        Forget { group, what: Forgotten::Logs(forgotten) }.encode(&mut body);
        self.write_offsets(target, OperationKind::Forget, &body, (from, ticket, reply));
    }

    fn delete_group(&mut self, from: ShardId, target: Target, ticket: Ticket, group: &str) {
        let known = self.has_offsets(target, group);
        let coordinator = self.coordinator_mut(target.queue);
        let outcome = match coordinator.delete(group) {
            Err(LogRefusal::UnknownGroup) if known => Ok(()),
            outcome => outcome,
        };
        let deleted = outcome.is_ok() && known;
        let reply = LogReply::Group(GroupAnswer::Deleted(vec![outcome]));
        if !deleted {
            return self.post.send(from, Content::LogReplied { ticket, reply: reply.into() });
        }
        let mut body = Vec::new();
        Forget { group, what: Forgotten::UnlessSince(u64::MAX) }.encode(&mut body);
        self.write_offsets(target, OperationKind::Forget, &body, (from, ticket, reply));
    }

    fn has_offsets(&self, target: Target, group: &str) -> bool {
        self.offsets_of(target).is_some_and(|offsets| offsets.group(group).is_some())
    }

    fn offsets_of(&self, target: Target) -> Option<&queue::GroupOffsets> {
        let at = *self.host.by_group.get(&target.group)?;
        self.host.groups[at].machine.coordinator(target.queue)
    }

    fn committed_offsets(
        &self,
        target: Target,
        group: &str,
        wanted: Option<Vec<QueueId>>,
    ) -> Result<Vec<(QueueId, Option<CommittedOffset>)>, LogRefusal> {
        if planted(Bug::LoadingIsNoOffset) && !self.host.logs.coordinators.contains_key(&target.queue) {
            // The planted bug looks only once somebody has joined or committed, and says until then that there is nothing.
            return Ok(Vec::new());
        }
        let offsets = self.offsets_of(target).ok_or(LogRefusal::CoordinatorLoading)?;
        let Some(known) = offsets.group(group) else { return Ok(Vec::new()) };
        Ok(match wanted {
            Some(logs) => logs.into_iter().map(|log| (log, known.offset(log).map(committed))).collect(),
            None => known.offsets().map(|(log, offset)| (log, Some(committed(offset)))).collect(),
        })
    }

    fn list(&mut self, target: Target) -> Vec<GroupDescription> {
        let mut all = self.coordinator_mut(target.queue).list();
        let Some(offsets) = self.offsets_of(target) else { return all };
        let known: std::collections::BTreeSet<&str> = all.iter().map(|group| group.group.as_str()).collect();
        let more: Vec<GroupDescription> =
            offsets.groups().map(|(name, _)| name).filter(|name| !known.contains(name)).map(empty).collect();
        all.extend(more);
        all
    }

    fn describe(&mut self, target: Target, group: &str) -> GroupDescription {
        let known = self.has_offsets(target, group);
        let described = self.coordinator_mut(target.queue).describe(group);
        if described.phase == GroupPhase::Dead && known { empty(group) } else { described }
    }
}

/// What is said in place of a reply to what was not carried out.
fn not_yet(reply: LogReply) -> LogReply {
    let refused = |one: Result<(), LogRefusal>| one.and(Err(LogRefusal::CoordinatorLoading));
    match reply {
        LogReply::Committed(one) => LogReply::Committed(refused(one)),
        LogReply::Forgotten(all) => LogReply::Forgotten(all.into_iter().map(refused).collect()),
        LogReply::Group(GroupAnswer::Deleted(all)) => {
            LogReply::Group(GroupAnswer::Deleted(all.into_iter().map(refused).collect()))
        }
        other => unreachable!("{other:?} waits for no change of offsets"),
    }
}

/// A group of which only committed offsets are left.
fn empty(group: &str) -> GroupDescription {
    GroupDescription { group: group.to_owned(), phase: GroupPhase::Empty, ..GroupDescription::default() }
}

fn to_commit((log, committed): &(QueueId, CommittedOffset)) -> CommitOffset<'_> {
    let (offset, epoch) = (committed.offset, committed.epoch);
    CommitOffset { log: *log, offset, epoch, metadata: &committed.metadata }
}

fn committed(offset: &queue::Committed) -> CommittedOffset {
    let (metadata, epoch) = (offset.metadata.to_string(), offset.epoch);
    CommittedOffset { offset: offset.offset, epoch, metadata }
}
