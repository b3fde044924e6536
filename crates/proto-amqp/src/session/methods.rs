//! Methods of an open channel become requests; those that need no broker are answered at once.

use base::SendBuffer;
use model::{Change, ExchangeDeclaration, Lane, Outcome, QueueDeclaration, REPLY_PREFIX, Request};

use super::Session;
use super::channel::{Awaited, Channel, Reply, State};
use super::confirm::Confirms;
use super::inbound::ids_of;
use super::publish::{Phase, REPLY_TO, misplaced};
use crate::map::Fault;
use crate::wire::{Method, ReplyCode};

impl Session {
    /// A method frame of an open channel that need not wait.
    pub(super) fn channel_method(&mut self, lane: u16, payload: &[u8], out: &mut SendBuffer) {
        let phase = self.channels.get(&lane).map_or(Phase::Idle, |channel| channel.content.phase);
        let ids = ids_of(payload);
        let result = if phase != Phase::Idle {
            Err(misplaced(phase))
        } else if let [0, 60, 0, 80, tag @ .., multiple] = payload
            && let Ok(tag) = <[u8; 8]>::try_from(tag)
        {
            self.settle(lane, u64::from_be_bytes(tag), multiple & 1 == 1, Outcome::Accept)
        } else if ids == (60, 40) {
            self.publish_begins(lane, payload)
        } else {
            match Method::decode(payload, self.limits.nesting_max) {
                Ok(method) => self.method(lane, method, out),
                Err(malformed) => Err(malformed.into()),
            }
        };
        if let Err(fault) = result {
            self.fail(lane, fault, ids, out);
        }
    }

    fn method(&mut self, lane: u16, method: Method<'_>, out: &mut SendBuffer) -> Result<(), Fault> {
        use Method::*;
        match method {
            ChannelOpen {} => Err(Fault::new(ReplyCode::ChannelError, "second 'channel.open' seen")),
            ChannelClose { .. } => {
                self.flush_confirms(out.tail());
                self.end_channel(lane, State::Closing);
                Ok(())
            }
            ChannelFlow { active: true } => reply(ChannelFlowOk { active: true }, lane, out),
            ChannelFlow { active: false } => Err(Fault::new(ReplyCode::NotImplemented, "active=false")),
            // An answer to what this server never sends.
            ChannelFlowOk { .. } => Ok(()),
            AccessRequest { .. } => reply(AccessRequestOk { ticket: 1 }, lane, out),
            ConfirmSelect { nowait } => self.confirm_select(lane, nowait, out),
            TxSelect {} | TxCommit {} | TxRollback {} => {
                Err(Fault::new(ReplyCode::NotImplemented, "transactions are not supported"))
            }
            BasicAck { delivery_tag, multiple } => self.settle(lane, delivery_tag, multiple, Outcome::Accept),
            BasicNack { delivery_tag, multiple, requeue } => {
                let outcome = if requeue { Outcome::Return { failed: false } } else { Outcome::Reject };
                self.settle(lane, delivery_tag, multiple, outcome)
            }
            BasicReject { delivery_tag, requeue } => {
                let outcome = if requeue { Outcome::Return { failed: true } } else { Outcome::Reject };
                self.settle(lane, delivery_tag, false, outcome)
            }
            BasicRecover { requeue: true } => {
                self.recover(lane)?;
                reply(BasicRecoverOk {}, lane, out)
            }
            BasicRecoverAsync { requeue: true } => self.recover(lane),
            BasicRecover { .. } | BasicRecoverAsync { .. } => {
                Err(Fault::new(ReplyCode::NotImplemented, "requeue=false"))
            }
            BasicQos { prefetch_size, prefetch_count, global } => {
                self.qos(lane, prefetch_size, prefetch_count, global, out)
            }
            BasicConsume { .. } => self.consume(lane, method, out),
            BasicCancel { consumer_tag, nowait } => self.cancel(lane, consumer_tag, nowait, out),
            BasicCancelOk { .. } => Ok(()),
            BasicGet { queue, no_ack } => self.get(lane, queue, no_ack),
            QueueDeclare { queue, nowait, .. } if queue == REPLY_TO => {
                self.declare_reply_queue(lane, nowait, out)
            }
            other => self.topology(lane, other),
        }
    }

    fn confirm_select(&mut self, lane: u16, nowait: bool, out: &mut SendBuffer) -> Result<(), Fault> {
        if let Some(channel) = self.channels.get_mut(&lane) {
            channel.confirms.get_or_insert_with(Confirms::default);
        }
        match nowait {
            true => Ok(()),
            false => reply(Method::ConfirmSelectOk {}, lane, out),
        }
    }

    /// Methods that declare, bind, delete and purge.
    fn topology(&mut self, lane: u16, method: Method<'_>) -> Result<(), Fault> {
        use Method::*;
        let ids = method.ids();
        let (change, reply, nowait) = match method {
            ExchangeDeclare {
                exchange,
                kind,
                passive,
                durable,
                auto_delete,
                internal,
                nowait,
                arguments,
            } => {
                let (name, kind) = (clean(exchange), kind.to_owned());
                let declaration =
                    ExchangeDeclaration { name, kind, passive, durable, auto_delete, internal, arguments };
                (Change::DeclareExchange(declaration), Reply::ExchangeDeclared, nowait)
            }
            ExchangeDelete { exchange, if_unused, nowait } => {
                let name = clean(exchange);
                (Change::DeleteExchange { name, if_unused }, Reply::ExchangeDeleted, nowait)
            }
            ExchangeBind { destination, source, routing_key, nowait, arguments } => {
                let (source, destination) = (clean(source), clean(destination));
                let key = routing_key.to_owned();
                let change = Change::BindExchange { source, destination, key, arguments };
                (change, Reply::ExchangeBound, nowait)
            }
            ExchangeUnbind { destination, source, routing_key, nowait, arguments } => {
                let (source, destination) = (clean(source), clean(destination));
                let key = routing_key.to_owned();
                let change = Change::UnbindExchange { source, destination, key, arguments };
                (change, Reply::ExchangeUnbound, nowait)
            }
            other => self.queue_change(lane, other)?,
        };
        self.due(Request::Change { lane: Lane(lane), change });
        self.wait_for(lane, reply, nowait, ids);
        Ok(())
    }

    fn queue_change(&self, lane: u16, method: Method<'_>) -> Result<(Change, Reply, bool), Fault> {
        use Method::*;
        Ok(match method {
            QueueDeclare { queue, passive, durable, exclusive, auto_delete, nowait, arguments } => {
                let name = clean(queue);
                // Declaring somebody's reply queue asks whether it is still there, and never makes one.
                let passive = passive || name.starts_with(REPLY_PREFIX);
                let declaration =
                    QueueDeclaration { name, passive, durable, exclusive, auto_delete, arguments };
                (Change::DeclareQueue(declaration), Reply::QueueDeclared, nowait)
            }
            QueueBind { queue, exchange, routing_key, nowait, arguments } => {
                let key = self.named_key(lane, queue, routing_key)?;
                let (exchange, queue) = (clean(exchange), self.named_queue(lane, queue)?);
                (Change::BindQueue { exchange, queue, key, arguments }, Reply::QueueBound, nowait)
            }
            QueueUnbind { queue, exchange, routing_key, arguments } => {
                let key = self.named_key(lane, queue, routing_key)?;
                let (exchange, queue) = (clean(exchange), self.named_queue(lane, queue)?);
                (Change::UnbindQueue { exchange, queue, key, arguments }, Reply::QueueUnbound, false)
            }
            QueuePurge { queue, nowait } => {
                (Change::PurgeQueue { name: self.named_queue(lane, queue)? }, Reply::QueuePurged, nowait)
            }
            QueueDelete { queue, if_unused, if_empty, nowait } => {
                let name = self.named_queue(lane, queue)?;
                (Change::DeleteQueue { name, if_unused, if_empty }, Reply::QueueDeleted, nowait)
            }
            _ => return Err(Fault::new(ReplyCode::CommandInvalid, "unimplemented method")),
        })
    }

    /// The queue that a name stands for: the empty one is the channel's last declared queue.
    pub(super) fn named_queue(&self, lane: u16, name: &str) -> Result<String, Fault> {
        if !name.is_empty() {
            return Ok(clean(name));
        }
        match self.channels.get(&lane).map(|channel| &channel.last_queue) {
            Some(last) if !last.is_empty() => Ok(last.clone()),
            _ => Err(Fault::new(ReplyCode::NotFound, "no previously declared queue")),
        }
    }

    /// With neither queue nor key given, the key is the queue's name, too.
    fn named_key(&self, lane: u16, queue: &str, key: &str) -> Result<String, Fault> {
        match queue.is_empty() && key.is_empty() {
            true => self.named_queue(lane, queue),
            false => Ok(key.to_owned()),
        }
    }

    /// Frames of the channel wait until the broker has answered.
    pub(super) fn wait_for(&mut self, lane: u16, reply: Reply, nowait: bool, ids: (u16, u16)) {
        if let Some(channel) = self.channels.get_mut(&lane) {
            debug_assert!(!channel.is_assembling());
            channel.awaited = Some(Awaited { reply, nowait, ids });
        }
    }

    /// Takes what the channel waits for and lets its parked frames go on.
    pub(super) fn answered(&mut self, lane: u16) -> Option<(Awaited, &mut Channel)> {
        let channel = self.channels.get_mut(&lane)?;
        let awaited = channel.awaited.take()?;
        if !channel.parked.is_empty() {
            self.replaying.push_back(lane);
        }
        Some((awaited, channel))
    }
}

/// A name as it is stored: RabbitMQ drops line ends from names, and so do we.
fn clean(name: &str) -> String {
    name.replace(['\r', '\n'], "")
}

pub(super) fn reply(method: Method<'_>, lane: u16, out: &mut SendBuffer) -> Result<(), Fault> {
    method.put(lane, out.tail());
    Ok(())
}
