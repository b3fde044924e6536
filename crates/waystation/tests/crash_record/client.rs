//! A client of raw AMQP 0-9-1 bytes, one channel, one thing at a time. Everything after a broken connection is silence.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// Body bytes of one frame.
const PART: usize = 100_000;

/// A method frame's class and method numbers, and its arguments.
pub struct Method {
    pub id: (u16, u16),
    pub arguments: Vec<u8>,
}

/// A message, and what its delivery says of it.
pub struct Got {
    pub tag: u64,
    pub redelivered: bool,
    pub body: Vec<u8>,
}

pub struct Client {
    socket: TcpStream,
    channel: u16,
    broken: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("set");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        let mut client = Client { socket, channel: 0, broken: false };
        client.write(b"AMQP\x00\x00\x09\x01");
        client.expect((10, 10));
        let mut start_ok = vec![0; 4];
        short(&mut start_ok, "PLAIN");
        start_ok.extend_from_slice(&12u32.to_be_bytes());
        start_ok.extend_from_slice(b"\0guest\0guest");
        short(&mut start_ok, "en_US");
        client.send(0, (10, 11), &start_ok);
        let tune = client.expect((10, 30)).expect("tuned");
        client.send(0, (10, 31), &tune.arguments);
        client.send(0, (10, 40), b"\x01/\0\0");
        client.expect((10, 41)).expect("opened");
        client
    }

    /// Whether the server has gone away.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub fn open_channel(&mut self) {
        self.channel += 1;
        self.ask((20, 10), b"\0", (20, 11));
    }

    pub fn close_channel(&mut self) {
        self.ask((20, 40), b"\0\xc8\0\0\0\0\0", (20, 41));
    }

    /// Ready messages of the queue, which is made if need be; `None` when it was only asked for and is not there.
    pub fn declare(&mut self, queue: &str, passive: bool) -> Option<u32> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, queue);
        arguments.push(if passive { 1 } else { 2 });
        arguments.extend_from_slice(&[0; 4]);
        self.send(self.channel, (50, 10), &arguments);
        let answer = self.method()?;
        if answer.id == (20, 40) {
            self.send(self.channel, (20, 41), &[]);
            return None;
        }
        assert_eq!(answer.id, (50, 11), "declared");
        let name = 1 + usize::from(answer.arguments[0]);
        Some(u32::from_be_bytes(answer.arguments[name..name + 4].try_into().expect("four bytes")))
    }

    pub fn select_confirms(&mut self) {
        self.ask((85, 10), b"\0", (85, 11));
    }

    /// Publishes to the queue; nothing comes back yet.
    pub fn publish(&mut self, queue: &str, body: &[u8]) {
        let mut method = vec![0, 0, 0];
        short(&mut method, queue);
        method.push(0);
        let mut frames = Vec::new();
        put_frame(&mut frames, METHOD, self.channel, &with_id((60, 40), &method));
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        // The one property: delivery mode 2.
        header.extend_from_slice(&[0x10, 0, 2]);
        put_frame(&mut frames, HEADER, self.channel, &header);
        for part in body.chunks(PART) {
            put_frame(&mut frames, BODY, self.channel, part);
        }
        self.write(&frames);
    }

    /// The next confirm: the highest number it covers.
    pub fn confirm(&mut self) -> Option<u64> {
        let ack = self.expect((60, 80))?;
        Some(u64::from_be_bytes(ack.arguments[..8].try_into().expect("eight bytes")))
    }

    /// One message; `None` when there is none.
    pub fn get(&mut self, queue: &str, settled: bool) -> Option<Got> {
        let mut arguments = vec![0, 0];
        short(&mut arguments, queue);
        arguments.push(u8::from(settled));
        self.send(self.channel, (60, 70), &arguments);
        let answer = self.method()?;
        if answer.id == (60, 72) {
            return None;
        }
        assert_eq!(answer.id, (60, 71), "got");
        let tag = u64::from_be_bytes(answer.arguments[..8].try_into().expect("eight bytes"));
        let redelivered = answer.arguments[8] & 1 != 0;
        let (kind, header) = self.frame()?;
        assert_eq!(kind, HEADER);
        let length = u64::from_be_bytes(header[4..12].try_into().expect("eight bytes")) as usize;
        let mut body = Vec::new();
        while body.len() < length {
            let (kind, part) = self.frame()?;
            assert_eq!(kind, BODY);
            body.extend_from_slice(&part);
        }
        Some(Got { tag, redelivered, body })
    }

    pub fn ack(&mut self, tag: u64) {
        let mut arguments = tag.to_be_bytes().to_vec();
        arguments.push(0);
        self.send(self.channel, (60, 80), &arguments);
    }

    fn ask(&mut self, id: (u16, u16), arguments: &[u8], answer: (u16, u16)) {
        self.send(self.channel, id, arguments);
        self.expect(answer);
    }

    fn expect(&mut self, id: (u16, u16)) -> Option<Method> {
        let method = self.method()?;
        assert_eq!(method.id, id, "{}", String::from_utf8_lossy(&method.arguments));
        Some(method)
    }

    fn method(&mut self) -> Option<Method> {
        let (kind, payload) = self.frame()?;
        assert_eq!(kind, METHOD);
        let method = method(&payload);
        // The node is going away: as good as gone.
        if method.id == (10, 50) {
            self.broken = true;
            return None;
        }
        Some(method)
    }

    fn send(&mut self, channel: u16, id: (u16, u16), arguments: &[u8]) {
        let mut frame = Vec::new();
        put_frame(&mut frame, METHOD, channel, &with_id(id, arguments));
        self.write(&frame);
    }

    fn write(&mut self, bytes: &[u8]) {
        self.broken |= self.socket.write_all(bytes).is_err();
    }

    /// The next frame that is not a heartbeat.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let mut head = [0; 7];
            let mut payload = Vec::new();
            let mut read = || -> std::io::Result<()> {
                self.socket.read_exact(&mut head)?;
                let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
                payload.resize(length + 1, 0);
                self.socket.read_exact(&mut payload)
            };
            match read() {
                Ok(()) => assert_eq!(payload.pop(), Some(0xce), "a frame ends as it must"),
                Err(error) => {
                    let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
                    assert!(!timed_out, "the server says nothing for a minute");
                    self.broken = true;
                    return None;
                }
            }
            if head[0] != HEARTBEAT {
                return Some((head[0], payload));
            }
        }
    }
}

/// The methods among the whole frames of a stream, each with the place where its frame ends.
pub fn methods(stream: &[u8]) -> Vec<(usize, Method)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(head) = stream.get(at..at + 7) {
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let Some(payload) = stream.get(at + 7..at + 7 + length) else { break };
        at += 8 + length;
        if at > stream.len() {
            break;
        }
        if head[0] == METHOD {
            found.push((at, method(payload)));
        }
    }
    found
}

fn method(payload: &[u8]) -> Method {
    let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    Method { id: (number(0), number(2)), arguments: payload[4..].to_vec() }
}

fn with_id(id: (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let mut payload = id.0.to_be_bytes().to_vec();
    payload.extend_from_slice(&id.1.to_be_bytes());
    payload.extend_from_slice(arguments);
    payload
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0xce);
}

fn short(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}
