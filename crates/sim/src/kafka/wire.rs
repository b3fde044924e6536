//! The few frames of Kafka's protocol that the simulator's clients speak, in versions without tagged fields where there
//! are such.
//!
//! ```text
//! request   i32 size  i16 api  i16 version  i32 correlation  string client  body
//! answer    i32 size  i32 correlation  body
//! ```
//! In: values. Out: bytes; fields of answers. Never: shares code with the door that it speaks to.

use crate::client::Fault;

/// A kind of request and the version of it that is spoken here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api(pub i16, pub i16);

impl Api {
    /// Whether lengths are short and tagged fields follow what they belong to.
    fn is_flexible(self) -> bool {
        matches!(self, CREATE_TOPICS_WITH_ID | FETCH_BY_ID | LIST_LATEST)
    }
}

macro_rules! apis {
    ($($name:ident $key:literal $version:literal;)*) => {
        $(pub(super) const $name: Api = Api($key, $version);)*
    };
}

apis! {
    PRODUCE 0 7;
    FETCH 1 11;
    LIST_OFFSETS 2 5;
    METADATA 3 7;
    OFFSET_COMMIT 8 7;
    OFFSET_FETCH 9 5;
    JOIN_GROUP 11 5;
    HEARTBEAT 12 3;
    LEAVE_GROUP 13 3;
    SYNC_GROUP 14 3;
    SASL_HANDSHAKE 17 1;
    API_VERSIONS 18 0;
    CREATE_TOPICS 19 4;
    DELETE_TOPICS 20 3;
    DELETE_RECORDS 21 1;
    INIT_PRODUCER_ID 22 1;
    SASL_AUTHENTICATE 36 0;
    CREATE_PARTITIONS 37 1;
    // Flexible, as only those versions know the ids of topics.
    CREATE_TOPICS_WITH_ID 19 7;
    FETCH_BY_ID 1 13;
    // Flexible, as only those versions ask for the highest time.
    LIST_LATEST 2 7;
}

/// The first and the last of the requests that transactions are made of.
pub(super) const ADD_PARTITIONS_TO_TXN: i16 = 24;
pub(super) const TXN_OFFSET_COMMIT: i16 = 28;

/// Error codes that mean something to the clients.
pub(super) mod code {
    pub const NONE: i16 = 0;
    pub const OFFSET_OUT_OF_RANGE: i16 = 1;
    pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
    pub const LEADER_NOT_AVAILABLE: i16 = 5;
    pub const REQUEST_TIMED_OUT: i16 = 7;
    pub const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
    pub const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    pub const ILLEGAL_GENERATION: i16 = 22;
    pub const UNKNOWN_MEMBER_ID: i16 = 25;
    pub const REBALANCE_IN_PROGRESS: i16 = 27;
    pub const TOPIC_ALREADY_EXISTS: i16 = 36;
    pub const INVALID_PARTITIONS: i16 = 37;
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
    pub const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: i16 = 53;
    pub const KAFKA_STORAGE_ERROR: i16 = 56;
    pub const UNKNOWN_PRODUCER_ID: i16 = 59;
    pub const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
    pub const MEMBER_ID_REQUIRED: i16 = 79;
    pub const FENCED_INSTANCE_ID: i16 = 82;
    pub const UNKNOWN_TOPIC_ID: i16 = 100;
}

/// Appending the primitives of the protocol.
pub(super) trait PutFields {
    fn i8(&mut self, value: i8);
    fn i16(&mut self, value: i16);
    fn i32(&mut self, value: i32);
    fn i64(&mut self, value: i64);
    fn text(&mut self, text: &str);
    fn null_text(&mut self);
    fn blob(&mut self, bytes: &[u8]);
    fn varint(&mut self, value: i64);
    /// The length of a list in the flexible form.
    fn short_length(&mut self, count: usize);
    fn short_text(&mut self, text: &str);
}

impl PutFields for Vec<u8> {
    fn i8(&mut self, value: i8) {
        self.push(value.cast_unsigned());
    }

    fn i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.i16(text.len() as i16);
        self.extend_from_slice(text.as_bytes());
    }

    fn null_text(&mut self) {
        self.i16(-1);
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.i32(bytes.len() as i32);
        self.extend_from_slice(bytes);
    }

    fn varint(&mut self, value: i64) {
        let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
        while rest >= 0x80 {
            self.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.push(rest as u8);
    }

    fn short_length(&mut self, count: usize) {
        assert!(count < 0x7f, "it fits in one byte");
        self.push(count as u8 + 1);
    }

    fn short_text(&mut self, text: &str) {
        self.short_length(text.len());
        self.extend_from_slice(text.as_bytes());
    }
}

/// Appends a whole request.
pub(super) fn put_request(out: &mut Vec<u8>, api: Api, correlation: i32, body: &[u8]) {
    let client = "sim";
    let tags: &[u8] = if api.is_flexible() { &[0] } else { &[] };
    out.i32((2 + 2 + 4 + 2 + client.len() + tags.len() + body.len()) as i32);
    out.i16(api.0);
    out.i16(api.1);
    out.i32(correlation);
    out.text(client);
    out.extend_from_slice(tags);
    out.extend_from_slice(body);
}

/// A cursor over fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub &'a [u8]);

fn short() -> Fault {
    ("L11", "an answer ends early".to_owned())
}

impl<'a> Fields<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn i16(&mut self) -> Result<i16, Fault> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Fault> {
        self.array().map(i64::from_be_bytes)
    }

    /// A text; null is empty.
    pub fn text(&mut self) -> Result<&'a str, Fault> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        std::str::from_utf8(self.take(length)?).map_err(|_| short())
    }

    /// How long a list in the flexible form is.
    pub fn short_length(&mut self) -> Result<usize, Fault> {
        Ok(usize::from(self.take(1)?[0] & 0x7f).saturating_sub(1))
    }

    pub fn short_text(&mut self) -> Result<&'a str, Fault> {
        let length = self.short_length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| short())
    }

    /// Bytes behind their length; null is empty.
    pub fn blob(&mut self) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        self.take(length)
    }

    pub fn list(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        (0..self.i32()?.max(0)).try_for_each(|_| each(self))
    }

    pub fn varint(&mut self) -> Result<i64, Fault> {
        let mut value = 0u64;
        for at in 0..10 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * at);
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        Err(short())
    }

    /// Bytes behind a varint; -1 is null.
    pub fn var_bytes(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        let length = self.varint()?;
        usize::try_from(length).ok().map(|length| self.take(length)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_these_bytes() {
        let mut out = Vec::new();
        put_request(&mut out, API_VERSIONS, 7, b"x");
        assert_eq!(out, [0, 0, 0, 14, 0, 18, 0, 0, 0, 0, 0, 7, 0, 3, b's', b'i', b'm', b'x']);
    }

    #[test]
    fn varints_come_back() {
        for value in [0, -1, 63, 64, -65, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            bytes.varint(value);
            assert_eq!(Fields(&bytes).varint(), Ok(value));
            assert!(Fields(&bytes[..bytes.len() - 1]).varint().is_err());
        }
    }
}
