//! A batch: records of one append, behind one header with its own checksum that does not depend on place.
//!
//! ```text
//!  0 format u8 = 1          1 encoding u8 (0 rows; 1 Kafka v2 as received)
//!  2 flags u16              1 transactional  2 control  4 log-append-time  8 has keys  16 compressed  32 idempotent
//!  4 header length u16 = 96  6 writer's protocol u8   7 highest priority u8
//!  8 body length u32       12 CRC-32C of the body u32
//! 16 record count u32      20 offset span u32 (that of rows is the count; a Kafka batch may have gaps)
//! 24 min timestamp i64     32 max timestamp i64       40 ingest timestamp i64   (ms)
//! 48 producer id i64       56 producer epoch i16      58 reserve u16   60 base sequence i32
//! 64 earliest expiry u64   72 earliest due time u64   (ms; 0 = none)
//! 80 largest record u32    84 uncompressed size u32 (the body's length where nobody opened it)   88 reserve u64
//! 96 body
//! ```
//! Numbers are little endian. Not in it: group, index and term (the frame's), base offset (given in apply). A Kafka
//! batch has a checksum of its own over all but its first 21 bytes, where the fields that depend on place are: that
//! one stands in the header too, so that the bytes are summed once.

use base::{Reader, crc32c};

use crate::record::Damaged;
use crate::{Protocol, Record};

/// Bytes of the header.
pub const HEADER: usize = 96;
/// Bytes of a Kafka v2 batch without records.
pub const KAFKA_MIN: usize = 61;
const FORMAT: u8 = 1;
const NO_PRODUCER: Producer = Producer { id: -1, epoch: -1, base_sequence: -1 };
/// Where a Kafka v2 batch has its checksum, and behind it what it covers.
const KAFKA_CHECKSUM: usize = 17;
/// Where what the checksum of a Kafka v2 batch covers begins in it.
pub const KAFKA_COVERED: usize = KAFKA_CHECKSUM + 4;

/// Flag: part of a transaction.
pub const TRANSACTIONAL: u16 = 1;
/// Flag: a marker, not records.
pub const CONTROL: u16 = 2;
/// Flag: the timestamps are those of the append.
pub const LOG_APPEND_TIME: u16 = 4;
/// Flag: at least one record has a key. Set for rows; for Kafka batches by whoever opened them.
pub const KEYED: u16 = 8;
/// Flag: the records are compressed.
pub const COMPRESSED: u16 = 16;
/// Flag: the producer numbers its records.
pub const IDEMPOTENT: u16 = 32;

/// How the body of a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// Rows, one behind the other.
    Rows = 0,
    /// One Kafka v2 record batch as received.
    KafkaV2 = 1,
}

impl Encoding {
    fn from_byte(byte: u8) -> Option<Encoding> {
        [Encoding::Rows, Encoding::KafkaV2].into_iter().find(|encoding| *encoding as u8 == byte)
    }
}

/// Who numbered the records of a batch, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The producer's id.
    pub id: i64,
    /// Which start of it.
    pub epoch: i16,
    /// The number of the first record; negative where the records have none.
    pub base_sequence: i32,
}

/// What the header says of the records behind it, gathered while they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How the body is written.
    pub encoding: Encoding,
    /// See the constants of this module.
    pub flags: u16,
    /// Records in the batch.
    pub count: u32,
    /// Offsets the batch takes up; the count for rows.
    pub span: u32,
    /// The writer of the first record.
    pub protocol: u8,
    /// The highest priority.
    pub priority_max: u8,
    /// The lowest timestamp, milliseconds; the ingest time stands in where a record has none.
    pub timestamp_min: i64,
    /// The highest timestamp, milliseconds.
    pub timestamp_max: i64,
    /// When the broker took it, milliseconds.
    pub ingest: i64,
    /// The earliest expiry, milliseconds; 0 = none.
    pub expiry_min: u64,
    /// The earliest due time, milliseconds; 0 = none.
    pub due_min: u64,
    /// Bytes of the largest row.
    pub largest: u32,
    /// Who numbered the records.
    pub producer: Option<Producer>,
}

impl Summary {
    /// The summary of no row yet.
    pub fn new(protocol: Protocol, ingest_ms: i64) -> Summary {
        Summary {
            encoding: Encoding::Rows,
            flags: 0,
            count: 0,
            span: 0,
            protocol: protocol as u8,
            priority_max: 0,
            timestamp_min: i64::MAX,
            timestamp_max: i64::MIN,
            ingest: ingest_ms,
            expiry_min: 0,
            due_min: 0,
            largest: 0,
            producer: None,
        }
    }

    /// Takes one more record of `encoded` bytes into account.
    #[inline]
    pub fn add(&mut self, record: &Record<'_>, encoded: usize) {
        let timestamp = record.timestamp_ms.unwrap_or(self.ingest);
        self.count += 1;
        self.span += 1;
        self.flags |= if record.key.is_some() { KEYED } else { 0 };
        self.priority_max = self.priority_max.max(record.priority);
        self.timestamp_min = self.timestamp_min.min(timestamp);
        self.timestamp_max = self.timestamp_max.max(timestamp);
        self.expiry_min = earliest(self.expiry_min, record.expiry_ms);
        self.due_min = earliest(self.due_min, record.due_ms);
        self.largest = self.largest.max(encoded as u32);
    }

    /// Writes the header of `body` into its first [`HEADER`] bytes of room.
    pub fn encode(&self, header: &mut [u8; HEADER], body: &[u8]) {
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        let producer = self.producer.unwrap_or(NO_PRODUCER);
        put(0, &[FORMAT, self.encoding as u8]);
        put(2, &self.flags.to_le_bytes());
        put(4, &[HEADER as u8, 0, self.protocol, self.priority_max]);
        put(8, &(body.len() as u32).to_le_bytes());
        put(12, &checksum(self.encoding, body).to_le_bytes());
        put(16, &self.count.to_le_bytes());
        put(20, &self.span.to_le_bytes());
        put(24, &self.timestamp_min.to_le_bytes());
        put(32, &self.timestamp_max.to_le_bytes());
        put(40, &self.ingest.to_le_bytes());
        put(48, &producer.id.to_le_bytes());
        put(56, &producer.epoch.to_le_bytes());
        put(58, &[0; 2]);
        put(60, &producer.base_sequence.to_le_bytes());
        put(64, &self.expiry_min.to_le_bytes());
        put(72, &self.due_min.to_le_bytes());
        put(80, &self.largest.to_le_bytes());
        put(84, &(body.len() as u32).to_le_bytes());
        put(88, &[0; 8]);
    }
}

/// What the header has as the body's checksum: a Kafka batch brings its own.
fn checksum(encoding: Encoding, body: &[u8]) -> u32 {
    match (encoding, kafka_checksum(body)) {
        (Encoding::KafkaV2, Some((own, _))) => own,
        _ => crc32c(body),
    }
}

/// The checksum of a Kafka batch and what it covers.
fn kafka_checksum(body: &[u8]) -> Option<(u32, &[u8])> {
    let (own, covered) = body.get(KAFKA_CHECKSUM..)?.split_first_chunk()?;
    Some((u32::from_be_bytes(*own), covered))
}

fn earliest(so_far: u64, other: Option<u64>) -> u64 {
    match (so_far, other) {
        (0, Some(other)) => other,
        (so_far, Some(other)) => so_far.min(other),
        (so_far, None) => so_far,
    }
}

/// A stored batch, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// What the header says.
    pub summary: Summary,
    /// CRC-32C of the body as the header has it.
    pub checksum: u32,
    /// The rows, or the Kafka batch.
    pub body: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads the header at the start of `bytes`; the body must fill the rest exactly. The checksum is not
    /// computed: see [`Batch::is_intact`].
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Batch<'a>, Damaged> {
        let (header, body) =
            bytes.split_first_chunk::<HEADER>().ok_or(Damaged("a batch header ends early"))?;
        let mut header = Reader::new(header);
        let format = header.u8()?;
        let encoding = Encoding::from_byte(header.u8()?).filter(|_| format == FORMAT);
        let encoding = encoding.ok_or(Damaged("a batch has an unknown format or encoding"))?;
        let flags = header.u16_le()?;
        if usize::from(header.u16_le()?) != HEADER {
            return Err(Damaged("a batch header has an unknown length"));
        }
        let protocol = header.u8()?;
        let priority_max = header.u8()?;
        let body_len = header.u32_le()? as usize;
        let checksum = header.u32_le()?;
        let (count, span) = (header.u32_le()?, header.u32_le()?);
        let [timestamp_min, timestamp_max, ingest] = [header.i64_le()?, header.i64_le()?, header.i64_le()?];
        let producer = producer(&mut header)?;
        let [expiry_min, due_min] = [header.u64_le()?, header.u64_le()?];
        let largest = header.u32_le()?;
        if body.len() != body_len || (encoding == Encoding::KafkaV2 && body_len < KAFKA_MIN) {
            return Err(Damaged("a batch is not as long as its header says"));
        }
        let summary = Summary {
            encoding,
            flags,
            count,
            span,
            protocol,
            priority_max,
            timestamp_min,
            timestamp_max,
            ingest,
            expiry_min,
            due_min,
            largest,
            producer,
        };
        Ok(Batch { summary, checksum, body })
    }

    /// Whether the body matches its checksum. Of a Kafka batch the first 16 bytes but for the length (base offset and
    /// leader epoch) may be anything: they are given anew with every place.
    pub fn is_intact(&self) -> bool {
        if self.summary.encoding == Encoding::Rows {
            return crc32c(self.body) == self.checksum;
        }
        let length = self.body.get(8..12).and_then(|length| length.first_chunk());
        let whole = length.is_some_and(|length| u32::from_be_bytes(*length) as usize + 12 == self.body.len());
        let own = kafka_checksum(self.body);
        whole && own.is_some_and(|(own, covered)| own == self.checksum && crc32c(covered) == own)
    }

    /// The records, each with its place in the body; only for rows.
    pub fn records(&self) -> Records<'a> {
        Records { body: self.body, at: 0 }
    }
}

#[inline]
fn producer(header: &mut Reader<'_>) -> Result<Option<Producer>, Damaged> {
    let (id, epoch) = (header.i64_le()?, header.i16_le()?);
    header.u16_le()?;
    let producer = Producer { id, epoch, base_sequence: header.i32_le()? };
    Ok((producer.id >= 0).then_some(producer))
}

/// Iterates over the rows of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<(usize, Record<'a>), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let at = self.at;
        match Record::decode(&self.body[at..]) {
            Ok((record, length)) => {
                self.at += length;
                Some(Ok((at, record)))
            }
            Err(damaged) => {
                self.at = self.body.len();
                Some(Err(damaged))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Kafka v2 batch of one record with the key `k` and the value `v`, at 1000 ms, from producer 9.
    fn kafka() -> Vec<u8> {
        let mut batch = vec![0; 8];
        #[rustfmt::skip]
        batch.extend([
            0, 0, 0, 58,  0, 0, 0, 0,  2,  0, 0, 0, 0,
            0, 0,  0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 3, 0xe8,  0, 0, 0, 0, 0, 0, 3, 0xe8,
            0, 0, 0, 0, 0, 0, 0, 9,  0, 1,  0, 0, 0, 5,  0, 0, 0, 1,
            16, 0, 0, 0, 2, b'k', 2, b'v', 0,
        ]);
        let checksum = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&checksum.to_be_bytes());
        batch
    }

    fn summary() -> Summary {
        Summary {
            encoding: Encoding::KafkaV2,
            flags: KEYED | IDEMPOTENT,
            count: 1,
            span: 3,
            protocol: Protocol::Kafka as u8,
            priority_max: 0,
            timestamp_min: 1000,
            timestamp_max: 1001,
            ingest: 1002,
            expiry_min: 0,
            due_min: 0,
            largest: 9,
            producer: Some(Producer { id: 9, epoch: 1, base_sequence: 5 }),
        }
    }

    fn stored(body: &[u8]) -> Vec<u8> {
        let mut header = [0; HEADER];
        summary().encode(&mut header, body);
        [&header, body].concat()
    }

    #[test]
    fn the_drawing_of_a_kafka_batch_holds() {
        let bytes = stored(&kafka());
        #[rustfmt::skip]
        let golden = [
            1, 1, 40, 0, 96, 0, 2, 0,  70, 0, 0, 0, bytes[96 + 20], bytes[96 + 19], bytes[96 + 18], bytes[96 + 17],
            1, 0, 0, 0, 3, 0, 0, 0,  0xe8, 3, 0, 0, 0, 0, 0, 0,  0xe9, 3, 0, 0, 0, 0, 0, 0,
            0xea, 3, 0, 0, 0, 0, 0, 0,  9, 0, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0, 5, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,  9, 0, 0, 0, 70, 0, 0, 0,  0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(bytes[..HEADER], golden);
        let batch = Batch::decode(&bytes).unwrap();
        assert_eq!((batch.summary, batch.body), (summary(), &kafka()[..]));
        assert!(batch.is_intact());
    }

    #[test]
    fn what_depends_on_place_is_not_summed_and_everything_else_is() {
        let bytes = stored(&kafka());
        for at in HEADER..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let placed = (0..8).contains(&(at - HEADER)) || (12..17).contains(&(at - HEADER));
            assert_eq!(Batch::decode(&changed).unwrap().is_intact(), placed, "byte {at}");
        }
        for cut in 0..bytes.len() {
            assert!(Batch::decode(&bytes[..cut]).is_err());
        }
        assert!(Batch::decode(&stored(&kafka()[..60])).is_err(), "shorter than any Kafka batch");
    }
}
