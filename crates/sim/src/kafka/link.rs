//! One connection of a Kafka client: requests out, answers in, in the order in which they were asked.

use std::collections::VecDeque;

use model::ConnId;

use super::caretaker::Errand;
use super::fetching;
use super::groups::Groups;
use super::journal::{Glance, Journal, RecordId};
use super::plan::Plan;
use super::wire::{self, Api, Fields, PutFields, code};
use crate::client::Fault;
use crate::node::{Node, USER};

/// What an answer is to.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Versions,
    Handshake,
    Login,
    Create,
    Find,
    ProducerId,
    /// The id of a producer of transactions.
    TransactionalId,
    /// What the caretaker does.
    Care(Errand),
    /// `must_fail`: what is broken if it is taken.
    Produce {
        spot: usize,
        batch: usize,
        records: Vec<RecordId>,
        must_fail: Option<&'static str>,
        /// See [`With::held_back`].
        held_back: Option<u64>,
    },
    Fetch(fetching::Form, fetching::Cursors),
    Offset {
        spot: usize,
        at: At,
        glance: Glance,
    },
    Delete {
        spot: usize,
        below: u64,
    },
    Join {
        newest: i32,
        asked_us: u64,
    },
    Sync {
        asked_us: u64,
    },
    Heartbeat(Name),
    Leave,
    Commit {
        group: &'static str,
        name: Name,
        commits: Vec<(usize, usize)>,
    },
    Committed {
        group: &'static str,
        spots: Vec<usize>,
        asked: u64,
    },
}

/// In whose name something is asked, and what was known of the group then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub generation: i32,
    /// The newest generation that was known.
    pub newest: i32,
    /// Its number and how often it has begun anew, where it is a static member.
    pub instance: Option<Instance>,
    /// When it asked.
    pub asked: u64,
}

/// A static member by its number, and how often it has begun anew.
pub(super) type Instance = (u32, u32);

/// Which offset is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Start,
    End,
    Time(i64),
    /// Where the record with the highest time is.
    Latest,
}

/// What a client may look at and change.
#[derive(Debug)]
pub(super) struct With<'a> {
    pub plan: &'a Plan,
    pub journal: &'a mut Journal,
    pub groups: &'a mut Groups,
    pub prng: &'a mut base::Prng,
    pub wall_ms: i64,
    pub mono_us: u64,
    /// What is stored may have been damaged.
    pub is_damaged: bool,
    /// Every shard holds publishers back, and has as long as this is the same.
    pub held_back: Option<u64>,
}

impl With<'_> {
    /// The name of a member, as it asks now.
    pub fn name(&mut self, group: &str, generation: i32, instance: Option<Instance>) -> Name {
        Name { generation, newest: self.groups.newest(group), instance, asked: self.journal.tick() }
    }
}

/// The name under which a static member comes back; null for all others.
pub(super) fn put_instance(out: &mut Vec<u8>, instance: Option<Instance>) {
    match instance {
        Some((number, _)) => out.text(&format!("static-{number}")),
        None => out.null_text(),
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    conn: ConnId,
    input: Vec<u8>,
    pub output: Vec<u8>,
    asked: VecDeque<(i32, Ask)>,
    next: i32,
    is_loud: bool,
}

impl Link {
    /// A new connection; some log in, others come as nobody.
    pub fn new(node: &mut Node, prng: &mut base::Prng) -> Link {
        let conn = node.connect_kafka(prng);
        let (input, output, asked) = (Vec::new(), Vec::new(), VecDeque::new());
        let mut link = Link { conn, input, output, asked, next: 0, is_loud: node.is_loud };
        if prng.chance(1, 3) {
            link.ask(wire::API_VERSIONS, Ask::Versions, &[]);
        }
        if prng.chance(1, 3) {
            let mut body = Vec::new();
            body.text("PLAIN");
            link.ask(wire::SASL_HANDSHAKE, Ask::Handshake, &body);
            let mut body = Vec::new();
            body.blob(format!("\0{}\0{}", USER.0, USER.1).as_bytes());
            link.ask(wire::SASL_AUTHENTICATE, Ask::Login, &body);
        }
        link
    }

    /// Sends a request.
    pub fn ask(&mut self, api: Api, ask: Ask, body: &[u8]) {
        if self.is_loud {
            eprintln!("  {} -> {ask:?}", self.conn);
        }
        self.next += 1;
        wire::put_request(&mut self.output, api, self.next, body);
        self.asked.push_back((self.next, ask));
    }

    /// Requests without an answer.
    pub fn under_way(&self) -> usize {
        self.asked.len()
    }

    /// Whether one of them is like this.
    pub fn awaits(&self, is: impl Fn(&Ask) -> bool) -> bool {
        self.asked.iter().any(|(_, ask)| is(ask))
    }

    /// What is waited for.
    pub fn waits_for(&self) -> String {
        let asks: Vec<&Ask> = self.asked.iter().map(|(_, ask)| ask).collect();
        if asks.is_empty() { String::new() } else { format!(" {}: {asks:?}", self.conn) }
    }

    /// Takes what has come; false once the node has hung up.
    pub fn receive(&mut self, node: &mut Node) -> bool {
        node.receive(self.conn, &mut self.input).is_some()
    }

    /// The next answer and what it is to.
    pub fn answer(&mut self) -> Result<Option<(Ask, Vec<u8>)>, Fault> {
        let Some(size) = self.input.first_chunk().map(|size| i32::from_be_bytes(*size)) else {
            return Ok(None);
        };
        let end = 4 + usize::try_from(size).unwrap_or(0);
        if self.input.len() < end {
            return Ok(None);
        }
        let frame: Vec<u8> = self.input.drain(..end).collect();
        let mut fields = Fields(&frame[4..]);
        let correlation = fields.i32()?;
        let (expected, ask) = self.asked.pop_front().ok_or(("L2", "an answer to nothing".to_owned()))?;
        if correlation != expected {
            return Err(("L10", format!("answer {correlation} comes where {expected} was due")));
        }
        if self.is_loud {
            eprintln!("  {} <- answer to {ask:?}", self.conn);
        }
        Ok(Some((ask, fields.0.to_vec())))
    }

    /// Sends what was written.
    pub fn flush(&mut self, node: &mut Node) {
        node.send(self.conn, &std::mem::take(&mut self.output));
    }

    /// Goes without a word.
    pub fn hang_up(self, node: &mut Node) {
        node.hang_up(self.conn);
    }
}

/// The answers that are the same for everybody.
pub(super) fn greeting(ask: &Ask, mut fields: Fields<'_>) -> Result<(), Fault> {
    let code = match ask {
        Ask::Versions | Ask::Handshake | Ask::Login => fields.i16()?,
        other => return Err(("L2", format!("{other:?} was not asked by this client"))),
    };
    if code != code::NONE {
        return Err(("L10", format!("{ask:?} is refused with {code}")));
    }
    match ask {
        Ask::Versions => offers_no_transactions(fields),
        _ => Ok(()),
    }
}

/// What makes, ends or joins transactions is not there: no record and no offset ever depends on the end of one.
fn offers_no_transactions(mut fields: Fields<'_>) -> Result<(), Fault> {
    fields.list(|api| {
        let key = api.i16()?;
        api.take(4)?;
        let is_offered = (wire::ADD_PARTITIONS_TO_TXN..=wire::TXN_OFFSET_COMMIT).contains(&key);
        if is_offered { Err(("G6", format!("request {key} is offered"))) } else { Ok(()) }
    })
}

/// Topics with their partitions, as most requests have them: those of one topic together.
pub(super) fn put_spots<T>(
    out: &mut Vec<u8>,
    journal: &Journal,
    spots: &[(usize, T)],
    mut put: impl FnMut(&mut Vec<u8>, &T),
) {
    let runs = || spots.chunk_by(|one, two| journal.place(one.0).0 == journal.place(two.0).0);
    out.i32(runs().count() as i32);
    for run in runs() {
        out.text(journal.place(run[0].0).0);
        out.i32(run.len() as i32);
        for (spot, what) in run {
            out.i32(journal.place(*spot).1);
            put(out, what);
        }
    }
}

/// Reads topics with their partitions.
pub(super) fn read_spots(
    fields: &mut Fields<'_>,
    mut each: impl FnMut(&str, i32, &mut Fields<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    fields.list(|fields| {
        let topic = fields.text()?;
        fields.list(|fields| {
            let partition = fields.i32()?;
            each(topic, partition, fields)
        })
    })
}
