//! One connection: bytes in, requests out; events in, bytes out.
//!
//! The owner calls [`Session::receive`] with what has arrived, [`Session::on_event`] with what the broker says,
//! then [`Session::poll_request`] until it is empty and [`Session::flush`] once at the end of its turn, and
//! [`Session::tick`] at [`Session::next_deadline`]. Never: IO, clocks, names of other protocols.

mod channel;
mod clock;
mod close;
mod confirm;
mod consume;
mod copies;
mod deliver;
mod events;
mod filter;
mod handshake;
mod inbound;
mod methods;
mod offset;
mod outbox;
mod publish;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use base::{Map, Now, Prng, SendBuffer, Table, map};
use model::{ConsumerId, Limits, Request};

use channel::Channel;
use clock::Clock;
use consume::Consumer;
use handshake::Capabilities;
use outbox::Due;
use publish::Checked;
pub use publish::coming_publish;

/// What the server says of itself in its greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Version of this program.
    pub version: String,
    /// Name of the cluster.
    pub cluster_name: String,
}

/// What came of some input.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A box would cost every publish an allocation.
pub enum Step<'a> {
    /// A request for the broker. More input may be behind it.
    Request(Request<'a>),
    /// The rest is incomplete: give it again with more behind it.
    More,
    /// An answer must come first: give the rest again after the next event.
    Waiting,
    /// Send what is left to send, then close the connection.
    End,
}

/// Bytes of a message that are asked for ahead: what is behind them the processor sees coming by itself.
const ROW_AHEAD: usize = 512;

/// Where the connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The protocol header is awaited.
    Header,
    /// `start` was sent.
    Starting,
    /// The broker looks at the password.
    Authenticating,
    /// `tune` was sent.
    Tuning,
    /// `open` is awaited.
    Opening,
    /// The broker looks at the virtual host.
    Entering,
    /// Channels may be used.
    Open,
    /// The client wants to close and the broker tidies up.
    Closing,
    /// `close` was sent, `close-ok` is awaited.
    Failed,
    /// Nothing more will be read.
    Ended,
}

/// One AMQP 0-9-1 connection as plain data.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    product: Arc<Product>,
    stage: Stage,
    channels: Map<u16, Box<Channel>>,
    consumers: Table<ConsumerId, Consumer>,
    /// How many consumers were ever started: the last id.
    consumers_ever: u32,
    outbox: VecDeque<Due>,
    /// What the last request borrows from.
    lent: Option<Due>,
    grants: Vec<(ConsumerId, u32)>,
    lent_grants: Vec<(ConsumerId, u32)>,
    /// Channels whose answer has come and whose parked frames go on.
    replaying: VecDeque<u16>,
    /// Channels with confirms to be sent in [`Session::flush`].
    confirming: Vec<u16>,
    /// Bytes of incomplete messages.
    partial: usize,
    /// Bytes of parked frames.
    parked: usize,
    /// The last property block that was found sound.
    checked: Checked,
    frame_max: usize,
    channel_max: u16,
    user: String,
    vhost: String,
    mechanism: &'static str,
    capabilities: Capabilities,
    unauthenticated_bytes: usize,
    prng: Prng,
    clock: Clock,
}

impl Session {
    /// A connection that was just accepted. `seed` makes consumer tags differ between connections.
    pub fn new(limits: Arc<Limits>, product: Arc<Product>, seed: u64, now: Now) -> Session {
        Session {
            stage: Stage::Header,
            channels: map(seed),
            consumers: Table::new(seed),
            consumers_ever: 0,
            outbox: VecDeque::new(),
            lent: None,
            grants: Vec::new(),
            lent_grants: Vec::new(),
            replaying: VecDeque::new(),
            confirming: Vec::new(),
            partial: 0,
            parked: 0,
            checked: Checked::default(),
            frame_max: limits.unauthenticated_bytes_max,
            channel_max: limits.channels_max,
            user: String::new(),
            vhost: String::new(),
            mechanism: "",
            capabilities: Capabilities::default(),
            unauthenticated_bytes: 0,
            prng: Prng::new(seed),
            clock: Clock::new(now, limits.handshake_ms),
            limits,
            product,
        }
    }

    /// Decodes from the front of `input` until something arises. Returns the bytes used and what arose.
    pub fn receive<'a>(&'a mut self, input: &'a [u8], out: &mut SendBuffer) -> (usize, Step<'a>) {
        self.forget_lent();
        let before = out.len();
        let (used, turn) = self.decode(input, out);
        self.clock.note(used > 0, out.len() > before);
        (used, self.step(turn))
    }

    /// The next request that events or earlier input gave rise to; to be called until there is none.
    pub fn poll_request(&mut self, out: &mut SendBuffer) -> Option<Request<'_>> {
        self.forget_lent();
        let before = out.len();
        let due = self.replay(out);
        self.clock.note(false, out.len() > before);
        due.then(|| self.lend())
    }

    /// Takes an event in and encodes what the client must hear of it.
    pub fn on_event(&mut self, event: &model::Event, out: &mut SendBuffer) {
        let before = out.len();
        self.take_event(event, out);
        self.clock.note(false, out.len() > before);
    }

    /// Sends the confirms of the turn, as few methods as possible.
    pub fn flush(&mut self, out: &mut SendBuffer) {
        if !self.confirming.is_empty() {
            self.flush_confirms(out.tail());
            self.clock.note(false, true);
        }
    }

    /// Whether the connection is to be closed once everything has been sent.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether the client is through the handshake and may publish and consume.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// The user this connection named at its login; empty before that.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The virtual host it asked to enter; empty before that.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Bytes held of incomplete messages and parked frames.
    pub fn partial_bytes(&self) -> usize {
        self.partial + self.parked
    }

    /// The connection died: what was due and ends something stays due, then everything unsettled returns, as failed
    /// deliveries. To be polled for as ever.
    pub fn abandon(&mut self) {
        self.grants.clear();
        let mut lanes: Vec<u16> = self.channels.keys().copied().collect();
        lanes.sort_unstable();
        for lane in lanes {
            self.return_held(lane);
        }
        self.channels.clear();
        self.stage = Stage::Ended;
        (self.partial, self.parked) = (0, 0);
        self.consumers.clear();
        self.replaying.clear();
        self.outbox.retain(Due::ends_something);
    }

    /// Asks for the memory that an event will need soon.
    #[inline]
    pub fn prefetch(&self, event: &model::Event) {
        let model::Event::Delivered(delivered) = event else { return };
        self.consumers.prefetch(&delivered.consumer);
        if let Some(first) = delivered.items.first() {
            let rows = delivered.block.as_slice().get(first.at as usize..).unwrap_or_default();
            base::prefetch(&rows[..rows.len().min(ROW_AHEAD)]);
        }
    }
}
