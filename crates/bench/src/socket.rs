//! One connection's socket: what is to be sent, and what the kernel last said about both directions.
//!
//! In: bytes to send. Out: bytes in the kernel's hands. Readiness is edge-triggered: a flag stays set until the socket
//! says otherwise. Reading is each protocol's own, because each knows best how much is missing.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{Result, Trying};

/// A connected socket with its send buffer.
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    sent: usize,
    /// The socket may have bytes.
    pub(crate) readable: bool,
    /// The socket may have room.
    pub(crate) writable: bool,
}

impl Socket {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: TcpStream) -> Socket {
        Socket { stream, out: Vec::new(), sent: 0, readable: true, writable: true }
    }

    /// What an epoll watches.
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
}
