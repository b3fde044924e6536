//! Sending: one vectored write per connection and turn.

use std::io::{self, IoSlice, Write};

use base::SendBuffer;
use model::ConnId;

use super::connection::Connection;
use crate::disk::Calls;

/// Parts of one vectored write.
const PARTS: usize = 64;

/// What sending came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Everything there was.
    All {
        /// Bytes that left.
        bytes: usize,
    },
    /// As much as fits into one write: the rest can go next turn.
    Some {
        /// Bytes that left.
        bytes: usize,
    },
    /// The socket took less than was offered: wait until it can be written.
    Full {
        /// Bytes that left.
        bytes: usize,
    },
    /// The connection is broken.
    Broken,
}

/// Sends once what the buffer has.
pub fn send<C: Calls>(calls: &C, id: ConnId, connection: &mut Connection, buffer: &mut SendBuffer) -> Sent {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let filled = buffer.slices(&mut parts);
    if filled == 0 {
        return Sent::All { bytes: 0 };
    }
    let offered: usize = parts[..filled].iter().map(|part| part.len()).sum();
    calls.sending(id, &parts[..filled]);
    let bytes = match connection.socket.write_vectored(&parts[..filled]) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Sent::Some { bytes: 0 },
        Err(_) => return Sent::Broken,
    };
    calls.sent(id, bytes);
    buffer.advance(bytes);
    match (bytes < offered, buffer.is_empty()) {
        (true, _) => Sent::Full { bytes },
        (false, true) => Sent::All { bytes },
        (false, false) => Sent::Some { bytes },
    }
}
