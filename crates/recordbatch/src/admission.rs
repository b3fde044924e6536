//! Whether a batch may be taken as it came from a client.
//!
//! Header, checksum and codec are checked always; the records where they are not compressed. What is compressed is
//! checked when it is opened: a reader that speaks this protocol opens it itself and needs nobody's word for it. Only
//! its count is doubted: so many records must fit in what any batch may be opened to.
//!
//! In: the bytes of one batch. Out: what the log needs to know of it, or why it is refused. Never: allocates.

use base::{Bug, crc32c, planted};
use model::batch::{self, Encoding, Producer, Summary};
use model::{LogRefusal, Protocol};

use crate::compression::Codec;
use crate::error::BatchError;
use crate::fields;
use crate::header::{CONTROL, COVERED, HEADER, HORIZON, Header, TRANSACTIONAL};

/// Records that fit in the 64 MiB a batch is opened to at most, of the seven bytes that the smallest record takes.
const RECORDS_MAX: i64 = (64 << 20) / 7;

/// A batch that may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What its header says.
    pub header: Header,
    /// How it is compressed.
    pub codec: Codec,
    /// The lowest timestamp of its records; as its header has it where it is compressed.
    pub timestamp_min: i64,
    /// The highest timestamp of its records; as its header has it where it is compressed.
    pub timestamp_max: i64,
    /// Bytes of the largest record; of the whole batch where it is compressed.
    pub largest: usize,
    /// How many records have a key; unknown where it is compressed.
    pub keyed: Option<u32>,
}

impl Checked {
    /// Whether every record has a key; unknown where it is compressed.
    pub fn is_keyed(&self) -> Option<bool> {
        self.keyed.map(|keyed| i64::from(keyed) == i64::from(self.header.count))
    }

    /// The summary that our own header of this batch is written from. Where it is compressed it counts as keyless.
    pub fn summary(&self, ingest_ms: i64) -> Summary {
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        let producer = self.header.producer().is_some().then_some(Producer {
            id: self.header.producer_id,
            epoch: self.header.producer_epoch,
            base_sequence: self.header.base_sequence,
        });
        Summary {
            encoding: Encoding::KafkaV2,
            flags: flag(self.header.is_log_time(), batch::LOG_APPEND_TIME)
                | flag(self.keyed.is_some_and(|keyed| keyed > 0), batch::KEYED)
                | flag(self.codec != Codec::None, batch::COMPRESSED)
                | flag(producer.is_some(), batch::IDEMPOTENT),
            count: self.header.count as u32,
            span: self.header.span() as u32,
            timestamp_min: self.timestamp_min,
            timestamp_max: self.timestamp_max,
            largest: u32::try_from(self.largest).unwrap_or(u32::MAX),
            producer,
            ..Summary::new(Protocol::Kafka, ingest_ms)
        }
    }
}

/// Checks one batch of a client; `bytes` is that batch and nothing else.
pub fn check(bytes: &[u8]) -> Result<Checked, LogRefusal> {
    Ok(checked(bytes)?)
}

fn checked(bytes: &[u8]) -> Result<Checked, BatchError> {
    let header = Header::read(bytes)?;
    let whole = bytes.get(..header.size).filter(|whole| whole.len() >= HEADER);
    let whole = whole.ok_or(BatchError::Corrupt("a batch is not as long as its header says"))?;
    if crc32c(&whole[COVERED..]) != header.checksum {
        return Err(BatchError::Corrupt("a batch does not match its checksum"));
    }
    if whole.len() < bytes.len() {
        // Nothing was damaged on the way, so sending it again would not help.
        return Err(BatchError::InvalidRecord("there is more than the one record batch that is taken"));
    }
    let codec = Codec::of(&header)?;
    check_attributes(&header)?;
    check_numbers(&header)?;
    if i64::from(header.count) > RECORDS_MAX {
        return Err(BatchError::InvalidRecord("a batch says it has more records than any can have"));
    }
    match codec {
        Codec::None => walk(header, &bytes[HEADER..]),
        _ => Ok(Checked {
            header,
            codec,
            timestamp_min: lowest_told(&header),
            timestamp_max: header.max_timestamp,
            largest: bytes.len(),
            keyed: None,
        }),
    }
}

/// The lowest timestamp as far as the header tells; clients take the first record's as the base.
fn lowest_told(header: &Header) -> i64 {
    match header.is_log_time() {
        true => header.max_timestamp,
        false => header.base_timestamp.min(header.max_timestamp),
    }
}

fn check_attributes(header: &Header) -> Result<(), BatchError> {
    if header.attributes & CONTROL != 0 {
        return Err(BatchError::InvalidRecord("a control batch is not for clients to write"));
    }
    if header.attributes & HORIZON != 0 {
        return Err(BatchError::InvalidRecord("a deletion horizon is not for clients to set"));
    }
    if header.attributes & TRANSACTIONAL != 0 && !planted(Bug::TakeTransactional) {
        return Err(BatchError::Unsupported("transactions are not supported"));
    }
    Ok(())
}

fn check_numbers(header: &Header) -> Result<(), BatchError> {
    if header.count < 1 {
        return Err(BatchError::InvalidRecord("a batch has no records"));
    }
    if header.last_offset_delta != header.count - 1 {
        return Err(BatchError::InvalidRecord("the offsets of a batch do not match its count"));
    }
    if header.producer_id >= 0 && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return Err(BatchError::InvalidRecord("a producer's batch has no epoch or no sequence"));
    }
    if header.max_timestamp < -1 || header.base_timestamp < -1 {
        return Err(BatchError::InvalidTimestamp);
    }
    Ok(())
}

/// Walks over the records as they lie: their lengths add up, and their offsets are those of the count.
fn walk(header: Header, records: &[u8]) -> Result<Checked, BatchError> {
    let (mut at, mut largest, mut keyed) = (0, 0, 0);
    let (mut lowest, mut highest) = (i64::MAX, i64::MIN);
    for expected in 0..header.count {
        let start = at;
        let record = fields::record(records, &mut at)?;
        if record.offset_delta != expected {
            return Err(BatchError::InvalidRecord("the offsets of a batch have gaps"));
        }
        largest = largest.max(at - start);
        keyed += u32::from(record.key.is_some());
        lowest = lowest.min(record.timestamp);
        highest = highest.max(record.timestamp);
    }
    if at != records.len() {
        return Err(BatchError::InvalidRecord("bytes follow the last record"));
    }
    let absolute = |delta: i64| header.base_timestamp.checked_add(delta).ok_or(BatchError::InvalidTimestamp);
    let (timestamp_min, timestamp_max) = match header.is_log_time() {
        true => (header.max_timestamp, header.max_timestamp),
        false => (absolute(lowest)?, absolute(highest)?),
    };
    if timestamp_min < -1 {
        return Err(BatchError::InvalidTimestamp);
    }
    Ok(Checked { header, codec: Codec::None, timestamp_min, timestamp_max, largest, keyed: Some(keyed) })
}
