//! Waiting for sockets, level-triggered.
//!
//! Level-triggered, because a connection is read once per turn and no further: what is left announces itself again
//! without a list of our own. The price is that interest must be switched off while a connection may not be read.
//! Only the bells of mailboxes are edge-triggered: nobody reads those.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken per wait; more come with the next.
const EVENTS: usize = 256;

/// What is wanted to be known of a socket. Errors and hang-ups are always told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// That it can be read.
    pub read: bool,
    /// That it can be written.
    pub write: bool,
}

impl Interest {
    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// What has happened to a registered socket.
#[derive(Clone, Copy, Debug)]
pub struct Happening {
    /// The number it was registered under.
    pub token: u64,
    /// It can be read.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
    /// It is broken or hung up in both directions.
    pub broken: bool,
}

/// A set of watched descriptors.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Watches nothing yet.
    pub fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Starts watching a socket. Dropping the socket ends it.
    pub fn add(&self, socket: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), interest.flags())?)
    }

    /// Starts watching for edges of something that nobody reads.
    pub fn add_bell(&self, bell: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&self.epoll, bell, EventData::new_u64(token), flags)?)
    }

    /// Changes what is wanted to be known.
    pub fn change(&self, socket: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), interest.flags())?)
    }

    /// Waits until something happens, or for `timeout`; `None` is for ever. Fills `into`.
    pub fn wait(&self, timeout: Option<Duration>, into: &mut Vec<Happening>) -> io::Result<()> {
        let timeout = timeout.map(|duration| Timespec {
            tv_sec: duration.as_secs().min(86_400) as i64,
            tv_nsec: i64::from(duration.subsec_nanos()),
        });
        let mut events = [const { MaybeUninit::uninit() }; EVENTS];
        let (told, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            told => told?,
        };
        into.extend(told.iter().map(happening));
        Ok(())
    }
}

fn happening(event: &Event) -> Happening {
    let flags = event.flags;
    Happening {
        token: event.data.u64(),
        readable: flags.contains(EventFlags::IN),
        writable: flags.contains(EventFlags::OUT),
        broken: flags.intersects(EventFlags::ERR | EventFlags::HUP),
    }
}
