//! Any property block, names and body as a record and back; any key, headers and value as a message and back. What
//! arrives is what left.
#![no_main]

use fuzzing::Draws;
use libfuzzer_sys::fuzz_target;
use model::{Properties, Protocol, Record};
use proto_amqp::map::{read_properties, write_properties};
use recordbatch::mapping::{to_amqp, to_kafka};
use recordbatch::{Headers, KafkaRecord, encode_headers};

const TOPIC: &str = "topic";

fn text(draws: &mut Draws<'_>) -> String {
    String::from_utf8_lossy(draws.piece()).into_owned()
}

/// Tables that repeat a name, or hold what is no number, are not equal to themselves; order means nothing.
fn shown(properties: &Properties) -> String {
    let mut properties = properties.clone();
    properties.headers.0.sort_by(|one, other| one.0.cmp(&other.0));
    format!("{properties:?}")
}

fn message(draws: &mut Draws<'_>) {
    let (exchange, routing_key, body) = (text(draws), text(draws), draws.piece().to_vec());
    let prefix = draws.0;
    let Some(properties) = read_properties(prefix) else { return };
    let row = Record {
        exchange: &exchange,
        routing_key: &routing_key,
        prefix,
        body: Some(&body),
        ..Record::bare(Protocol::Amqp091)
    };
    let converted = to_kafka(&row, TOPIC, 5, &read_properties);
    let record = converted.record(0);
    let back = to_amqp(&record, TOPIC, &read_properties);
    if back.exact.is_some() || exchange.len().max(routing_key.len()) <= 255 {
        assert_eq!(shown(&back.properties), shown(&properties));
        assert_eq!((back.body, &back.exchange, &back.routing_key), (&body[..], &exchange, &routing_key));
    }
}

fn record(draws: &mut Draws<'_>) {
    let (key, value, timestamp) = (draws.piece(), draws.piece(), draws.number() as i64);
    let (has_key, has_value) = (draws.flag(), draws.flag());
    let mut headers = Vec::new();
    while !draws.is_empty() {
        let name = draws.piece().to_vec();
        headers.push((name, draws.flag().then(|| draws.piece().to_vec())));
    }
    let headers = encode_headers(&headers);
    let headers = Headers::decode(&headers).expect("they were encoded");
    let (key, value) = (has_key.then_some(key), has_value.then_some(value));
    let record = KafkaRecord { offset_delta: 0, timestamp, key, value, headers };
    let message = to_amqp(&record, TOPIC, &read_properties);
    let block = message.exact.map_or_else(|| write_properties(&message.properties), <[u8]>::to_vec);
    let row = Record {
        exchange: &message.exchange,
        routing_key: &message.routing_key,
        prefix: &block,
        body: Some(message.body),
        ..Record::bare(Protocol::Amqp091)
    };
    let back = to_kafka(&row, TOPIC, timestamp, &read_properties);
    assert_eq!(back.record(0), record);
}

fuzz_target!(|data: &[u8]| {
    let mut draws = Draws(data);
    if draws.flag() { message(&mut draws) } else { record(&mut draws) }
});
