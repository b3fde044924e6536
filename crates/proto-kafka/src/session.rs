//! One connection: bytes in, requests out; events in, bytes out.
//!
//! The owner calls [`Session::receive`] with what has arrived, [`Session::on_event`] with what the broker says,
//! then [`Session::poll_request`] until it is empty and [`Session::flush`] once at the end of its turn, and
//! [`Session::tick`] at [`Session::next_deadline`]. Never: IO, clocks, names of other protocols.

mod clock;
mod commits;
mod config_table;
mod configs;
mod ending;
mod events;
mod fetch;
mod fetch_session;
mod group_admin;
mod groups;
mod inbound;
mod login;
mod long;
mod metadata;
mod offsets;
mod pending;
mod permitted;
mod produce;
mod producers;
mod reply;
mod route;
#[cfg(test)]
mod tests;
mod topics;
mod versions;

use std::collections::VecDeque;
use std::sync::Arc;

use base::{Now, Prng, SendBuffer};
use model::{Limits, LogRequest, Request};

use clock::Clock;
use fetch_session::FetchSessions;
use inbound::Turn;
use login::Login;
use long::{Long, Place};
use pending::Queue;
use produce::Appending;
use reply::Node;

/// What a client is told about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Identity of the cluster.
    pub cluster_id: String,
    /// The number of this node as clients know it.
    pub node_id: i32,
    /// Version of this program.
    pub version: String,
}

/// What came of some input.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Taken apart where it is returned to, and never kept.
pub enum Step<'a> {
    /// A request for the broker. More input may be behind it, and the same input is to be given again.
    Request(Request<'a>),
    /// The rest is incomplete: give it again with more behind it.
    More,
    /// An answer must come first: give the rest again after the next event.
    Waiting,
    /// Send what is left to send, then close the connection.
    End,
}

/// Where the connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has come in yet.
    Fresh,
    /// The broker decides about who wants to come in.
    Admitting,
    /// The broker looks at the virtual host.
    Entering,
    /// Everything may be asked.
    Open,
    /// Nothing more is read; what is under way is still answered.
    Ending,
    /// Nothing more will be read or answered.
    Ended,
}

/// What the broker is to be told next.
#[derive(Debug)]
enum Due {
    Anonymous,
    Authenticate { user: String, password: Vec<u8> },
    Enter,
    Log(u64, LogRequest<'static>),
}

/// One Kafka connection as plain data.
#[derive(Debug)]
pub struct Session {
    limits: Arc<Limits>,
    node: Arc<Node>,
    peer: String,
    stage: Stage,
    login: Login,
    queue: Queue,
    outbox: VecDeque<Due>,
    /// What the last request borrows from.
    lent: Option<Due>,
    /// A frame whose batches are being handed over.
    appending: Option<Appending>,
    /// A frame that is taken in as it comes, and whose batch was handed over last.
    long: Option<Long>,
    handing: Option<Place>,
    fetching: FetchSessions,
    /// A whole frame waits until less is under way.
    is_stuck: bool,
    prng: Prng,
    clock: Clock,
}

impl Session {
    /// A connection that was just accepted. `advertised` is where clients are told to connect: the address this one
    /// dialled. `seed` makes fetch sessions differ between connections.
    pub fn new(
        limits: Arc<Limits>,
        product: Arc<Product>,
        advertised: (String, u16),
        seed: u64,
        now: Now,
    ) -> Session {
        let (host, port) = advertised;
        let cluster = product.cluster_id.clone();
        Session {
            node: Arc::new(Node { id: product.node_id, cluster, host, port }),
            peer: String::new(),
            stage: Stage::Fresh,
            login: Login::default(),
            queue: Queue::default(),
            outbox: VecDeque::new(),
            lent: None,
            appending: None,
            long: None,
            handing: None,
            fetching: FetchSessions::default(),
            is_stuck: false,
            prng: Prng::new(seed),
            clock: Clock::new(now, limits.handshake_ms),
            limits,
        }
    }

    /// Says where the client is, an address with or without its port, which members of its groups are shown.
    pub fn set_peer(&mut self, address: &str) {
        let host = address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let host = host.map_or(address, |(host, _)| host).trim_start_matches('[').trim_end_matches(']');
        self.peer = format!("/{host}");
    }

    /// Decodes from the front of `input` until something arises. Returns the bytes used and what arose. A frame with
    /// batches is used only when the last of them has been handed over.
    pub fn receive<'a>(&'a mut self, input: &'a [u8], out: &mut SendBuffer) -> (usize, Step<'a>) {
        self.lent = None;
        let (used, turn) = self.decode(input, out);
        self.clock.heard |= used > 0;
        let step = match turn {
            Turn::Due => Step::Request(self.lend()),
            Turn::Append(token, batch) => {
                Step::Request(Request::Log { token, request: LogRequest::Append(batch) })
            }
            Turn::AppendOfLong(token, batch) => {
                let place = self.handing.as_ref().expect("its place is kept");
                Step::Request(Request::Log { token, request: LogRequest::Append(place.append(batch)) })
            }
            Turn::More => Step::More,
            Turn::Waiting => Step::Waiting,
            Turn::End => Step::End,
        };
        (used, step)
    }

    /// The next request that events or earlier input gave rise to; to be called until there is none.
    pub fn poll_request(&mut self, _out: &mut SendBuffer) -> Option<Request<'_>> {
        self.lent = None;
        (!self.outbox.is_empty()).then(|| self.lend())
    }

    /// Takes an event in and encodes what the client must hear of it.
    pub fn on_event(&mut self, event: &model::Event, out: &mut SendBuffer) {
        self.take_event(event, out);
    }

    /// The end of a turn. Responses leave as they become due, so nothing is left to do here.
    pub fn flush(&mut self, _out: &mut SendBuffer) {}

    /// Whether the connection is to be closed once everything has been sent.
    pub fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Bytes held of requests that are under way; more than may be held while no further one is taken, so that its
    /// owner leaves the socket alone.
    pub fn partial_bytes(&self) -> usize {
        match self.is_stuck {
            true => self.limits.partial_bytes_max.saturating_add(1),
            false => self.queue.bytes(),
        }
    }

    fn lend(&mut self) -> Request<'_> {
        match self.outbox.pop_front().expect("a request is lent when one is due") {
            Due::Log(token, request) => Request::Log { token, request },
            Due::Anonymous => Request::Anonymous,
            Due::Enter => Request::Enter { vhost: "/" },
            due @ Due::Authenticate { .. } => match self.lent.insert(due) {
                Due::Authenticate { user, password } => Request::Authenticate { user, password },
                _ => unreachable!("what was just put there"),
            },
        }
    }
}
