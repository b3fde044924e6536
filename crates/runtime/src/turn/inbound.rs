//! Reading sockets: one read per connection and turn into one shared buffer, so that idle connections own none.
//!
//! What the shard did not use stays with the connection: a little is copied back in front of the next read; much (a
//! part of a large frame) keeps a buffer of its own to which the next reads append. That one has room for several
//! large frames and is kept while they keep coming, so that of each byte of theirs little is moved. Buffers are
//! recycled.

use std::io;

use rustix::buffer::spare_capacity;

use super::connection::Connection;

/// Bytes of one read.
const READ: usize = 256 << 10;
/// Bytes of a connection's own buffer, unless one frame is larger.
const LARGE: usize = 1 << 20;
/// Bytes read at once behind what is there already: a turn that took more would keep the disk waiting.
const READ_MORE: usize = 512 << 10;
/// A read that brought this much may have left more behind.
const MUCH: usize = 32 << 10;
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

    /// Reads the socket once and offers what there is to `use_up`, which says how many of the bytes it used.
    pub fn read(&mut self, connection: &mut Connection, use_up: impl FnOnce(&[u8]) -> usize) -> Taken {
        if connection.leftover.len() > SMALL {
            self.read_behind_leftover(connection, use_up)
        } else {
            self.read_shared(connection, use_up)
        }
    }

    /// Offers once more what was not used before.
    pub fn offer_leftover(&mut self, connection: &mut Connection, use_up: impl FnOnce(&[u8]) -> usize) {
        let used = use_up(&connection.leftover);
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
            capacity if capacity <= 2 * LARGE => keep(&mut self.large, SPARE_LARGE, buffer),
            _ => {}
        }
    }

    fn read_shared(&mut self, connection: &mut Connection, use_up: impl FnOnce(&[u8]) -> usize) -> Taken {
        self.shared.clear();
        self.shared.extend_from_slice(&connection.leftover);
        let read = fill(connection, &mut self.shared, READ);
        if self.shared.len() == connection.leftover.len() {
            return taken(read);
        }
        let used = use_up(&self.shared);
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
        connection: &mut Connection,
        use_up: impl FnOnce(&[u8]) -> usize,
    ) -> Taken {
        let before = connection.leftover.len();
        if connection.leftover.capacity() - before < READ {
            connection.leftover.reserve(READ);
        }
        let mut buffer = std::mem::take(&mut connection.leftover);
        let read = fill(connection, &mut buffer, READ_MORE);
        connection.leftover = buffer;
        if connection.leftover.len() == before {
            return taken(read);
        }
        let used = use_up(&connection.leftover);
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
        buffer.reserve_exact(if bytes <= SMALL { bytes } else { bytes.max(LARGE) });
        buffer
    }
}

/// Reads what the socket has, in as many calls as bring much: one call brings 64 KiB at most over loopback, and a turn
/// that saw only those would seal small entries.
fn fill(connection: &Connection, buffer: &mut Vec<u8>, most: usize) -> rustix::io::Result<usize> {
    let end = buffer.len() + most;
    let first = rustix::io::read(&connection.socket, spare_capacity(buffer))?;
    let mut newest = first;
    while newest >= MUCH && buffer.capacity() - buffer.len() >= MUCH && buffer.len() < end {
        // Whatever ends this is met again by the next turn's read.
        newest = rustix::io::read(&connection.socket, spare_capacity(buffer)).unwrap_or(0);
    }
    Ok(first)
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use base::Prng;

    use super::*;
    use crate::net::Admission;

    fn pair() -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let (near, _) = listener.accept().expect("accepted");
        far.set_nonblocking(true).expect("set");
        near.set_nonblocking(true).expect("set");
        (far, Connection::new(near, Admission::new(1).seat().expect("a seat")))
    }

    /// Writes what the socket takes; returns how much.
    fn offer(far: &mut TcpStream, bytes: &[u8]) -> usize {
        match far.write(bytes) {
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn every_byte_is_offered_in_order_until_it_is_used_however_it_is_cut() {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let (mut far, mut connection) = pair();
            let mut inbound = Inbound::new();
            let sent: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
            let mut offered = 0;
            let mut used = 0;
            while used < sent.len() {
                let piece = 1 + prng.below(700_000) as usize;
                offered += offer(&mut far, &sent[offered..sent.len().min(offered + piece)]);
                // Sometimes almost everything stays behind, sometimes a little, sometimes nothing.
                let stay = match prng.below(4) {
                    0 => 0,
                    1 => prng.below(100) as usize,
                    2 => prng.below(40_000) as usize,
                    _ => prng.below(400_000) as usize,
                };
                let mut use_up = |bytes: &[u8]| {
                    assert_eq!(bytes, &sent[used..used + bytes.len()]);
                    let use_now = if used + bytes.len() == sent.len() {
                        bytes.len()
                    } else {
                        bytes.len().saturating_sub(stay)
                    };
                    used += use_now;
                    use_now
                };
                if prng.chance(1, 5) && !connection.leftover.is_empty() {
                    inbound.offer_leftover(&mut connection, use_up);
                } else {
                    assert_eq!(inbound.read(&mut connection, &mut use_up), Taken::Bytes);
                }
            }
            assert_eq!(connection.leftover.capacity(), 0, "an idle connection owns no buffer");
            drop(far);
            assert_eq!(inbound.read(&mut connection, |_| panic!("nothing is there")), Taken::End);
        }
    }

    #[test]
    fn a_little_left_over_holds_little_memory() {
        let (mut far, mut connection) = pair();
        let mut inbound = Inbound::new();
        assert_eq!(offer(&mut far, &[1; 200_000]), 200_000);
        while connection.leftover.len() < 200_000 {
            inbound.read(&mut connection, |_| 0);
        }
        inbound.offer_leftover(&mut connection, |bytes| bytes.len() - 10);
        assert_eq!(connection.leftover, [1; 10]);
        assert!(connection.leftover.capacity() <= SMALL, "the large buffer went back");
    }
}
