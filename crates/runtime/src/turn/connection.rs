//! One connection as the loop sees it: a socket, what was read and not used, and how far its end has come.
//!
//! An idle connection owns no buffer.

use std::net::TcpStream;

use crate::net::{Interest, Seat};

/// A socket and its state.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// Bytes that the shard has not used yet.
    pub leftover: Vec<u8>,
    /// What the poller watches it for.
    pub interest: Interest,
    /// Whether it is on the list of those to be looked at next turn.
    pub attended: bool,
    /// Whether it is on the list of those to be sent to this turn.
    pub to_send: bool,
    /// How far its end has come.
    pub stage: Stage,
    /// Its place among the node's connections.
    _seat: Seat,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Open.
    Open,
    /// The shard wants it closed once everything is sent; nothing is read for it any more.
    Flushing,
    /// Everything is sent and our side is shut. What the peer still sends is thrown away until it has read ours:
    /// closing earlier would reset the connection and destroy our last words.
    Lingering,
}

impl Connection {
    /// A new connection that is watched for reading.
    pub fn new(socket: TcpStream, seat: Seat) -> Connection {
        Connection {
            socket,
            leftover: Vec::new(),
            interest: Interest { read: true, write: false },
            attended: false,
            to_send: false,
            stage: Stage::Open,
            _seat: seat,
        }
    }
}
