//! The header of a batch: reading it, and the fields that a log sets in it.
//!
//! ```text
//!  0 base offset i64            set by the log; outside the checksum
//!  8 length i32                 bytes behind this field
//! 12 leader epoch i32           set by the log; outside the checksum
//! 16 magic i8 = 2              17 CRC-32C u32 of all that follows
//! 21 attributes u16             0-2 codec  3 time is the log's  4 transactional  5 control  6 delete horizon
//! 23 last offset delta i32     27 base timestamp i64 ms       35 max timestamp i64 ms
//! 43 producer id i64           51 producer epoch i16          53 base sequence i32
//! 57 record count i32          61 records, compressed as one where there is a codec
//! ```
//! Numbers are big endian. -1 stands for none in the timestamps and the producer's fields.
//!
//! In: stored or received bytes. Out: the header's fields; patched bytes. Never: looks at records.

use base::{Reader, Short, crc32c};

use crate::error::BatchError;

/// Bytes of the header.
pub const HEADER: usize = 61;
/// Bytes in front of what the length counts.
const UNCOUNTED: usize = 12;
/// Where the checksum is, and where what it covers begins.
const CRC: usize = 17;
pub(crate) const COVERED: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const MAX_TIMESTAMP: usize = 35;
pub(crate) const COUNT: usize = 57;
const MAGIC: i8 = 2;

const CODEC: u16 = 7;
pub(crate) const LOG_TIME: u16 = 1 << 3;
pub(crate) const TRANSACTIONAL: u16 = 1 << 4;
pub(crate) const CONTROL: u16 = 1 << 5;
pub(crate) const HORIZON: u16 = 1 << 6;

/// What the header of a batch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The offset of the first record; what a client wrote there means nothing.
    pub base_offset: i64,
    /// Bytes of the whole batch, from the base offset to the last record.
    pub size: usize,
    /// The leader's epoch when it was appended.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes on.
    pub checksum: u32,
    /// Codec and flags.
    pub attributes: u16,
    /// The last record's offset less the base offset; stays when compaction takes records away.
    pub last_offset_delta: i32,
    /// What the records' timestamps are relative to.
    pub base_timestamp: i64,
    /// The highest timestamp; where the time is the log's, the one of all.
    pub max_timestamp: i64,
    /// The idempotent producer; -1 none.
    pub producer_id: i64,
    /// Its epoch; -1 none.
    pub producer_epoch: i16,
    /// Its number of the first record; -1 none.
    pub base_sequence: i32,
    /// How many records there are.
    pub count: i32,
}

impl Header {
    /// Reads the header at the start of `bytes`, which may be more or less than the whole batch. Neither the
    /// checksum nor the records are looked at.
    pub fn read(bytes: &[u8]) -> Result<Header, BatchError> {
        let mut reader = Reader::new(bytes);
        let (base_offset, length) = front(&mut reader)?;
        let header = fields(&mut reader, base_offset, length);
        header.map_err(|_| BatchError::Corrupt("the bytes end within a batch header"))
    }

    /// Bits 0 to 2 of the attributes.
    pub(crate) fn codec_bits(&self) -> u16 {
        self.attributes & CODEC
    }

    /// Whether the timestamps are those of the append.
    pub fn is_log_time(&self) -> bool {
        self.attributes & LOG_TIME != 0
    }

    /// Whether it belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it is a marker and not anybody's data.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The idempotent producer, its epoch and its number of the first record.
    pub fn producer(&self) -> Option<(u64, i16, i32)> {
        let id = u64::try_from(self.producer_id).ok()?;
        Some((id, self.producer_epoch, self.base_sequence))
    }

    /// How many offsets it takes.
    pub fn span(&self) -> u64 {
        u64::try_from(i64::from(self.last_offset_delta) + 1).unwrap_or(0)
    }
}

/// Base offset and length, once the format is known to be this one.
fn front(reader: &mut Reader<'_>) -> Result<(i64, usize), BatchError> {
    let ends = |_: Short| BatchError::Corrupt("the bytes end within a batch header");
    let mut ahead = *reader;
    ahead.bytes(16).map_err(ends)?;
    match ahead.u8().map_err(ends)? as i8 {
        MAGIC => {}
        0 | 1 => return Err(BatchError::OldFormat),
        _ => return Err(BatchError::Corrupt("a batch has an unknown format")),
    }
    let base_offset = reader.i64_be().map_err(ends)?;
    let length = reader.i32_be().map_err(ends)?;
    match usize::try_from(length) {
        Ok(length) if length >= HEADER - UNCOUNTED => Ok((base_offset, length)),
        _ => Err(BatchError::Corrupt("a batch is shorter than its header")),
    }
}

fn fields(reader: &mut Reader<'_>, base_offset: i64, length: usize) -> Result<Header, Short> {
    let leader_epoch = reader.i32_be()?;
    reader.u8()?;
    Ok(Header {
        base_offset,
        size: UNCOUNTED + length,
        leader_epoch,
        checksum: reader.u32_be()?,
        attributes: reader.u16_be()?,
        last_offset_delta: reader.i32_be()?,
        base_timestamp: reader.i64_be()?,
        max_timestamp: reader.i64_be()?,
        producer_id: reader.i64_be()?,
        producer_epoch: reader.i16_be()?,
        base_sequence: reader.i32_be()?,
        count: reader.i32_be()?,
    })
}

/// The batches that lie one behind the other in `bytes`, each cut to its size; ends with the first error.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], BatchError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let size = Header::read(rest).map(|header| header.size);
        let cut = size.and_then(|size| {
            rest.split_at_checked(size).ok_or(BatchError::Corrupt("the bytes end within a batch"))
        });
        let (batch, behind) = match cut {
            Ok((batch, behind)) => (Ok(batch), behind),
            Err(error) => (Err(error), &[][..]),
        };
        rest = behind;
        Some(batch)
    })
}

/// Sets where the log put a checked batch, which its checksum does not cover.
pub fn place(batch: &mut [u8], base_offset: u64, leader_epoch: u32) {
    put(batch, 0, &base_offset.to_be_bytes());
    put(batch, 12, &leader_epoch.to_be_bytes());
}

/// Gives all records of a checked batch the time of its append. The checksum is made anew.
pub fn append_time(batch: &mut [u8], now_ms: i64) {
    assert!(batch.len() >= HEADER, "a checked batch has a header");
    batch[COVERED + 1] |= LOG_TIME as u8;
    put(batch, MAX_TIMESTAMP, &now_ms.to_be_bytes());
    seal(batch);
}

/// Makes the length and the checksum those of `batch` as it is now.
pub(crate) fn seal(batch: &mut [u8]) {
    let length =
        u32::try_from(batch.len() - UNCOUNTED).expect("a batch is bounded by what a request may have");
    put(batch, 8, &length.to_be_bytes());
    let checksum = crc32c(&batch[COVERED..]);
    put(batch, CRC, &checksum.to_be_bytes());
}

/// Appends the header; length and checksum are for [`seal`] to set.
pub(crate) fn put_header(out: &mut Vec<u8>, header: &Header) {
    let start = out.len();
    out.resize(start + HEADER, 0);
    let bytes = &mut out[start..];
    put(bytes, 0, &header.base_offset.to_be_bytes());
    put(bytes, 12, &header.leader_epoch.to_be_bytes());
    bytes[16] = MAGIC as u8;
    put(bytes, COVERED, &header.attributes.to_be_bytes());
    put(bytes, LAST_OFFSET_DELTA, &header.last_offset_delta.to_be_bytes());
    put(bytes, 27, &header.base_timestamp.to_be_bytes());
    put(bytes, MAX_TIMESTAMP, &header.max_timestamp.to_be_bytes());
    put(bytes, 43, &header.producer_id.to_be_bytes());
    put(bytes, 51, &header.producer_epoch.to_be_bytes());
    put(bytes, 53, &header.base_sequence.to_be_bytes());
    put(bytes, COUNT, &header.count.to_be_bytes());
}

fn put(batch: &mut [u8], at: usize, bytes: &[u8]) {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
}
