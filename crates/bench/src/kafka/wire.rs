//! The few requests that the bench sends, in versions that every server of the last years speaks and that have no
//! tagged fields.
//!
//! ```text
//! request   size i32, api key i16, version i16, correlation i32, client id (length i16, text), body
//! answer    size i32, correlation i32, body
//! ```
//!
//! In: values. Out: bytes, and cursors over what came. Never: believes a count before its bytes are there.

use crate::error::{Error, Result};

/// An API and the version of it that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Api(pub(crate) i16, pub(crate) i16);

pub(crate) const PRODUCE: Api = Api(0, 7);
pub(crate) const FETCH: Api = Api(1, 11);
pub(crate) const METADATA: Api = Api(3, 7);
pub(crate) const VERSIONS: Api = Api(18, 0);
pub(crate) const CREATE: Api = Api(19, 4);
pub(crate) const DELETE: Api = Api(20, 3);

/// Where the correlation is in a request.
pub(crate) const CORRELATION_AT: usize = 8;
const CLIENT: &str = "waystation-bench";

/// Appending the primitives of the protocol.
pub(crate) trait PutKafka {
    /// A text behind its length.
    fn put_text(&mut self, text: &str);
    /// A number of two bytes.
    fn put_i16(&mut self, value: i16);
    /// A number of four bytes.
    fn put_i32(&mut self, value: i32);
    /// A number of eight bytes.
    fn put_i64(&mut self, value: i64);
    /// A zigzag varint.
    fn put_varint(&mut self, value: i64);
    /// A whole request, its size in front.
    fn put_request(&mut self, api: Api, correlation: i32, body: impl FnOnce(&mut Vec<u8>));
}

impl PutKafka for Vec<u8> {
    fn put_text(&mut self, text: &str) {
        self.put_i16(text.len() as i16);
        self.extend_from_slice(text.as_bytes());
    }

    fn put_i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_varint(&mut self, value: i64) {
        let mut rest = (value << 1 ^ value >> 63) as u64;
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }

    fn put_request(&mut self, api: Api, correlation: i32, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.len();
        self.put_i32(0);
        self.put_i16(api.0);
        self.put_i16(api.1);
        self.put_i32(correlation);
        self.put_text(CLIENT);
        body(self);
        let size = (self.len() - start - 4) as i32;
        self[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }
}

/// A cursor over an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a>(pub(crate) &'a [u8]);

impl<'a> Answer<'a> {
    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) =
            self.0.split_at_checked(count).ok_or_else(|| Error::new("an answer ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    /// A number of one byte.
    pub(crate) fn i8(&mut self) -> Result<i8> {
        self.array().map(i8::from_be_bytes)
    }

    /// A number of two bytes.
    pub(crate) fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// A number of four bytes.
    pub(crate) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A text, or nothing.
    pub(crate) fn text(&mut self) -> Result<Option<&'a str>> {
        let length = self.i16()?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let text = std::str::from_utf8(self.bytes(length)?);
        text.map(Some).map_err(|_| Error::new("a text of an answer is not UTF-8"))
    }

    /// Bytes behind their length; null is empty.
    pub(crate) fn blob(&mut self) -> Result<&'a [u8]> {
        let length = self.i32()?;
        self.bytes(usize::try_from(length).unwrap_or(0))
    }

    /// Reads `each` as often as the count in front says.
    pub(crate) fn list(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        (0..self.i32()?.max(0)).try_for_each(|_| each(self))
    }
}

/// The number at the front of `bytes` as a zigzag varint, and the bytes behind it.
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).wrapping_shl(7 * at as u32);
        if *byte < 0x80 {
            return Some(((value >> 1) as i64 ^ -((value & 1) as i64), &bytes[at + 1..]));
        }
    }
    None
}

/// The protocol's name for an error.
pub(crate) fn error_name(code: i16) -> String {
    let name = match code {
        -1 => "unknown server error",
        1 => "offset out of range",
        2 => "corrupt message",
        3 => "unknown topic or partition",
        5 => "leader not available",
        6 => "not leader",
        7 => "request timed out",
        10 => "message too large",
        17 => "invalid topic",
        19 => "not enough replicas",
        29 => "topic authorization failed",
        35 => "unsupported version",
        36 => "topic already exists",
        37 => "invalid partitions",
        38 => "invalid replication factor",
        42 => "invalid request",
        44 => "policy violation",
        87 => "invalid record",
        _ => return format!("error {code}"),
    };
    format!("error {code} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_these_bytes() {
        let mut out = Vec::new();
        out.put_request(VERSIONS, 7, |out| out.put_text("x"));
        assert_eq!(out[..12], [0, 0, 0, 29, 0, 18, 0, 0, 0, 0, 0, 7]);
        assert_eq!(&out[12..], b"\0\x10waystation-bench\0\x01x");
        assert_eq!(out[CORRELATION_AT..][..4], [0, 0, 0, 7]);
    }

    #[test]
    fn varints_come_back_and_answers_end() {
        for value in [0, -1, 63, 64, -65, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(varint(&bytes), Some((value, &[][..])));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), None);
        }
        let mut answer = Answer(&[0x7f, 0xff, 0xff, 0xff, 1]);
        assert!(answer.list(|answer| answer.i16().map(drop)).is_err(), "a count without its items");
    }
}
