//! A broker of a few lines: answers each request with what a real one might, as the dice say.

use base::{Block, Pool};
use model::{
    Change, ConsumerId, Delivered, Entity, Event, Item, Lane, OwnedRecord, Protocol, QueueId, Record,
    Refusal, Request, Seq,
};

fn row() -> Block {
    let record = Record {
        exchange: "ex",
        routing_key: "key",
        prefix: &[0x10, 0, 2],
        body: Some(b"body"),
        ..Record::bare(Protocol::Amqp091)
    };
    let mut row = Vec::new();
    record.encode(&mut row);
    Pool::default().block(&row)
}

/// `count` messages from place `first` on.
pub fn delivered(lane: Lane, consumer: ConsumerId, first: u64, count: u64) -> Delivered {
    let item = |seq| Item { seq: Seq(seq), at: 0, count: (seq % 3) as u32, redelivered: seq % 3 > 0 };
    let items = (first..first + count).map(item).collect();
    Delivered {
        lane,
        consumer,
        queue: QueueId(1 + first % 2),
        block: row(),
        items,
        settled: false,
        stream: first % 5 == 0,
    }
}

/// What a message that found no queue comes back as.
pub fn unroutable(lane: Lane) -> Event {
    let (exchange, routing_key) = ("ex".into(), "key".into());
    let (prefix, body) = (vec![0, 0], b"back".to_vec());
    let record = OwnedRecord { protocol: Protocol::Amqp091, exchange, routing_key, prefix, body };
    Event::Unroutable(lane, Box::new(record))
}

/// A refusal for this lane, or for the connection.
pub fn refused(lane: Option<Lane>, dice: u8) -> Event {
    let name = || "a name".to_owned();
    let refusals = [
        Refusal::NotFound(Entity::Queue, name()),
        Refusal::AccessRefused(name()),
        Refusal::Locked(name()),
        Refusal::Inequivalent(Entity::Queue, name(), "durable", name(), name()),
        Refusal::InUse(Entity::Exchange, name()),
        Refusal::Invalid("é".repeat(300)),
        Refusal::Unavailable(name(), dice > 127),
    ];
    Event::Refused(lane, refusals[usize::from(dice) % refusals.len()].clone())
}

/// The answers to one request; a seventh of them refuse.
pub fn answers(request: &Request<'_>, dice: u8) -> Vec<Event> {
    let no = dice % 7 == 6;
    match request {
        Request::Authenticate { .. } | Request::Anonymous | Request::Enter { .. } if no => {
            vec![refused(None, dice)]
        }
        Request::Authenticate { .. } | Request::Anonymous => vec![Event::Admitted],
        Request::Enter { .. } => vec![Event::Entered],
        Request::CloseLane { lane } => vec![Event::LaneClosed(*lane)],
        Request::Close => vec![Event::Closed],
        // Nobody who speaks AMQP asks by offset.
        Request::Settle { .. } | Request::Grant(_) | Request::Window { .. } | Request::Log { .. } => {
            vec![]
        }
        Request::Publish(publish) if no => vec![refused(Some(publish.lane), dice)],
        Request::Publish(publish) if publish.token == 0 => vec![],
        Request::Publish(publish) => vec![Event::Confirmed(publish.lane, publish.token, publish.token)],
        Request::Subscribe(subscribe) if no => vec![refused(Some(subscribe.lane), dice)],
        Request::Subscribe(subscribe) => {
            let (lane, consumer) = (subscribe.lane, subscribe.consumer);
            let messages = delivered(lane, consumer, 0, u64::from(dice % 4));
            vec![Event::Subscribed(lane, consumer), Event::Delivered(messages)]
        }
        Request::Unsubscribe { lane, consumer } => vec![Event::Unsubscribed(*lane, *consumer)],
        Request::Get { lane, .. } if no => vec![Event::Empty(*lane)],
        Request::Get { lane, .. } => vec![Event::Got(delivered(*lane, ConsumerId(0), 9, 1), 3)],
        Request::Change { lane, .. } if no => vec![refused(Some(*lane), dice)],
        Request::Change { lane, change } => vec![changed(*lane, change)],
    }
}

fn changed(lane: Lane, change: &Change) -> Event {
    match change {
        Change::DeclareQueue(queue) if queue.name.is_empty() => Event::Declared(lane, "amq.gen".into(), 0, 0),
        Change::DeclareQueue(queue) => Event::Declared(lane, queue.name.clone(), 5, 1),
        Change::PurgeQueue { .. } => Event::Purged(lane, 3),
        Change::DeleteQueue { .. } => Event::Deleted(lane, u64::MAX),
        _ => Event::Done(lane),
    }
}
