//! Messages between AMQP and Kafka: the table of docs/mapping.md, total and exact in both directions.
//!
//! What has a place on the other side goes there, readable by any client. Whether that loses something is not argued
//! but tried: the result is mapped back at once, and where it is not what it was, the original's own bytes travel
//! along in one header. The way back believes those bytes only while the message around them is what they map to, so
//! that a client that changes a message and sends it on sends what it changed.
//!
//! In: rows, records, and the reader of the other protocol's property block. Out: records and messages.
//! Never: knows how a property block is encoded.

mod names;
#[cfg(test)]
mod tests;
mod to_amqp;
mod to_kafka;

use model::{Arguments, Properties, Protocol, Record, Value};

use crate::fields::{Headers, KafkaRecord, encode_headers};
use names::{CARRIED_BLOCK, CARRIED_HEADERS};

/// Reads a property block; `None` when it is not sound.
pub type ReadBlock<'f> = &'f dyn Fn(&[u8]) -> Option<Properties>;

/// A row as Kafka's readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<'a> {
    /// Milliseconds since 1970: the writer's, else those of the ingest.
    pub timestamp: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// The encoded headers.
    pub headers: Vec<u8>,
}

impl Converted<'_> {
    /// The record at this offset within its batch.
    pub fn record(&self, offset_delta: i32) -> KafkaRecord<'_> {
        let headers = Headers::decode(&self.headers).expect("headers were encoded here or checked");
        let (timestamp, key, value) = (self.timestamp, self.key.as_deref(), self.value);
        KafkaRecord { offset_delta, timestamp, key, value, headers }
    }
}

/// A record as AMQP's readers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// The exchange it was published to; empty where it did not come through one.
    pub exchange: String,
    /// The routing key; the topic's name where it did not come through an exchange.
    pub routing_key: String,
    /// Its properties and headers.
    pub properties: Properties,
    /// The property block as its writer wrote it, to be sent instead of `properties`.
    pub exact: Option<&'a [u8]>,
    /// The body; empty where the value is null, which a header says.
    pub body: &'a [u8],
}

/// The record that a row of any protocol is for Kafka's readers of `topic`. `ingest_ms` is its batch's.
pub fn to_kafka<'a>(
    row: &Record<'a>,
    topic: &str,
    ingest_ms: i64,
    read_block: ReadBlock<'_>,
) -> Converted<'a> {
    match row.protocol {
        Protocol::Kafka => native(row),
        Protocol::Amqp091 => from_amqp(row, topic, ingest_ms, read_block),
    }
}

/// The row of a record, as its own protocol stores it.
pub fn row_of<'a>(record: &KafkaRecord<'a>, topic: &'a str) -> Record<'a> {
    Record {
        timestamp_ms: Some(record.timestamp).filter(|timestamp| *timestamp != -1),
        key: record.key,
        routing_key: topic,
        prefix: record.headers.block(),
        body: record.value,
        ..Record::bare(Protocol::Kafka)
    }
}

fn native<'a>(row: &Record<'a>) -> Converted<'a> {
    let headers = Headers::decode(row.prefix).unwrap_or(Headers::NONE).block().to_vec();
    let key = row.key.map(<[u8]>::to_vec);
    Converted { timestamp: row.timestamp_ms.unwrap_or(-1), key, value: row.body, headers }
}

/// A message as a reader of properties sees it, before anything travels along.
#[derive(Clone, Debug)]
struct Plain<'a> {
    exchange: String,
    routing_key: String,
    properties: Properties,
    body: &'a [u8],
}

impl Plain<'_> {
    /// Whether it is the other. The order of headers means nothing, except among those that share a name.
    fn is(&self, other: &Plain<'_>) -> bool {
        let sorted = |plain: &Plain<'_>| {
            let mut fields: Vec<(String, Value)> = plain.properties.headers.0.clone();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            fields
        };
        let (one, two) = (&self.properties, &other.properties);
        let octets = |all: &Properties| (all.delivery_mode, all.priority, all.timestamp);
        (&self.exchange, &self.routing_key, self.body) == (&other.exchange, &other.routing_key, other.body)
            && names::texts(one) == names::texts(two)
            && octets(one) == octets(two)
            && one.headers.0.len() == two.headers.0.len()
            && sorted(self) == sorted(other)
    }
}

fn from_amqp<'a>(row: &Record<'a>, topic: &str, ingest_ms: i64, read_block: ReadBlock<'_>) -> Converted<'a> {
    let read = read_block(row.prefix);
    let is_readable = read.is_some();
    let (exchange, routing_key) = (row.exchange.to_owned(), row.routing_key.to_owned());
    let properties = read.unwrap_or_default();
    let mut plain = Plain { exchange, routing_key, properties, body: row.body.unwrap_or(&[]) };
    if let Some(restored) = with_carried_headers(&mut plain, topic, ingest_ms) {
        return restored;
    }
    let (mut converted, mut headers) = to_kafka::plainly(&plain, topic, ingest_ms);
    converted.value = converted.value.filter(|_| row.body.is_some());
    converted.headers = encode_headers(&headers);
    if !is_readable || !to_amqp::plainly(&converted.record(0), topic).is(&plain) {
        headers.push((CARRIED_BLOCK.as_bytes().to_vec(), Some(row.prefix.to_vec())));
        converted.headers = encode_headers(&headers);
    }
    converted
}

/// The record whose headers travelled along, if the message is still what that record maps to. Takes the header
/// that carried them out of the message.
fn with_carried_headers<'a>(plain: &mut Plain<'a>, topic: &str, ingest_ms: i64) -> Option<Converted<'a>> {
    let fields = &mut plain.properties.headers.0;
    let at = fields.iter().position(|(name, _)| name == CARRIED_HEADERS)?;
    let Value::Bytes(headers) = &fields[at].1 else { return None };
    let headers = Headers::decode(headers)?.block().to_vec();
    let carried = fields.remove(at);
    let (converted, _) = to_kafka::plainly(plain, topic, ingest_ms);
    let candidate = Converted { headers, ..converted };
    if to_amqp::plainly(&candidate.record(0), topic).is(plain) {
        return Some(candidate);
    }
    plain.properties.headers.0.insert(at, carried);
    None
}

/// The message that a record of `topic` is for AMQP's readers.
pub fn to_amqp<'a>(record: &KafkaRecord<'a>, topic: &str, read_block: ReadBlock<'_>) -> Message<'a> {
    if let Some(message) = with_carried_block(record, topic, read_block) {
        return message;
    }
    let mut plain = to_amqp::plainly(record, topic);
    let back = to_kafka::plainly(&plain, topic, record.timestamp);
    if !is_same(record, &back.0, &back.1) {
        let Arguments(fields) = &mut plain.properties.headers;
        fields.push((CARRIED_HEADERS.to_owned(), Value::Bytes(record.headers.block().to_vec())));
    }
    message(plain, None)
}

/// The message whose property block travelled along, if the record is still what that message maps to, and the
/// block was needed to say so.
fn with_carried_block<'a>(
    record: &KafkaRecord<'a>,
    topic: &str,
    read_block: ReadBlock<'_>,
) -> Option<Message<'a>> {
    let count = record.headers.len();
    let (name, block) = record.headers.iter().last()?;
    let block = block.filter(|_| name == CARRIED_BLOCK.as_bytes())?;
    let read = read_block(block);
    let is_readable = read.is_some();
    let around: Vec<_> = record.headers.iter().take(count - 1).collect();
    let around = encode_headers(&around);
    let around = KafkaRecord { headers: Headers::decode(&around)?, ..*record };
    let seen = to_amqp::plainly(&around, topic);
    let plain = Plain {
        properties: read.unwrap_or_default(),
        exchange: seen.exchange.clone(),
        routing_key: seen.routing_key.clone(),
        body: record.value.unwrap_or(&[]),
    };
    if is_readable && seen.is(&plain) {
        return None;
    }
    let back = to_kafka::plainly(&plain, topic, record.timestamp);
    let is_intact = is_same(&around, &back.0, &back.1);
    is_intact.then(|| message(plain, Some(block)))
}

fn message<'a>(plain: Plain<'a>, exact: Option<&'a [u8]>) -> Message<'a> {
    let Plain { exchange, routing_key, properties, body } = plain;
    Message { exchange, routing_key, properties, exact, body }
}

/// Owned headers: names and values.
type Owned = Vec<(Vec<u8>, Option<Vec<u8>>)>;

fn is_same(record: &KafkaRecord<'_>, other: &Converted<'_>, others: &Owned) -> bool {
    let mut left = others.iter().map(|(name, value)| (name.as_slice(), value.as_deref()));
    let is_same_headers = record.headers.len() == others.len()
        && record.headers.iter().all(|header| left.next() == Some(header));
    (record.timestamp, record.key, record.value) == (other.timestamp, other.key.as_deref(), other.value)
        && is_same_headers
}
