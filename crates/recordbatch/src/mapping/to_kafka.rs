//! A message of AMQP as a record, as far as it is readable: typed values become text.
//!
//! In: properties, names and body. Out: key, value, timestamp and headers. Never: makes sure that it can be undone.

use std::fmt::Write;

use model::{Arguments, Properties, Value};

use super::names::{
    self, DELIVERY_MODE, EXCHANGE, KEY, MILLISECONDS, NULL, PRIORITY, ROUTING_KEY, TIMESTAMP,
};
use super::{Converted, Owned, Plain};

/// The record, its headers still to be encoded.
pub(super) fn plainly<'a>(message: &Plain<'a>, topic: &str, ingest_ms: i64) -> (Converted<'a>, Owned) {
    let properties = &message.properties;
    let mut headers = Owned::new();
    let mut put = |name: &str, value: Option<Vec<u8>>| headers.push((name.as_bytes().to_vec(), value));
    for (name, text) in names::texts(properties) {
        if text.is_some() {
            put(name, text.clone());
        }
    }
    for (name, octet) in [(DELIVERY_MODE, properties.delivery_mode), (PRIORITY, properties.priority)] {
        if let Some(octet) = octet {
            put(name, Some(octet.to_string().into_bytes()));
        }
    }
    let (timestamp, said) = timestamp(properties, ingest_ms);
    if let Some(value) = said {
        put(TIMESTAMP, value);
    }
    if !message.exchange.is_empty() {
        put(EXCHANGE, Some(message.exchange.as_bytes().to_vec()));
    }
    if message.routing_key != topic {
        put(ROUTING_KEY, Some(message.routing_key.as_bytes().to_vec()));
    }
    for (name, value) in &properties.headers.0 {
        let is_used = names::is_taken_in_kafka(name)
            || names::is_taken_in_amqp(name) && (name != MILLISECONDS || milliseconds(properties).is_some());
        if !is_used {
            put_values(name, value, &mut headers);
        }
    }
    let is_null = message.body.is_empty() && properties.headers.get(NULL) == Some(&Value::Bool(true));
    let key = properties.headers.get(KEY).and_then(key);
    let value = (!is_null).then_some(message.body);
    (Converted { timestamp, key, value, headers: Vec::new() }, headers)
}

/// The record's timestamp, and what a header must say of the property where it is not that.
fn timestamp(properties: &Properties, ingest_ms: i64) -> (i64, Option<Option<Vec<u8>>>) {
    if let Some(milliseconds) = milliseconds(properties) {
        return (milliseconds, None);
    }
    let Some(seconds) = properties.timestamp else { return (ingest_ms, Some(None)) };
    match i64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1000)) {
        Some(milliseconds) => (milliseconds, None),
        None => (ingest_ms, Some(Some(seconds.to_string().into_bytes()))),
    }
}

/// The header that says the milliseconds, where it agrees with the property.
fn milliseconds(properties: &Properties) -> Option<i64> {
    let milliseconds = properties.headers.get(MILLISECONDS)?.as_int()?;
    let seconds = u64::try_from(milliseconds).ok().map(|milliseconds| milliseconds / 1000);
    (seconds == properties.timestamp).then_some(milliseconds)
}

fn key(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null | Value::List(_) | Value::Table(_) => None,
        value => scalar(value),
    }
}

/// One header per item of a list of texts, else one header.
fn put_values(name: &str, value: &Value, headers: &mut Owned) {
    let is_text = |item: &Value| matches!(item, Value::Text(_) | Value::Bytes(_) | Value::Null);
    let name = name.as_bytes();
    match value {
        Value::List(items) if items.len() > 1 && items.iter().all(is_text) => {
            headers.extend(items.iter().map(|item| (name.to_vec(), scalar(item))));
        }
        value => headers.push((name.to_vec(), scalar(value))),
    }
}

/// A value as bytes that say it to people: texts as they are, numbers in decimal, lists and tables in JSON.
fn scalar(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::Text(bytes) | Value::Bytes(bytes) => Some(bytes.clone()),
        value => {
            let mut text = String::new();
            put_json(value, &mut text);
            Some(text.into_bytes())
        }
    }
}

fn put_json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Text(bytes) => put_quoted(&String::from_utf8_lossy(bytes), out),
        Value::Bytes(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            put_quoted(&hex, out);
        }
        Value::List(items) => {
            put_items('[', ']', items, out, put_json);
        }
        Value::Table(Arguments(fields)) => {
            put_items('{', '}', fields, out, |(name, value), out| {
                put_quoted(name, out);
                out.push(':');
                put_json(value, out);
            });
        }
        Value::Timestamp(seconds) => out.push_str(&seconds.to_string()),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Decimal(..) => {
            out.push_str(&value.to_string())
        }
    }
}

fn put_items<T>(open: char, close: char, items: &[T], out: &mut String, put: impl Fn(&T, &mut String)) {
    out.push(open);
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        put(item, out);
    }
    out.push(close);
}

fn put_quoted(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\u{:04x}", letter as u32);
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}
