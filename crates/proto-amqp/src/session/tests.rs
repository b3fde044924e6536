//! Client and session talk in memory; a broker of a few lines answers.

mod closing;
mod consuming;
mod handshaking;
mod hostile;
mod publishing;
mod speaking;
mod splitting;

use std::io::IoSlice;

use base::{Block, Pool, Put};
use model::*;

use super::*;
use crate::wire::{Frame, Method, Properties, next_frame, put_content};

/// Answers like a broker whose topology is in the names.
#[derive(Default)]
pub(super) struct Broker {
    /// Messages that a new consumer is sent.
    pub backlog: u64,
    pub body: Vec<u8>,
    pub count: u32,
}

pub(super) fn rows(records: &[Record<'_>]) -> (Block, Vec<u32>) {
    let mut builder = Pool::default().builder(64);
    let mut places = Vec::new();
    for record in records {
        places.push(builder.len() as u32);
        record.encode(&mut builder);
    }
    (builder.freeze(), places)
}

pub(super) fn record(body: &[u8]) -> Record<'_> {
    Record {
        exchange: "ex",
        routing_key: "key",
        prefix: &[0x10, 0, 2],
        body: Some(body),
        ..Record::bare(Protocol::Amqp091)
    }
}

pub(super) fn delivered(
    lane: Lane,
    consumer: ConsumerId,
    seqs: &[u64],
    body: &[u8],
    count: u32,
) -> Delivered {
    let (block, places) = rows(&vec![record(body); seqs.len()]);
    let item = |(seq, at): (&u64, u32)| Item { seq: Seq(*seq), at, count, redelivered: count > 0 };
    let items = seqs.iter().zip(places).map(item).collect();
    Delivered { lane, consumer, queue: QueueId(7), block, items, settled: false, stream: false }
}

impl Broker {
    fn answer(&self, request: &Request<'_>) -> Vec<Event> {
        match request {
            Request::Authenticate { password: b"guest", .. } => vec![Event::Admitted],
            Request::Authenticate { user, .. } => {
                vec![Event::Refused(None, Refusal::AuthenticationFailed((*user).into()))]
            }
            Request::Enter { vhost: "/" } => vec![Event::Entered],
            Request::Enter { vhost } => {
                vec![Event::Refused(None, Refusal::NotFound(Entity::Vhost, (*vhost).into()))]
            }
            Request::CloseLane { lane } => vec![Event::LaneClosed(*lane)],
            Request::Close => vec![Event::Closed],
            Request::Publish(publish) => publish_answer(publish),
            Request::Settle { .. } | Request::Grant(_) | Request::Window { .. } => vec![],
            Request::Subscribe(subscribe) => self.subscribe_answer(subscribe),
            Request::Unsubscribe { lane, consumer } => vec![Event::Unsubscribed(*lane, *consumer)],
            Request::Get { lane, queue: "empty", .. } => vec![Event::Empty(*lane)],
            Request::Get { lane, .. } => {
                vec![Event::Got(delivered(*lane, ConsumerId(0), &[50], &self.body, self.count), 4)]
            }
            Request::Change { lane, change } => vec![change_answer(*lane, change)],
            Request::Anonymous | Request::Log { .. } => panic!("this protocol has no such request"),
        }
    }

    fn subscribe_answer(&self, subscribe: &Subscribe<'_>) -> Vec<Event> {
        if subscribe.queue == "missing" {
            let refusal = Refusal::NotFound(Entity::Queue, "missing".into());
            return vec![Event::Refused(Some(subscribe.lane), refusal)];
        }
        let seqs: Vec<u64> = (100..100 + self.backlog).collect();
        vec![
            Event::Subscribed(subscribe.lane, subscribe.consumer),
            Event::Delivered(delivered(subscribe.lane, subscribe.consumer, &seqs, &self.body, self.count)),
        ]
    }
}

fn publish_answer(publish: &Publish<'_>) -> Vec<Event> {
    let (lane, token, record) = (publish.lane, publish.token, &publish.record);
    if record.exchange == "missing" {
        return vec![Event::PublishRefused(lane, Refusal::NotFound(Entity::Exchange, "missing".into()))];
    }
    let mut events = Vec::new();
    if publish.mandatory && record.routing_key == "nowhere" {
        let back = OwnedRecord {
            protocol: record.protocol,
            exchange: record.exchange.into(),
            routing_key: record.routing_key.into(),
            prefix: record.prefix.into(),
            body: record.body.unwrap_or(&[]).into(),
        };
        events.push(Event::Unroutable(lane, Box::new(back)));
    }
    match record.routing_key {
        _ if token == 0 => {}
        "full" => events.push(Event::Rejected(lane, token, token)),
        _ => events.push(Event::Confirmed(lane, token, token)),
    }
    events
}

fn change_answer(lane: Lane, change: &Change) -> Event {
    match change {
        Change::DeclareQueue(queue) if queue.name == "locked" => {
            Event::Refused(Some(lane), Refusal::Locked("locked".into()))
        }
        Change::DeclareQueue(queue) if queue.name == "missing" => {
            Event::Refused(Some(lane), Refusal::NotFound(Entity::Queue, "missing".into()))
        }
        Change::DeclareQueue(queue) if queue.name == REPLY_PREFIX => {
            Event::Declared(lane, format!("{}1", queue.name), 0, 0)
        }
        Change::DeclareQueue(queue) if queue.name.is_empty() => {
            Event::Declared(lane, "amq.gen-1".into(), 0, 0)
        }
        Change::DeclareQueue(queue) => Event::Declared(lane, queue.name.clone(), 5, 1),
        Change::PurgeQueue { .. } => Event::Purged(lane, 3),
        Change::DeleteQueue { .. } => Event::Deleted(lane, 2),
        _ => Event::Done(lane),
    }
}

/// What a request says, without the address of its function; settlements and grants one by one.
pub(super) fn told(request: &Request<'_>) -> Vec<String> {
    let one = match request {
        Request::Publish(Publish { lane, token, mandatory, record, also, .. }) => {
            let Record { exchange, routing_key, prefix, body, priority, .. } = record;
            let body = body.unwrap_or(&[]);
            let body = if body.len() > 40 { format!("{} bytes", body.len()) } else { format!("{body:?}") };
            let also = if also.is_empty() { String::new() } else { format!(" also {also:?}") };
            format!(
                "publish {lane} {token} {mandatory} {exchange}/{routing_key} {priority} {prefix:?} {body}{also}"
            )
        }
        Request::Settle { lane, settlements } => {
            let told = |s: &Settlement| {
                format!("settle {lane} {} {}..={} {:?}", s.queue, s.first, s.last, s.outcome)
            };
            return settlements.iter().map(told).collect();
        }
        Request::Grant(grants) => {
            return grants
                .iter()
                .map(|(consumer, messages)| format!("grant {consumer} {messages}"))
                .collect();
        }
        other => format!("{other:?}"),
    };
    vec![one]
}

/// A client, a session and a broker.
pub(super) struct Talk {
    pub session: Session,
    pub out: SendBuffer,
    pub broker: Broker,
    /// The broker says nothing until [`Talk::release`].
    pub silent: bool,
    pub unsaid: Vec<Event>,
    unread: Vec<u8>,
    pub heard: Vec<u8>,
    pub asked: Vec<String>,
    pub ended: bool,
}

pub(super) const NOW: Now = Now { mono_us: 1_000_000, wall_ms: 0 };

impl Talk {
    pub fn with_limits(limits: Limits) -> Talk {
        let product = Product { version: "1.2.3".into(), cluster_name: "here".into() };
        Talk {
            session: Session::new(Arc::new(limits), Arc::new(product), 1, NOW),
            out: SendBuffer::default(),
            broker: Broker::default(),
            silent: false,
            unsaid: Vec::new(),
            unread: Vec::new(),
            heard: Vec::new(),
            asked: Vec::new(),
            ended: false,
        }
    }

    pub fn new() -> Talk {
        Talk::with_limits(Limits::default())
    }

    /// A connection that is open, with one open channel.
    pub fn open() -> Talk {
        Talk::open_with(Limits::default())
    }

    pub fn open_with(limits: Limits) -> Talk {
        let mut talk = Talk::with_limits(limits);
        talk.feed(&opening("", "guest", "/", 131_072));
        talk.send(1, Method::ChannelOpen {});
        talk.heard.clear();
        talk.asked.clear();
        assert!(talk.session.is_open());
        talk
    }

    /// Gives the session bytes and does all that follows, without flushing confirms.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        loop {
            let (used, step) = self.session.receive(&self.unread, &mut self.out);
            let (go_on, events) = match step {
                Step::Request(request) => {
                    self.asked.extend(told(&request));
                    (true, self.broker.answer(&request))
                }
                Step::More => (false, vec![]),
                Step::Waiting => (!self.silent && !self.unsaid.is_empty(), vec![]),
                Step::End => {
                    self.ended = true;
                    (false, vec![])
                }
            };
            self.unread.drain(..used);
            self.unsaid.extend(events);
            if !self.silent {
                self.say();
            }
            if !go_on {
                break;
            }
        }
        self.ended |= self.session.is_ended();
        self.drain();
    }

    /// The broker says what it has to say.
    fn say(&mut self) {
        for event in std::mem::take(&mut self.unsaid) {
            self.session.on_event(&event, &mut self.out);
        }
        while let Some(request) = self.session.poll_request(&mut self.out) {
            self.asked.extend(told(&request));
            let events = self.broker.answer(&request);
            match self.silent {
                true => self.unsaid.extend(events),
                false => events.iter().for_each(|event| self.session.on_event(event, &mut self.out)),
            }
        }
    }

    /// The broker says what it kept to itself.
    pub fn release(&mut self) {
        self.say();
        self.feed(&[]);
    }

    pub fn event(&mut self, event: Event) {
        self.unsaid.push(event);
        self.say();
        self.feed(&[]);
    }

    pub fn drain(&mut self) {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = self.out.slices(&mut slices);
            let bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect();
            self.out.advance(bytes.len());
            self.heard.put(&bytes);
        }
    }

    pub fn flush(&mut self) {
        self.session.flush(&mut self.out);
        self.drain();
    }

    pub fn send(&mut self, channel: u16, method: Method<'_>) {
        let mut bytes = Vec::new();
        method.put(channel, &mut bytes);
        self.feed(&bytes);
    }

    pub fn publish(&mut self, channel: u16, exchange: &str, routing_key: &str, mandatory: bool, body: &[u8]) {
        self.feed(&publishing(channel, exchange, routing_key, mandatory, &[0x10, 0, 2], body));
    }

    /// The next frame heard.
    pub fn frame(&mut self) -> Option<(u8, u16, Vec<u8>)> {
        let frame = next_frame(&self.heard, 1 << 20).unwrap()?;
        let Frame { kind, channel, payload } = frame;
        let (length, payload) = (frame.len(), payload.to_vec());
        self.heard.drain(..length);
        Some((kind, channel, payload))
    }

    #[track_caller]
    pub fn expect(&mut self, channel: u16, expected: Method<'_>) {
        let (kind, on, payload) = self.frame().unwrap_or_else(|| panic!("nothing heard, not {expected:?}"));
        let method = Method::decode(&payload, 8).unwrap();
        assert_eq!((kind, on, &method), (1, channel, &expected));
    }

    /// The next frames heard must be a message.
    #[track_caller]
    pub fn expect_content(&mut self, channel: u16) -> (Vec<u8>, Vec<u8>) {
        let (kind, on, header) = self.frame().expect("a header");
        assert_eq!((kind, on), (2, channel));
        let header = crate::wire::ContentHeader::decode(&header).unwrap();
        let mut body = Vec::new();
        while body.len() < header.body_size as usize {
            let (kind, on, part) = self.frame().expect("a body");
            assert_eq!((kind, on), (3, channel));
            body.extend(part);
        }
        (header.properties.to_vec(), body)
    }

    #[track_caller]
    pub fn expect_nothing(&mut self) {
        assert_eq!(self.frame(), None);
    }

    #[track_caller]
    pub fn expect_asked(&mut self, expected: &[&str]) {
        assert_eq!(std::mem::take(&mut self.asked), expected);
    }

    #[track_caller]
    pub fn expect_channel_error(&mut self, channel: u16, code: u16, text: &str, ids: (u16, u16)) {
        let (class, method) = ids;
        self.expect(channel, Method::ChannelClose { reply_code: code, reply_text: text, class, method });
        assert_eq!(self.asked.pop().as_deref(), Some(&*format!("CloseLane {{ lane: Lane({channel}) }}")));
        assert!(!self.ended);
    }

    #[track_caller]
    pub fn expect_connection_error(&mut self, code: u16, text: &str, ids: (u16, u16)) {
        let (class, method) = ids;
        self.expect(0, Method::ConnectionClose { reply_code: code, reply_text: text, class, method });
    }
}

pub(super) fn capabilities(names: &[&str]) -> Arguments {
    let table = names.iter().map(|name| ((*name).to_owned(), Value::Bool(true))).collect();
    Arguments(vec![("capabilities".into(), Value::Table(Arguments(table)))])
}

/// All that a client sends until its connection is open.
pub(super) fn opening(names: &str, password: &str, vhost: &str, frame_max: u32) -> Vec<u8> {
    let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
    let response = format!("\0guest\0{password}");
    let names: Vec<&str> = names.split_whitespace().collect();
    Method::ConnectionStartOk {
        client_properties: capabilities(&names),
        mechanism: "PLAIN",
        response: response.as_bytes(),
        locale: "en_US",
    }
    .put(0, &mut bytes);
    Method::ConnectionTuneOk { channel_max: 2047, frame_max, heartbeat: 60 }.put(0, &mut bytes);
    Method::ConnectionOpen { virtual_host: vhost, capabilities: "", insist: false }.put(0, &mut bytes);
    bytes
}

pub(super) fn publishing(
    channel: u16,
    exchange: &str,
    routing_key: &str,
    mandatory: bool,
    properties: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    Method::BasicPublish { exchange, routing_key, mandatory, immediate: false }.put(channel, &mut bytes);
    put_content(&mut bytes, channel, properties, body, 8192);
    bytes
}

pub(super) fn block(properties: Properties<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    properties.encode(&mut block);
    block
}
