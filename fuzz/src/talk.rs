//! One session between a client's bytes and the broker of a few lines, with what must hold at any time.

use std::io::IoSlice;
use std::sync::Arc;

use base::{Now, Prng, SendBuffer};
use model::{Event, Limits};
use proto_amqp::wire::{Method, frame, next_frame};
use proto_amqp::{Product, Session, Step};

use crate::broker::answers;

/// Bytes of one frame either way.
const FRAME_MAX: u32 = 16_384;

/// A session and both its sides.
pub struct Talk {
    session: Session,
    out: SendBuffer,
    unread: Vec<u8>,
    unsaid: Vec<Event>,
    heard: Vec<u8>,
    dice: Prng,
    /// The broker keeps its answers to itself until [`Talk::say`].
    pub silent: bool,
    /// Bytes given to the session so far.
    pub fed: usize,
    /// Whether the connection is over.
    pub ended: bool,
    now: u64,
}

/// Bounds so low that short inputs come near them.
pub fn limits() -> Limits {
    Limits {
        frame_bytes_max: FRAME_MAX,
        channels_max: 8,
        consumers_max: 8,
        partial_bytes_max: 32_768,
        nesting_max: 8,
        ..Limits::default()
    }
}

impl Talk {
    /// A connection that was just accepted.
    pub fn new(seed: u64) -> Talk {
        let product = Product { version: "1".into(), cluster_name: "here".into() };
        Talk {
            session: Session::new(
                Arc::new(limits()),
                Arc::new(product),
                seed,
                Now { mono_us: 0, wall_ms: 0 },
            ),
            out: SendBuffer::default(),
            unread: Vec::new(),
            unsaid: Vec::new(),
            heard: Vec::new(),
            dice: Prng::new(seed),
            silent: false,
            fed: 0,
            ended: false,
            now: 0,
        }
    }

    /// Gives the session bytes, does all that follows and checks it.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.fed += bytes.len();
        loop {
            let (used, step) = self.session.receive(&self.unread, &mut self.out);
            let (go_on, events) = match step {
                Step::Request(request) => (true, answers(&request, self.dice.draw() as u8)),
                Step::More | Step::End => (false, vec![]),
                Step::Waiting => (!self.silent && !self.unsaid.is_empty(), vec![]),
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
        self.check();
    }

    /// The broker says what it has to say, and what that gives rise to goes to the broker.
    pub fn say(&mut self) {
        let unsaid = std::mem::take(&mut self.unsaid);
        unsaid.iter().for_each(|event| self.session.on_event(event, &mut self.out));
        while let Some(request) = self.session.poll_request(&mut self.out) {
            self.unsaid.extend(answers(&request, self.dice.draw() as u8));
        }
    }

    /// An event that may not have been asked for.
    pub fn event(&mut self, event: Event) {
        self.unsaid.push(event);
        self.say();
        self.feed(&[]);
    }

    /// Time goes on.
    pub fn pass(&mut self, seconds: u64) {
        self.now += seconds * 1_000_000;
        let now = Now { mono_us: self.now, wall_ms: 0 };
        assert!(!matches!(self.session.tick(now, &mut self.out), Step::Request(_) | Step::Waiting));
        self.check();
    }

    /// Ends the connection: nothing may be held behind that.
    pub fn abandon(mut self) {
        self.check();
        self.session.abandon();
        while self.session.poll_request(&mut self.out).is_some() {}
        assert_eq!(self.session.partial_bytes(), 0, "a dead connection holds nothing");
    }

    fn check(&mut self) {
        self.session.flush(&mut self.out);
        self.ended |= self.session.is_ended();
        let partial = self.session.partial_bytes();
        assert!(partial <= self.fed, "{partial} bytes are held, {} were received", self.fed);
        let most = limits().partial_bytes_max + FRAME_MAX as usize;
        assert!(partial <= most, "{partial} bytes are held, {most} are allowed");
        let mut slices = [IoSlice::new(&[]); 4];
        while !self.out.is_empty() {
            let filled = self.out.slices(&mut slices);
            let from = self.heard.len();
            slices[..filled].iter().for_each(|slice| self.heard.extend_from_slice(slice));
            slices = [IoSlice::new(&[]); 4];
            self.out.advance(self.heard.len() - from);
        }
        check_heard(&self.heard);
        self.heard.clear();
    }
}

/// What a session sends at the end of a turn is whole frames with methods that any client can read.
fn check_heard(mut rest: &[u8]) {
    rest = rest.strip_prefix(&proto_amqp::wire::PROTOCOL_HEADER).unwrap_or(rest);
    while !rest.is_empty() {
        let frame = next_frame(rest, FRAME_MAX as usize).expect("a frame").expect("a whole frame");
        if frame.kind == frame::METHOD {
            Method::decode(frame.payload, 32).expect("a method");
        }
        rest = &rest[frame.len()..];
    }
}
