//! One reading connection: one fetch under way at any time, over all of its partitions, from offset 0 on.
//!
//! In: the server's answers. Out: fetches, and the account of what came. Never: believes a batch without its checksum.

use std::rc::Rc;
use std::time::Duration;

use super::Kafka;
use super::batch::{Fetched, verdict};
use super::link::Link;
use super::plan::Plan;
use super::wire::{Answer, FETCH, PutKafka, error_name};
use crate::clients::{self, Taking};
use crate::error::{Error, Result};
use crate::load::body::Verdict;
use crate::socket::Socket;

/// What a partition answers that was created a moment ago.
const NO_PARTITION: i16 = 3;
const NO_LEADER: i16 = 5;
const NOT_LEADER: i16 = 6;

/// A partition and the next offset wanted of it.
struct Cursor {
    partition: u32,
    offset: i64,
}

/// A connection that reads.
pub(crate) struct Consumer {
    link: Link,
    /// Of the topics.
    names: Rc<[String]>,
    cursors: Vec<Cursor>,
    asked: bool,
    /// Records read.
    delivered: u64,
}

impl Consumer {
    /// A reader of these partitions.
    pub(crate) fn new(link: Link, names: Rc<[String]>, partitions: Vec<u32>) -> Consumer {
        let cursors = partitions.into_iter().map(|partition| Cursor { partition, offset: 0 }).collect();
        Consumer { link, names, cursors, asked: false, delivered: 0 }
    }
}

impl clients::Consumer<Kafka> for Consumer {
    fn socket(&mut self) -> &mut Socket {
        &mut self.link.socket
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Asks for more if nothing is under way.
    fn ask(&mut self, plan: &Plan, _: bool) {
        if self.asked || self.cursors.is_empty() {
            return;
        }
        self.asked = true;
        let Consumer { link, cursors, names, .. } = self;
        link.socket.out.put_request(FETCH, 0, |out| put_fetch(out, plan, names, cursors));
        // The next fetch begins with another partition, so that a bound on the whole answer starves none.
        cursors.rotate_left(1);
    }

    fn receive(&mut self, taking: &mut Taking<'_, Kafka>) -> Result<()> {
        self.link.read()?;
        let Some(mut answer) = self.link.next_answer()? else { return Ok(()) };
        self.asked = false;
        answer.bytes(8)?;
        match answer.i16()? {
            0 => {}
            code => return Err(Error::new(format!("reading: {}", error_name(code)))),
        }
        answer.i32()?;
        let (cursors, delivered) = (&mut self.cursors, &mut self.delivered);
        answer.list(|answer| {
            let name = answer.text()?.unwrap_or_default();
            let topic = self.names.iter().position(|other| other == name);
            let topic = topic.ok_or_else(|| Error::new(format!("the server sent records of {name}")))?;
            answer.list(|answer| {
                let partition = topic as u32 * taking.plan.partitions + answer.i32()? as u32;
                let records = records_of(answer)?;
                let cursor = cursors.iter_mut().find(|cursor| cursor.partition == partition);
                let cursor = cursor.ok_or_else(|| Error::new("the server sent records nobody asked for"))?;
                *delivered += cursor.take(records, taking);
                Ok(())
            })
        })
    }
}

/// Whether the server reads all partitions already: it may name itself their leader a moment before it is.
pub(crate) fn is_served(link: &mut Link, plan: &Plan, names: &[String]) -> Result<bool> {
    let cursors: Vec<Cursor> =
        (0..plan.all_partitions()).map(|partition| Cursor { partition, offset: 0 }).collect();
    let plan = Plan { fetch_wait: Duration::ZERO, ..plan.clone() };
    let bytes = link.ask(FETCH, |out| put_fetch(out, &plan, names, &cursors))?;
    let mut answer = Answer(&bytes);
    answer.bytes(4 + 2 + 4)?;
    let mut is_served = true;
    answer.list(|answer| {
        answer.text()?;
        answer.list(|answer| {
            answer.i32()?;
            match Answer(answer.0).i16()? {
                NO_PARTITION | NO_LEADER | NOT_LEADER => {
                    is_served = false;
                    answer.bytes(2 + 24)?;
                    answer.list(|answer| answer.bytes(16).map(drop))?;
                    answer.i32()?;
                    answer.blob().map(drop)
                }
                _ => records_of(answer).map(drop),
            }
        })
    })?;
    Ok(is_served)
}

fn put_fetch(out: &mut Vec<u8>, plan: &Plan, names: &[String], cursors: &[Cursor]) {
    out.put_i32(-1);
    out.put_i32(plan.fetch_wait.as_millis() as i32);
    out.put_i32(1);
    out.put_i32(plan.fetch_bytes.saturating_mul(cursors.len() as i32));
    out.push(0);
    // No session: every fetch names all of its partitions.
    out.put_i32(0);
    out.put_i32(-1);
    put_cursors(out, plan, names, cursors);
    out.put_i32(0);
    out.put_text("");
}

/// Partitions with their offsets, those of one topic together.
fn put_cursors(out: &mut Vec<u8>, plan: &Plan, names: &[String], cursors: &[Cursor]) {
    let runs = || cursors.chunk_by(|one, two| plan.place(one.partition).0 == plan.place(two.partition).0);
    out.put_i32(runs().count() as i32);
    for run in runs() {
        out.put_text(&names[plan.place(run[0].partition).0]);
        out.put_i32(run.len() as i32);
        for cursor in run {
            out.put_i32(plan.place(cursor.partition).1 as i32);
            out.put_i32(-1);
            out.put_i64(cursor.offset);
            out.put_i64(-1);
            out.put_i32(plan.fetch_bytes);
        }
    }
}

/// The records of one partition in an answer.
fn records_of<'a>(answer: &mut Answer<'a>) -> Result<&'a [u8]> {
    match answer.i16()? {
        0 => {}
        code => return Err(Error::new(format!("reading: {}", error_name(code)))),
    }
    answer.bytes(24)?;
    answer.list(|answer| answer.bytes(16).map(drop))?;
    answer.i32()?;
    answer.blob()
}

impl Cursor {
    /// Takes whole batches; what was read before and what is cut off at the end is passed over. Returns how many
    /// records were new to this reader.
    fn take(&mut self, mut bytes: &[u8], taking: &mut Taking<'_, Kafka>) -> u64 {
        let mut taken = 0;
        while let Some((batch, rest)) = Fetched::cut(bytes) {
            bytes = rest;
            if batch.end <= self.offset {
                continue;
            }
            if !batch.is_intact() {
                taking.ledger.flaws.corrupt += 1;
            } else {
                taken += self.take_batch(&batch, taking);
            }
            self.offset = batch.end;
        }
        taken
    }

    fn take_batch(&self, batch: &Fetched<'_>, taking: &mut Taking<'_, Kafka>) -> u64 {
        let mut taken = 0;
        for found in batch.values() {
            let Some((offset, value)) = found else {
                taking.ledger.flaws.corrupt += 1;
                break;
            };
            if offset < self.offset {
                continue;
            }
            taken += 1;
            match verdict(value, taking.pattern) {
                Verdict::Stamped(stamp) => {
                    taking.latency.record(stamp.sent_ns, taking.now_ns);
                    taking.ledger.note(self.partition, stamp, taking.published);
                }
                Verdict::Unstamped => taking.ledger.distinct += 1,
                Verdict::Corrupt => taking.ledger.flaws.corrupt += 1,
            }
        }
        taken
    }
}
