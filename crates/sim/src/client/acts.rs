//! What clients do: declare, publish, consume, settle, ask, come and go, as the plan's habits have it.

use base::Prng;
use model::Arguments;
use proto_amqp::wire::{Method, Properties, put_content};

use super::{Ask, Client, Consumer, Link, Settlement};
use crate::ledger::{Ledger, body_of};
use crate::plan::{Habits, Plan};

/// The channel for publishes.
const PUBLISHING: u16 = 1;
/// The channel for consumers.
const CONSUMING: u16 = 2;
/// The channel for gets.
const GETTING: u16 = 3;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Declares everything, then leaves.
    Declarer,
    /// Publishes, consumes, or both.
    Worker {
        /// Whether it publishes.
        publishes: bool,
        /// Whether it consumes.
        consumes: bool,
    },
    /// The only one that takes from the last queue, one by one.
    Loner {
        /// As a consumer that may hold one message, or by gets.
        consumes: bool,
    },
    /// Alone with the queues at the end: counts and takes everything.
    Drainer,
}

impl Role {
    /// Whether it may publish.
    pub fn publishes(self) -> bool {
        matches!(self, Role::Worker { publishes: true, .. })
    }
}

/// Exchanges and where they lead.
#[derive(Clone, Debug)]
pub struct Routes {
    /// How many queues there are: `q0` and so on.
    pub queues: usize,
    /// The queues of the fanout exchange.
    pub fan: Vec<usize>,
}

/// Routing keys of the topic exchange.
const KEYS: [&str; 4] = ["a.x", "c.b", "a.b", "nobody"];

impl Routes {
    /// The routes of a run.
    pub fn draw(queues: usize, prng: &mut Prng) -> Routes {
        Routes { queues, fan: (0..queues).filter(|_| prng.chance(1, 2)).collect() }
    }

    /// Even queues want `a.*`, odd ones `#.b`.
    fn topic(&self, key: &str) -> Vec<usize> {
        let wants =
            |queue: &usize| if queue.is_multiple_of(2) { key.starts_with("a.") } else { key.ends_with(".b") };
        (0..self.queues).filter(wants).collect()
    }
}

/// What an act may look at and change.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Stagehand<'a> {
    pub plan: &'a Plan,
    pub routes: &'a Routes,
    pub ledger: &'a mut Ledger,
    pub prng: &'a mut Prng,
}

impl Client {
    /// Does what it likes to do next.
    pub fn act(&mut self, with: &mut Stagehand<'_>) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_open()) else { return };
        match self.role {
            Role::Declarer => self.declare(with),
            Role::Worker { publishes, consumes } => {
                if publishes {
                    publish(link, self.number << 20, &mut self.publishers, with);
                }
                if consumes {
                    consume(link, with);
                    link.settle_some(CONSUMING, with);
                }
            }
            Role::Loner { consumes: true } => consume_alone(link, with),
            Role::Loner { consumes: false } => get_alone(link, with),
            Role::Drainer => {}
        }
    }

    fn declare(&mut self, with: &mut Stagehand<'_>) {
        let Some(link) = &mut self.link else { return };
        if link.channels.contains_key(&PUBLISHING) {
            if link.channel(PUBLISHING).is_quiet() {
                self.is_done = true;
                link.close(with.ledger);
            }
            return;
        }
        link.send(PUBLISHING, &Method::ChannelOpen {}, Some(Ask::Open));
        for (exchange, kind) in [("fan", "fanout"), ("topic", "topic")] {
            link.send(PUBLISHING, &declare_exchange(exchange, kind), Some(Ask::DeclareExchange));
        }
        for queue in 0..with.routes.queues {
            let name = format!("q{queue}");
            link.send(PUBLISHING, &declare_queue(&name, false), Some(Ask::Declare));
            let key = if queue.is_multiple_of(2) { "a.*" } else { "#.b" };
            link.send(PUBLISHING, &bind(&name, "topic", key), Some(Ask::Bind));
            if with.routes.fan.contains(&queue) {
                link.send(PUBLISHING, &bind(&name, "fan", ""), Some(Ask::Bind));
            }
        }
    }
}

fn declare_exchange<'a>(exchange: &'a str, kind: &'a str) -> Method<'a> {
    Method::ExchangeDeclare {
        exchange,
        kind,
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments: Arguments::default(),
    }
}

fn declare_queue(queue: &str, passive: bool) -> Method<'_> {
    Method::QueueDeclare {
        queue,
        passive,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: Arguments::default(),
    }
}

fn bind<'a>(queue: &'a str, exchange: &'a str, routing_key: &'a str) -> Method<'a> {
    Method::QueueBind { queue, exchange, routing_key, nowait: false, arguments: Arguments::default() }
}

/// Opens the channel if it is closed; whether it may be used now.
fn opened(link: &mut Link, number: u16) -> bool {
    let channel = link.channel(number);
    if !channel.is_open && channel.waiting() == 0 {
        link.send(number, &Method::ChannelOpen {}, Some(Ask::Open));
        if number == PUBLISHING {
            link.send(number, &Method::ConfirmSelect { nowait: false }, Some(Ask::Confirms));
        }
    }
    let channel = link.channel(number);
    channel.is_open && !channel.is_closing
}

fn publish(link: &mut Link, number: u64, publishers: &mut u64, with: &mut Stagehand<'_>) {
    if !opened(link, PUBLISHING) || link.channel(PUBLISHING).published.is_none() {
        return;
    }
    if link.channel(PUBLISHING).published == Some(0) && link.channel(PUBLISHING).unconfirmed() == 0 {
        // A new session of the channel is a new publisher.
        *publishers += 1;
    }
    let habits = with.plan.habits;
    if !with.prng.chance(habits.publish, 100) {
        return;
    }
    for _ in 0..1 + with.prng.below(8) {
        if link.channel(PUBLISHING).unconfirmed() < with.plan.window {
            publish_one(link, number + *publishers, with);
        }
    }
    if with.prng.chance(habits.close_channel, 100) {
        close_channel(link, PUBLISHING, with.ledger);
    }
}

fn publish_one(link: &mut Link, publisher: u64, with: &mut Stagehand<'_>) {
    let habits = with.plan.habits;
    let bytes = draw_size(&habits, with.prng);
    let unroutable = with.prng.chance(habits.unroutable, 100);
    let (exchange, key, queues) = match with.prng.below(10) {
        _ if unroutable => ("", "nowhere".to_owned(), Vec::new()),
        0 => ("fan", String::new(), with.routes.fan.clone()),
        1 => {
            let key = *with.prng.pick(&KEYS);
            ("topic", key.to_owned(), with.routes.topic(key))
        }
        _ => {
            let queue = with.prng.below(with.routes.queues as u64) as usize;
            ("", format!("q{queue}"), vec![queue])
        }
    };
    let message = with.ledger.publish(publisher, bytes, &queues);
    let (id, body) = (message.to_string(), body_of(message, bytes));
    let properties =
        Properties { message_id: Some(id.as_bytes()), delivery_mode: Some(2), ..Properties::default() };
    let mut block = Vec::new();
    properties.encode(&mut block);
    let publish =
        Method::BasicPublish { exchange, routing_key: &key, mandatory: unroutable, immediate: false };
    link.send(PUBLISHING, &publish, None);
    put_content(&mut link.output, PUBLISHING, &block, &body, link.frame_max);
    link.channel(PUBLISHING).published(message, unroutable);
}

fn draw_size(habits: &Habits, prng: &mut Prng) -> usize {
    let most = match prng.below(100) {
        percent if percent < habits.huge => 3 << 20,
        percent if percent < habits.huge + habits.large => 40_000,
        percent if percent < 50 => 16,
        _ => 600,
    };
    prng.below(most) as usize
}

fn close_channel(link: &mut Link, number: u16, ledger: &mut Ledger) {
    let channel = link.channel(number);
    // A purge must be heard of before its channel ends, or what it took would not be known.
    if channel.waiting() == 0 {
        channel.close(ledger);
        let close = Method::ChannelClose { reply_code: 200, reply_text: "", class: 0, method: 0 };
        link.send(number, &close, Some(Ask::Close));
    }
}

fn consume(link: &mut Link, with: &mut Stagehand<'_>) {
    if !opened(link, CONSUMING) {
        return;
    }
    let habits = with.plan.habits;
    let active = link.channel(CONSUMING).consumers.len();
    if active == 0 || (active < 3 && with.prng.chance(1, 20)) {
        start_consumer(link, with);
    }
    if with.prng.chance(habits.cancel, 100) {
        cancel(link, with);
    }
    if with.prng.chance(habits.ask, 100) {
        let queue = with.prng.below(with.routes.queues as u64) as usize;
        link.count(CONSUMING, queue);
    }
    if with.prng.chance(habits.purge, 100) {
        // The last queue's places are followed exactly.
        let queue = with.prng.below(with.routes.queues as u64 - 1) as usize;
        let name = format!("q{queue}");
        let since = with.ledger.seen.delivered;
        link.send(
            CONSUMING,
            &Method::QueuePurge { queue: &name, nowait: false },
            Some(Ask::Purge { queue, since }),
        );
    }
    if with.prng.chance(habits.ask, 200) {
        let queue = with.prng.below(with.routes.queues as u64 - 1) as usize;
        link.take_one(CONSUMING, queue, with.plan.auto_ack && with.prng.chance(1, 2));
    }
    if with.prng.chance(habits.close_channel, 100) {
        close_channel(link, CONSUMING, with.ledger);
    }
}

fn start_consumer(link: &mut Link, with: &mut Stagehand<'_>) {
    let plan = with.plan;
    let queue = with.prng.below(with.routes.queues as u64 - 1) as usize;
    let auto_ack = plan.auto_ack && with.prng.chance(1, 3);
    let prefetch = plan.prefetch;
    link.subscribe(CONSUMING, queue, (prefetch, plan.shared_prefetch), auto_ack);
}

fn cancel(link: &mut Link, with: &mut Stagehand<'_>) {
    let channel = link.channel(CONSUMING);
    if channel.waiting() > 0 || channel.consumers.is_empty() {
        return;
    }
    let tags: Vec<String> = channel.consumers.keys().cloned().collect();
    let tag = with.prng.pick(&tags);
    let method = Method::BasicCancel { consumer_tag: tag, nowait: false };
    link.send(CONSUMING, &method, Some(Ask::Cancel(tag.clone())));
}

/// Takes from the last queue one by one, gives some back, settles some.
fn get_alone(link: &mut Link, with: &mut Stagehand<'_>) {
    let queue = with.routes.queues - 1;
    if !opened(link, GETTING) || link.channel(GETTING).waiting() > 0 {
        return;
    }
    match with.prng.below(10) {
        0..5 => link.take_one(GETTING, queue, false),
        5 if with.prng.chance(1, 4) => link.count(GETTING, queue),
        6 if with.prng.chance(with.plan.habits.close_channel, 100) => {
            close_channel(link, GETTING, with.ledger);
        }
        _ => link.settle_some(GETTING, with),
    }
}

/// Consumes from the last queue with room for one message: what is given back must be what comes next.
fn consume_alone(link: &mut Link, with: &mut Stagehand<'_>) {
    let queue = with.routes.queues - 1;
    if !opened(link, GETTING) {
        return;
    }
    if link.channel(GETTING).consumers.is_empty() {
        return link.subscribe(GETTING, queue, (1, false), false);
    }
    match with.prng.below(20) {
        0 => link.count(GETTING, queue),
        1 if with.prng.chance(with.plan.habits.close_channel, 100) => {
            close_channel(link, GETTING, with.ledger)
        }
        _ => link.settle_some(GETTING, with),
    }
}

impl Link {
    /// Asks how many messages a queue has.
    pub fn count(&mut self, number: u16, queue: usize) {
        self.send(number, &declare_queue(&format!("q{queue}"), true), Some(Ask::Count(queue)));
    }

    /// Takes one message.
    pub fn take_one(&mut self, number: u16, queue: usize, auto_ack: bool) {
        let name = format!("q{queue}");
        let get = Method::BasicGet { queue: &name, no_ack: auto_ack };
        self.send(number, &get, Some(Ask::Get { queue, auto_ack }));
    }

    /// Starts a consumer with a bound, its own or of all of the channel.
    pub fn subscribe(&mut self, number: u16, queue: usize, (prefetch, shared): (u16, bool), auto_ack: bool) {
        let qos = Method::BasicQos { prefetch_size: 0, prefetch_count: prefetch, global: shared };
        self.send(number, &qos, Some(Ask::Qos));
        self.consumers += 1;
        let (tag, name) = (format!("c{}", self.consumers), format!("q{queue}"));
        let key = self.conn.0 << 20 | self.consumers;
        let own = if shared { 0 } else { prefetch };
        let consumer = Consumer { queue, key, auto_ack, prefetch: own, held: 0 };
        let channel = self.channel(number);
        channel.consumers.insert(tag.clone(), consumer);
        channel.shared_prefetch = if shared { prefetch } else { 0 };
        let consume = Method::BasicConsume {
            queue: &name,
            consumer_tag: &tag,
            no_local: false,
            no_ack: auto_ack,
            exclusive: false,
            nowait: false,
            arguments: Arguments::default(),
        };
        self.send(number, &consume, Some(Ask::Consume(tag.clone())));
    }

    /// Settles or gives back some of what is held.
    pub fn settle_some(&mut self, number: u16, with: &mut Stagehand<'_>) {
        let habits = with.plan.habits;
        let channel = self.channel(number);
        if channel.is_closing || channel.held.is_empty() || !with.prng.chance(habits.settle, 100) {
            return;
        }
        if with.prng.chance(1, 3) {
            let tags: Vec<u64> = channel.held.keys().copied().collect();
            let through = *with.prng.pick(&tags);
            return self.settle_through(number, through, with);
        }
        let tags: Vec<u64> = channel.held.keys().copied().collect();
        for tag in tags {
            if with.prng.chance(1, 2) {
                self.settle_one(number, tag, with);
            }
        }
    }

    fn settle_one(&mut self, number: u16, tag: u64, with: &mut Stagehand<'_>) {
        let (delivery_tag, multiple) = (tag, false);
        let percent = with.prng.below(100);
        let habits = with.plan.habits;
        let (method, how) = if percent < habits.requeue / 2 {
            (Method::BasicReject { delivery_tag, requeue: true }, Settlement::GiveBack { failed: true })
        } else if percent < habits.requeue {
            let nack = Method::BasicNack { delivery_tag, multiple, requeue: true };
            (nack, Settlement::GiveBack { failed: false })
        } else if percent < habits.requeue + habits.reject {
            (Method::BasicReject { delivery_tag, requeue: false }, Settlement::Done)
        } else {
            (Method::BasicAck { delivery_tag, multiple }, Settlement::Done)
        };
        self.send(number, &method, None);
        self.channel(number).settle(tag, how, with.ledger);
    }

    fn settle_through(&mut self, number: u16, through: u64, with: &mut Stagehand<'_>) {
        let requeue = with.prng.chance(with.plan.habits.requeue, 100);
        let (delivery_tag, multiple) = (through, true);
        let (method, how) = match requeue {
            true => {
                let nack = Method::BasicNack { delivery_tag, multiple, requeue };
                (nack, Settlement::GiveBack { failed: false })
            }
            false => (Method::BasicAck { delivery_tag, multiple }, Settlement::Done),
        };
        self.send(number, &method, None);
        let channel = self.channel(number);
        let tags: Vec<u64> = channel.held.range(..=through).map(|(tag, _)| *tag).collect();
        tags.iter().for_each(|tag| channel.settle(*tag, how, with.ledger));
    }

    /// Settles everything held.
    pub fn settle_all(&mut self, number: u16, ledger: &mut Ledger) {
        let channel = self.channel(number);
        let Some((last, _)) = channel.held.last_key_value() else { return };
        let delivery_tag = *last;
        let tags: Vec<u64> = channel.held.keys().copied().collect();
        tags.iter().for_each(|tag| channel.settle(*tag, Settlement::Done, ledger));
        self.send(number, &Method::BasicAck { delivery_tag, multiple: true }, None);
    }

    /// Opens the channel for draining; whether it may be used now.
    pub fn drains(&mut self) -> bool {
        opened(self, CONSUMING)
    }

    /// The channel for draining.
    pub fn drain(&mut self) -> &mut super::Channel {
        self.channel(CONSUMING)
    }
}

/// The number of the channel for draining.
pub const DRAINING: u16 = CONSUMING;
