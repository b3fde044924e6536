//! Random messages and records survive the way to the other protocol and back; the table's rows are as documented.

use std::cell::RefCell;

use base::Prng;
use model::{Arguments, Properties, Protocol, Record, Value};

use super::{Message, row_of, to_amqp, to_kafka};
use crate::{Headers, KafkaRecord, encode_headers};

const TOPIC: &str = "topic";
const INGEST: i64 = 1_700_000_000_123;

/// Property blocks of a protocol that is not here: each is the number of what it stands for.
#[derive(Default)]
struct Blocks(RefCell<Vec<Properties>>);

impl Blocks {
    fn write(&self, properties: &Properties) -> Vec<u8> {
        let mut all = self.0.borrow_mut();
        all.push(properties.clone());
        format!("block {}", all.len() - 1).into_bytes()
    }

    fn read(&self, block: &[u8]) -> Option<Properties> {
        let number = std::str::from_utf8(block).ok()?.strip_prefix("block ")?.parse::<usize>().ok()?;
        self.0.borrow().get(number).cloned()
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Sent {
    exchange: String,
    routing_key: String,
    block: Vec<u8>,
    body: Vec<u8>,
}

impl Sent {
    fn row(&self) -> Record<'_> {
        Record {
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            prefix: &self.block,
            body: Some(&self.body),
            ..Record::bare(Protocol::Amqp091)
        }
    }
}

/// What an AMQP client sends that publishes what it received.
fn sent(message: &Message<'_>, blocks: &Blocks) -> Sent {
    let block = message.exact.map_or_else(|| blocks.write(&message.properties), <[u8]>::to_vec);
    let (exchange, routing_key) = (message.exchange.clone(), message.routing_key.clone());
    Sent { exchange, routing_key, block, body: message.body.to_vec() }
}

const NAMES: [&str; 18] = [
    "",
    "a",
    "b",
    "c",
    "x-key",
    "x-null",
    "timestamp_in_ms",
    "x-kafka-headers",
    "content-type",
    "amqp.type",
    "amqp.properties",
    "amqp.timestamp",
    "amqp.exchange",
    "amqp.routing-key",
    "amqp.priority",
    "amqp.delivery-mode",
    "amqp.user-id",
    "x-death",
];

fn bytes(prng: &mut Prng) -> Vec<u8> {
    match prng.below(7) {
        0 => Vec::new(),
        1 => b"7".to_vec(),
        2 => b"1700000000".to_vec(),
        3 => vec![0xff, 0xfe],
        4 => vec![b'x'; 250 + prng.below(10) as usize],
        5 => b"\x02\x02a\x01".to_vec(),
        _ => b"text".to_vec(),
    }
}

fn value(prng: &mut Prng, depth: u8) -> Value {
    match prng.below(if depth == 0 { 8 } else { 10 }) {
        0 => Value::Null,
        1 => Value::Bool(prng.chance(1, 2)),
        2 => Value::Int([0, -1, 7, INGEST, 1_700_000_000_000][prng.below(5) as usize]),
        3 => Value::Float(prng.below(100) as f64 / 8.0),
        4 => Value::Decimal(2, prng.draw() as i32),
        5 => Value::Timestamp(prng.draw()),
        6 => Value::Text(bytes(prng)),
        7 => Value::Bytes(bytes(prng)),
        8 => Value::List((0..prng.below(4)).map(|_| value(prng, depth - 1)).collect()),
        _ => Value::Table(table(prng, depth - 1)),
    }
}

fn table(prng: &mut Prng, depth: u8) -> Arguments {
    let count = prng.below(4);
    Arguments((0..count).map(|_| (prng.pick(&NAMES).to_string(), value(prng, depth))).collect())
}

fn properties(prng: &mut Prng) -> Properties {
    let mut text = || prng.chance(1, 4).then(|| bytes(prng)).filter(|text| text.len() <= 255);
    let mut all = Properties {
        content_type: text(),
        content_encoding: text(),
        correlation_id: text(),
        reply_to: text(),
        expiration: text(),
        message_id: text(),
        kind: text(),
        user_id: text(),
        app_id: text(),
        cluster_id: text(),
        ..Properties::default()
    };
    all.headers = table(prng, 2);
    all.delivery_mode = prng.chance(1, 2).then(|| prng.draw() as u8);
    all.priority = prng.chance(1, 2).then(|| prng.draw() as u8);
    let seconds = [0, 1_700_000_000, i64::MAX as u64 / 1000, i64::MAX as u64 / 1000 + 1, u64::MAX];
    all.timestamp = prng.chance(2, 3).then(|| *prng.pick(&seconds));
    all
}

/// Properties to be compared: tables that repeat a name are not equal to themselves, and order means nothing.
fn shown(properties: &Properties) -> String {
    let mut properties = properties.clone();
    properties.headers.0.sort_by(|one, other| one.0.cmp(&other.0));
    format!("{properties:?}")
}

#[test]
fn messages_come_back_from_kafka_as_they_were() {
    let mut prng = Prng::new(11);
    for _ in 0..20_000 {
        let blocks = Blocks::default();
        let read = |block: &[u8]| blocks.read(block);
        let properties = properties(&mut prng);
        let (exchange, routing_key) =
            (prng.pick(&["", "ex"]).to_string(), prng.pick(&[TOPIC, "", "k"]).to_string());
        let body = if prng.chance(1, 3) { Vec::new() } else { bytes(&mut prng) };
        let before = Sent { exchange, routing_key, block: blocks.write(&properties), body };
        let converted = to_kafka(&before.row(), TOPIC, INGEST, &read);
        let record = converted.record(0);
        let after = to_amqp(&record, TOPIC, &read);
        assert_eq!(shown(&after.properties), shown(&properties));
        assert_eq!(after.body, before.body);
        assert_eq!((&after.exchange, &after.routing_key), (&before.exchange, &before.routing_key));
        // And once more round, from what a client would send on.
        let again = sent(&after, &blocks);
        assert_eq!(to_kafka(&again.row(), TOPIC, INGEST, &read).headers.len(), converted.headers.len());
    }
}

#[test]
fn records_come_back_from_amqp_as_they_were() {
    let mut prng = Prng::new(12);
    for _ in 0..20_000 {
        let blocks = Blocks::default();
        let read = |block: &[u8]| blocks.read(block);
        let headers: Vec<(Vec<u8>, Option<Vec<u8>>)> = (0..prng.below(5))
            .map(|_| {
                let name =
                    if prng.chance(1, 12) { bytes(&mut prng) } else { prng.pick(&NAMES).as_bytes().to_vec() };
                (name, prng.chance(5, 6).then(|| bytes(&mut prng)))
            })
            .collect();
        let headers = encode_headers(&headers);
        let (key, value) = (bytes(&mut prng), bytes(&mut prng));
        let record = KafkaRecord {
            offset_delta: 0,
            timestamp: *prng.pick(&[-1, 0, 1, INGEST, 1_700_000_000_000, i64::MAX, i64::MIN]),
            key: prng.chance(1, 2).then_some(key.as_slice()),
            value: prng.chance(2, 3).then_some(value.as_slice()),
            headers: Headers::decode(&headers).unwrap(),
        };
        let message = to_amqp(&record, TOPIC, &read);
        // A record without a timestamp of its own takes the time at which it comes back.
        let sent = sent(&message, &blocks);
        let back = to_kafka(&sent.row(), TOPIC, record.timestamp, &read);
        assert_eq!(back.record(0), record, "through {message:?}");
    }
}

fn by_name<'a>(headers: Headers<'a>, name: &str) -> Option<Option<&'a [u8]>> {
    headers.iter().find(|(other, _)| *other == name.as_bytes()).map(|(_, value)| value)
}

#[test]
fn a_message_is_readable_for_kafka_clients() {
    let blocks = Blocks::default();
    let headers = vec![
        ("x-key".to_owned(), Value::Bytes(b"k".to_vec())),
        ("text".to_owned(), Value::text("v")),
        ("count".to_owned(), Value::Int(-3)),
        (
            "deep".to_owned(),
            Value::List(vec![Value::Table(Arguments(vec![("a\"".into(), Value::Bool(true))]))]),
        ),
    ];
    let properties = Properties {
        content_type: Some(b"text/plain".to_vec()),
        kind: Some(b"order".to_vec()),
        delivery_mode: Some(2),
        timestamp: Some(3),
        headers: Arguments(headers),
        ..Properties::default()
    };
    let block = blocks.write(&properties);
    let row = Sent { exchange: "ex".into(), routing_key: "rk".into(), block, body: b"b".to_vec() };
    let converted = to_kafka(&row.row(), TOPIC, INGEST, &|block| blocks.read(block));
    let record = converted.record(4);
    assert_eq!((record.offset_delta, record.timestamp), (4, 3000));
    assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"b"[..])));
    let expected: [(&str, &[u8]); 8] = [
        ("content-type", b"text/plain"),
        ("amqp.type", b"order"),
        ("amqp.delivery-mode", b"2"),
        ("amqp.exchange", b"ex"),
        ("amqp.routing-key", b"rk"),
        ("text", b"v"),
        ("count", b"-3"),
        ("deep", b"[{\"a\\\"\":true}]"),
    ];
    for (name, value) in expected {
        assert_eq!(by_name(record.headers, name), Some(Some(value)), "{name}");
    }
    assert_eq!(by_name(record.headers, "amqp.timestamp"), None);
    assert_eq!(by_name(record.headers, "amqp.properties"), Some(Some(row.block.as_slice())), "a number");
}

#[test]
fn nothing_travels_along_where_nothing_would_be_lost() {
    let blocks = Blocks::default();
    let headers = Arguments(vec![("a".into(), Value::text("1")), ("b".into(), Value::Null)]);
    let block = blocks.write(&Properties { headers, delivery_mode: Some(1), ..Properties::default() });
    let row = Sent { exchange: String::new(), routing_key: TOPIC.into(), block, body: b"b".to_vec() };
    let converted = to_kafka(&row.row(), TOPIC, INGEST, &|block| blocks.read(block));
    let names: Vec<&[u8]> = converted.record(0).headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, [&b"amqp.delivery-mode"[..], b"amqp.timestamp", b"a", b"b"]);
    assert_eq!(converted.timestamp, INGEST);
}

#[test]
fn a_record_is_readable_for_amqp_clients() {
    let headers = encode_headers(&[
        ("one", Some(&b"1"[..])),
        ("bytes", Some(&[0xff][..])),
        ("none", None),
        ("many", Some(b"1")),
        ("many", Some(&[0xff])),
        ("amqp.priority", Some(b"9")),
    ]);
    let record = KafkaRecord {
        offset_delta: 0,
        timestamp: 1500,
        key: Some(b"k"),
        value: None,
        headers: Headers::decode(&headers).unwrap(),
    };
    let message = to_amqp(&record, TOPIC, &|_| None);
    assert_eq!((message.exchange.as_str(), message.routing_key.as_str(), message.body), ("", TOPIC, &[][..]));
    assert_eq!((message.properties.timestamp, message.properties.priority), (Some(1), Some(9)));
    let of = |name: &str| message.properties.headers.get(name).cloned();
    assert_eq!((of("x-key"), of("x-null")), (Some(Value::Bytes(b"k".to_vec())), Some(Value::Bool(true))));
    assert_eq!((of("timestamp_in_ms"), of("one")), (Some(Value::Int(1500)), Some(Value::text("1"))));
    assert_eq!((of("bytes"), of("none")), (Some(Value::Bytes(vec![0xff])), Some(Value::Null)));
    let many = Value::List(vec![Value::text("1"), Value::Bytes(vec![0xff])]);
    assert_eq!((of("many"), of("absent")), (Some(many), None));
}

#[test]
fn what_a_client_changed_is_not_undone_by_what_travelled_along() {
    let blocks = Blocks::default();
    let read = |block: &[u8]| blocks.read(block);
    let headers = encode_headers(&[("a", Some("1")), ("b", Some("2")), ("a", Some("3"))]);
    let headers = Headers::decode(&headers).unwrap();
    let record = KafkaRecord { offset_delta: 0, timestamp: 0, key: None, value: Some(b"v"), headers };
    let mut message = to_amqp(&record, TOPIC, &read);
    assert!(message.properties.headers.get("x-kafka-headers").is_some());
    message.properties.headers.0.retain(|(name, _)| name != "b");
    let changed = sent(&message, &blocks);
    let back = to_kafka(&changed.row(), TOPIC, INGEST, &read);
    assert_eq!(by_name(back.record(0).headers, "b"), None);
    assert_eq!(by_name(back.record(0).headers, "a"), Some(Some(&b"1"[..])));
}

#[test]
fn a_record_of_this_protocol_keeps_its_own_bytes() {
    let headers = encode_headers(&[("a", Some("1")), ("a", None)]);
    let headers = Headers::decode(&headers).unwrap();
    for timestamp in [-1, 5] {
        let record = KafkaRecord { offset_delta: 0, timestamp, key: Some(b""), value: None, headers };
        let row = row_of(&record, TOPIC);
        assert_eq!(to_kafka(&row, TOPIC, INGEST, &|_| None).record(0), record);
    }
}
