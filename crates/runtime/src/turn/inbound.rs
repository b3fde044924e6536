//! Reading sockets: one read per connection and turn into one shared buffer, so that idle connections own none.
//!
//! What the shard did not use stays with the connection: a little is copied back in front of the next read; much (a
//! part of a large frame) keeps a buffer of its own to which the next read appends. Buffers are recycled.

use std::io;

use base::Now;
use model::ConnId;
use rustix::buffer::spare_capacity;
use shard::Shard;

use super::connection::Connection;

/// Bytes of one read.
const READ: usize = 256 << 10;
/// Up to this much left over is copied rather than given a large buffer.
const SMALL: usize = 16 << 10;
/// Buffers kept for reuse, of each size.
const SPARE_SMALL: usize = 64;
const SPARE_LARGE: usize = 4;

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Bytes (or none for now).
    Bytes,
    /// The peer sends no more, or the connection is broken.
    End,
}

/// The shared read buffer and the recycled ones.
#[derive(Debug)]
pub struct Inbound {
    shared: Vec<u8>,
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Inbound {
    /// An empty buffer.
    pub fn new() -> Inbound {
        Inbound { shared: Vec::with_capacity(READ + SMALL), small: Vec::new(), large: Vec::new() }
    }

    /// Reads the socket once and offers the shard what there is.
    pub fn read(&mut self, id: ConnId, connection: &mut Connection, shard: &mut Shard, now: Now) -> Taken {
        if connection.leftover.len() > SMALL {
            self.read_behind_leftover(id, connection, shard, now)
        } else {
            self.read_shared(id, connection, shard, now)
        }
    }

    /// Offers the shard once more what it did not use before.
    pub fn offer_leftover(&mut self, id: ConnId, connection: &mut Connection, shard: &mut Shard, now: Now) {
        let used = shard.received(id, &connection.leftover, now);
        self.keep_rest(connection, used);
    }

    /// Throws away what the socket has; whether the peer may send more.
    pub fn discard(&mut self, connection: &Connection) -> Taken {
        self.shared.clear();
        taken(rustix::io::read(&connection.socket, spare_capacity(&mut self.shared)))
    }

    /// Takes back the buffer of a connection that ends.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        match buffer.capacity() {
            0 => {}
            capacity if capacity <= SMALL => keep(&mut self.small, SPARE_SMALL, buffer),
            capacity if capacity <= 4 * READ => keep(&mut self.large, SPARE_LARGE, buffer),
            _ => {}
        }
    }

    fn read_shared(&mut self, id: ConnId, connection: &mut Connection, shard: &mut Shard, now: Now) -> Taken {
        self.shared.clear();
        self.shared.extend_from_slice(&connection.leftover);
        let read = rustix::io::read(&connection.socket, spare_capacity(&mut self.shared));
        if self.shared.len() == connection.leftover.len() {
            return taken(read);
        }
        let used = shard.received(id, &self.shared, now);
        assert!(used <= self.shared.len(), "more bytes used than were given");
        let mut leftover = std::mem::take(&mut connection.leftover);
        leftover.clear();
        let rest = self.shared.len() - used;
        if leftover.capacity() < rest || rest == 0 {
            self.recycle(leftover);
            leftover = self.spare(rest);
        }
        leftover.extend_from_slice(&self.shared[used..]);
        connection.leftover = leftover;
        Taken::Bytes
    }

    fn read_behind_leftover(
        &mut self,
        id: ConnId,
        connection: &mut Connection,
        shard: &mut Shard,
        now: Now,
    ) -> Taken {
        let before = connection.leftover.len();
        connection.leftover.reserve(READ);
        let read = rustix::io::read(&connection.socket, spare_capacity(&mut connection.leftover));
        if connection.leftover.len() == before {
            return taken(read);
        }
        let used = shard.received(id, &connection.leftover, now);
        self.keep_rest(connection, used);
        Taken::Bytes
    }

    fn keep_rest(&mut self, connection: &mut Connection, used: usize) {
        let rest = connection.leftover.len().checked_sub(used).expect("no more bytes used than were given");
        let large = connection.leftover.capacity() > SMALL;
        if rest > 0 && (!large || rest > SMALL) {
            connection.leftover.drain(..used);
            return;
        }
        let full = std::mem::take(&mut connection.leftover);
        connection.leftover = self.spare(rest);
        connection.leftover.extend_from_slice(&full[used..]);
        self.recycle(full);
    }

    /// An empty buffer with room for `bytes`; none at all for 0.
    fn spare(&mut self, bytes: usize) -> Vec<u8> {
        let shelf = if bytes <= SMALL { &mut self.small } else { &mut self.large };
        let mut buffer = match bytes {
            0 => Vec::new(),
            _ => shelf.pop().unwrap_or_default(),
        };
        buffer.reserve_exact(bytes);
        buffer
    }
}

fn keep(shelf: &mut Vec<Vec<u8>>, most: usize, buffer: Vec<u8>) {
    if shelf.len() < most {
        shelf.push(buffer);
    }
}

fn taken(read: rustix::io::Result<usize>) -> Taken {
    match read.map_err(io::Error::from) {
        Ok(0) => Taken::End,
        Ok(_) => Taken::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Taken::Bytes,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Taken::Bytes,
        Err(_) => Taken::End,
    }
}
