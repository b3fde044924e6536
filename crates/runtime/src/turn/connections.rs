//! The connections of one shard by number.
//!
//! ```text
//! connection id: serial number u40 | slot u24
//! ```
//! The slot finds the connection without hashing; the serial number makes the id unique for the life of the process,
//! so that what was meant for a former connection of the slot finds nothing.

use model::ConnId;

use super::connection::Connection;

const SLOT_BITS: u32 = 24;

/// The slots.
#[derive(Debug, Default)]
pub struct Connections {
    slots: Vec<Option<(ConnId, Connection)>>,
    free: Vec<u32>,
    serial: u64,
}

impl Connections {
    /// Takes a connection in; `None` when there are more than ids.
    pub fn insert(&mut self, connection: Connection) -> Option<ConnId> {
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None if self.slots.len() < 1 << SLOT_BITS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.serial += 1;
        let id = ConnId(self.serial << SLOT_BITS | slot as u64);
        self.slots[slot] = Some((id, connection));
        Some(id)
    }

    /// The connection, if it still exists.
    pub fn find(&mut self, id: ConnId) -> Option<&mut Connection> {
        match self.slots.get_mut(slot(id)) {
            Some(Some((held, connection))) if *held == id => Some(connection),
            _ => None,
        }
    }

    /// The connections there are.
    pub fn ids(&self) -> Vec<ConnId> {
        self.slots.iter().flatten().map(|(id, _)| *id).collect()
    }

    /// Takes the connection out, if it still exists.
    pub fn remove(&mut self, id: ConnId) -> Option<Connection> {
        self.find(id)?;
        let (_, connection) = self.slots[slot(id)].take()?;
        self.free.push(slot(id) as u32);
        Some(connection)
    }
}

fn slot(id: ConnId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::Admission;

    #[test]
    fn an_id_is_never_given_twice_and_an_old_one_finds_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let admission = Admission::new(10);
        let mut connections = Connections::default();
        let connect = || {
            let socket = TcpStream::connect(address).expect("a connection");
            Connection::new(socket, admission.seat().expect("a seat"))
        };
        let first = connections.insert(connect()).expect("an id");
        assert!(connections.find(first).is_some());
        assert!(connections.remove(first).is_some() && connections.remove(first).is_none());
        let second = connections.insert(connect()).expect("an id");
        assert_eq!(slot(first), slot(second), "the slot is used again");
        assert_ne!(first, second);
        assert!(connections.find(first).is_none() && connections.find(second).is_some());
        assert_eq!(connections.ids(), [second]);
    }
}
