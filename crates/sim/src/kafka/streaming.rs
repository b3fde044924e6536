//! Clients of AMQP on the partitions of topics, which are streams to them: they read from a place on what producers of
//! Kafka wrote, and write what readers of Kafka read.
//!
//! In: chances to act. Out: bytes for the node, entries in the journal: the same records, in the same order, none lost,
//! whoever wrote and whoever reads. Places are kept over all restarts.

use std::collections::BTreeMap;

use base::Prng;
use model::Value;
use proto_amqp::wire::{Method, Properties, properties, table};

use super::batch::GotRecord;
use super::journal::{RecordId, key_of};
use super::link::With;
use super::producer;
use super::stream_link::{Came, StreamLink};
use crate::client::Fault;
use crate::node::Node;

/// A consumer.
#[derive(Debug)]
struct Follower {
    spot: usize,
    /// When it subscribed.
    asked: u64,
}

/// A client.
#[derive(Debug)]
pub(super) struct Streamer {
    link: Option<StreamLink>,
    /// Its number as a writer, another one for each connection.
    writer: u64,
    published: u64,
    unconfirmed: BTreeMap<u64, RecordId>,
    /// Requests without an answer.
    asks: usize,
    followers: BTreeMap<String, Follower>,
    consumers: u64,
    /// The next offset of each partition that it has begun to read.
    places: BTreeMap<usize, u64>,
    /// What it reads to its end and nothing else: the last offset of each partition that has any.
    until: Option<BTreeMap<usize, u64>>,
}

impl Streamer {
    pub fn new(writer: u64) -> Streamer {
        Streamer {
            link: None,
            writer: writer << 20,
            published: 0,
            unconfirmed: BTreeMap::new(),
            asks: 0,
            followers: BTreeMap::new(),
            consumers: 0,
            places: BTreeMap::new(),
            until: None,
        }
    }

    /// One that reads everything once: each partition from its first offset to its last.
    pub fn auditor(all: BTreeMap<usize, (u64, u64)>) -> Streamer {
        let places = all.iter().map(|(spot, (first, _))| (*spot, *first)).collect();
        let until = all.into_iter().map(|(spot, (_, last))| (spot, last)).collect();
        Streamer { places, until: Some(until), ..Streamer::new(0) }
    }

    /// Whether an auditor has read everything.
    pub fn has_read(&self) -> bool {
        self.until.as_ref().is_some_and(|until| until.iter().all(|(spot, last)| self.places[spot] > *last))
    }

    /// Its connection is gone.
    pub fn lost(&mut self) {
        self.link = None;
        self.writer += 1;
        (self.published, self.asks) = (0, 0);
        self.unconfirmed.clear();
        self.followers.clear();
    }

    /// Goes without a word.
    pub fn hang_up(&mut self, node: &mut Node) {
        if let Some(link) = self.link.take() {
            link.hang_up(node);
            self.lost();
        }
    }

    /// Whether everything asked was answered.
    pub fn is_quiet(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.is_ready() && self.asks == 0 && self.unconfirmed.is_empty())
    }

    /// What is waited for.
    pub fn waits_for(&self) -> String {
        if self.is_quiet() { String::new() } else { format!(" {self:?}") }
    }

    /// Reads what has come.
    pub fn read(&mut self, node: &mut Node, with: &mut With<'_>) -> Result<(), Fault> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        let is_there = link.receive(node);
        while let Some(came) = link.next()? {
            self.came(came, &mut link, with)?;
        }
        if !is_there {
            return Err(("L10", "the node hung up on a client of streams".to_owned()));
        }
        self.link = Some(link);
        Ok(())
    }

    /// Sends what was written.
    pub fn flush(&mut self, node: &mut Node) {
        if let Some(link) = &mut self.link {
            link.flush(node);
        }
    }

    pub fn connect(&mut self, node: &mut Node, prng: &mut Prng) {
        let prefetch = if self.until.is_some() { 500 } else { *prng.pick(&[1, 3, 20, 200]) };
        self.link = Some(StreamLink::new(prefetch, node, prng));
    }

    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    pub fn act(&mut self, with: &mut With<'_>) {
        let Some(mut link) = self.link.take() else { return };
        if link.is_ready() {
            match self.until {
                Some(_) => self.audit(&mut link, with),
                None => self.do_something(&mut link, with),
            }
        }
        self.link = Some(link);
    }

    fn do_something(&mut self, link: &mut StreamLink, with: &mut With<'_>) {
        let spot = with.prng.below(with.journal.spots() as u64) as usize;
        let has_room = self.unconfirmed.len() < 4 * with.plan.window && !with.journal.is_stamped(spot);
        if has_room && with.prng.chance(with.plan.produce, 150) {
            self.publish(spot, link, with);
        }
        if self.asks > 0 {
            return;
        }
        let is_followed = self.followers.values().any(|follower| follower.spot == spot);
        if !is_followed && self.followers.len() < 2 {
            let from = match self.places.get(&spot) {
                Some(place) => Value::Int(place.cast_signed()),
                None => Value::text("first"),
            };
            self.consume(spot, from, link, with);
        } else if with.prng.chance(with.plan.leave, 100)
            && let Some(consumer_tag) = self.followers.keys().next()
        {
            self.asks += 1;
            link.send(&Method::BasicCancel { consumer_tag, nowait: false });
        }
    }

    fn consume(&mut self, spot: usize, from: Value, link: &mut StreamLink, with: &mut With<'_>) {
        self.consumers += 1;
        let tag = format!("reader-{}", self.consumers);
        self.asks += 1;
        link.consume(&with.journal.stream_name(spot), &tag, from);
        self.followers.insert(tag, Follower { spot, asked: with.journal.tick() });
    }

    fn audit(&mut self, link: &mut StreamLink, with: &mut With<'_>) {
        let next = self.until.iter().flatten().find(|(spot, last)| self.places[*spot] <= **last);
        let Some(spot) = next.map(|(spot, _)| *spot) else { return };
        if self.asks > 0 || self.followers.values().any(|follower| follower.spot == spot) {
            return;
        }
        let from = match self.places[&spot] {
            0 => Value::text("first"),
            place => Value::Int(place.cast_signed()),
        };
        self.consume(spot, from, link, with);
    }

    fn publish(&mut self, spot: usize, link: &mut StreamLink, with: &mut With<'_>) {
        let id = producer::write(self.writer, spot, with);
        let (key, time_ms) = with.journal.key_and_time(id);
        let value = with.journal.value(id);
        let number = (id as u64).to_be_bytes();
        // As a record's header comes back.
        let number =
            if std::str::from_utf8(&number).is_ok() { Value::Text } else { Value::Bytes }(number.into());
        let mut headers = vec![("n", number)];
        headers.extend(key.map(|key| ("x-key", Value::Bytes(key_of(key)))));
        headers.extend(value.is_none().then_some(("x-null", Value::Bool(true))));
        headers.push(("timestamp_in_ms", Value::Int(time_ms)));
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let mut fields = Vec::new();
        table::encode(&model::Arguments(headers), &mut fields);
        let timestamp = Some(time_ms.cast_unsigned() / 1000);
        let mut block = Vec::new();
        Properties { headers: Some(&fields[4..]), timestamp, ..Properties::default() }.encode(&mut block);
        link.publish(&with.journal.stream_name(spot), &block, &value.unwrap_or_default());
        self.published += 1;
        self.unconfirmed.insert(self.published, id);
    }

    fn came(&mut self, came: Came, link: &mut StreamLink, with: &mut With<'_>) -> Result<(), Fault> {
        match came {
            Came::Consumes => self.asks -= 1,
            Came::Cancelled(tag) => {
                self.asks -= 1;
                self.followers.remove(&tag);
            }
            Came::Confirmed { tag, multiple } => {
                let first = if multiple { 0 } else { tag };
                let confirmed: Vec<u64> = self.unconfirmed.range(first..=tag).map(|(tag, _)| *tag).collect();
                if confirmed.is_empty() {
                    return Err(("Q14", format!("publish {tag} was confirmed twice or never sent")));
                }
                let ids = confirmed.iter().filter_map(|tag| self.unconfirmed.remove(tag));
                ids.for_each(|id| with.journal.confirmed(id));
            }
            Came::Delivered { consumer, tag, properties, body } => {
                self.delivered(&consumer, &properties, body, with)?;
                link.send(&Method::BasicAck { delivery_tag: tag, multiple: false });
            }
        }
        Ok(())
    }

    fn delivered(
        &mut self,
        consumer: &str,
        properties: &[u8],
        body: Vec<u8>,
        with: &mut With<'_>,
    ) -> Result<(), Fault> {
        let Some(follower) = self.followers.get(consumer) else {
            return Err(("L2", format!("a message comes for {consumer}, who is gone")));
        };
        let got = record_of(properties, body).ok_or_else(|| ("L11", "a message is no record".to_owned()))?;
        let place = self.places.get(&follower.spot).copied();
        with.journal.streamed(follower.spot, place, follower.asked, &got)?;
        self.places.insert(follower.spot, got.offset + 1);
        Ok(())
    }
}

/// The record that a message is.
fn record_of(block: &[u8], body: Vec<u8>) -> Option<GotRecord> {
    let seconds = Properties::decode(block).ok()?.timestamp;
    let headers = properties::headers(block)?;
    let bytes = |name| match headers.get(name) {
        Some(Value::Text(bytes) | Value::Bytes(bytes)) => Some(bytes.clone()),
        _ => None,
    };
    let number = |name| match headers.get(name) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let seconds = seconds.and_then(|seconds| i64::try_from(seconds).ok());
    let time_ms = number("timestamp_in_ms").or(seconds.map(|seconds| seconds * 1000))?;
    if seconds != Some(time_ms / 1000) {
        return None;
    }
    let is_null = headers.get("x-null") == Some(&Value::Bool(true));
    Some(GotRecord {
        offset: u64::try_from(number("x-stream-offset")?).ok()?,
        number: u64::from_be_bytes(bytes("n")?.try_into().ok()?) as usize,
        time_ms,
        key: bytes("x-key"),
        value: (!is_null).then_some(body),
    })
}
