//! Proposing to groups hosted here and applying what is committed.

use base::Block;
use model::topic::Appended;
use model::{GroupId, Index, LogRefusal};
use queue::{AppendOutcome, AppendRefusal, Delivery, Effect};
use replica::{Committed, Role};

use super::HostWaits;
use super::group::{GroupLog, HostedQueue, QueueGroup};
use crate::Broker;
use crate::broker::Notice;
use crate::log_parcel::AppendAnswer;
use crate::parcel::{Answer, Content};

impl Broker {
    /// A sealed entry for a group hosted here.
    pub(crate) fn propose(&mut self, group: GroupId, block: Block) {
        if group == GroupId::METADATA {
            let Some(metadata) = &mut self.host.metadata else { return };
            // A replica that does not lead gives the entry back; a single voter that has started always leads.
            let _ = metadata.replica.propose(block);
            return;
        }
        let Some(at) = self.host.by_group.get(&group).copied() else { return };
        match &mut self.host.groups[at].log {
            GroupLog::Replicated(replica) => {
                let _ = replica.propose(block);
            }
            GroupLog::Memory { last, entries } => {
                last.0 += 1;
                let index = *last;
                entries.insert(index, block.clone());
                self.apply(at, index, &block);
            }
        }
    }

    /// Applies what consensus has committed. Returns whether there was anything.
    pub(crate) fn apply_committed(&mut self) -> bool {
        let mut any = self.apply_metadata();
        for at in 0..self.host.groups.len() {
            while let Some(committed) = self.next_committed(at) {
                any = true;
                self.apply_one(at, committed);
            }
        }
        any
    }

    fn next_committed(&mut self, at: usize) -> Option<Committed> {
        let GroupLog::Replicated(replica) = &mut self.host.groups[at].log else { return None };
        let outcome = replica.advance(&mut self.log);
        let committed = replica.poll_committed();
        if let Err(halted) = outcome {
            self.notices.push_back(Notice::Halt(halted.0));
        }
        committed
    }

    fn apply_one(&mut self, at: usize, committed: Committed) {
        let Committed { index, term, block } = committed;
        if block.is_empty() {
            self.log.release(self.host.groups[at].id, index);
        } else {
            self.apply(at, index, &block);
        }
        let group = &mut self.host.groups[at];
        let GroupLog::Replicated(replica) = &mut group.log else { return };
        let served = replica.role() == Role::Leader;
        if let Err(halted) = replica.applied(index, term) {
            self.notices.push_back(Notice::Halt(halted.0));
        }
        if !served && replica.role() == Role::Leader {
            // Only now everything that an earlier leader may have handed out is known.
            group.rebuild_deliveries(&self.pool);
        }
    }

    /// Applies one entry to the group's machine and carries out what follows from it.
    fn apply(&mut self, at: usize, index: Index, block: &Block) {
        let group = &mut self.host.groups[at];
        let mut effects = std::mem::take(&mut group.effects);
        if let Err(halt) = group.machine.apply(index, block.as_slice(), &mut effects) {
            let text = format!("group {} halted at entry {index}: {}", group.id, halt.0);
            self.notices.push_back(Notice::Halt(text));
        }
        let mut rest = effects.drain(..);
        while let Some(effect) = rest.next() {
            self.host.groups[at].prefetch(rest.as_slice());
            self.effect(at, effect);
        }
        drop(rest);
        self.note_batches(at, index, block);
        let group = &mut self.host.groups[at];
        group.effects = effects;
        if !group.asked.is_empty() {
            self.ask_again(at);
        }
    }

    fn effect(&mut self, at: usize, effect: Effect) {
        let group = &mut self.host.groups[at];
        match effect {
            Effect::Enqueued { queue, count, .. } => {
                group.enqueued += u64::from(count);
                group.wake(queue);
            }
            Effect::Settled { queue, first, last, messages } => {
                group.settled += messages;
                group.change(queue, |delivery| {
                    delivery.on_settled(first, last);
                    false
                });
            }
            Effect::Returned { queue, first, last } => {
                group.change(queue, |delivery| {
                    delivery.on_returned(first, last);
                    true
                });
            }
            Effect::HandedOut { queue } => group.wake(queue),
            Effect::Configured { queue } => {
                // One that is there already keeps its consumers and what they hold.
                if let Some(state) = group.machine.queue(queue)
                    && !group.queues.contains_key(&queue)
                {
                    let delivery = Delivery::new(state, &self.pool);
                    group.queues.insert(queue, Box::new(HostedQueue::new(delivery)));
                }
            }
            Effect::Deleted { queue, messages } => {
                group.settled += if group.queues.contains_key(&queue) { messages } else { 0 };
                self.revoke_followers(queue);
                self.revoke(at, queue);
            }
            Effect::Appended { origin, .. } if origin.boot() != self.origin.boot() => {}
            Effect::Appended { log, origin, sequence, answer } => {
                let (id, answer) = (group.id, append_answer(answer, group.machine.log(log)));
                self.post.send(origin.shard(), Content::Appended { group: id, sequence, answer });
            }
            Effect::Grown { log } => self.log_grown(log),
            Effect::Trimmed { .. } => {}
            Effect::Rewritten { before, after, .. } => {
                self.counters.rewritten += 1;
                self.counters.rewritten_freed_bytes += u64::from(before.saturating_sub(after));
            }
            // What an earlier start of this node proposed and is applied only now has nobody waiting for it; its
            // numbers must not be taken for those of this start.
            Effect::Applied { origin, .. } if origin.boot() != self.origin.boot() => {}
            Effect::Applied { origin, sequence } => {
                let id = group.id;
                self.post.send(origin.shard(), Content::Applied { group: id, sequence });
            }
            Effect::Answered { origin, sequence, value } if origin == self.origin => {
                match self.host.waits.remove(&(group.id, sequence)) {
                    Some(HostWaits::Purge(shard, ticket)) => {
                        let answer = Answer::Purged(value);
                        self.post.send(shard, Content::Replied { ticket, answer });
                    }
                    Some(HostWaits::Change { number, counts }) => {
                        self.change_step(number, if counts { value } else { 0 });
                    }
                    None => {}
                }
            }
            Effect::Answered { .. } | Effect::Superseded { .. } => {}
            Effect::Gap { origin, sequence, expected } => {
                let id = group.id;
                let text = format!(
                    "group {id}: operation {sequence} of origin {origin} came before {expected}: refused"
                );
                self.notices.push_back(Notice::Halt(text));
            }
            Effect::Freed(index) => {
                group.freed.count();
                forget(group, index, &mut self.log);
            }
        }
    }

    /// The queue is gone: its consumers are told.
    fn revoke(&mut self, at: usize, queue: model::QueueId) {
        let group = &mut self.host.groups[at];
        let Some(mut hosted) = group.queues.remove(&queue) else { return };
        group.reading.remove(&queue);
        group.takers.remove(&queue);
        for (key, _) in hosted.delivery.on_deleted() {
            self.post.send(key.shard, Content::Revoked { key });
        }
    }
}

fn forget(group: &mut QueueGroup, index: Index, log: &mut commitlog::CommitLog) {
    match &mut group.log {
        GroupLog::Replicated(_) => log.release(group.id, index),
        GroupLog::Memory { entries, .. } => {
            entries.remove(&index);
        }
    }
}

/// What a machine says of an append, as its client is told.
fn append_answer(
    answer: Result<AppendOutcome, AppendRefusal>,
    log: Option<&queue::LogState>,
) -> AppendAnswer {
    match answer {
        Ok(AppendOutcome { base, repeat, .. }) => {
            // Of a repeat only the log knows when it was appended, and of what is gone from it nobody does.
            let stored = log.and_then(|log| log.chunk(base)).filter(|chunk| chunk.first <= base);
            let log_append_ms = repeat.then(|| stored.map_or(-1, |chunk| chunk.timestamp_max));
            Ok(Appended { base_offset: base, log_append_ms, start: log.map_or(0, queue::LogState::start) })
        }
        Err(AppendRefusal::NoLog) => Err(LogRefusal::UnknownPartition),
        Err(AppendRefusal::OutOfSequence) => Err(LogRefusal::OutOfSequence),
        Err(AppendRefusal::StaleProducer) => Err(LogRefusal::StaleProducer),
        Err(AppendRefusal::Forgotten) => Err(LogRefusal::Unavailable(
            "it is not known any more what became of this batch".to_owned(),
            true,
        )),
    }
}
