//! Questions about one queue, answered behind the asking shard's earlier writes.

use model::{Entity, GroupId, Lane, OperationKind, QueueId, Refusal, ShardId};
use queue::{ConsumerKey, ExclusiveUse, Got, Subscription, Wanted};

use super::HostWaits;
use super::entries::{Ahead, find};
use super::group::Asked;
use crate::Broker;
use crate::parcel::{Answer, Content, Question};

impl Broker {
    /// A question for a queue of a group hosted here.
    pub(crate) fn asked(&mut self, group: GroupId, asked: Asked) {
        let Some(at) = self.host.by_group.get(&group).copied() else {
            return self.reply(asked.from, asked.ticket, no_queue(asked.queue));
        };
        let group = &mut self.host.groups[at];
        if let (Question::Count, Some(log)) = (&asked.question, group.machine.log(asked.queue)) {
            let consumers = self.host.logs.followers.count(asked.queue) as u32;
            let answer = Answer::Counted { ready: log.records(), held: 0, consumers };
            return self.reply(asked.from, asked.ticket, answer);
        }
        // A queue of the topology that the group does not know is being configured by this shard.
        let is_here = group.queues.contains_key(&asked.queue) || group.machine.log(asked.queue).is_some();
        let early = !is_here && self.topology.queue_by_id(asked.queue).is_some();
        if early || group.machine.last_sequence(asked.origin) < asked.after {
            return group.asked.push(asked);
        }
        self.answer(at, asked);
    }

    /// Something was applied, or became deliverable: what waited may be answered.
    pub(crate) fn ask_again(&mut self, at: usize) {
        let group = &mut self.host.groups[at];
        for asked in std::mem::take(&mut group.asked) {
            let id = self.host.groups[at].id;
            self.asked(id, asked);
        }
    }

    fn answer(&mut self, at: usize, asked: Asked) {
        let group = &mut self.host.groups[at];
        if let Question::Follow(subscription, start, filter) = &asked.question
            && group.machine.log(asked.queue).is_some()
        {
            self.follow(at, asked.queue, subscription, (*start, filter.clone()));
            return self.reply(asked.from, asked.ticket, Answer::Subscribed);
        }
        let Some(hosted) = group.queues.get_mut(&asked.queue) else {
            return self.reply(asked.from, asked.ticket, no_queue(asked.queue));
        };
        let delivery = &mut hosted.delivery;
        let answer = match asked.question {
            Question::Count => Answer::Counted {
                ready: group.machine.queue(asked.queue).map_or(0, |state| delivery.ready(state)),
                held: delivery.unacked(),
                consumers: delivery.consumer_count() as u32,
            },
            Question::Purge => return self.purge_ready(at, &asked),
            Question::Get(lane) => return self.take_one(at, asked, lane),
            Question::Follow(..) => no_queue(asked.queue),
            Question::Subscribe(subscription) => {
                let answer = start(delivery, &subscription);
                group.wake(asked.queue);
                answer
            }
        };
        self.reply(asked.from, asked.ticket, answer);
    }

    fn purge_ready(&mut self, at: usize, asked: &Asked) {
        let group = &mut self.host.groups[at];
        let id = group.id;
        let (Some(hosted), Some(state)) = (group.queues.get(&asked.queue), group.machine.queue(asked.queue))
        else {
            return;
        };
        let ranges = hosted.delivery.ready_ranges(state);
        if ranges.is_empty() {
            return self.reply(asked.from, asked.ticket, Answer::Purged(0));
        }
        let Some(outgoing) = self.door.outgoing(id) else { return };
        let sequence = outgoing.ranges(&self.pool, OperationKind::Drop, asked.queue, ranges);
        self.host.waits.insert((id, sequence), HostWaits::Purge(asked.from, asked.ticket));
    }

    /// Takes one message for a get, once it may be handed out and its entry is in memory.
    fn take_one(&mut self, at: usize, asked: Asked, lane: Lane) {
        let group = &mut self.host.groups[at];
        let (Some(hosted), Some(state)) =
            (group.queues.get_mut(&asked.queue), group.machine.queue(asked.queue))
        else {
            return;
        };
        let delivery = &mut hosted.delivery;
        let (id, log, loaded, commit_log) = (group.id, &group.log, &mut group.loaded, &mut self.log);
        let key = ConsumerKey { shard: asked.from, conn: Default::default(), consumer: Default::default() };
        // The door settles what it passes on: what never reaches it is not settled.
        let queue = asked.queue;
        let ahead = Ahead::Entries((queue, 0));
        let mut source = |wanted: Wanted| find((log, loaded, id), commit_log, queue, wanted, ahead);
        let got = delivery.get(state, (key, lane), false, &mut source);
        if !matches!(got, Got::Later) {
            group.loaded.served((queue, 0));
        }
        match got {
            Got::One(handed, remaining) => {
                hosted.delivered += handed.items.len() as u64;
                self.reply(asked.from, asked.ticket, Answer::Got(Some((handed, remaining))));
            }
            Got::Empty => self.reply(asked.from, asked.ticket, Answer::Got(None)),
            Got::Later => {
                let (wanted, reading) = (delivery.wants_hand_out(), delivery.waiting_for().is_some());
                let queue = asked.queue;
                if reading {
                    group.reading.insert(queue);
                }
                group.asked.push(asked);
                if let Some(bound) = wanted {
                    self.raise_bound(at, queue, bound);
                }
            }
        }
    }

    /// A consumer goes; the last one of an auto-delete queue takes the queue with it.
    pub(crate) fn remove_taker(&mut self, group: GroupId, queue: QueueId, key: ConsumerKey) {
        let Some(group) = self.host.group(group) else { return };
        let Some(hosted) = group.queues.get_mut(&queue) else {
            return self.host.logs.followers.remove(key);
        };
        let delivery = &mut hosted.delivery;
        let was_there = delivery.unsubscribe(key);
        let left = delivery.consumer_count();
        group.wake(queue);
        if was_there && left == 0 {
            self.delete_if_auto(queue);
        }
    }

    fn reply(&mut self, to: ShardId, ticket: u64, answer: Answer) {
        self.post.send(to, Content::Replied { ticket, answer });
    }
}

fn start(delivery: &mut queue::Delivery, s: &Subscription) -> Answer {
    match delivery.subscribe(*s) {
        Ok(()) => Answer::Subscribed,
        Err(ExclusiveUse) => Answer::Refused(Refusal::ExclusiveUse(String::new())),
    }
}

fn no_queue(queue: QueueId) -> Answer {
    Answer::Refused(Refusal::NotFound(Entity::Queue, format!("number {queue}")))
}
