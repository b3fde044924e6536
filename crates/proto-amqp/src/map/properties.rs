//! Property blocks become properties that readers of other protocols understand, and back.
//!
//! In: a record's prefix, or properties that another protocol's record was mapped to. Out: the other of the two.
//! Never: decides what a property means elsewhere.

use model::{Arguments, Properties};

use crate::wire::properties::Properties as Block;
use crate::wire::table;

/// How many tables and arrays headers may nest to be read.
const DEPTH: u8 = 64;

/// What the property block of a record says; `None` where it cannot be read.
pub fn read_properties(prefix: &[u8]) -> Option<Properties> {
    if prefix.is_empty() {
        return Some(Properties::default());
    }
    let block = Block::decode(prefix).ok()?;
    let text = |text: Option<&[u8]>| text.map(<[u8]>::to_vec);
    let headers =
        block.headers.map_or(Ok(Arguments::default()), |fields| table::decode_fields(fields, DEPTH));
    Some(Properties {
        content_type: text(block.content_type),
        content_encoding: text(block.content_encoding),
        headers: headers.ok()?,
        delivery_mode: block.delivery_mode,
        priority: block.priority,
        correlation_id: text(block.correlation_id),
        reply_to: text(block.reply_to),
        expiration: text(block.expiration),
        message_id: text(block.message_id),
        timestamp: block.timestamp,
        kind: text(block.kind),
        user_id: text(block.user_id),
        app_id: text(block.app_id),
        cluster_id: text(block.cluster_id),
    })
}

/// The property block that says this, as a delivery has it. Texts longer than 255 bytes are cut.
pub fn write_properties(properties: &Properties) -> Vec<u8> {
    let mut headers = Vec::new();
    table::encode(&properties.headers, &mut headers);
    let has_headers = !properties.headers.0.is_empty();
    let block = Block {
        content_type: properties.content_type.as_deref(),
        content_encoding: properties.content_encoding.as_deref(),
        headers: headers.get(4..).filter(|_| has_headers),
        delivery_mode: properties.delivery_mode,
        priority: properties.priority,
        correlation_id: properties.correlation_id.as_deref(),
        reply_to: properties.reply_to.as_deref(),
        expiration: properties.expiration.as_deref(),
        message_id: properties.message_id.as_deref(),
        timestamp: properties.timestamp,
        kind: properties.kind.as_deref(),
        user_id: properties.user_id.as_deref(),
        app_id: properties.app_id.as_deref(),
        cluster_id: properties.cluster_id.as_deref(),
    };
    let mut out = Vec::with_capacity(headers.len() + 64);
    block.encode(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;
    use model::Value;

    #[test]
    fn properties_come_back() {
        let mut prng = Prng::new(9);
        for _ in 0..2000 {
            let mut text = || prng.chance(1, 2).then(|| vec![b'x'; prng.below(256) as usize]);
            let mut properties = Properties {
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
            properties.headers = table::tests::random(&mut prng, 3);
            properties.delivery_mode = prng.chance(1, 2).then(|| prng.draw() as u8);
            properties.priority = prng.chance(1, 2).then(|| prng.draw() as u8);
            properties.timestamp = prng.chance(1, 2).then(|| prng.draw());
            assert_eq!(read_properties(&write_properties(&properties)), Some(properties));
        }
    }

    #[test]
    fn golden_bytes() {
        let headers = Arguments(vec![("k".into(), Value::Bytes(vec![7]))]);
        let properties = Properties { headers, priority: Some(9), ..Properties::default() };
        #[rustfmt::skip]
        let golden = [0x28, 0, 0, 0, 0, 8, 1, b'k', b'x', 0, 0, 0, 1, 7, 9];
        assert_eq!(write_properties(&properties), golden);
        assert_eq!(read_properties(&golden), Some(properties));
        assert_eq!(read_properties(&[0, 0]), Some(Properties::default()));
        assert_eq!(read_properties(&[]), Some(Properties::default()));
        assert!((1..golden.len()).all(|cut| read_properties(&golden[..cut]).is_none()));
    }
}
