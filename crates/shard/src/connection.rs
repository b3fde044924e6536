//! One connection: its session, whatever it speaks, and what waits to be sent.

use std::sync::Arc;

use base::{Now, SendBuffer};
use model::{Event, Limits, Peer, Request};

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// AMQP 0-9-1.
    Amqp,
    /// Kafka.
    Kafka,
}

/// What the node says of itself, in each protocol's words.
#[derive(Clone, Debug)]
pub(crate) struct Products {
    pub amqp: Arc<proto_amqp::Product>,
    pub kafka: Arc<proto_kafka::Product>,
}

/// What came of some input.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A box would cost every publish an allocation.
pub(crate) enum Step<'a> {
    /// A request for the broker, and exchange and key of the publish behind it if that was asked for. More input may be
    /// behind it.
    Request(Request<'a>, Option<(&'a [u8], &'a [u8])>),
    /// The rest is incomplete.
    More,
    /// An answer must come first.
    Waiting,
    /// Send what is left to send, then close the connection.
    End,
}

/// The session of a connection: the one place where every protocol is named.
#[derive(Debug)]
enum Protocol {
    Amqp(Box<proto_amqp::Session>),
    Kafka(Box<proto_kafka::Session>),
}

/// Calls one method of whatever session there is.
macro_rules! session {
    ($protocol:expr, $session:ident => $call:expr) => {
        match $protocol {
            Protocol::Amqp($session) => $call,
            Protocol::Kafka($session) => $call,
        }
    };
}

/// One connection of this shard.
#[derive(Debug)]
pub(crate) struct Connection {
    protocol: Protocol,
    pub out: SendBuffer,
    /// Among those whose send buffer got bytes.
    pub dirty: bool,
    /// Told to close; nothing more is read.
    pub ended: bool,
    /// Has unread input that need not wait for more bytes.
    pub hungry: bool,
    /// When it is looked at next, at the latest.
    pub looked_at_us: u64,
}

impl Connection {
    pub(crate) fn new(
        door: Door,
        limits: Arc<Limits>,
        products: &Products,
        peer: &Peer,
        seed: u64,
        now: Now,
    ) -> Connection {
        let protocol = match door {
            Door::Amqp => {
                Protocol::Amqp(Box::new(proto_amqp::Session::new(limits, products.amqp.clone(), seed, now)))
            }
            Door::Kafka => {
                let advertised = advertised(&peer.local);
                let product = products.kafka.clone();
                let mut session = proto_kafka::Session::new(limits, product, advertised, seed, now);
                session.set_peer(&peer.address);
                Protocol::Kafka(Box::new(session))
            }
        };
        Connection {
            protocol,
            out: SendBuffer::default(),
            dirty: false,
            ended: false,
            hungry: false,
            looked_at_us: u64::MAX,
        }
    }

    /// Decodes from the front of `input` until something arises; with `peek` looks at what is behind a publish as well.
    #[inline]
    pub(crate) fn receive<'a>(&'a mut self, input: &'a [u8], peek: bool) -> (usize, Step<'a>) {
        match &mut self.protocol {
            Protocol::Amqp(session) => {
                let (taken, step) = session.receive(input, &mut self.out);
                let step = match step {
                    proto_amqp::Step::Request(request) => {
                        let coming = if peek { proto_amqp::coming_publish(&input[taken..]) } else { None };
                        Step::Request(request, coming)
                    }
                    proto_amqp::Step::More => Step::More,
                    proto_amqp::Step::Waiting => Step::Waiting,
                    proto_amqp::Step::End => Step::End,
                };
                (taken, step)
            }
            Protocol::Kafka(session) => {
                let (taken, step) = session.receive(input, &mut self.out);
                let step = match step {
                    proto_kafka::Step::Request(request) => Step::Request(request, None),
                    proto_kafka::Step::More => Step::More,
                    proto_kafka::Step::Waiting => Step::Waiting,
                    proto_kafka::Step::End => Step::End,
                };
                (taken, step)
            }
        }
    }

    pub(crate) fn poll_request(&mut self) -> Option<Request<'_>> {
        session!(&mut self.protocol, session => session.poll_request(&mut self.out))
    }

    pub(crate) fn on_event(&mut self, event: &Event) {
        session!(&mut self.protocol, session => session.on_event(event, &mut self.out));
    }

    pub(crate) fn flush(&mut self) {
        session!(&mut self.protocol, session => session.flush(&mut self.out));
    }

    pub(crate) fn abandon(&mut self) {
        session!(&mut self.protocol, session => session.abandon());
    }

    /// Asks for the memory that an event will need soon.
    #[inline]
    pub(crate) fn prefetch(&self, event: &Event) {
        if let Protocol::Amqp(session) = &self.protocol {
            session.prefetch(event);
        }
    }

    /// `unread`: its input is left unread on purpose, so its silence says nothing.
    pub(crate) fn tick(&mut self, now: Now, unread: bool) {
        session!(&mut self.protocol, session => {
            if unread {
                session.excuse_silence();
            }
            drop(session.tick(now, &mut self.out));
        });
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        session!(&self.protocol, session => session.next_deadline())
    }

    pub(crate) fn shut_down(&mut self) {
        session!(&mut self.protocol, session => session.shutdown(&mut self.out));
    }

    pub(crate) fn is_ended(&self) -> bool {
        session!(&self.protocol, session => session.is_ended())
    }

    /// Whether its session would take input: one that answers every request stops while answers pile up.
    pub(crate) fn takes_input(&self, limits: &Limits) -> bool {
        match self.protocol {
            Protocol::Amqp(_) => true,
            Protocol::Kafka(_) => self.out.len() <= limits.send_bytes_max,
        }
    }

    pub(crate) fn partial_bytes(&self) -> usize {
        session!(&self.protocol, session => session.partial_bytes())
    }
}

/// Host and port that a client dialled, for telling it where the node is.
fn advertised(local: &str) -> (String, u16) {
    let (host, port) = local.rsplit_once(':').unwrap_or((local, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), port.parse().unwrap_or(9092))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_the_address_it_dialled() {
        assert_eq!(advertised("127.0.0.1:9092"), ("127.0.0.1".to_owned(), 9092));
        assert_eq!(advertised("[::1]:19092"), ("::1".to_owned(), 19092));
    }
}
