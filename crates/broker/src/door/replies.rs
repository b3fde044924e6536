//! Answers of hosts and of the metadata group, on their way to whoever asked.

use model::{ConnId, Event, Lane, OpSequence, Refusal};
use topology::Answer as Changed;

use super::Pending;
use super::log::PendingTopics;
use crate::Broker;
use crate::parcel::{Answer, Ticket};

/// A change this shard proposed.
#[derive(Debug)]
pub(crate) enum PendingChange {
    /// For a client.
    Client { conn: ConnId, lane: Lane },
    /// A client's, applied on this shard with this answer, not yet on all.
    Answered { conn: ConnId, lane: Lane, answer: Changed },
    /// The end of a connection that waits to be told.
    Closing(Ticket),
    /// The start of this shard.
    Boot,
    /// Part of an answer about topics.
    Topic(PendingTopics),
    /// Likewise, applied on this shard with this answer, not yet on all.
    TopicAnswered(PendingTopics, Changed),
    /// Nobody waits.
    Nobody,
}

impl Broker {
    /// A host answered a question.
    pub(crate) fn replied(&mut self, ticket: Ticket, answer: Answer) {
        let Some(pending) = self.door.pending.remove(&ticket) else { return };
        let lane = pending.lane();
        self.pass_answer(pending, answer);
        self.answered(lane);
    }

    /// The lane has one of its answers. The last one lets a closing lane end.
    fn answered(&mut self, lane: Option<(ConnId, Lane)>) {
        let Some((conn, lane)) = lane else { return };
        let Some(connection) = self.door.connections.get_mut(&conn) else { return };
        let Some(state) = connection.lanes.get_mut(&lane) else { return };
        state.unanswered = state.unanswered.saturating_sub(1);
        if state.unanswered == 0
            && let Some(ticket) = state.closing
        {
            connection.lanes.remove(&lane);
            self.barrier_passed(ticket);
        }
    }

    fn pass_answer(&mut self, pending: Pending, answer: Answer) {
        match (pending, answer) {
            (Pending::Declared { conn, lane, name }, Answer::Counted { ready, consumers, .. }) => {
                self.events.push_back((conn, Event::Declared(lane, name, ready, consumers)));
            }
            (Pending::Delete { conn, lane, change }, answer @ Answer::Counted { .. }) => {
                self.delete_counted(conn, lane, change, &answer);
            }
            (Pending::Purged { conn, lane }, Answer::Purged(messages)) => {
                self.events.push_back((conn, Event::Purged(lane, messages)));
            }
            (pending @ Pending::Got { .. }, Answer::Got(got)) => self.got(&pending, got),
            (Pending::Subscribed { conn, lane, consumer, queue, group }, Answer::Subscribed) => {
                self.consumer_started(conn, lane, consumer, (queue, group));
            }
            (pending, Answer::Refused(refusal)) => self.question_refused(pending, refusal),
            (pending, answer) => unreachable!("{answer:?} does not answer {pending:?}"),
        }
    }

    fn question_refused(&mut self, pending: Pending, mut refusal: Refusal) {
        let (conn, lane) = match pending {
            // The queue was deleted between the declaration and its counts: it was there, and it was empty.
            Pending::Declared { conn, lane, name } if matches!(refusal, Refusal::NotFound(..)) => {
                return self.events.push_back((conn, Event::Declared(lane, name, 0, 0)));
            }
            Pending::Subscribed { conn, lane, consumer, queue, .. } => {
                if let (Refusal::ExclusiveUse(name), Some(record)) =
                    (&mut refusal, self.topology.queue_by_id(queue))
                {
                    // Its host knows the queue by its number.
                    name.clone_from(&record.name);
                }
                if let Some(connection) = self.door.connections.get_mut(&conn) {
                    connection.remove_consumer(consumer);
                }
                (conn, lane)
            }
            Pending::Declared { conn, lane, .. }
            | Pending::Delete { conn, lane, .. }
            | Pending::Purged { conn, lane }
            | Pending::Got { conn, lane, .. } => (conn, lane),
            Pending::Barrier { .. } => return,
        };
        self.refuse(conn, Some(lane), refusal);
    }

    /// One of the groups of a barrier has applied everything.
    pub(crate) fn barrier_passed(&mut self, ticket: Ticket) {
        let Some(Pending::Barrier { conn, lane, missing }) = self.door.pending.get_mut(&ticket) else {
            return;
        };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        let event = lane.map_or(Event::Closed, Event::LaneClosed);
        self.events.push_back((*conn, event));
        self.door.pending.remove(&ticket);
    }

    /// This shard has applied a change that it proposed itself.
    pub(crate) fn change_answered(&mut self, sequence: OpSequence, answer: Changed) {
        let Some(pending) = self.door.changes.get_mut(&sequence) else { return };
        match *pending {
            PendingChange::Client { conn, lane } => {
                *pending = PendingChange::Answered { conn, lane, answer };
            }
            PendingChange::Topic(topic) => *pending = PendingChange::TopicAnswered(topic, answer),
            _ => {}
        }
    }

    /// Every shard has applied the change; `value` is the number of messages that went with a deleted queue.
    pub(crate) fn change_done(&mut self, sequence: OpSequence, value: u64) {
        match self.door.changes.remove(&sequence) {
            Some(PendingChange::Answered { conn, lane, answer }) => {
                self.answer_client(conn, lane, answer, value);
                self.answered(Some((conn, lane)));
            }
            Some(PendingChange::Closing(ticket)) => self.barrier_passed(ticket),
            Some(PendingChange::Boot) => self.booted = true,
            Some(PendingChange::TopicAnswered(topic, answer)) => self.topic_changed(topic, answer),
            Some(PendingChange::Client { .. } | PendingChange::Topic(_) | PendingChange::Nobody) | None => {}
        }
    }

    fn answer_client(&mut self, conn: ConnId, lane: Lane, answer: Changed, value: u64) {
        match answer {
            Changed::Done | Changed::Purge(_) => self.events.push_back((conn, Event::Done(lane))),
            Changed::Declared { queue, .. } => {
                self.count_declared(conn, lane, queue.name.clone(), queue.id, queue.group);
            }
            Changed::DeletedQueues { .. } => self.events.push_back((conn, Event::Deleted(lane, value))),
            Changed::Refused(refusal) => self.refuse(conn, Some(lane), refusal),
            // No lane asks for changes of topics: they are answered to whoever proposed them.
            Changed::TopicCreated { .. }
            | Changed::TopicDeleted { .. }
            | Changed::TopicAltered { .. }
            | Changed::Coordinators { .. }
            | Changed::LogRefused(_) => {}
        }
    }
}
