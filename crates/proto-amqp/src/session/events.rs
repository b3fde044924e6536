//! Events become replies: each goes to the channel it is for and meets what that channel waits for.

use base::SendBuffer;
use model::{ConsumerId, Delivered, Event, Lane, Refusal};

use super::channel::{Reply, State};
use super::publish::PUBLISH;
use super::{Session, Stage};
use crate::map;
use crate::wire::Method;

impl Session {
    pub(super) fn take_event(&mut self, event: &Event, out: &mut SendBuffer) {
        match event {
            Event::Admitted => self.admitted(out),
            Event::Entered => self.entered(out),
            Event::Closed => self.broker_closed(out),
            Event::ShuttingDown => self.shutdown(out),
            Event::Refused(None, refusal) => self.refused(refusal, out),
            Event::Delivered(delivered) | Event::Got(delivered, _) if self.stage != Stage::Open => {
                self.send_back(delivered);
            }
            // Behind a close nothing on channels matters any more.
            _ if self.stage != Stage::Open => {}
            Event::Blocked(reason) => self.blocked(Some(reason), out),
            Event::Unblocked => self.blocked(None, out),
            Event::Refused(Some(lane), refusal) => self.lane_refused(*lane, refusal, out),
            Event::PublishRefused(lane, refusal) => self.fail_open(*lane, refusal, PUBLISH, out),
            Event::LaneClosed(lane) => self.lane_closed(*lane, out),
            Event::Confirmed(lane, first, last) => self.answer_publishes(lane.0, *first, *last, true),
            Event::Rejected(lane, first, last) => self.answer_publishes(lane.0, *first, *last, false),
            Event::Unroutable(lane, record) => self.put_back(lane.0, record, out),
            Event::Done(lane) => self.done(*lane, out),
            Event::Declared(lane, name, messages, consumers) => {
                self.declared(*lane, name, *messages, *consumers, out);
            }
            Event::Purged(lane, count) | Event::Deleted(lane, count) => self.counted(*lane, *count, out),
            Event::Subscribed(lane, consumer) => self.subscribed(*lane, *consumer, out),
            Event::Unsubscribed(lane, consumer) => self.unsubscribed(*lane, *consumer, out),
            Event::Revoked(lane, consumer) => self.revoked(*lane, *consumer, out),
            Event::Delivered(delivered) => self.deliver(delivered, out),
            Event::Got(delivered, behind) => self.take_got(delivered, *behind, out),
            Event::Empty(lane) => self.empty(*lane, out),
            Event::Log(..) => unreachable!("this session asks nothing by offset"),
        }
    }

    /// What the channel asked for, or published, is refused: the channel closes.
    fn lane_refused(&mut self, lane: Lane, refusal: &Refusal, out: &mut SendBuffer) {
        let Some(channel) = self.channels.get_mut(&lane.0) else { return };
        if channel.state != State::Open {
            return;
        }
        let ids = channel.awaited.take().map_or((0, 0), |awaited| awaited.ids);
        self.fail_open(lane, refusal, ids, out);
    }

    fn fail_open(&mut self, lane: Lane, refusal: &Refusal, ids: (u16, u16), out: &mut SendBuffer) {
        if self.channels.get(&lane.0).is_some_and(|channel| channel.state == State::Open) {
            let fault = map::fault_of(refusal, &self.vhost);
            self.fail(lane.0, fault, ids, out);
        }
    }

    fn done(&mut self, lane: Lane, out: &mut SendBuffer) {
        let Some((awaited, _)) = self.answered(lane.0) else { return };
        let method = match awaited.reply {
            Reply::ExchangeDeclared => Method::ExchangeDeclareOk {},
            Reply::ExchangeDeleted => Method::ExchangeDeleteOk {},
            Reply::ExchangeBound => Method::ExchangeBindOk {},
            Reply::ExchangeUnbound => Method::ExchangeUnbindOk {},
            Reply::QueueBound => Method::QueueBindOk {},
            Reply::QueueUnbound => Method::QueueUnbindOk {},
            _ => return,
        };
        if !awaited.nowait {
            method.put(lane.0, out.tail());
        }
    }

    fn declared(&mut self, lane: Lane, name: &str, messages: u64, consumers: u32, out: &mut SendBuffer) {
        let Some((awaited, channel)) = self.answered(lane.0) else { return };
        if let Reply::OwnQueue(tag) = awaited.reply {
            return self.reply_queue_declared(lane.0, tag, name, awaited.nowait);
        }
        name.clone_into(&mut channel.last_queue);
        if !awaited.nowait {
            let message_count = u32::try_from(messages).unwrap_or(u32::MAX);
            Method::QueueDeclareOk { queue: name, message_count, consumer_count: consumers }
                .put(lane.0, out.tail());
        }
    }

    fn counted(&mut self, lane: Lane, count: u64, out: &mut SendBuffer) {
        let Some((awaited, _)) = self.answered(lane.0) else { return };
        let message_count = u32::try_from(count).unwrap_or(u32::MAX);
        match awaited.reply {
            _ if awaited.nowait => {}
            Reply::QueuePurged => Method::QueuePurgeOk { message_count }.put(lane.0, out.tail()),
            Reply::QueueDeleted => Method::QueueDeleteOk { message_count }.put(lane.0, out.tail()),
            _ => {}
        }
    }

    fn subscribed(&mut self, lane: Lane, consumer: ConsumerId, out: &mut SendBuffer) {
        let Some((awaited, _)) = self.answered(lane.0) else { return };
        let Some(consumer) = self.consumers.get(&consumer).filter(|_| !awaited.nowait) else { return };
        Method::BasicConsumeOk { consumer_tag: &consumer.tag }.put(lane.0, out.tail());
    }

    fn unsubscribed(&mut self, lane: Lane, consumer: ConsumerId, out: &mut SendBuffer) {
        self.remove_consumer(consumer);
        let Some((awaited, _)) = self.answered(lane.0) else { return };
        if let Reply::Cancelled(tag) = &awaited.reply
            && !awaited.nowait
        {
            Method::BasicCancelOk { consumer_tag: tag }.put(lane.0, out.tail());
        }
    }

    /// The consumer is gone with its queue, which only clients that asked for it are told.
    fn revoked(&mut self, lane: Lane, consumer: ConsumerId, out: &mut SendBuffer) {
        let Some(consumer) = self.remove_consumer(consumer) else { return };
        if self.capabilities.consumer_cancel_notify {
            Method::BasicCancel { consumer_tag: &consumer.tag, nowait: true }.put(lane.0, out.tail());
        }
    }

    fn take_got(&mut self, delivered: &Delivered, behind: u64, out: &mut SendBuffer) {
        let Some((awaited, _)) = self.answered(delivered.lane.0) else { return self.send_back(delivered) };
        if let Reply::Got { settled } = awaited.reply {
            self.got(delivered, behind, settled, out);
        }
    }

    fn empty(&mut self, lane: Lane, out: &mut SendBuffer) {
        if self.answered(lane.0).is_some() {
            Method::BasicGetEmpty {}.put(lane.0, out.tail());
        }
    }
}
