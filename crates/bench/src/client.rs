//! A small AMQP 0-9-1 client: connects, logs in, and asks one thing at a time while it blocks.
//!
//! In: a [`Url`] and methods to send. Out: the server's answers, or its refusal as a sentence; after the set-up the
//! socket and its receive buffer are handed to the non-blocking loop. Never re-connects, never retries.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::error::{Error, Result, Trying};
use crate::frames::{Arguments, FRAME_MAX, FRAME_OVERHEAD, Frame, HEARTBEAT, METHOD, PutFrame};
use crate::url::Url;

/// Bytes asked of the socket at once.
const READ: usize = 256 << 10;
/// How long a server may take for one answer of the set-up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The one channel a connection uses.
pub(crate) const CHANNEL: u16 = 1;

/// What a socket has delivered and nobody has parsed yet.
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Less than was asked for: the socket is empty.
    All,
    /// As much as was asked for: there may be more.
    Some,
}

impl Inbox {
    /// An empty buffer that grows to hold one frame and one read.
    pub(crate) fn new() -> Self {
        Inbox { bytes: Vec::new(), start: 0, end: 0 }
    }

    /// Reads once; the end of the stream is an error, because only the client ends a connection here.
    pub(crate) fn read_from(&mut self, stream: &mut impl Read) -> Result<Arrived> {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.bytes.len() < self.end + READ {
            self.bytes.resize(FRAME_MAX as usize + FRAME_OVERHEAD + READ, 0);
        }
        match stream.read(&mut self.bytes[self.end..self.end + READ]) {
            Ok(0) => Err(Error::new("the server closed the connection")),
            Ok(read) => {
                self.end += read;
                Ok(if read == READ { Arrived::Some } else { Arrived::All })
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Arrived::All),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Arrived::Some),
            Err(e) => Err(e).trying("reading from the server"),
        }
    }

    /// The next whole frame, if it is here.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let Some((frame, used)) = Frame::cut(&self.bytes[self.start..self.end])? else { return Ok(None) };
        self.start += used;
        Ok(Some(frame))
    }
}

/// A logged-in connection with one open channel.
pub(crate) struct Client {
    stream: TcpStream,
    inbox: Inbox,
    frame_max: u32,
    version: Option<String>,
}

impl Client {
    /// Connects, logs in and opens the channel.
    pub(crate) fn connect(url: &Url) -> Result<Client> {
        let what = format!("connecting to {}", url.address());
        let stream = TcpStream::connect(url.address()).trying(&what)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client { stream, inbox: Inbox::new(), frame_max: FRAME_MAX, version: None };
        client.log_in(url).trying(&what)?;
        client.ask((20, 10), |out| out.push(0), (20, 11))?;
        Ok(client)
    }

    fn log_in(&mut self, url: &Url) -> Result<()> {
        self.stream.write_all(b"AMQP\0\0\x09\x01")?;
        self.version = version_in(&self.answer(0, (10, 10))?);
        let mut out = Vec::new();
        out.put_method(0, (10, 11), |out| {
            out.put_long(&client_properties());
            out.put_short("PLAIN");
            out.put_long(format!("\0{}\0{}", url.user, url.password).as_bytes());
            out.put_short("en_US");
        });
        self.stream.write_all(&out)?;
        let tune = self.answer(0, (10, 30))?;
        let mut arguments = Arguments(&tune);
        let (channels, frame_max) = (arguments.u16().unwrap_or(0), arguments.u32().unwrap_or(0));
        self.frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.min(FRAME_MAX) };
        out.clear();
        out.put_method(0, (10, 31), |out| {
            out.extend_from_slice(&channels.to_be_bytes());
            out.extend_from_slice(&self.frame_max.to_be_bytes());
            out.extend_from_slice(&0u16.to_be_bytes());
        });
        out.put_method(0, (10, 40), |out| {
            out.put_short(&url.vhost);
            out.extend_from_slice(&[0, 0]);
        });
        self.stream.write_all(&out)?;
        self.answer(0, (10, 41)).map(drop)
    }

    /// Sends one method on the channel and waits for the answer `expected`, whose arguments are returned.
    pub(crate) fn ask(
        &mut self,
        method: (u16, u16),
        arguments: impl FnOnce(&mut Vec<u8>),
        expected: (u16, u16),
    ) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.put_method(CHANNEL, method, arguments);
        self.stream.write_all(&out)?;
        self.answer(CHANNEL, expected)
    }

    /// Waits for one method; anything else but a heartbeat is an error.
    fn answer(&mut self, channel: u16, expected: (u16, u16)) -> Result<Vec<u8>> {
        loop {
            if let Some(frame) = self.inbox.next_frame()? {
                if frame.kind == HEARTBEAT {
                    continue;
                }
                refuse_close(&frame)?;
                match frame.method() {
                    Some((c, m, arguments)) if frame.channel == channel && (c, m) == expected => {
                        return Ok(arguments.to_vec());
                    }
                    _ => return Err(unexpected(&frame)),
                }
            }
            self.inbox.read_from(&mut self.stream)?;
        }
    }

    /// Declares a durable, shared queue.
    pub(crate) fn declare_queue(&mut self, name: &str) -> Result<()> {
        let declare = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0, 0]);
            out.put_short(name);
            out.push(0b0000_0010);
            out.put_long(&[]);
        };
        self.ask((50, 10), declare, (50, 11)).map(drop)
    }

    /// Deletes a queue with all that is in it.
    pub(crate) fn delete_queue(&mut self, name: &str) -> Result<()> {
        let delete = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0, 0]);
            out.put_short(name);
            out.push(0);
        };
        self.ask((50, 40), delete, (50, 41)).map(drop)
    }

    /// Declares a durable fanout exchange.
    pub(crate) fn declare_fanout(&mut self, name: &str) -> Result<()> {
        let declare = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0, 0]);
            out.put_short(name);
            out.put_short("fanout");
            out.push(0b0000_0010);
            out.put_long(&[]);
        };
        self.ask((40, 10), declare, (40, 11)).map(drop)
    }

    /// Deletes an exchange.
    pub(crate) fn delete_exchange(&mut self, name: &str) -> Result<()> {
        let delete = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0, 0]);
            out.put_short(name);
            out.push(0);
        };
        self.ask((40, 20), delete, (40, 21)).map(drop)
    }

    /// Binds a queue to an exchange with an empty key.
    pub(crate) fn bind(&mut self, queue: &str, exchange: &str) -> Result<()> {
        let bind = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0, 0]);
            out.put_short(queue);
            out.put_short(exchange);
            out.put_short("");
            out.push(0);
            out.put_long(&[]);
        };
        self.ask((50, 20), bind, (50, 21)).map(drop)
    }

    /// Puts the channel into confirm mode.
    pub(crate) fn select_confirms(&mut self) -> Result<()> {
        self.ask((85, 10), |out| out.push(0), (85, 11)).map(drop)
    }

    /// Bounds what each later consumer of the channel may hold unacknowledged.
    pub(crate) fn prefetch(&mut self, count: u16) -> Result<()> {
        let qos = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&count.to_be_bytes());
            out.push(0);
        };
        self.ask((60, 10), qos, (60, 11)).map(drop)
    }

    /// The largest frame both sides agreed to.
    pub(crate) fn frame_max(&self) -> usize {
        self.frame_max as usize
    }

    /// The version the server gave itself.
    pub(crate) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The socket, switched to non-blocking, and what it has delivered beyond the last answer.
    pub(crate) fn into_parts(self) -> Result<(TcpStream, Inbox)> {
        self.stream.set_nonblocking(true)?;
        Ok((self.stream, self.inbox))
    }
}

/// Sends `basic.consume` without waiting: deliveries may follow its answer at once, so the loop reads both.
pub(crate) fn put_consume(out: &mut Vec<u8>, queue: &str, tag: &str, auto_ack: bool) {
    out.put_method(CHANNEL, (60, 20), |out| {
        out.extend_from_slice(&[0, 0]);
        out.put_short(queue);
        out.put_short(tag);
        out.push(u8::from(auto_ack) << 1);
        out.put_long(&[]);
    });
}

/// Turns `connection.close` and `channel.close` into an error that repeats the server's words.
pub(crate) fn refuse_close(frame: &Frame<'_>) -> Result<()> {
    if frame.kind != METHOD {
        return Ok(());
    }
    let Some((class @ (10 | 20), method @ (50 | 40), arguments)) = frame.method() else { return Ok(()) };
    if (class, method) != (10, 50) && (class, method) != (20, 40) {
        return Ok(());
    }
    let mut arguments = Arguments(arguments);
    let code = arguments.u16().unwrap_or(0);
    let text = String::from_utf8_lossy(arguments.short_string().unwrap_or_default());
    let what = if class == 10 { "connection" } else { "channel" };
    Err(Error::new(format!("the server closed the {what}: {code} {text}")))
}

/// The error for a frame nobody asked for.
pub(crate) fn unexpected(frame: &Frame<'_>) -> Error {
    match frame.method().filter(|_| frame.kind == METHOD) {
        Some((class, method, _)) => Error::new(format!("unexpected method {class}.{method} from the server")),
        None => Error::new(format!("unexpected frame of kind {} from the server", frame.kind)),
    }
}

/// The long string under the key `version` in the server's properties, wherever in them it is.
fn version_in(start: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\x07versionS";
    let at = start.windows(KEY.len()).position(|window| window == KEY)?;
    let mut rest = Arguments(start.get(at + KEY.len()..)?);
    let length = rest.u32()? as usize;
    String::from_utf8(rest.0.get(..length)?.to_vec()).ok()
}

/// The client properties: a name, and the capability that makes a refused login say why.
fn client_properties() -> Vec<u8> {
    let mut capabilities = Vec::new();
    for name in ["authentication_failure_close", "basic.nack", "publisher_confirms"] {
        capabilities.put_short(name);
        capabilities.extend_from_slice(b"t\x01");
    }
    let mut table = Vec::new();
    table.put_short("product");
    table.push(b'S');
    table.put_long(b"waystation bench");
    table.put_short("capabilities");
    table.push(b'F');
    table.put_long(&capabilities);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_if_it_is_there() {
        assert_eq!(version_in(b"\0\x09\0\0\0\x14\x07versionS\0\0\0\x053.1.0tail").unwrap(), "3.1.0");
        assert_eq!(version_in(b"\x07versionS\0\0\0\x053.1"), None);
        assert_eq!(version_in(b"\0\x09"), None);
    }

    #[test]
    fn bytes_that_arrive_in_drops_make_the_same_frames() {
        let mut bytes = Vec::new();
        for tag in 0..100 {
            bytes.put_ack(CHANNEL, tag, true);
        }
        let mut inbox = Inbox::new();
        let mut tags = Vec::new();
        for mut drop in bytes.chunks(13) {
            assert_eq!(inbox.read_from(&mut drop).unwrap(), Arrived::All);
            while let Some(frame) = inbox.next_frame().unwrap() {
                tags.push(Arguments(&frame.payload[4..]).u64().unwrap());
            }
        }
        assert_eq!(tags, (0..100).collect::<Vec<_>>());
        assert!(inbox.read_from(&mut &b""[..]).is_err());
    }
}
