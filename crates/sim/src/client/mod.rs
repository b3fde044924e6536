//! A client of raw protocol bytes: one connection at a time, its handshake, its channels.
//!
//! In: bytes from the node. Out: bytes for the node, entries in the ledger. What it likes to do is in `acts`.

mod acts;
mod channel;

use std::collections::BTreeMap;

use base::Prng;
use model::{Arguments, ConnId, Value};
use proto_amqp::wire::{ContentHeader, Frame, Method, PROTOCOL_HEADER, frame, next_frame};

pub use acts::{DRAINING, Role, Routes, Stagehand};
pub use channel::{Ask, Channel, Consumer, Settlement};

use crate::ledger::Ledger;
use crate::node::{Node, USER};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeted,
    Tuning,
    Opening,
    Open,
    Closing,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    conn: ConnId,
    stage: Stage,
    input: Vec<u8>,
    output: Vec<u8>,
    frame_max: usize,
    /// Channels by number.
    pub channels: BTreeMap<u16, Channel>,
    consumers: u64,
    /// Whether it asked to be told when publishers are held back.
    asks_for_blocked: bool,
    is_blocked: bool,
    /// Whether the node has confirmed here what went to a queue: so it knows that there are publishes to hold back.
    has_published: bool,
    is_loud: bool,
}

/// The id of a broken promise, and what happened.
pub type Fault = (&'static str, String);

impl Link {
    fn new(conn: ConnId, asks_for_blocked: bool, is_loud: bool) -> Link {
        Link {
            conn,
            asks_for_blocked,
            is_loud,
            stage: Stage::Greeted,
            input: Vec::new(),
            output: PROTOCOL_HEADER.to_vec(),
            frame_max: 8192,
            channels: BTreeMap::new(),
            consumers: 0,
            is_blocked: false,
            has_published: false,
        }
    }

    fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Sends a method; `ask` if it is answered.
    fn send(&mut self, number: u16, method: &Method<'_>, ask: Option<Ask>) {
        if self.is_loud {
            eprintln!("  {}.{number} -> {method:?}", self.conn);
        }
        method.put(number, &mut self.output);
        if let Some(ask) = ask {
            self.channel(number).ask(ask);
        }
    }

    fn channel(&mut self, number: u16) -> &mut Channel {
        let connection = self.conn.0;
        self.channels.entry(number).or_insert_with(|| Channel::new(connection))
    }

    fn read(&mut self, ledger: &mut Ledger) -> Result<(), Fault> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        loop {
            let frame = next_frame(rest, self.frame_max).map_err(|error| ("L11", format!("{error:?}")))?;
            let Some(frame) = frame else { break };
            rest = &rest[frame.len()..];
            self.frame(frame, ledger)?;
        }
        self.input = rest.to_vec();
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>, ledger: &mut Ledger) -> Result<(), Fault> {
        if frame.kind == frame::HEARTBEAT {
            return Ok(());
        }
        let unreadable = |malformed| ("L11", format!("a frame cannot be read: {malformed:?}"));
        if frame.kind == frame::METHOD {
            if self.is_loud {
                let method = Method::decode(frame.payload, 8);
                eprintln!("  {}.{} <- {method:?}", self.conn, frame.channel);
            }
            let method = Method::decode(frame.payload, 8).map_err(unreadable)?;
            return match frame.channel {
                0 => self.method(&method, ledger),
                number => self.channel_method(number, method, ledger),
            };
        }
        let Some(channel) = self.channels.get_mut(&frame.channel) else {
            return Err(("L2", format!("content on channel {}, which is closed", frame.channel)));
        };
        match frame.kind {
            frame::HEADER => {
                let header = ContentHeader::decode(frame.payload).map_err(unreadable)?;
                channel.header(header.properties, header.body_size, ledger)
            }
            _ => channel.body(frame.payload, ledger),
        }
    }

    fn channel_method(&mut self, number: u16, method: Method<'_>, ledger: &mut Ledger) -> Result<(), Fault> {
        if let Method::ChannelClose { reply_text, .. } = &method {
            return Err(("L10", format!("the node closed channel {number}: {reply_text}")));
        }
        let before = ledger.seen.confirmed;
        match self.channels.get_mut(&number) {
            Some(channel) => channel.method(method, ledger)?,
            None => return Err(("L2", format!("{method:?} on channel {number}, which is closed"))),
        }
        self.has_published |= ledger.seen.confirmed > before;
        Ok(())
    }

    fn method(&mut self, method: &Method<'_>, ledger: &mut Ledger) -> Result<(), Fault> {
        match (self.stage, method) {
            (Stage::Greeted, Method::ConnectionStart { .. }) => {
                self.stage = Stage::Tuning;
                let response = format!("\0{}\0{}", USER.0, USER.1);
                let knows =
                    Value::Table(Arguments(vec![("connection.blocked".to_owned(), Value::Bool(true))]));
                let knows = self.asks_for_blocked.then(|| ("capabilities".to_owned(), knows));
                let client_properties = Arguments(knows.into_iter().collect());
                let response = response.as_bytes();
                let login = Method::ConnectionStartOk {
                    client_properties,
                    mechanism: "PLAIN",
                    response,
                    locale: "en_US",
                };
                self.send(0, &login, None);
            }
            (Stage::Tuning, Method::ConnectionTune { channel_max, frame_max, .. }) => {
                self.stage = Stage::Opening;
                self.frame_max = *frame_max as usize;
                let (channel_max, frame_max, heartbeat) = (*channel_max, *frame_max, 0);
                self.send(0, &Method::ConnectionTuneOk { channel_max, frame_max, heartbeat }, None);
                let open = Method::ConnectionOpen { virtual_host: "/", capabilities: "", insist: false };
                self.send(0, &open, None);
            }
            (Stage::Opening, Method::ConnectionOpenOk {}) => self.stage = Stage::Open,
            (Stage::Closing, Method::ConnectionCloseOk {}) => {
                self.stage = Stage::Closed;
                self.channels.values_mut().for_each(|channel| channel.closed(ledger));
            }
            (
                Stage::Open | Stage::Closing,
                Method::ConnectionBlocked { .. } | Method::ConnectionUnblocked {},
            ) => {
                self.blocked(matches!(method, Method::ConnectionBlocked { .. }), ledger)?;
            }
            (stage, method) => return Err(("L10", format!("the node said {method:?} while {stage:?}"))),
        }
        Ok(())
    }

    /// Publishers are held back from now on, or not any more: each is said in its turn, to those who asked for it.
    fn blocked(&mut self, is_blocked: bool, ledger: &mut Ledger) -> Result<(), Fault> {
        if !self.asks_for_blocked || is_blocked == self.is_blocked {
            return Err(("L12", format!("blocked is said to be {is_blocked}, it was {}", self.is_blocked)));
        }
        self.is_blocked = is_blocked;
        ledger.seen.blocked += u64::from(is_blocked);
        let holds_back = is_blocked && self.has_published;
        self.channels.values_mut().for_each(|channel| channel.hold_back(holds_back));
        Ok(())
    }

    /// Says goodbye; what it held may go to others from now on.
    fn close(&mut self, ledger: &mut Ledger) {
        self.channels
            .values_mut()
            .filter(|channel| !channel.is_closing)
            .for_each(|channel| channel.close(ledger));
        self.stage = Stage::Closing;
        self.send(0, &Method::ConnectionClose { reply_code: 200, reply_text: "", class: 0, method: 0 }, None);
    }
}

/// A client.
#[derive(Debug)]
pub struct Client {
    /// What it does.
    pub role: Role,
    /// Its connection.
    pub link: Option<Link>,
    /// Whether it has done all it was to do.
    pub is_done: bool,
    publishers: u64,
    number: u64,
}

impl Client {
    /// A client without a connection; `number` is its own.
    pub fn new(number: u64, role: Role) -> Client {
        Client { role, link: None, is_done: false, publishers: 0, number }
    }

    /// Reads what has come.
    pub fn read(&mut self, node: &mut Node, ledger: &mut Ledger) {
        let Some(link) = &mut self.link else { return };
        let gone = node.receive(link.conn, &mut link.input).is_none();
        if let Err((invariant, what)) = link.read(ledger) {
            ledger.fail(invariant, format!("connection {}: {what}", link.conn));
        }
        if gone && link.stage != Stage::Closed {
            ledger.fail("L10", format!("the node hung up on connection {}", link.conn));
        }
        if link.stage == Stage::Closed {
            node.hang_up(link.conn);
            self.link = None;
        }
    }

    /// Sends what was written.
    pub fn flush(&mut self, node: &mut Node) {
        if let Some(link) = &mut self.link {
            node.send(link.conn, &std::mem::take(&mut link.output));
        }
    }

    /// Whether it may use its channels.
    pub fn is_open(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_open)
    }

    /// Connects.
    pub fn connect(&mut self, node: &mut Node, prng: &mut Prng) {
        self.link = Some(Link::new(node.connect(prng), prng.chance(1, 2), node.is_loud));
    }

    /// Hangs up without a word.
    pub fn hang_up(&mut self, node: &mut Node, ledger: &mut Ledger) {
        if let Some(link) = self.link.take() {
            node.hang_up(link.conn);
            link.channels.into_values().for_each(|mut channel| channel.lost(ledger));
        }
    }

    /// Leaves, with a word or without; never without one where messages could vanish unseen with the connection.
    pub fn leave(&mut self, node: &mut Node, ledger: &mut Ledger, prng: &mut Prng) {
        let takes =
            self.link.iter().flat_map(|link| link.channels.values()).any(|c| !c.takes_from().is_empty());
        match takes || prng.chance(1, 2) {
            true => {
                self.close(ledger);
                self.flush(node);
            }
            false => self.hang_up(node, ledger),
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, ledger: &mut Ledger) {
        if let Some(link) = self.link.as_mut().filter(|link| link.is_open()) {
            link.close(ledger);
        }
    }

    /// The node is gone.
    pub fn lost(&mut self, ledger: &mut Ledger) {
        if let Some(link) = self.link.take() {
            link.channels.into_values().for_each(|mut channel| channel.lost(ledger));
        }
    }

    /// What it waits for.
    pub fn waits_for(&self) -> String {
        let Some(link) = &self.link else { return String::new() };
        let channels = link.channels.iter().filter(|(_, channel)| !channel.is_quiet());
        let waits =
            channels.map(|(number, channel)| format!(" {}.{number}: {}", link.conn, channel.waits_for()));
        let stage =
            if link.is_open() { String::new() } else { format!(" {} is {:?}", link.conn, link.stage) };
        waits.chain([stage]).collect()
    }

    /// Whether every request and publish was answered.
    pub fn is_quiet(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.is_open() && link.channels.values().all(Channel::is_quiet))
    }
}
