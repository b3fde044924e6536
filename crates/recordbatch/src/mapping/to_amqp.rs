//! A record of Kafka as a message with properties, as far as it has a place there.
//!
//! In: a record and its topic. Out: names, properties, headers and body. Never: makes sure that it can be undone.

use model::{Properties, Value};

use super::Plain;
use super::names::{
    self, CARRIED_BLOCK, DELIVERY_MODE, EXCHANGE, KEY, MILLISECONDS, NULL, PRIORITY, ROUTING_KEY, SHORT_MAX,
    TIMESTAMP,
};
use crate::fields::KafkaRecord;

/// The message, without what does not fit.
pub(super) fn plainly<'a>(record: &KafkaRecord<'a>, topic: &str) -> Plain<'a> {
    let mut message = Plain {
        exchange: String::new(),
        routing_key: topic.to_owned(),
        properties: Properties::default(),
        body: record.value.unwrap_or(&[]),
    };
    let marks = &mut message.properties.headers.0;
    if let Some(key) = record.key {
        marks.push((KEY.to_owned(), Value::Bytes(key.to_vec())));
    }
    if record.value.is_none() {
        marks.push((NULL.to_owned(), Value::Bool(true)));
    }
    set_timestamp(&mut message.properties, record.timestamp);
    for (name, values) in by_name(record) {
        let fits = match values.as_slice() {
            [value] => is_property(&mut message, name, *value),
            _ => false,
        };
        if !fits && !names::is_taken_in_amqp(name) && name != CARRIED_BLOCK {
            message.properties.headers.0.push((name.to_owned(), header(&values)));
        }
    }
    message
}

/// Names that can be a header's, in the order in which they come first, with all values of each.
fn by_name<'a>(record: &KafkaRecord<'a>) -> Vec<(&'a str, Vec<Option<&'a [u8]>>)> {
    let mut places = base::map(0);
    let mut named: Vec<(&str, Vec<Option<&[u8]>>)> = Vec::new();
    for (name, value) in record.headers.iter().filter(|(name, _)| name.len() <= SHORT_MAX) {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let at = *places.entry(name).or_insert(named.len());
        match named.get_mut(at) {
            Some((_, values)) => values.push(value),
            None => named.push((name, vec![value])),
        }
    }
    named
}

fn set_timestamp(properties: &mut Properties, timestamp: i64) {
    let milliseconds = u64::try_from(timestamp).ok();
    properties.timestamp = milliseconds.map(|milliseconds| milliseconds / 1000);
    if milliseconds.is_none_or(|milliseconds| milliseconds % 1000 != 0) {
        properties.headers.0.push((MILLISECONDS.to_owned(), Value::Int(timestamp)));
    }
}

/// Puts the value where its name says, if that is not among the headers and the value fits there.
fn is_property(message: &mut Plain<'_>, name: &str, value: Option<&[u8]>) -> bool {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let short = value.filter(|value| value.len() <= SHORT_MAX);
    let properties = &mut message.properties;
    if let Some(property) = names::text_mut(properties, name) {
        *property = short.map(<[u8]>::to_vec);
        return property.is_some();
    }
    match (name, text) {
        (TIMESTAMP, _) => return is_seconds(properties, value),
        (DELIVERY_MODE, Some(text)) => return is_octet(&mut properties.delivery_mode, text),
        (PRIORITY, Some(text)) => return is_octet(&mut properties.priority, text),
        (EXCHANGE, Some(text)) if text.len() <= SHORT_MAX => text.clone_into(&mut message.exchange),
        (ROUTING_KEY, Some(text)) if text.len() <= SHORT_MAX => text.clone_into(&mut message.routing_key),
        _ => return false,
    }
    true
}

/// The timestamp property as a header says it, where the record's own timestamp cannot: none, or out of its range.
fn is_seconds(properties: &mut Properties, value: Option<&[u8]>) -> bool {
    let text = value.map(|value| std::str::from_utf8(value).unwrap_or_default());
    let seconds = match text.map(str::parse::<u64>) {
        None => None,
        Some(Ok(seconds)) if seconds > i64::MAX as u64 / 1000 => Some(seconds),
        Some(_) => return false,
    };
    properties.headers.0.retain(|(name, _)| name != MILLISECONDS);
    properties.timestamp = seconds;
    true
}

fn is_octet(property: &mut Option<u8>, text: &str) -> bool {
    *property = text.parse().ok();
    property.is_some()
}

fn header(values: &[Option<&[u8]>]) -> Value {
    let one = |value: &Option<&[u8]>| match value {
        None => Value::Null,
        Some(bytes) if std::str::from_utf8(bytes).is_ok() => Value::Text(bytes.to_vec()),
        Some(bytes) => Value::Bytes(bytes.to_vec()),
    };
    match values {
        [value] => one(value),
        values => Value::List(values.iter().map(one).collect()),
    }
}
