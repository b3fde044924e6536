//! One message, and its row on disk.
//!
//! ```text
//!  0 length u32           bytes of the row behind this field
//!  4 flags u16            1 timestamp  2 key  4 no body (null, which is not empty)  8 expiry  16 due  32 dedup
//!  6 protocol u8          who wrote it: what prefix and suffix mean
//!  7 priority u8
//!  8 exchange length u16
//! 10 routing key length u16
//! 12 prefix length u32
//! 16 body length u32
//! 20 [timestamp i64 ms] [expiry u64 ms] [due u64 ms] [key length u32, key] [dedup length u16, dedup id]
//!    exchange, routing key, native prefix, body, native suffix (the rest of the row)
//! ```
//! Numbers are little endian. Times are absolute, so that a row can be read without its batch header.

use base::{Put, Reader, Short};

use crate::Protocol;

const TIMESTAMP: u16 = 1;
const KEY: u16 = 2;
const NULL_BODY: u16 = 4;
const EXPIRY: u16 = 8;
const DUE: u16 = 16;
const DEDUP: u16 = 32;
const KNOWN: u16 = 63;
const FIXED: usize = 20;

/// Stored bytes that do not decode. Never the client's fault: they passed a checksum when they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl From<Short> for Damaged {
    fn from(_: Short) -> Self {
        Damaged("the bytes end early")
    }
}

/// One message, borrowed from where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Who wrote it.
    pub protocol: Protocol,
    /// 0 to 255; 0 where the protocol has none.
    pub priority: u8,
    /// The writer's timestamp, milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// When it expires, milliseconds since 1970.
    pub expiry_ms: Option<u64>,
    /// When it becomes deliverable, milliseconds since 1970.
    pub due_ms: Option<u64>,
    /// The key that orders and compacts; not the routing key.
    pub key: Option<&'a [u8]>,
    /// The writer's deduplication id.
    pub dedup: Option<&'a [u8]>,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// The routing key it was published with.
    pub routing_key: &'a str,
    /// Native bytes in front of the body, as the protocol wrote them.
    pub prefix: &'a [u8],
    /// The body; `None` is null, which is not empty.
    pub body: Option<&'a [u8]>,
    /// Native bytes behind the body.
    pub suffix: &'a [u8],
}

impl<'a> Record<'a> {
    /// Nothing but who wrote it: empty names, no body, none of what may be missing.
    #[inline]
    pub const fn bare(protocol: Protocol) -> Record<'a> {
        Record {
            protocol,
            priority: 0,
            timestamp_ms: None,
            expiry_ms: None,
            due_ms: None,
            key: None,
            dedup: None,
            exchange: "",
            routing_key: "",
            prefix: &[],
            body: None,
            suffix: &[],
        }
    }

    /// Bytes of the row, the length field included.
    pub fn encoded_len(&self) -> usize {
        let optional = 8 * usize::from(self.timestamp_ms.is_some())
            + 8 * usize::from(self.expiry_ms.is_some())
            + 8 * usize::from(self.due_ms.is_some())
            + self.key.map_or(0, |key| 4 + key.len())
            + self.dedup.map_or(0, |dedup| 2 + dedup.len());
        let texts = self.exchange.len() + self.routing_key.len();
        FIXED + optional + texts + self.prefix.len() + self.body.map_or(0, <[u8]>::len) + self.suffix.len()
    }

    /// Appends the row. The caller has bounded every length (names to 65,535 bytes, the whole to 4 GiB).
    pub fn encode(&self, out: &mut impl Put) {
        let mut fixed = [0; FIXED];
        let body = self.body.unwrap_or(&[]);
        fixed[0..4].copy_from_slice(&(self.encoded_len() as u32 - 4).to_le_bytes());
        fixed[4..6].copy_from_slice(&self.flags().to_le_bytes());
        fixed[6] = self.protocol as u8;
        fixed[7] = self.priority;
        fixed[8..10].copy_from_slice(&(self.exchange.len() as u16).to_le_bytes());
        fixed[10..12].copy_from_slice(&(self.routing_key.len() as u16).to_le_bytes());
        fixed[12..16].copy_from_slice(&(self.prefix.len() as u32).to_le_bytes());
        fixed[16..20].copy_from_slice(&(body.len() as u32).to_le_bytes());
        out.put(&fixed);
        if fixed[4] & !(NULL_BODY as u8) != 0 {
            self.encode_optional(out);
        }
        out.put(self.exchange.as_bytes());
        out.put(self.routing_key.as_bytes());
        out.put(self.prefix);
        out.put(body);
        out.put(self.suffix);
    }

    fn flags(&self) -> u16 {
        let flag = |set: bool, bit: u16| if set { bit } else { 0 };
        flag(self.timestamp_ms.is_some(), TIMESTAMP)
            | flag(self.key.is_some(), KEY)
            | flag(self.body.is_none(), NULL_BODY)
            | flag(self.expiry_ms.is_some(), EXPIRY)
            | flag(self.due_ms.is_some(), DUE)
            | flag(self.dedup.is_some(), DEDUP)
    }

    #[cold]
    fn encode_optional(&self, out: &mut impl Put) {
        if let Some(timestamp) = self.timestamp_ms {
            out.put_u64_le(timestamp as u64);
        }
        if let Some(expiry) = self.expiry_ms {
            out.put_u64_le(expiry);
        }
        if let Some(due) = self.due_ms {
            out.put_u64_le(due);
        }
        if let Some(key) = self.key {
            out.put_u32_le(key.len() as u32);
            out.put(key);
        }
        if let Some(dedup) = self.dedup {
            out.put_u16_le(dedup.len() as u16);
            out.put(dedup);
        }
    }

    /// Reads the row at the start of `bytes` and returns it with its whole length.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<(Record<'a>, usize), Damaged> {
        let mut head = Reader::new(bytes);
        let length = head.u32_le()? as usize;
        let mut row = Reader::new(head.bytes(length)?);
        let flags = row.u16_le()?;
        if flags & !KNOWN != 0 {
            return Err(Damaged("a row has unknown flags"));
        }
        let protocol = Protocol::from_byte(row.u8()?).ok_or(Damaged("a row names an unknown protocol"))?;
        let priority = row.u8()?;
        let exchange_len = usize::from(row.u16_le()?);
        let key_len = usize::from(row.u16_le()?);
        let prefix_len = row.u32_le()? as usize;
        let body_len = row.u32_le()? as usize;
        let present = |bit: u16| flags & bit != 0;
        let record = Record {
            protocol,
            priority,
            timestamp_ms: if present(TIMESTAMP) { Some(row.i64_le()?) } else { None },
            expiry_ms: if present(EXPIRY) { Some(row.u64_le()?) } else { None },
            due_ms: if present(DUE) { Some(row.u64_le()?) } else { None },
            key: if present(KEY) { Some(sized(&mut row)?) } else { None },
            dedup: if present(DEDUP) { Some(short_sized(&mut row)?) } else { None },
            exchange: text(row.bytes(exchange_len)?)?,
            routing_key: text(row.bytes(key_len)?)?,
            prefix: row.bytes(prefix_len)?,
            body: Some(row.bytes(body_len)?).filter(|_| !present(NULL_BODY)),
            suffix: row.rest(),
        };
        Ok((record, 4 + length))
    }
}

fn sized<'a>(row: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let length = row.u32_le()? as usize;
    row.bytes(length)
}

fn short_sized<'a>(row: &mut Reader<'a>) -> Result<&'a [u8], Short> {
    let length = usize::from(row.u16_le()?);
    row.bytes(length)
}

#[inline]
fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged("a name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn full() -> Record<'static> {
        Record {
            protocol: Protocol::Amqp091,
            priority: 9,
            timestamp_ms: Some(-1),
            expiry_ms: Some(2),
            due_ms: Some(3),
            key: Some(b"k"),
            dedup: Some(b"id"),
            exchange: "ex",
            routing_key: "key",
            prefix: &[0x10, 0, 2],
            body: Some(b"body"),
            suffix: b"s",
        }
    }

    #[test]
    fn the_drawing_holds() {
        let record =
            Record { timestamp_ms: None, expiry_ms: None, due_ms: None, key: None, dedup: None, ..full() };
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        #[rustfmt::skip]
        let golden = [
            29, 0, 0, 0,  0, 0,  1, 9,  2, 0,  3, 0,  3, 0, 0, 0,  4, 0, 0, 0,
            b'e', b'x', b'k', b'e', b'y', 0x10, 0, 2, b'b', b'o', b'd', b'y', b's',
        ];
        assert_eq!(bytes, golden);
        assert_eq!(Record::decode(&golden), Ok((record, 33)));
    }

    #[test]
    fn every_optional_field_comes_back_and_no_prefix_of_a_row_decodes() {
        let mut bytes = Vec::new();
        full().encode(&mut bytes);
        assert_eq!(bytes.len(), full().encoded_len());
        assert_eq!(Record::decode(&bytes), Ok((full(), bytes.len())));
        for cut in 0..bytes.len() {
            assert!(Record::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn null_and_empty_bodies_differ() {
        for body in [None, Some(&[][..])] {
            let mut bytes = Vec::new();
            Record { body, ..full() }.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes).unwrap().0.body, body);
        }
    }
}
