//! One AMQP connection of the load loop: its socket, and the frames that arrived.

use crate::client::{Arrived, Client, Inbox};
use crate::error::Result;
use crate::socket::Socket;

/// A connection of the load loop.
pub(crate) struct Link {
    /// Its socket.
    pub(crate) socket: Socket,
    /// What arrived.
    pub(crate) inbox: Inbox,
}

impl Link {
    /// Takes over a set-up connection.
    pub(crate) fn new(client: Client) -> Result<Link> {
        let (stream, inbox) = client.into_parts()?;
        Ok(Link { socket: Socket::new(stream), inbox })
    }

    /// Reads once if there may be something.
    pub(crate) fn read(&mut self) -> Result<()> {
        if self.socket.readable {
            self.socket.readable = self.inbox.read_from(&mut self.socket.stream)? == Arrived::Some;
        }
        Ok(())
    }
}
