//! A batch: records of one append, behind one header with its own checksum that does not depend on place.
//!
//! ```text
//!  0 format u8 = 1          1 encoding u8 (0 rows; 1 Kafka v2 as received)   2 flags u16
//!  4 header length u16 = 96  6 writer's protocol u8   7 highest priority u8
//!  8 body length u32       12 CRC-32C of the body u32
//! 16 record count u32      20 offset span u32 (differs from the count after compaction)
//! 24 min timestamp i64     32 max timestamp i64       40 ingest timestamp i64   (ms)
//! 48 producer id i64       56 producer epoch i16      58 reserve u16   60 base sequence i32
//! 64 earliest expiry u64   72 earliest due time u64   (ms; 0 = none)
//! 80 largest record u32    84 uncompressed size u32   88 reserve u64
//! 96 body
//! ```
//! Numbers are little endian. Not in it: group, index and term (the frame's), base offset (given in apply).

use base::{Reader, crc32c};

use crate::record::Damaged;
use crate::{Protocol, Record};

/// Bytes of the header.
pub const HEADER: usize = 96;
const FORMAT: u8 = 1;
const NO_PRODUCER: i64 = -1;

/// What the header says of the records behind it, gathered while they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Records in the batch.
    pub count: u32,
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
}

impl Summary {
    /// The summary of no record yet.
    pub fn new(protocol: Protocol, ingest_ms: i64) -> Summary {
        Summary {
            count: 0,
            protocol: protocol as u8,
            priority_max: 0,
            timestamp_min: i64::MAX,
            timestamp_max: i64::MIN,
            ingest: ingest_ms,
            expiry_min: 0,
            due_min: 0,
            largest: 0,
        }
    }

    /// Takes one more record of `encoded` bytes into account.
    #[inline]
    pub fn add(&mut self, record: &Record<'_>, encoded: usize) {
        let timestamp = record.timestamp_ms.unwrap_or(self.ingest);
        self.count += 1;
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
        put(0, &[FORMAT, 0, 0, 0, HEADER as u8, 0, self.protocol, self.priority_max]);
        put(8, &(body.len() as u32).to_le_bytes());
        put(12, &crc32c(body).to_le_bytes());
        put(16, &self.count.to_le_bytes());
        put(20, &self.count.to_le_bytes());
        put(24, &self.timestamp_min.to_le_bytes());
        put(32, &self.timestamp_max.to_le_bytes());
        put(40, &self.ingest.to_le_bytes());
        put(48, &NO_PRODUCER.to_le_bytes());
        put(56, &(-1i16).to_le_bytes());
        put(58, &[0; 2]);
        put(60, &(-1i32).to_le_bytes());
        put(64, &self.expiry_min.to_le_bytes());
        put(72, &self.due_min.to_le_bytes());
        put(80, &self.largest.to_le_bytes());
        put(84, &(body.len() as u32).to_le_bytes());
        put(88, &[0; 8]);
    }
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
    /// The rows.
    pub body: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads the header at the start of `bytes`; the body must fill the rest exactly. The checksum is not
    /// computed: see [`Batch::is_intact`].
    pub fn decode(bytes: &'a [u8]) -> Result<Batch<'a>, Damaged> {
        let mut header = Reader::new(bytes);
        if header.u8()? != FORMAT || header.u8()? != 0 {
            return Err(Damaged("a batch has an unknown format or encoding"));
        }
        let _flags = header.u16_le()?;
        if usize::from(header.u16_le()?) != HEADER {
            return Err(Damaged("a batch header has an unknown length"));
        }
        let protocol = header.u8()?;
        let priority_max = header.u8()?;
        let body_len = header.u32_le()? as usize;
        let checksum = header.u32_le()?;
        let count = header.u32_le()?;
        let _span = header.u32_le()?;
        let [timestamp_min, timestamp_max, ingest] = [header.i64_le()?, header.i64_le()?, header.i64_le()?];
        header.bytes(16)?;
        let [expiry_min, due_min] = [header.u64_le()?, header.u64_le()?];
        let largest = header.u32_le()?;
        header.bytes(12)?;
        if header.rest().len() != body_len {
            return Err(Damaged("a batch is not as long as its header says"));
        }
        let summary = Summary {
            count,
            protocol,
            priority_max,
            timestamp_min,
            timestamp_max,
            ingest,
            expiry_min,
            due_min,
            largest,
        };
        Ok(Batch { summary, checksum, body: header.rest() })
    }

    /// Whether the body matches its checksum.
    pub fn is_intact(&self) -> bool {
        crc32c(self.body) == self.checksum
    }

    /// The records, each with its place in the body.
    pub fn records(&self) -> Records<'a> {
        Records { body: self.body, at: 0 }
    }
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
