//! Sockets: what is listened on, who is let in, and waiting for any of them.

mod admission;
mod doorkeeper;
mod listener;
mod poller;

pub use admission::{Admission, Seat, room_for_connections};
pub use doorkeeper::{Arrival, Doorkeeper};
pub use listener::{Bound, bind};
pub use poller::{Happening, Interest, Poller};
