//! One connection: its session, whatever it speaks, and what waits to be sent.

use std::sync::Arc;

use base::{Now, SendBuffer};
use model::{Event, Limits, Request};
use proto_amqp::{Product, Session, Step};

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// AMQP 0-9-1.
    Amqp,
}

/// The session of a connection: the one place where every protocol is named.
#[derive(Debug)]
enum Protocol {
    Amqp(Box<Session>),
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
        product: Arc<Product>,
        seed: u64,
        now: Now,
    ) -> Connection {
        let protocol = match door {
            Door::Amqp => Protocol::Amqp(Box::new(Session::new(limits, product, seed, now))),
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

    /// Decodes from the front of `input` until something arises.
    #[inline]
    pub(crate) fn receive<'a>(&'a mut self, input: &'a [u8]) -> (usize, Step<'a>) {
        match &mut self.protocol {
            Protocol::Amqp(session) => session.receive(input, &mut self.out),
        }
    }

    pub(crate) fn poll_request(&mut self) -> Option<Request<'_>> {
        match &mut self.protocol {
            Protocol::Amqp(session) => session.poll_request(&mut self.out),
        }
    }

    pub(crate) fn on_event(&mut self, event: &Event) {
        match &mut self.protocol {
            Protocol::Amqp(session) => session.on_event(event, &mut self.out),
        }
    }

    pub(crate) fn flush(&mut self) {
        match &mut self.protocol {
            Protocol::Amqp(session) => session.flush(&mut self.out),
        }
    }

    pub(crate) fn abandon(&mut self) -> Vec<Request<'static>> {
        match &mut self.protocol {
            Protocol::Amqp(session) => session.abandon().collect(),
        }
    }

    /// `unread`: its input is left unread on purpose, so its silence says nothing.
    pub(crate) fn tick(&mut self, now: Now, unread: bool) {
        match &mut self.protocol {
            Protocol::Amqp(session) => {
                if unread {
                    session.excuse_silence();
                }
                drop(session.tick(now, &mut self.out));
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        match &self.protocol {
            Protocol::Amqp(session) => session.next_deadline(),
        }
    }

    pub(crate) fn shut_down(&mut self) {
        match &mut self.protocol {
            Protocol::Amqp(session) => session.shutdown(&mut self.out),
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        match &self.protocol {
            Protocol::Amqp(session) => session.is_ended(),
        }
    }

    pub(crate) fn partial_bytes(&self) -> usize {
        match &self.protocol {
            Protocol::Amqp(session) => session.partial_bytes(),
        }
    }
}
