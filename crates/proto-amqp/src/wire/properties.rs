//! The property block of a content header: flags, then the properties that the flags name.
//!
//! ```text
//! flags u16: 15 content-type  14 content-encoding  13 headers (table)  12 delivery-mode u8  11 priority u8
//!            10 correlation-id  9 reply-to  8 expiration  7 message-id  6 timestamp u64  5 type  4 user-id
//!             3 app-id  2 cluster-id  0 more flags follow (never used)
//! ```
//! Properties without a type are short strings. The block is a record's prefix, stored as it came.

use base::{Put, Reader};
use model::{Arguments, Value};

use super::{Malformed, table};

const HEADERS: u16 = 1 << 13;
const MORE: u16 = 1;

/// The properties of a message, borrowed from their block. Text is as received: UTF-8 is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the specification's.
pub struct Properties<'a> {
    pub content_type: Option<&'a [u8]>,
    pub content_encoding: Option<&'a [u8]>,
    /// The fields of the table, without its length.
    pub headers: Option<&'a [u8]>,
    pub delivery_mode: Option<u8>,
    pub priority: Option<u8>,
    pub correlation_id: Option<&'a [u8]>,
    pub reply_to: Option<&'a [u8]>,
    pub expiration: Option<&'a [u8]>,
    pub message_id: Option<&'a [u8]>,
    pub timestamp: Option<u64>,
    pub kind: Option<&'a [u8]>,
    pub user_id: Option<&'a [u8]>,
    pub app_id: Option<&'a [u8]>,
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    /// The timestamp in milliseconds: to the millisecond where a header says it and agrees.
    pub fn time_ms(&self) -> Option<i64> {
        let seconds = self.timestamp?;
        let agrees = |ms: &i64| u64::try_from(*ms).is_ok_and(|ms| ms / 1000 == seconds);
        let exact = self.headers.and_then(milliseconds).filter(agrees);
        exact.or_else(|| i64::try_from(seconds.checked_mul(1000)?).ok())
    }

    /// Reads a whole block. The form of the headers is not checked: see [`table::check_fields`].
    pub fn decode(block: &'a [u8]) -> Result<Properties<'a>, Malformed> {
        let mut reader = Reader::new(block);
        let flags = reader.u16_be()?;
        if flags & MORE != 0 {
            return Err(Malformed::Syntax("a message has unknown properties"));
        }
        let reader = &mut reader;
        let has = |bit: u16| flags >> bit & 1 == 1;
        let text = |bit: u16, reader: &mut Reader<'a>| has(bit).then(|| table::short(reader)).transpose();
        let properties = Properties {
            content_type: text(15, reader)?,
            content_encoding: text(14, reader)?,
            headers: has(13).then(|| table::long(reader)).transpose()?,
            delivery_mode: has(12).then(|| reader.u8()).transpose()?,
            priority: has(11).then(|| reader.u8()).transpose()?,
            correlation_id: text(10, reader)?,
            reply_to: text(9, reader)?,
            expiration: text(8, reader)?,
            message_id: text(7, reader)?,
            timestamp: has(6).then(|| reader.u64_be()).transpose()?,
            kind: text(5, reader)?,
            user_id: text(4, reader)?,
            app_id: text(3, reader)?,
            cluster_id: text(2, reader)?,
        };
        match reader.is_empty() {
            true => Ok(properties),
            false => Err(Malformed::Syntax("bytes follow the last property")),
        }
    }

    /// Appends the block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut flags = 0u16;
        out.put_u16_be(0);
        let mut texts = |bits: &[(u16, Option<&[u8]>)], out: &mut Vec<u8>| {
            for (bit, text) in bits.iter().filter_map(|(bit, text)| text.map(|text| (bit, text))) {
                flags |= 1 << bit;
                table::put_short(out, text);
            }
        };
        texts(&[(15, self.content_type), (14, self.content_encoding)], out);
        if let Some(fields) = self.headers {
            table::put_long(out, fields);
        }
        for octet in [self.delivery_mode, self.priority].into_iter().flatten() {
            out.put_u8(octet);
        }
        let four = [self.correlation_id, self.reply_to, self.expiration, self.message_id];
        texts(&[(10, four[0]), (9, four[1]), (8, four[2]), (7, four[3])], out);
        if let Some(timestamp) = self.timestamp {
            out.put_u64_be(timestamp);
        }
        let four = [self.kind, self.user_id, self.app_id, self.cluster_id];
        texts(&[(5, four[0]), (4, four[1]), (3, four[2]), (2, four[3])], out);
        let others = [
            (13, self.headers.is_some()),
            (12, self.delivery_mode.is_some()),
            (11, self.priority.is_some()),
            (6, self.timestamp.is_some()),
        ];
        others.into_iter().filter(|(_, set)| *set).for_each(|(bit, _)| flags |= 1 << bit);
        out[start..start + 2].copy_from_slice(&flags.to_be_bytes());
    }
}

/// The header that says the milliseconds of the timestamp.
const MILLISECONDS: &[u8] = b"timestamp_in_ms";

/// What that header says, if it is there. The fields were checked.
fn milliseconds(fields: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(fields);
    while !reader.is_empty() {
        let field = reader.rest();
        let is_it = table::short(&mut reader).ok()? == MILLISECONDS;
        table::check_value(&mut reader, u8::MAX).ok()?;
        if is_it {
            let field = &field[..field.len() - reader.rest().len()];
            return table::decode_fields(field, 1).ok()?.0.first()?.1.as_int();
        }
    }
    None
}

/// The headers of a property block; `None` where they cannot be read. A block without headers has empty ones.
pub fn headers(block: &[u8]) -> Option<Arguments> {
    const DEPTH: u8 = 64;
    let fields = Properties::decode(block).ok()?.headers;
    fields.map_or(Some(Arguments::default()), |fields| table::decode_fields(fields, DEPTH).ok())
}

/// Appends `block` with the header `name` set to `value`, replacing one of that name. A block that cannot be
/// read is appended as it is.
pub fn put_with_header(block: &[u8], name: &str, value: i64, out: &mut Vec<u8>) {
    let start = out.len();
    if put_header(block, name, value, out).is_err() {
        out.truncate(start);
        out.put(block);
    }
}

fn put_header(block: &[u8], name: &str, value: i64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let properties = Properties::decode(block)?;
    let mut others = Reader::new(properties.headers.unwrap_or(&[]));
    let mut fields = Vec::with_capacity(others.rest().len() + name.len() + 10);
    while !others.is_empty() {
        let field = others.rest();
        let is_same = table::short(&mut others)? == name.as_bytes();
        table::check_value(&mut others, u8::MAX)?;
        if !is_same {
            fields.put(&field[..field.len() - others.rest().len()]);
        }
    }
    table::put_short(&mut fields, name.as_bytes());
    fields.put_u8(b'l');
    fields.put(&value.to_be_bytes());
    Properties { headers: Some(&fields), ..properties }.encode(out);
    Ok(())
}

/// A block that has only these headers.
pub fn block_of(headers: &[(&str, Value)]) -> Vec<u8> {
    let table = Arguments(headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
    let mut block = HEADERS.to_be_bytes().to_vec();
    table::encode(&table, &mut block);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    #[test]
    fn the_time_is_as_exact_as_a_header_that_agrees_with_it() {
        let time = |timestamp, milliseconds: Option<Value>| {
            let mut fields = vec![("a".to_owned(), Value::Table(Arguments::default()))];
            fields.extend(milliseconds.map(|value| ("timestamp_in_ms".to_owned(), value)));
            let mut encoded = Vec::new();
            table::encode(&Arguments(fields), &mut encoded);
            Properties { timestamp, headers: Some(&encoded[4..]), ..Properties::default() }.time_ms()
        };
        assert_eq!(time(Some(7), None), Some(7000));
        assert_eq!(time(Some(7), Some(Value::Int(7123))), Some(7123));
        assert_eq!(time(Some(7), Some(Value::Int(8000))), Some(7000), "it is not of that second");
        assert_eq!(time(Some(7), Some(Value::text("7123"))), Some(7000), "it is no number");
        assert_eq!(time(None, Some(Value::Int(7123))), None);
        assert_eq!(time(Some(u64::MAX), None), None);
    }

    fn random<'a>(prng: &mut Prng, texts: &'a [u8], table: &'a [u8]) -> Properties<'a> {
        let text = |prng: &mut Prng| {
            let at = prng.below(texts.len() as u64) as usize;
            prng.chance(1, 2).then(|| &texts[at..])
        };
        Properties {
            content_type: text(prng),
            content_encoding: text(prng),
            correlation_id: text(prng),
            reply_to: text(prng),
            expiration: text(prng),
            message_id: text(prng),
            kind: text(prng),
            user_id: text(prng),
            app_id: text(prng),
            cluster_id: text(prng),
            headers: prng.chance(1, 2).then_some(table),
            delivery_mode: prng.chance(1, 2).then_some(2),
            priority: prng.chance(1, 2).then_some(7),
            timestamp: prng.chance(1, 2).then_some(u64::MAX - 1),
        }
    }

    #[test]
    fn golden_bytes() {
        let properties = Properties {
            content_type: Some(b"a/b"),
            delivery_mode: Some(2),
            priority: Some(9),
            reply_to: Some(b"r"),
            timestamp: Some(1),
            cluster_id: Some(b""),
            ..Properties::default()
        };
        let mut block = Vec::new();
        properties.encode(&mut block);
        #[rustfmt::skip]
        let golden = [0x9a, 0x44, 3, b'a', b'/', b'b', 2, 9, 1, b'r', 0, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(block, golden);
        assert_eq!(Properties::decode(&golden), Ok(properties));
    }

    #[test]
    fn properties_come_back_and_no_cut_of_a_block_decodes() {
        let mut prng = Prng::new(5);
        for _ in 0..1000 {
            let properties = random(&mut prng, b"some text", &[1, b'k', b'V']);
            let mut block = Vec::new();
            properties.encode(&mut block);
            assert_eq!(Properties::decode(&block), Ok(properties));
            for cut in 0..block.len() {
                assert!(Properties::decode(&block[..cut]).is_err());
            }
        }
        assert!(Properties::decode(&[0, 1, 0, 0]).is_err(), "more flags");
    }

    #[test]
    fn a_header_is_set_once_and_everything_else_stays() {
        let before = block_of(&[("a", Value::Bool(true)), ("x-delivery-count", Value::text("forged"))]);
        let mut after = Vec::new();
        put_with_header(&before, "x-delivery-count", 3, &mut after);
        let expected = vec![("a".into(), Value::Bool(true)), ("x-delivery-count".into(), Value::Int(3))];
        assert_eq!(headers(&after), Some(Arguments(expected)));
        let mut again = Vec::new();
        put_with_header(&[0x10, 0, 2], "n", 1, &mut again);
        assert_eq!(Properties::decode(&again).unwrap().delivery_mode, Some(2));
        assert_eq!(headers(&again).unwrap().get("n"), Some(&Value::Int(1)));
    }
}
