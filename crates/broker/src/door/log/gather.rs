//! Replies of several hosts on their way to becoming one answer.

use model::membership::{CommittedOffset, GroupAnswer};
use model::topic::{Fetched, PartitionFigures, PartitionRef};
use model::{ConnId, LogAnswer, LogRefusal, QueueId, ShardId};

use crate::Broker;
use crate::log_parcel::LogReply;
use crate::parcel::{Content, Ticket};

/// An answer that is being put together.
#[derive(Debug)]
pub(crate) struct Gather {
    pub conn: ConnId,
    pub token: u64,
    /// Filled in place; what no host answered keeps what it was begun with.
    pub answer: LogAnswer,
    /// Partitions asked for by name and what they are, where replies speak of logs.
    pub asked: Vec<(PartitionRef, Option<QueueId>)>,
    /// Changes of topics that are not everywhere yet.
    pub changes: u32,
    /// Questions without a reply yet.
    pub tickets: Vec<(Ticket, ShardId)>,
}

/// One question of a gather.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub gather: u64,
    /// The place of the reply in the answer, where there is one.
    pub position: usize,
}

impl Broker {
    /// Begins an answer; parts are added with [`Broker::part`], and [`Broker::gathered`] ends the asking.
    pub(crate) fn gather(&mut self, conn: ConnId, token: u64, answer: LogAnswer) -> u64 {
        let id = self.door.next_gather;
        self.door.next_gather += 1;
        let gather = Gather { conn, token, answer, asked: Vec::new(), changes: 0, tickets: Vec::new() };
        self.door.gathers.insert(id, gather);
        id
    }

    /// A ticket for one question to a host.
    pub(crate) fn part(&mut self, gather: u64, position: usize, host: ShardId) -> Ticket {
        let ticket = self.door.draw_ticket();
        self.door.parts.insert(ticket, Part { gather, position });
        if let Some(gather) = self.door.gathers.get_mut(&gather) {
            gather.tickets.push((ticket, host));
        }
        ticket
    }

    /// Everything was asked: what needs no reply is answered.
    pub(crate) fn gathered(&mut self, gather: u64) {
        if self
            .door
            .gathers
            .get(&gather)
            .is_some_and(|gather| gather.tickets.is_empty() && gather.changes == 0)
            && let Some(gather) = self.door.gathers.remove(&gather)
        {
            self.answer_log(gather.conn, gather.token, gather.answer);
        }
    }

    /// A host replied.
    pub(crate) fn log_replied(&mut self, ticket: Ticket, reply: LogReply) {
        let Some(part) = self.door.parts.remove(&ticket) else { return };
        let Some(gather) = self.door.gathers.get_mut(&part.gather) else { return };
        gather.tickets.retain(|(waiting, _)| *waiting != ticket);
        let is_read = matches!(reply, LogReply::Read(_));
        gather.fold(part.position, reply, &self.topology);
        if is_read && !gather.tickets.is_empty() {
            // One host has something: the others tell what they have, however little.
            let others = gather.tickets.clone();
            others.into_iter().for_each(|(ticket, host)| self.post.send(host, Content::HurryRead { ticket }));
        }
        self.gathered(part.gather);
    }

    /// The session has no use for the answer any more.
    pub(crate) fn cancel(&mut self, conn: ConnId, token: u64) {
        let of_request = |gather: &Gather| gather.conn == conn && gather.token == token;
        let Some(id) = self.door.gathers.iter().find(|(_, g)| of_request(g)).map(|(id, _)| *id) else {
            return;
        };
        let Some(gather) = self.door.gathers.remove(&id) else { return };
        for (ticket, host) in gather.tickets {
            self.door.parts.remove(&ticket);
            self.post.send(host, Content::CancelLog { ticket });
        }
    }

    /// A connection is gone: nobody waits for its answers.
    pub(crate) fn cancel_all(&mut self, conn: ConnId) {
        let tokens: Vec<u64> = self
            .door
            .gathers
            .values()
            .filter(|gather| gather.conn == conn)
            .map(|gather| gather.token)
            .collect();
        tokens.into_iter().for_each(|token| self.cancel(conn, token));
    }
}

impl Gather {
    fn fold(&mut self, position: usize, reply: LogReply, topology: &topology::Topology) {
        match (&mut self.answer, reply) {
            (LogAnswer::Offsets(all), LogReply::Offset(one)) => put(all, position, one),
            (LogAnswer::EpochEnds(all), LogReply::EpochEnd(one)) => put(all, position, one),
            (LogAnswer::Trimmed(all), LogReply::Trimmed(one)) => put(all, position, one),
            (LogAnswer::Partitions(all), LogReply::Figures(one)) => {
                let Some(slot) = all.get_mut(position) else { return };
                *slot = match (&*slot, one) {
                    (Err((at, _)), Err(refusal)) => Err((at.clone(), refusal)),
                    (Err((at, _)), Ok(figures)) => Ok(PartitionFigures {
                        topic: name_of(at),
                        partition: at.partition,
                        start: figures.start,
                        end: figures.end,
                        bytes: figures.bytes,
                        producers: figures.producers,
                    }),
                    (Ok(_), _) => return,
                };
            }
            (LogAnswer::Fetched(all), LogReply::Read(some)) => put_reads(all, some),
            (LogAnswer::Group(answer), reply) => fold_group(answer, &self.asked, position, reply, topology),
            (answer, reply) => unreachable!("{reply:?} is no part of {answer:?}"),
        }
    }
}

fn put<T>(all: &mut [T], position: usize, one: T) {
    if let Some(slot) = all.get_mut(position) {
        *slot = one;
    }
}

fn put_reads(all: &mut [Result<Fetched, LogRefusal>], some: Vec<(usize, Result<Fetched, LogRefusal>)>) {
    some.into_iter().for_each(|(position, one)| put(all, position, one));
}

fn name_of(at: &PartitionRef) -> String {
    match &at.topic {
        model::topic::TopicRef::Name(name) => name.clone(),
        model::topic::TopicRef::Id(_) => String::new(),
    }
}

fn fold_group(
    answer: &mut GroupAnswer,
    asked: &[(PartitionRef, Option<QueueId>)],
    position: usize,
    reply: LogReply,
    topology: &topology::Topology,
) {
    match (answer, reply) {
        (GroupAnswer::Groups(all), LogReply::Group(GroupAnswer::Groups(some))) => {
            // Asked by name, each has its place; asked for all, they follow each other.
            match (all.get_mut(position), some) {
                (Some(slot), some) => some.into_iter().for_each(|one| *slot = one),
                (None, some) => all.extend(some),
            }
        }
        (GroupAnswer::Deleted(all), LogReply::Group(GroupAnswer::Deleted(some))) => {
            some.into_iter().for_each(|one| put(all, position, one));
        }
        (GroupAnswer::Committed(all), LogReply::Committed(outcome)) => {
            all.iter_mut().filter(|one| one.is_ok()).for_each(|one| *one = outcome.clone());
        }
        (GroupAnswer::Committed(all), LogReply::Forgotten(some)) => {
            all.iter_mut().filter(|one| one.is_ok()).zip(some).for_each(|(slot, one)| *slot = one);
        }
        (GroupAnswer::Offsets(all), LogReply::Offsets(found)) => {
            *all = found.map(|found| named_offsets(asked, found, topology));
        }
        (answer, LogReply::Group(whole)) => *answer = whole,
        (answer, reply) => unreachable!("{reply:?} is no part of {answer:?}"),
    }
}

/// Offsets by the names they were asked by, or, where all were asked for, by the names their logs have.
fn named_offsets(
    asked: &[(PartitionRef, Option<QueueId>)],
    found: Vec<(QueueId, Option<CommittedOffset>)>,
    topology: &topology::Topology,
) -> Vec<(PartitionRef, Option<CommittedOffset>)> {
    if asked.is_empty() {
        let named = found.into_iter().filter_map(|(log, offset)| {
            let (topic, partition) = topology.topic_of(log)?;
            let topic = model::topic::TopicRef::Name(topic.name.clone());
            Some((PartitionRef { topic, partition }, offset))
        });
        return named.collect();
    }
    let of = |log: &Option<QueueId>| {
        let log = (*log)?;
        found.iter().find(|(found, _)| *found == log).and_then(|(_, offset)| offset.clone())
    };
    asked.iter().map(|(at, log)| (at.clone(), of(log))).collect()
}
