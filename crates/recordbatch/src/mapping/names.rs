//! The names of headers on both sides that mean something to the mapping, and where each text property goes.
//!
//! In: nothing. Out: names. Never: anything else; docs/mapping.md is the table of these.

use model::Properties;

/// AMQP header: the key of the record, a byte array.
pub(super) const KEY: &str = "x-key";
/// AMQP header: true where the value is null; the body is empty then.
pub(super) const NULL: &str = "x-null";
/// AMQP header: the timestamp in milliseconds, where whole seconds do not say it.
pub(super) const MILLISECONDS: &str = "timestamp_in_ms";
/// AMQP header: the encoded Kafka headers, where the others do not say them exactly.
pub(super) const CARRIED_HEADERS: &str = "x-kafka-headers";

/// Kafka header: the property block, where the other headers do not say it exactly.
pub(super) const CARRIED_BLOCK: &str = "amqp.properties";
/// Kafka header: the timestamp property where the record's own is not it: null for none, else decimal seconds.
pub(super) const TIMESTAMP: &str = "amqp.timestamp";
/// Kafka header: the delivery mode, decimal.
pub(super) const DELIVERY_MODE: &str = "amqp.delivery-mode";
/// Kafka header: the priority, decimal.
pub(super) const PRIORITY: &str = "amqp.priority";
/// Kafka header: the exchange, where there was one.
pub(super) const EXCHANGE: &str = "amqp.exchange";
/// Kafka header: the routing key, where it is not the topic's name.
pub(super) const ROUTING_KEY: &str = "amqp.routing-key";

/// What every text of AMQP's properties and every name of a header must fit into.
pub(super) const SHORT_MAX: usize = 255;

/// The Kafka headers of the text properties.
const TEXTS: [&str; 10] = [
    "content-type",
    "amqp.content-encoding",
    "amqp.correlation-id",
    "amqp.reply-to",
    "amqp.expiration",
    "amqp.message-id",
    "amqp.type",
    "amqp.user-id",
    "amqp.app-id",
    "amqp.cluster-id",
];

/// The text properties with the Kafka header of each.
pub(super) fn texts(properties: &Properties) -> [(&'static str, &Option<Vec<u8>>); 10] {
    let values = [
        &properties.content_type,
        &properties.content_encoding,
        &properties.correlation_id,
        &properties.reply_to,
        &properties.expiration,
        &properties.message_id,
        &properties.kind,
        &properties.user_id,
        &properties.app_id,
        &properties.cluster_id,
    ];
    std::array::from_fn(|at| (TEXTS[at], values[at]))
}

/// The text property of a Kafka header.
pub(super) fn text_mut<'p>(properties: &'p mut Properties, name: &str) -> Option<&'p mut Option<Vec<u8>>> {
    let at = TEXTS.iter().position(|text| *text == name)?;
    Some(match at {
        0 => &mut properties.content_type,
        1 => &mut properties.content_encoding,
        2 => &mut properties.correlation_id,
        3 => &mut properties.reply_to,
        4 => &mut properties.expiration,
        5 => &mut properties.message_id,
        6 => &mut properties.kind,
        7 => &mut properties.user_id,
        8 => &mut properties.app_id,
        _ => &mut properties.cluster_id,
    })
}

/// Whether a Kafka header of this name means something else than a header of the message.
pub(super) fn is_taken_in_kafka(name: &str) -> bool {
    let others = [CARRIED_BLOCK, TIMESTAMP, DELIVERY_MODE, PRIORITY, EXCHANGE, ROUTING_KEY];
    TEXTS.contains(&name) || others.contains(&name)
}

/// Whether an AMQP header of this name means something else than a header of the record.
pub(super) fn is_taken_in_amqp(name: &str) -> bool {
    [KEY, NULL, MILLISECONDS, CARRIED_HEADERS].contains(&name)
}
