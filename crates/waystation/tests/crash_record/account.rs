//! What the broker had promised at every place of the record, and whether what is found keeps it.

use std::collections::BTreeMap;

use crate::client::methods;
use crate::load::{Load, QUEUES};
use crate::recorder::{Peer, Step};

/// What was sent to one connection, and after how many bytes each step of it had ended.
type Stream = (Vec<u8>, Vec<(usize, usize)>);

/// A message that is there after the crash, and whether it comes as one that may have been handed out.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub number: u64,
    pub redelivered: bool,
}

/// The promises, each with its place in the record.
pub struct Account {
    load: Load,
    /// By message number - 1: where its confirm left.
    confirmed: Vec<Option<usize>>,
    /// By queue: where the answer to its declaration left.
    declared: Vec<usize>,
    /// By round from 1: where the orderly end of its channel was confirmed.
    settled: Vec<usize>,
}

impl Account {
    /// Reads the promises out of what was sent to the two clients.
    pub fn new(steps: &[Step], load: Load) -> Account {
        let mut streams: BTreeMap<Peer, Stream> = BTreeMap::new();
        for (at, step) in steps.iter().enumerate() {
            if let Step::Send { to, bytes } = step {
                let (stream, ends) = streams.entry(*to).or_default();
                stream.extend_from_slice(bytes);
                ends.push((stream.len(), at));
            }
        }
        let confirmed = vec![None; load.messages.len()];
        let mut account = Account { load, confirmed, declared: Vec::new(), settled: vec![0] };
        for (stream, ends) in streams.values() {
            for (end, method) in methods(stream) {
                let sent = ends[ends.partition_point(|(length, _)| *length < end)].1;
                account.note(method.id, &method.arguments, sent);
            }
        }
        account
    }

    fn note(&mut self, id: (u16, u16), arguments: &[u8], at: usize) {
        match id {
            (50, 11) => self.declared.push(at),
            (20, 41) => self.settled.push(at),
            (60, 80) => {
                let tag = u64::from_be_bytes(arguments[..8].try_into().expect("eight bytes")) as usize;
                let first = if arguments[8] & 1 != 0 { 0 } else { tag - 1 };
                for confirmed in &mut self.confirmed[first..tag] {
                    confirmed.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    /// Confirms and settlements that can be checked.
    pub fn promises(&self) -> usize {
        self.confirmed.iter().flatten().count() + self.settled.len()
    }

    /// Messages that had come to somebody.
    pub fn handed_out(&self) -> usize {
        self.load.messages.iter().filter(|message| message.handed_out.is_some()).count()
    }

    /// Confirms that left behind this place.
    pub fn confirmed_after(&self, place: usize) -> usize {
        self.confirmed.iter().flatten().filter(|at| **at > place).count()
    }

    /// Compares what a queue holds after a crash at `cut` with what had been promised by then.
    pub fn check(&self, queue: usize, cut: usize, found: Option<Vec<Found>>) -> Result<(), String> {
        let name = QUEUES[queue];
        let Some(found) = found else {
            let promised = self.declared.get(queue).is_some_and(|at| *at < cut);
            return if promised { Err(format!("queue {name} is gone")) } else { Ok(()) };
        };
        if let Some(pair) = found.windows(2).find(|pair| pair[0].number >= pair[1].number) {
            return Err(format!("queue {name}: message {} before {}", pair[0].number, pair[1].number));
        }
        for found in &found {
            self.may_be_there(*found, queue, cut)?;
        }
        for (at, message) in self.load.messages.iter().enumerate() {
            let number = at as u64 + 1;
            let promised = self.confirmed[at].is_some_and(|at| at < cut);
            let taken = message.acknowledged.is_some_and(|(at, _)| at < cut);
            if message.queue == queue
                && promised
                && !taken
                && found.binary_search_by_key(&number, |found| found.number).is_err()
            {
                return Err(format!("queue {name}: confirmed message {number} is lost"));
            }
        }
        Ok(())
    }

    fn may_be_there(&self, found: Found, queue: usize, cut: usize) -> Result<(), String> {
        let number = found.number;
        let message = self.load.messages.get(number as usize - 1);
        let Some(message) = message.filter(|message| message.queue == queue && message.published < cut)
        else {
            return Err(format!("message {number} was never published to {}", QUEUES[queue]));
        };
        if message.handed_out.is_some_and(|at| at <= cut) && !found.redelivered {
            return Err(format!("message {number} was handed out before and comes as if it never was"));
        }
        let round = message.acknowledged.map(|(_, round)| round);
        if round.and_then(|round| self.settled.get(round)).is_some_and(|at| *at < cut) {
            return Err(format!("message {number} is back though its settlement was certain"));
        }
        Ok(())
    }
}
