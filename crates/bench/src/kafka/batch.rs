//! Ready-made produce requests, and the verdict over fetched batches.
//!
//! A request is encoded once per stream: per batch it is copied, 16 bytes of each value are stamped, and the checksum
//! is made anew. Values are those of the AMQP bench.
//!
//! In: streams, numbers, times; record bytes. Out: requests; stamps. Never: compresses.

use super::wire::{self, CORRELATION_AT, PRODUCE, PutKafka};
use crate::load::body::{STAMP, Stamp, Verdict, pattern};

/// Where a batch has its length, its checksum, and behind it what that covers.
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 17;
const COVERED: usize = 21;
/// Where a batch has its codec, its times and its count.
const CODEC_AT: usize = 22;
const COUNT_AT: usize = 57;
const HEADER: usize = 61;
const TIMES_AT: [usize; 2] = [27, 35];

/// How many records of `size` bytes make a batch of about `batch` bytes.
pub(crate) fn records_in(batch: usize, size: usize) -> usize {
    // Lengths, deltas, a null key and no headers.
    (batch.saturating_sub(HEADER) / (size + 10)).max(1)
}

/// A produce request for one partition, ready but for correlation, stamps and checksum.
pub(crate) struct Template {
    request: Vec<u8>,
    batch_at: usize,
    /// Where each stamp goes; empty where values are too small for one.
    stamps: Vec<usize>,
}

impl Template {
    /// A request with `count` values of `size` bytes.
    pub(crate) fn new(topic: &str, partition: u32, acks: i16, size: usize, count: usize) -> Template {
        let (batch, offsets) = batch(size, count);
        let mut request = Vec::new();
        let mut batch_at = 0;
        request.put_request(PRODUCE, 0, |out| {
            out.put_i16(-1);
            out.put_i16(acks);
            out.put_i32(30_000);
            out.put_i32(1);
            out.put_text(topic);
            out.put_i32(1);
            out.put_i32(partition as i32);
            out.put_i32(batch.len() as i32);
            batch_at = out.len();
            out.extend_from_slice(&batch);
        });
        let stamps =
            if size >= STAMP { offsets.iter().map(|at| batch_at + at).collect() } else { Vec::new() };
        Template { request, batch_at, stamps }
    }

    /// Appends one request; `first` is the stamp of its first record, the others follow it.
    pub(crate) fn put(&self, out: &mut Vec<u8>, correlation: i32, first: Stamp, now_ms: i64) {
        let start = out.len();
        out.extend_from_slice(&self.request);
        let request = &mut out[start..];
        request[CORRELATION_AT..][..4].copy_from_slice(&correlation.to_be_bytes());
        for at in TIMES_AT {
            request[self.batch_at + at..][..8].copy_from_slice(&now_ms.to_be_bytes());
        }
        for (sequence, at) in (first.sequence..).zip(&self.stamps) {
            request[*at..][..STAMP].copy_from_slice(&Stamp { sequence, ..first }.encoded());
        }
        let batch = &mut request[self.batch_at..];
        let checksum = crc_fast::crc32_iscsi(&batch[COVERED..]);
        batch[CRC_AT..COVERED].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// A batch, its checksum missing, and where the values are in it.
fn batch(size: usize, count: usize) -> (Vec<u8>, Vec<usize>) {
    let value = pattern(size);
    let mut out = vec![0; HEADER];
    out[16] = 2;
    out[23..27].copy_from_slice(&(count as i32 - 1).to_be_bytes());
    // No producer, no epoch, no sequence.
    out[43..COUNT_AT].fill(0xff);
    out[COUNT_AT..].copy_from_slice(&(count as i32).to_be_bytes());
    let mut offsets = Vec::with_capacity(count);
    let mut record = Vec::with_capacity(size + 10);
    for delta in 0..count {
        record.clear();
        record.push(0);
        record.put_varint(0);
        record.put_varint(delta as i64);
        record.put_varint(-1);
        record.put_varint(size as i64);
        let value_at = record.len();
        record.extend_from_slice(&value);
        record.put_varint(0);
        out.put_varint(record.len() as i64);
        offsets.push(out.len() + value_at);
        out.extend_from_slice(&record);
    }
    let length = (out.len() - LENGTH_AT - 4) as i32;
    out[LENGTH_AT..][..4].copy_from_slice(&length.to_be_bytes());
    (out, offsets)
}

/// A batch of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched<'a> {
    bytes: &'a [u8],
    /// The offset of its first record.
    pub(crate) base_offset: i64,
    /// The offset behind its last.
    pub(crate) end: i64,
}

impl<'a> Fetched<'a> {
    /// The batch at the front of `bytes`, and what is behind it; `None` when it is not whole.
    pub(crate) fn cut(bytes: &'a [u8]) -> Option<(Fetched<'a>, &'a [u8])> {
        let length = i32::from_be_bytes(*bytes.get(LENGTH_AT..)?.first_chunk()?);
        let size = LENGTH_AT + 4 + usize::try_from(length).ok()?;
        let (bytes, rest) = bytes.split_at_checked(size.max(HEADER))?;
        let base_offset = i64::from_be_bytes(*bytes.first_chunk()?);
        let last = i32::from_be_bytes(*bytes.get(23..)?.first_chunk()?);
        let end = base_offset.saturating_add(i64::from(last)).saturating_add(1);
        Some((Fetched { bytes, base_offset, end }, rest))
    }

    /// Whether it is a batch without compression that matches its checksum.
    pub(crate) fn is_intact(&self) -> bool {
        let checksum = crc_fast::crc32_iscsi(&self.bytes[COVERED..]).to_be_bytes();
        self.bytes[16] == 2 && self.bytes[CODEC_AT] & 7 == 0 && self.bytes[CRC_AT..COVERED] == checksum
    }

    /// Offsets and values; ends where a record is broken, with `None`.
    pub(crate) fn values(&self) -> impl Iterator<Item = Option<(i64, &'a [u8])>> + use<'a> {
        let base = self.base_offset;
        let mut rest = &self.bytes[HEADER..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let found = record(rest);
            rest = found.map_or(&[], |(_, _, rest)| rest);
            Some(found.map(|(delta, value, _)| (base.wrapping_add(delta), value)))
        })
    }
}

/// Offset delta and value of the record at the front, and what is behind it.
#[inline]
fn record(bytes: &[u8]) -> Option<(i64, &[u8], &[u8])> {
    let (length, rest) = wire::varint(bytes)?;
    let (record, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let (_time, rest) = wire::varint(record.get(1..)?)?;
    let (delta, rest) = wire::varint(rest)?;
    let (key, rest) = wire::varint(rest)?;
    let (size, rest) = wire::varint(rest.get(usize::try_from(key.max(0)).ok()?..)?)?;
    Some((delta, rest.get(..usize::try_from(size.max(0)).ok()?)?, behind))
}

/// What a value says, where `pattern` is what is written.
#[inline]
pub(crate) fn verdict(value: &[u8], pattern: &[u8]) -> Verdict {
    if value.len() != pattern.len() {
        return Verdict::Corrupt;
    }
    let Some((stamp, body)) = value.split_first_chunk::<STAMP>() else {
        return if value == pattern { Verdict::Unstamped } else { Verdict::Corrupt };
    };
    if *body == pattern[STAMP..] { Verdict::Stamped(Stamp::decoded(*stamp)) } else { Verdict::Corrupt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(size: usize, count: usize) -> (Vec<u8>, usize) {
        let template = Template::new("t", 3, -1, size, count);
        let mut out = Vec::new();
        template.put(&mut out, 9, Stamp { publisher: 5, sequence: 70, sent_ns: 8 }, 1_700_000_000_000);
        assert_eq!(out.len(), template.request.len());
        (out, template.batch_at)
    }

    #[test]
    fn a_batch_is_what_kafka_clients_write() {
        let (request, at) = request(2, 1);
        // A batch of one record of two bytes without a key, as a Kafka client for Python writes it.
        let golden = "00000000000000000000003a00000000022dfd86590000000000000000018bcfe568000000018bcfe56800\
                      ffffffffffffffffffffffffffff000000011000000001041db400";
        let golden: Vec<u8> = golden.bytes().collect();
        let golden: Vec<u8> = golden
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert_eq!(request[at..], golden);
        assert_eq!(request[..12], [0, 0, 0, (request.len() - 4) as u8, 0, 0, 0, 7, 0, 0, 0, 9]);
    }

    #[test]
    fn what_is_written_is_read_and_every_changed_byte_is_noticed() {
        for (size, count) in [(16, 300), (100, 3), (7, 5), (0, 2)] {
            let pattern = pattern(size);
            let (request, at) = request(size, count);
            let batch = &request[at..];
            let (fetched, rest) = Fetched::cut(batch).unwrap();
            assert!(rest.is_empty() && fetched.is_intact());
            assert_eq!((fetched.base_offset, fetched.end), (0, count as i64));
            for (number, found) in fetched.values().enumerate() {
                let (offset, value) = found.unwrap();
                let stamp = Stamp { publisher: 5, sequence: 70 + number as u64, sent_ns: 8 };
                let expected = if size >= STAMP { Verdict::Stamped(stamp) } else { Verdict::Unstamped };
                assert_eq!((offset, verdict(value, &pattern)), (number as i64, expected));
            }
            assert_eq!(fetched.values().count(), count);
            assert!((0..batch.len()).all(|cut| Fetched::cut(&batch[..cut]).is_none()));
            for at in COVERED..batch.len() {
                let mut changed = batch.to_vec();
                changed[at] ^= 1;
                let (fetched, _) = Fetched::cut(&changed).unwrap();
                assert!(!fetched.is_intact());
                fetched.values().for_each(drop);
            }
        }
    }

    #[test]
    fn batches_have_about_the_size_that_was_asked_for() {
        for (batch, size) in [(1 << 20, 1024), (16 << 10, 16), (100, 1000)] {
            let count = records_in(batch, size);
            let (_, at) = request(size, count);
            let bytes = Template::new("t", 3, -1, size, count).request.len() - at;
            assert!(bytes <= batch + 10 || count == 1, "{bytes} for {batch}");
            assert!(bytes * 10 > batch * 6);
        }
    }
}
