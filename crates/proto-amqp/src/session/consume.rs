//! Consumers: starting and ending them, prefetch, single gets, and the reply pseudo-queue.
//!
//! Consuming from `amq.rabbitmq.reply-to` declares an exclusive queue under a name that the broker draws and
//! consumes from that; publishes that name the pseudo-queue for replies get the real name.

use std::sync::Arc;

use base::SendBuffer;
use model::{Arguments, Change, ConsumerId, Lane, QueueDeclaration, REPLY_PREFIX, Request, Subscribe, Value};
use smallvec::SmallVec;

use super::Session;
use super::channel::Reply;
use super::filter;
use super::methods::reply;
use super::offset;
use super::outbox::Due;
use super::publish::REPLY_TO;
use crate::map::Fault;
use crate::wire::{Method, ReplyCode, table};

const CONSUME: (u16, u16) = (60, 20);

/// One consumer of the connection.
#[derive(Debug)]
pub(super) struct Consumer {
    pub lane: u16,
    pub tag: String,
    /// Messages are settled by being sent.
    pub no_ack: bool,
    /// Settling a message allows another one.
    pub is_bounded: bool,
    /// What every `basic.deliver` to it begins with: class, number, tag. Tags are short, and one allocation less is
    /// one wait less where many consumers take turns.
    pub head: SmallVec<[u8; 36]>,
}

impl Session {
    pub(super) fn qos(
        &mut self,
        lane: u16,
        prefetch_size: u32,
        prefetch_count: u16,
        global: bool,
        out: &mut SendBuffer,
    ) -> Result<(), Fault> {
        if prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({prefetch_size})");
            return Err(Fault::new(ReplyCode::NotImplemented, text));
        }
        if global {
            let messages = Some(u32::from(prefetch_count)).filter(|count| *count > 0);
            self.due(Request::Window { lane: Lane(lane), messages });
        } else if let Some(channel) = self.channels.get_mut(&lane) {
            channel.prefetch = prefetch_count;
        }
        reply(Method::BasicQosOk {}, lane, out)
    }

    pub(super) fn consume(
        &mut self,
        lane: u16,
        method: Method<'_>,
        out: &mut SendBuffer,
    ) -> Result<(), Fault> {
        let Method::BasicConsume { queue, consumer_tag, no_ack, exclusive, nowait, ref arguments, .. } =
            method
        else {
            return Ok(());
        };
        let tag = self.fresh_tag(lane, consumer_tag)?;
        if queue == REPLY_TO {
            return self.consume_replies(lane, tag, no_ack, nowait);
        }
        let priority = priority_of(arguments)?;
        let queue = self.named_queue(lane, queue)?;
        let start = offset::start_of(arguments, &queue, &self.vhost)?;
        let filter = filter::filter_of(arguments, &queue, &self.vhost)?.map(Arc::new);
        let prefetch = self.channels.get(&lane).map_or(0, |channel| channel.prefetch);
        let credit = Some(u32::from(prefetch)).filter(|prefetch| *prefetch > 0 && !no_ack);
        let consumer = self.add_consumer(lane, tag, no_ack, credit.is_some());
        let (lane_id, settled) = (Lane(lane), no_ack);
        let with = Subscribe {
            lane: lane_id,
            consumer,
            queue: "",
            settled,
            exclusive,
            priority,
            credit,
            start,
            filter,
        };
        self.outbox.push_back(Due::Subscribe { queue, with: Box::new(with) });
        self.wait_for(lane, Reply::Consuming(consumer), nowait, CONSUME);
        let _ = out;
        Ok(())
    }

    /// The tag asked for, or a new one; neither may be in use on the channel.
    fn fresh_tag(&mut self, lane: u16, asked: &str) -> Result<String, Fault> {
        let is_used =
            |tag: &str| self.channels.get(&lane).is_some_and(|channel| channel.tags.contains_key(tag));
        if is_used(asked) {
            let text = format!("attempt to reuse consumer tag '{asked}'");
            return Err(Fault::new(ReplyCode::NotAllowed, text));
        }
        let limit = self.limits.consumers_max;
        if self.consumers.len() >= limit as usize {
            let text = format!("reached maximum ({limit}) of consumers per connection");
            return Err(Fault::new(ReplyCode::NotAllowed, text));
        }
        match asked {
            "" => Ok(format!("amq.ctag-{:016x}{:x}", self.prng.draw(), self.consumers_ever)),
            asked => Ok(asked.to_owned()),
        }
    }

    fn add_consumer(&mut self, lane: u16, tag: String, no_ack: bool, is_bounded: bool) -> ConsumerId {
        self.consumers_ever += 1;
        let id = ConsumerId(self.consumers_ever);
        let mut head = vec![0, 60, 0, 60];
        table::put_short(&mut head, tag.as_bytes());
        if let Some(channel) = self.channels.get_mut(&lane) {
            channel.tags.insert(tag.clone(), id);
        }
        self.consumers.insert(id, Consumer { lane, tag, no_ack, is_bounded, head: head.into() });
        id
    }

    /// Forgets a consumer, with what it might still have been granted.
    pub(super) fn remove_consumer(&mut self, id: ConsumerId) -> Option<Consumer> {
        self.grants.retain(|(other, _)| *other != id);
        let consumer = self.consumers.remove(&id)?;
        if let Some(channel) = self.channels.get_mut(&consumer.lane) {
            channel.tags.remove(&consumer.tag);
            channel.reply_queue.take_if(|(_, other)| *other == id);
        }
        Some(consumer)
    }

    pub(super) fn cancel(
        &mut self,
        lane: u16,
        tag: &str,
        nowait: bool,
        out: &mut SendBuffer,
    ) -> Result<(), Fault> {
        let consumer = self.channels.get(&lane).and_then(|channel| channel.tags.get(tag)).copied();
        match consumer {
            Some(consumer) => {
                self.due(Request::Unsubscribe { lane: Lane(lane), consumer });
                self.wait_for(lane, Reply::Cancelled(tag.to_owned()), nowait, (60, 30));
                Ok(())
            }
            None if nowait => Ok(()),
            None => reply(Method::BasicCancelOk { consumer_tag: tag }, lane, out),
        }
    }

    pub(super) fn get(&mut self, lane: u16, queue: &str, settled: bool) -> Result<(), Fault> {
        let queue = self.named_queue(lane, queue)?;
        self.outbox.push_back(Due::Get { lane: Lane(lane), queue, settled });
        self.wait_for(lane, Reply::Got { settled }, false, (60, 70));
        Ok(())
    }

    fn consume_replies(&mut self, lane: u16, tag: String, no_ack: bool, nowait: bool) -> Result<(), Fault> {
        let refuse = |text: &str| Err(Fault::new(ReplyCode::PreconditionFailed, text));
        if !no_ack {
            return refuse("reply consumer cannot acknowledge");
        }
        if self.channels.get(&lane).is_some_and(|channel| channel.reply_queue.is_some()) {
            return refuse("reply consumer already set");
        }
        let declaration = QueueDeclaration {
            name: REPLY_PREFIX.to_owned(),
            passive: false,
            durable: false,
            exclusive: true,
            auto_delete: true,
            arguments: Arguments::default(),
        };
        self.due(Request::Change { lane: Lane(lane), change: Change::DeclareQueue(declaration) });
        self.wait_for(lane, Reply::OwnQueue(tag), nowait, CONSUME);
        Ok(())
    }

    /// The queue behind the pseudo-queue is there: its consumer can start.
    pub(super) fn reply_queue_declared(&mut self, lane: u16, tag: String, name: &str, nowait: bool) {
        let consumer = self.add_consumer(lane, tag, true, false);
        let with = Subscribe {
            lane: Lane(lane),
            consumer,
            queue: "",
            settled: true,
            exclusive: false,
            priority: 0,
            credit: None,
            start: None,
            filter: None,
        };
        self.outbox.push_back(Due::Subscribe { queue: name.to_owned(), with: Box::new(with) });
        if let Some(channel) = self.channels.get_mut(&lane) {
            channel.reply_queue = Some((name.to_owned(), consumer));
        }
        self.wait_for(lane, Reply::Consuming(consumer), nowait, CONSUME);
    }

    /// The pseudo-queue is always there, whoever asks.
    pub(super) fn declare_reply_queue(
        &self,
        lane: u16,
        nowait: bool,
        out: &mut SendBuffer,
    ) -> Result<(), Fault> {
        match nowait {
            true => Ok(()),
            false => reply(
                Method::QueueDeclareOk { queue: REPLY_TO, message_count: 0, consumer_count: 1 },
                lane,
                out,
            ),
        }
    }
}

fn priority_of(arguments: &Arguments) -> Result<i32, Fault> {
    match arguments.get("x-priority") {
        None => Ok(0),
        Some(Value::Int(priority)) => Ok((*priority).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32),
        Some(other) => {
            let text = format!("invalid arg 'x-priority': {other} is not an integer");
            Err(Fault::new(ReplyCode::PreconditionFailed, text))
        }
    }
}
