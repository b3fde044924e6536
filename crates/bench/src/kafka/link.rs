//! One connection to a Kafka server: its socket, and the answers that arrived.
//!
//! In: requests. Out: whole answers. Blocks while it is set up and not after that.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::wire::{Answer, Api, PutKafka};
use crate::error::{Error, Result, Trying};
use crate::socket::Socket;

/// Bytes asked of the socket at once.
const READ: usize = 256 << 10;
/// The largest answer that is waited for.
const ANSWER_MAX: usize = 512 << 20;
/// How long a server may take for one answer of the set-up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Link {
    /// Its socket.
    pub(crate) socket: Socket,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Link {
    /// Connects.
    pub(crate) fn connect(host: &str, port: u16) -> Result<Link> {
        let what = format!("connecting to {host}:{port}");
        let stream = TcpStream::connect((host, port)).trying(&what)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Link { socket: Socket::new(stream), bytes: Vec::new(), start: 0, end: 0 })
    }

    /// From now on nothing waits.
    pub(crate) fn unblock(&mut self) -> Result<()> {
        self.socket.readable = true;
        Ok(self.socket.stream.set_nonblocking(true)?)
    }

    /// Sends one request and waits for its answer, which is returned without the correlation.
    pub(crate) fn ask(&mut self, api: Api, body: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>> {
        let mut request = Vec::new();
        request.put_request(api, 0, body);
        self.socket.stream.write_all(&request).trying("writing to the server")?;
        loop {
            if let Some(answer) = self.next_answer()? {
                return Ok(answer.0[4..].to_vec());
            }
            // This socket blocks: there may always be more.
            self.socket.readable = true;
            self.read()?;
        }
    }

    /// Reads once if there may be something; the end of the stream is an error, because only the client ends a
    /// connection here.
    pub(crate) fn read(&mut self) -> Result<()> {
        if !self.socket.readable {
            return Ok(());
        }
        let wanted = self.make_room();
        match self.socket.stream.read(&mut self.bytes[self.end..self.end + wanted]) {
            Ok(0) => return Err(Error::new("the server closed the connection")),
            // Less than there was room for: the socket is empty, and says so when it no longer is.
            Ok(read) => {
                self.end += read;
                self.socket.readable = read == wanted;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.socket.readable = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).trying("reading from the server"),
        }
        Ok(())
    }

    /// Room for what is missing of an answer, or for one read. What arrived is moved only when it must be.
    fn make_room(&mut self) -> usize {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let missing = self.missing().unwrap_or(0).min(ANSWER_MAX);
        let wanted = missing.max(READ);
        if self.bytes.len() < self.end + wanted {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.bytes.len() < self.end + wanted {
                self.bytes.resize((self.end + wanted).next_power_of_two(), 0);
            }
        }
        wanted
    }

    /// Bytes that are missing of the first answer, once its size is known.
    fn missing(&self) -> Option<usize> {
        let here = &self.bytes[self.start..self.end];
        let size = u32::from_be_bytes(*here.first_chunk()?) as usize;
        (4 + size).checked_sub(here.len())
    }

    /// The next whole answer with its correlation in front, if it is here.
    pub(crate) fn next_answer(&mut self) -> Result<Option<Answer<'_>>> {
        let here = &self.bytes[self.start..self.end];
        let Some(size) = here.first_chunk() else { return Ok(None) };
        let size = u32::from_be_bytes(*size) as usize;
        if !(4..=ANSWER_MAX).contains(&size) {
            return Err(Error::new(format!("the server announces an answer of {size} bytes")));
        }
        let Some(answer) = here.get(4..4 + size) else { return Ok(None) };
        self.start += 4 + size;
        Ok(Some(Answer(answer)))
    }
}
