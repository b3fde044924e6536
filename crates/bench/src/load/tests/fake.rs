//! A server that keeps queues in memory, one thread per connection, and breaks its promises on request.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::client::CHANNEL;
use crate::frames::{Arguments, BODY, Frame, HEADER, METHOD, PutFrame};

/// What the server does to the message of this number, counted over all publishes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Lose(u64),
    Repeat(u64),
    RepeatHonestly(u64),
    Swap(u64),
    Flip(u64),
    Refuse(u64),
    Misroute(u64),
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Vec<u8>, bool)>,
    consumers: VecDeque<(Arc<Mutex<Peer>>, String)>,
}

struct Peer {
    stream: TcpStream,
    deliveries: u64,
    confirms: Option<u64>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, Queue>,
    bindings: BTreeMap<String, Vec<String>>,
    publishes: u64,
    held: Option<(String, Vec<u8>)>,
}

/// Starts the server on a port of its own.
pub(super) fn start(fault: Option<Fault>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let state = Arc::new(Mutex::new(State::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || serve(stream, &state, fault));
        }
    });
    port
}

/// Serves one connection until it ends.
fn serve(mut stream: TcpStream, state: &Mutex<State>, fault: Option<Fault>) {
    let peer = Peer { stream: stream.try_clone().unwrap(), deliveries: 0, confirms: None };
    let mut session = Session { peer: Arc::new(Mutex::new(peer)), publish: None, body: Vec::new(), left: 0 };
    let mut protocol = [0; 8];
    if stream.read_exact(&mut protocol).is_err() {
        return;
    }
    session.answer(0, (10, 10), b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
        let mut at = 0;
        while let Some((frame, used)) = Frame::cut(&bytes[at..]).unwrap() {
            session.frame(&frame, &mut state.lock().unwrap(), fault);
            at += used;
        }
        bytes.drain(..at);
    }
}

struct Session {
    peer: Arc<Mutex<Peer>>,
    publish: Option<(String, String)>,
    body: Vec<u8>,
    left: u64,
}

impl Session {
    fn answer(&self, channel: u16, id: (u16, u16), arguments: &[u8]) {
        let mut out = Vec::new();
        out.put_method(channel, id, |out| out.extend_from_slice(arguments));
        let _ = self.peer.lock().unwrap().stream.write_all(&out);
    }

    fn frame(&mut self, frame: &Frame<'_>, state: &mut State, fault: Option<Fault>) {
        match frame.kind {
            METHOD => {
                let (class, method, arguments) = frame.method().unwrap();
                self.method(class, method, &mut Arguments(arguments), state);
            }
            HEADER => {
                self.left = Arguments(&frame.payload[4..]).u64().unwrap();
                self.body.clear();
            }
            _ => {
                self.body.extend_from_slice(frame.payload);
                self.left -= frame.payload.len() as u64;
            }
        }
        if frame.kind != METHOD && self.left == 0 {
            self.published(state, fault);
        }
    }

    fn method(&mut self, class: u16, method: u16, arguments: &mut Arguments<'_>, state: &mut State) {
        let name = |arguments: &mut Arguments<'_>| {
            String::from_utf8(arguments.short_string().unwrap().to_vec()).unwrap()
        };
        match (class, method) {
            // A small frame size, so that bodies come in pieces.
            (10, 11) => self.answer(0, (10, 30), &[0, 0, 0, 0, 0x10, 0, 0, 0]),
            (10, 40) => self.answer(0, (10, 41), &[0]),
            (20, 10) => self.answer(CHANNEL, (20, 11), &[0; 4]),
            (50, 10) => {
                arguments.u16();
                state.queues.entry(name(arguments)).or_default();
                self.answer(CHANNEL, (50, 11), &[0; 9]);
            }
            (50, 20) => {
                arguments.u16();
                let (queue, exchange) = (name(arguments), name(arguments));
                state.bindings.entry(exchange).or_default().push(queue);
                self.answer(CHANNEL, (50, 21), &[]);
            }
            (50, 40) => {
                arguments.u16();
                state.queues.remove(&name(arguments)).unwrap();
                self.answer(CHANNEL, (50, 41), &[0; 4]);
            }
            (60, 20) => {
                arguments.u16();
                let (queue, tag) = (name(arguments), name(arguments));
                self.answer(CHANNEL, (60, 21), &[&[tag.len() as u8], tag.as_bytes()].concat());
                let queue = state.queues.get_mut(&queue).unwrap();
                queue.consumers.push_back((self.peer.clone(), tag));
                queue.deliver();
            }
            (60, 40) => {
                arguments.u16();
                self.publish = Some((name(arguments), name(arguments)));
            }
            (85, 10) => {
                self.peer.lock().unwrap().confirms = Some(0);
                self.answer(CHANNEL, (85, 11), &[]);
            }
            (40 | 60, 10 | 20) => self.answer(CHANNEL, (class, method + 1), &[]),
            (10, 31) | (60, 80) => {}
            _ => unreachable!("the bench does not send {class}.{method}"),
        }
    }

    fn published(&mut self, state: &mut State, fault: Option<Fault>) {
        let (exchange, key) = self.publish.take().unwrap();
        let number = state.publishes;
        state.publishes += 1;
        let refused = fault == Some(Fault::Refuse(number));
        if !refused {
            let queues = state.bindings.get(&exchange).cloned().unwrap_or_else(|| vec![key]);
            for queue in queues {
                state.route(number, queue, self.body.clone(), fault);
            }
        }
        let tag = self.peer.lock().unwrap().confirms.as_mut().map(|tag| {
            *tag += 1;
            *tag
        });
        if let Some(tag) = tag {
            self.answer(
                CHANNEL,
                (60, if refused { 120 } else { 80 }),
                &[&tag.to_be_bytes()[..], &[0]].concat(),
            );
        }
    }
}

impl State {
    /// Puts one message into a queue, or does what the fault says.
    fn route(&mut self, number: u64, queue: String, mut body: Vec<u8>, fault: Option<Fault>) {
        match fault {
            Some(Fault::Lose(n)) if n == number => return,
            Some(Fault::Repeat(n)) if n == number => self.push(&queue, body.clone(), false),
            Some(Fault::RepeatHonestly(n)) if n == number => {
                self.push(&queue, body.clone(), false);
                return self.push(&queue, body, true);
            }
            Some(Fault::Swap(n)) if n == number => {
                self.held = Some((queue, body));
                return;
            }
            Some(Fault::Flip(n)) if n == number => *body.last_mut().unwrap() ^= 1,
            Some(Fault::Misroute(n)) if n == number => {
                let other = self.queues.keys().find(|name| **name != queue).unwrap().clone();
                return self.push(&other, body, false);
            }
            _ => {}
        }
        self.push(&queue, body, false);
        if let Some((queue, body)) = self.held.take() {
            self.push(&queue, body, false);
        }
    }

    fn push(&mut self, queue: &str, body: Vec<u8>, redelivered: bool) {
        let queue = self.queues.get_mut(queue).unwrap();
        queue.waiting.push_back((body, redelivered));
        queue.deliver();
    }
}

impl Queue {
    fn deliver(&mut self) {
        while !self.waiting.is_empty() && !self.consumers.is_empty() {
            let (body, redelivered) = self.waiting.pop_front().unwrap();
            let (peer, tag) = self.consumers.pop_front().unwrap();
            peer.lock().unwrap().deliver(&tag, &body, redelivered);
            self.consumers.push_back((peer, tag));
        }
    }
}

impl Peer {
    fn deliver(&mut self, tag: &str, body: &[u8], redelivered: bool) {
        self.deliveries += 1;
        let mut out = Vec::new();
        out.put_method(CHANNEL, (60, 60), |out| {
            out.put_short(tag);
            out.extend_from_slice(&self.deliveries.to_be_bytes());
            out.push(u8::from(redelivered));
            out.put_short("");
            out.put_short("some-key");
        });
        out.put_frame(HEADER, CHANNEL, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(body.len() as u64).to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        });
        for piece in body.chunks(4088) {
            out.put_frame(BODY, CHANNEL, |out| out.extend_from_slice(piece));
        }
        let _ = self.stream.write_all(&out);
    }
}
