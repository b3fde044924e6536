//! One channel of a client: what it waits for, what it holds, and what frames make of that.
//!
//! In: methods and contents of the channel. Out: entries in the ledger. Every frame that the protocol does not allow
//! here breaks a promise.

use std::collections::{BTreeMap, VecDeque};

use model::Value;
use proto_amqp::wire::{Method, Properties, properties};

use crate::ledger::{Delivery, Ledger, MessageId};

/// A request whose answer is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Ask {
    Open,
    Close,
    Confirms,
    Qos,
    Consume(String),
    Cancel(String),
    Get { queue: usize, auto_ack: bool },
    Count(usize),
    Purge { queue: usize, since: u64 },
    Declare,
    DeclareExchange,
    Bind,
}

/// A consumer.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Consumer {
    pub queue: usize,
    /// Distinguishes it from all others of the run.
    pub key: u64,
    pub auto_ack: bool,
    /// What it may hold; 0: anything.
    pub prefetch: u16,
    pub held: u16,
}

/// A content being received.
#[derive(Debug)]
struct Incoming {
    what: What,
    redelivered: bool,
    properties: Vec<u8>,
    body: Vec<u8>,
    missing: u64,
    has_header: bool,
}

#[derive(Debug)]
enum What {
    Deliver(String, u64),
    Get(u64),
    Return,
}

/// What a client holds.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Held {
    pub message: MessageId,
    pub queue: usize,
    pub consumer: Option<String>,
}

/// What a client does with what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Settlement {
    Done,
    GiveBack { failed: bool },
}

/// A settlement that is not known to be durable.
#[derive(Clone, Copy, Debug)]
struct Said {
    number: u64,
    message: MessageId,
    queue: usize,
    how: Settlement,
}

/// The channel.
#[derive(Debug, Default)]
pub struct Channel {
    /// Requests not answered yet, with the number of the last settlement before each.
    asks: VecDeque<(Ask, u64)>,
    /// Whether it may be used.
    pub is_open: bool,
    /// Whether it gives up.
    pub is_closing: bool,
    /// Publishes so far, if confirms were asked for.
    pub published: Option<u64>,
    unconfirmed: BTreeMap<u64, MessageId>,
    /// Publishes above this number were sent when it was known that none is taken.
    held_back: Option<u64>,
    must_return: BTreeMap<MessageId, u64>,
    /// What is held, by delivery tag.
    pub held: BTreeMap<u64, Held>,
    last_tag: u64,
    /// Consumers by tag.
    pub consumers: BTreeMap<String, Consumer>,
    incoming: Option<Incoming>,
    said: Vec<Said>,
    settlements: u64,
    /// The bound of all consumers together; 0: none.
    pub shared_prefetch: u16,
    connection: u64,
    /// Answers to counts: queue and messages.
    pub counts: Vec<(usize, u32)>,
    /// What was received: queue and message.
    pub found: Vec<(usize, MessageId)>,
    /// Gets that found nothing.
    pub empty: Vec<usize>,
}

type Fault = (&'static str, String);

impl Channel {
    /// A closed channel of that connection.
    pub fn new(connection: u64) -> Channel {
        Channel { connection, ..Channel::default() }
    }

    /// Notes a request.
    pub fn ask(&mut self, ask: Ask) {
        self.asks.push_back((ask, self.settlements));
    }

    /// Requests that wait for their answer.
    pub fn waiting(&self) -> usize {
        self.asks.len()
    }

    /// Whether nothing more is to come without a request.
    pub fn is_quiet(&self) -> bool {
        self.asks.is_empty() && self.unconfirmed.is_empty()
    }

    /// What it waits for.
    pub fn waits_for(&self) -> String {
        let asks: Vec<&Ask> = self.asks.iter().map(|(ask, _)| ask).collect();
        format!("{asks:?} and {} publishes", self.unconfirmed.len())
    }

    /// Publishes that wait for their answer.
    pub fn unconfirmed(&self) -> u64 {
        self.unconfirmed.len() as u64
    }

    /// From which queues messages may vanish unseen with the connection, but what was held since before that delivery.
    pub fn takes_from(&self) -> Vec<(usize, u64)> {
        let auto_ack = self.consumers.values().filter(|consumer| consumer.auto_ack);
        let asks = self.asks.iter().filter_map(|(ask, _)| match ask {
            Ask::Get { queue, auto_ack: true } => Some((*queue, u64::MAX)),
            Ask::Purge { queue, since } => Some((*queue, *since)),
            _ => None,
        });
        auto_ack.map(|consumer| (consumer.queue, u64::MAX)).chain(asks).collect()
    }

    /// A publish was sent.
    pub fn published(&mut self, message: MessageId, is_unroutable: bool) {
        if let Some(count) = &mut self.published {
            *count += 1;
            self.unconfirmed.insert(*count, message);
            if is_unroutable {
                self.must_return.insert(message, *count);
            }
        }
    }

    /// The node takes no publishes from now on, or does again.
    pub fn hold_back(&mut self, holds_back: bool) {
        self.held_back = holds_back.then_some(self.published.unwrap_or(0));
    }

    /// A delivery was settled or given back by the client.
    pub fn settle(&mut self, tag: u64, how: Settlement, ledger: &mut Ledger) {
        let Some(Held { message, queue, consumer }) = self.held.remove(&tag) else { return };
        if let Some(consumer) = consumer.and_then(|consumer| self.consumers.get_mut(&consumer)) {
            consumer.held -= 1;
        }
        match how {
            Settlement::GiveBack { failed } => ledger.give_back(message, queue, failed),
            Settlement::Done => ledger.settle(message, queue),
        }
        self.settlements += 1;
        self.said.push(Said { number: self.settlements, message, queue, how });
    }

    /// What was said before that settlement is durable, of one queue or of all.
    fn known(&mut self, before: u64, of: Option<usize>, ledger: &mut Ledger) {
        self.said.retain(|said| {
            let known = said.number <= before && of.is_none_or(|queue| queue == said.queue);
            if known {
                match said.how {
                    Settlement::Done => ledger.settled_durably(said.message, said.queue),
                    Settlement::GiveBack { failed: true } => ledger.failed_durably(said.message, said.queue),
                    Settlement::GiveBack { failed: false } => {}
                }
            }
            !known
        });
    }

    /// The channel is about to be closed in order: what it holds may go to others from now on.
    pub fn close(&mut self, ledger: &mut Ledger) {
        self.is_closing = true;
        self.held.values().for_each(|held| ledger.let_go(held.message, held.queue));
    }

    /// The channel was closed in order.
    pub fn closed(&mut self, ledger: &mut Ledger) {
        self.known(u64::MAX, None, ledger);
        self.takes_from().iter().for_each(|(queue, since)| ledger.excuse(*queue, *since));
        self.held.values().for_each(|held| ledger.came_back(held.message, held.queue));
        self.forget_places(ledger);
        *self = Channel::new(self.connection);
    }

    /// The node may still hand something to a channel that is not there any more, and take it back later.
    fn forget_places(&self, ledger: &mut Ledger) {
        let gets = self.asks.iter().any(|(ask, _)| matches!(ask, Ask::Get { .. }));
        if gets || !self.consumers.is_empty() {
            ledger.forget_places();
        }
    }

    /// The connection is gone: nothing is known of what was not answered.
    pub fn lost(&mut self, ledger: &mut Ledger) {
        self.held.values().for_each(|held| ledger.let_go(held.message, held.queue));
        let settled = self.said.iter().filter(|said| said.how == Settlement::Done);
        settled.for_each(|said| ledger.let_go(said.message, said.queue));
        self.takes_from().iter().for_each(|(queue, since)| ledger.excuse(*queue, *since));
        self.forget_places(ledger);
    }

    /// A method came.
    pub fn method(&mut self, method: Method<'_>, ledger: &mut Ledger) -> Result<(), Fault> {
        if self.incoming.is_some() {
            return Err(("L2", format!("{method:?} stands between a delivery and its body")));
        }
        match method {
            Method::BasicAck { delivery_tag, multiple } => self.confirmed(delivery_tag, multiple, ledger),
            Method::BasicNack { delivery_tag, .. } => {
                Err(("L10", format!("publish {delivery_tag} was refused by a node that is well")))
            }
            Method::BasicDeliver { consumer_tag, delivery_tag, redelivered, .. } => {
                self.begin(What::Deliver(consumer_tag.to_owned(), delivery_tag), redelivered);
                Ok(())
            }
            Method::BasicGetOk { delivery_tag, redelivered, .. } => {
                self.begin(What::Get(delivery_tag), redelivered);
                Ok(())
            }
            Method::BasicReturn { reply_code: 312, .. } => {
                self.begin(What::Return, false);
                Ok(())
            }
            answer => self.answered(answer, ledger),
        }
    }

    fn begin(&mut self, what: What, redelivered: bool) {
        let (properties, body) = (Vec::new(), Vec::new());
        self.incoming = Some(Incoming { what, redelivered, properties, body, missing: 0, has_header: false });
    }

    fn confirmed(&mut self, tag: u64, multiple: bool, ledger: &mut Ledger) -> Result<(), Fault> {
        if self.is_closing {
            return Ok(());
        }
        if !self.unconfirmed.contains_key(&tag) {
            return Err(("Q14", format!("publish {tag} was confirmed twice or never sent")));
        }
        if self.held_back.is_some_and(|last| last < tag) {
            return Err(("L12", format!("publish {tag} was confirmed while publishers are held back")));
        }
        let first = if multiple { 0 } else { tag };
        let confirmed: Vec<(u64, MessageId)> =
            self.unconfirmed.range(first..=tag).map(|(tag, message)| (*tag, *message)).collect();
        for (tag, message) in confirmed {
            self.unconfirmed.remove(&tag);
            if self.must_return.remove(&message).is_some() {
                return Err((
                    "Q1",
                    format!("unroutable publish {tag} was confirmed without having come back"),
                ));
            }
            ledger.confirm(message);
        }
        Ok(())
    }

    fn answered(&mut self, answer: Method<'_>, ledger: &mut Ledger) -> Result<(), Fault> {
        let Some((ask, before)) = self.asks.pop_front() else {
            return Err(("L2", format!("{answer:?} answers nothing")));
        };
        match (&ask, &answer) {
            (Ask::Open, Method::ChannelOpenOk {}) => self.is_open = true,
            (Ask::Close, Method::ChannelCloseOk {}) => self.closed(ledger),
            (Ask::Confirms, Method::ConfirmSelectOk {}) => self.published = Some(0),
            (Ask::Qos, Method::BasicQosOk {})
            | (Ask::Declare, Method::QueueDeclareOk { .. })
            | (Ask::DeclareExchange, Method::ExchangeDeclareOk {})
            | (Ask::Bind, Method::QueueBindOk {}) => {}
            (Ask::Consume(tag), Method::BasicConsumeOk { consumer_tag }) if tag == consumer_tag => {}
            (Ask::Cancel(tag), Method::BasicCancelOk { consumer_tag }) if tag == consumer_tag => {
                self.consumers.remove(tag);
            }
            (Ask::Get { queue, .. }, Method::BasicGetEmpty {}) => {
                self.known(before, Some(*queue), ledger);
                self.empty.push(*queue);
            }
            (Ask::Count(queue), Method::QueueDeclareOk { message_count, .. }) => {
                self.known(before, Some(*queue), ledger);
                self.counts.push((*queue, *message_count));
            }
            (Ask::Purge { queue, since }, Method::QueuePurgeOk { .. }) => {
                self.known(before, Some(*queue), ledger);
                ledger.excuse(*queue, *since);
            }
            // Requests behind a close are not answered; the client sends none.
            _ => return Err(("L10", format!("{ask:?} was answered with {answer:?}"))),
        }
        Ok(())
    }

    /// The header of a content came.
    pub fn header(&mut self, properties: &[u8], body_size: u64, ledger: &mut Ledger) -> Result<(), Fault> {
        let incoming = self.incoming.as_mut().filter(|incoming| !incoming.has_header);
        let Some(incoming) = incoming else { return Err(("L2", "a header without its method".to_owned())) };
        incoming.properties = properties.to_vec();
        (incoming.missing, incoming.has_header) = (body_size, true);
        self.complete(ledger)
    }

    /// A part of a body came.
    pub fn body(&mut self, part: &[u8], ledger: &mut Ledger) -> Result<(), Fault> {
        let incoming = self.incoming.as_mut().filter(|incoming| incoming.missing >= part.len() as u64);
        let Some(incoming) = incoming else { return Err(("L2", "a body that was not announced".to_owned())) };
        incoming.missing -= part.len() as u64;
        incoming.body.extend_from_slice(part);
        self.complete(ledger)
    }

    fn complete(&mut self, ledger: &mut Ledger) -> Result<(), Fault> {
        let Some(incoming) = self.incoming.take_if(|incoming| incoming.has_header && incoming.missing == 0)
        else {
            return Ok(());
        };
        let (message, count) = read_properties(&incoming.properties)?;
        match incoming.what {
            What::Return => match self.must_return.remove(&message) {
                Some(_) => Ok(()),
                None => Err(("Q1", format!("message {message} came back without a reason"))),
            },
            What::Get(tag) => {
                let Some((Ask::Get { queue, auto_ack }, before)) = self.asks.pop_front() else {
                    return Err(("L2", format!("message {message} answers no get")));
                };
                self.known(before, Some(queue), ledger);
                let key = self.connection << 20 | 0xf_0000 | queue as u64;
                let held = Held { message, queue, consumer: None };
                self.take(held, (tag, key, auto_ack), (incoming.redelivered, count), &incoming.body, ledger)
            }
            What::Deliver(consumer, tag) => {
                let Some(of) = self.consumers.get_mut(&consumer) else {
                    return Err((
                        "Q2",
                        format!("message {message} came for consumer {consumer}, which is gone"),
                    ));
                };
                if !of.auto_ack && !self.is_closing {
                    of.held += 1;
                    if of.prefetch > 0 && of.held > of.prefetch {
                        let text =
                            format!("consumer {consumer} holds {} of {} messages", of.held, of.prefetch);
                        return Err(("Q15", text));
                    }
                }
                let (queue, key, auto_ack) = (of.queue, of.key, of.auto_ack);
                let all: u16 = self.consumers.values().map(|consumer| consumer.held).sum();
                if self.shared_prefetch > 0 && all > self.shared_prefetch {
                    let text = format!("the channel's consumers hold {all} of {}", self.shared_prefetch);
                    return Err(("Q15", text));
                }
                let held = Held { message, queue, consumer: Some(consumer) };
                self.take(held, (tag, key, auto_ack), (incoming.redelivered, count), &incoming.body, ledger)
            }
        }
    }

    fn take(
        &mut self,
        held: Held,
        (tag, consumer, auto_ack): (u64, u64, bool),
        (redelivered, count): (bool, u32),
        body: &[u8],
        ledger: &mut Ledger,
    ) -> Result<(), Fault> {
        if tag != self.last_tag + 1 {
            return Err(("Q14", format!("delivery tag {tag} follows {}", self.last_tag)));
        }
        self.last_tag = tag;
        // What comes to a channel that is closing is as if it had not come.
        if self.is_closing {
            if auto_ack {
                ledger.excuse(held.queue, u64::MAX);
            }
            return Ok(());
        }
        let (message, queue, connection) = (held.message, held.queue, self.connection);
        ledger.deliver(&Delivery {
            connection,
            consumer,
            queue,
            message,
            body,
            redelivered,
            count,
            auto_ack,
        });
        self.found.push((queue, message));
        if !auto_ack {
            self.held.insert(tag, held);
        }
        Ok(())
    }
}

fn read_properties(block: &[u8]) -> Result<(MessageId, u32), Fault> {
    let strange = |what: &str| ("L11", format!("a message came with {what}"));
    let properties = Properties::decode(block).map_err(|_| strange("unreadable properties"))?;
    let id = properties.message_id.and_then(|id| std::str::from_utf8(id).ok()).and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| strange("another message id"))?;
    let headers = properties::headers(block).ok_or_else(|| strange("unreadable headers"))?;
    let count = match headers.get("x-delivery-count") {
        Some(Value::Int(count)) => u32::try_from(*count).unwrap_or(u32::MAX),
        _ => 0,
    };
    Ok((id, count))
}
