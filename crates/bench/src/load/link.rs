//! One non-blocking connection: receive buffer, send buffer and what the kernel last said about both directions.
//!
//! In: bytes to send. Out: frames. Readiness is edge-triggered: a flag stays set until the socket says otherwise.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use crate::client::{Arrived, Client, Inbox};
use crate::error::{Result, Trying};

/// A connection of the load loop.
pub(crate) struct Link {
    stream: TcpStream,
    /// What arrived.
    pub(crate) inbox: Inbox,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    sent: usize,
    /// The socket may have bytes.
    pub(crate) readable: bool,
    /// The socket may have room.
    pub(crate) writable: bool,
}

impl Link {
    /// Takes over a set-up connection.
    pub(crate) fn new(client: Client) -> Result<Link> {
        let (stream, inbox) = client.into_parts()?;
        Ok(Link { stream, inbox, out: Vec::new(), sent: 0, readable: true, writable: true })
    }

    /// The socket.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether all was handed to the kernel.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Sends as much as the kernel takes.
    pub(crate) fn flush(&mut self) -> Result<()> {
        while self.writable && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e).trying("writing to the server"),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once if there may be something.
    pub(crate) fn read(&mut self) -> Result<()> {
        if self.readable {
            self.readable = self.inbox.read_from(&mut self.stream)? == Arrived::Some;
        }
        Ok(())
    }
}
