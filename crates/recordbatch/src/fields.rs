//! One record within the records of a batch, and its headers.
//!
//! ```text
//! length varint                bytes behind this field
//! attributes i8 (unused), timestamp delta varint, offset delta varint
//! key length varint (-1 null), key, value length varint (-1 null), value
//! header count varint, then per header: name length varint, name, value length varint (-1 null), value
//! ```
//! Varints are zigzag. A row of this protocol has the headers, count included, as its native prefix.
//!
//! In: the bytes of uncompressed records. Out: borrowed views; encoded headers and records.
//! Never: allocates for a declared count.

use base::Put;

use crate::error::BatchError;
use crate::varint::{self, take};

const ENDS: BatchError = BatchError::InvalidRecord("a record is not as long as it says");

/// One record, borrowed from the records it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KafkaRecord<'a> {
    /// Its offset less the base offset of its batch.
    pub offset_delta: i32,
    /// Milliseconds since 1970; -1 none.
    pub timestamp: i64,
    /// The key; `None` is null, which is not empty.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, which is not empty.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of a record in their encoded form, which was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers(&[0]);

    /// The headers that `block` is the encoding of; empty bytes are none. `None` when it is not sound.
    pub fn decode(block: &'a [u8]) -> Option<Headers<'a>> {
        if block.is_empty() {
            return Some(Headers::NONE);
        }
        let mut at = 0;
        skip_headers(block, &mut at)?;
        (at == block.len()).then_some(Headers(block))
    }

    /// The encoded form, count included.
    pub fn block(&self) -> &'a [u8] {
        self.0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        take(self.0, &mut 0).and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names and values in order; names may repeat.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let block = self.0;
        let mut at = 0;
        let mut left = take(block, &mut at).unwrap_or(0);
        std::iter::from_fn(move || {
            left = (left > 0).then(|| left - 1)?;
            let name = nullable(block, &mut at)??;
            Some((name, nullable(block, &mut at)?))
        })
    }
}

/// The encoded form of these headers, count included.
pub fn encode_headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(headers: &[(N, Option<V>)]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(&mut out, headers.len() as i64);
    for (name, value) in headers {
        put_nullable(&mut out, Some(name.as_ref()));
        put_nullable(&mut out, value.as_ref().map(AsRef::as_ref));
    }
    out
}

/// The record at `at`, which moves behind it, with its timestamp still relative.
#[inline(always)]
pub(crate) fn record<'a>(records: &'a [u8], at: &mut usize) -> Result<KafkaRecord<'a>, BatchError> {
    let length = take(records, at).and_then(|length| usize::try_from(length).ok()).ok_or(ENDS)?;
    let rest = records.get(*at..).ok_or(ENDS)?;
    let bytes = rest.get(..length).ok_or(ENDS)?;
    *at += length;
    parts(bytes).ok_or(ENDS)
}

#[inline(always)]
fn parts(bytes: &[u8]) -> Option<KafkaRecord<'_>> {
    let mut at = 1;
    let timestamp = take(bytes, &mut at)?;
    let offset_delta = i32::try_from(take(bytes, &mut at)?).ok()?;
    let key = nullable(bytes, &mut at)?;
    let value = nullable(bytes, &mut at)?;
    let headers = bytes.get(at..)?;
    match headers {
        [0] => {}
        _ => {
            skip_headers(bytes, &mut at)?;
            (at == bytes.len()).then_some(())?;
        }
    }
    Some(KafkaRecord { offset_delta, timestamp, key, value, headers: Headers(headers) })
}

fn skip_headers(bytes: &[u8], at: &mut usize) -> Option<()> {
    let count = take(bytes, at)?;
    // Every header takes two bytes at least, so a wrong count ends the loop soon.
    (count >= 0).then_some(())?;
    for _ in 0..count {
        nullable(bytes, at)??;
        nullable(bytes, at)?;
    }
    Some(())
}

#[inline(always)]
fn nullable<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    let length = take(bytes, at)?;
    let Ok(length) = usize::try_from(length) else { return (length == -1).then_some(None) };
    let content = bytes.get(*at..)?.get(..length)?;
    *at += length;
    Some(Some(content))
}

/// Appends a record whose timestamp is already relative.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &KafkaRecord<'_>) {
    let sized = |part: Option<&[u8]>| match part {
        Some(part) => varint::width(part.len() as i64) + part.len(),
        None => 1,
    };
    let deltas = varint::width(record.timestamp) + varint::width(i64::from(record.offset_delta));
    let length = 1 + deltas + sized(record.key) + sized(record.value) + record.headers.0.len();
    varint::put(out, length as i64);
    out.put_u8(0);
    varint::put(out, record.timestamp);
    varint::put(out, i64::from(record.offset_delta));
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    out.put(record.headers.0);
}

fn put_nullable(out: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        Some(part) => {
            varint::put(out, part.len() as i64);
            out.put(part);
        }
        None => varint::put(out, -1),
    }
}
