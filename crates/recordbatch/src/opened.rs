//! A batch whose records can be read: for readers of other protocols, for looking up times, for compaction.
//!
//! In: the bytes of one batch that is stored. Out: its records in order. Never: trusts what was compressed when it
//! was admitted: everything is checked on the way.

use std::borrow::Cow;

use crate::compression::{Codec, decompress};
use crate::error::BatchError;
use crate::fields::{self, KafkaRecord};
use crate::header::{HEADER, Header};

/// A batch with its records uncompressed.
#[derive(Clone, Debug)]
pub struct Opened<'a> {
    header: Header,
    records: Cow<'a, [u8]>,
}

/// Opens the batch at the start of `bytes`. What is compressed may become `budget` bytes at most.
pub fn open(bytes: &[u8], budget: usize) -> Result<Opened<'_>, BatchError> {
    let header = Header::read(bytes)?;
    let batch = bytes.get(..header.size).ok_or(BatchError::Corrupt("the bytes end within a batch"))?;
    let records = match Codec::of(&header)? {
        Codec::None => Cow::Borrowed(&batch[HEADER..]),
        codec => Cow::Owned(decompress(codec, &batch[HEADER..], budget)?),
    };
    Ok(Opened { header, records })
}

impl Opened<'_> {
    /// What the header says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The records, with absolute timestamps.
    pub fn records(&self) -> Records<'_> {
        Records { header: &self.header, records: &self.records, at: 0, seen: 0, last: -1 }
    }

    /// The first record from an offset delta on with this timestamp or a later one: its offset delta and timestamp.
    /// `None` where there is none, or before it the records are broken.
    pub fn first_since(&self, from: i32, timestamp: i64) -> Option<(i32, i64)> {
        let sound = self.records().map_while(Result::ok).filter(|record| record.offset_delta >= from);
        let mut found = sound.filter(|record| record.timestamp >= timestamp);
        found.next().map(|record| (record.offset_delta, record.timestamp))
    }

    /// Of the records from an offset delta on the first with the highest timestamp: its offset delta and timestamp.
    pub fn latest(&self, from: i32) -> Option<(i32, i64)> {
        let sound = self.records().map_while(Result::ok).filter(|record| record.offset_delta >= from);
        let times = sound.map(|record| (record.offset_delta, record.timestamp));
        times.reduce(|best, other| if other.1 > best.1 { other } else { best })
    }
}

/// Iterates over the records of an opened batch; ends with the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: &'a Header,
    records: &'a [u8],
    at: usize,
    seen: i32,
    last: i32,
}

impl<'a> Records<'a> {
    /// The bytes of the record that comes next, with its length, once it was read.
    pub(crate) fn next_with_bytes(&mut self) -> Option<Result<(KafkaRecord<'a>, &'a [u8]), BatchError>> {
        let start = self.at;
        let records = self.records;
        let record = self.next()?;
        Some(record.map(|record| (record, &records[start..self.at])))
    }

    fn read(&mut self) -> Result<KafkaRecord<'a>, BatchError> {
        let mut record = fields::record(self.records, &mut self.at)?;
        if record.offset_delta <= self.last || record.offset_delta > self.header.last_offset_delta {
            return Err(BatchError::InvalidRecord("the offsets of a batch are not in order"));
        }
        self.last = record.offset_delta;
        self.seen += 1;
        record.timestamp = match self.header.is_log_time() {
            true => self.header.max_timestamp,
            false => self.header.base_timestamp.wrapping_add(record.timestamp),
        };
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<KafkaRecord<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_full = self.seen == self.header.count;
        let read = match (is_full, self.at == self.records.len()) {
            (true, true) => return None,
            (false, false) => self.read(),
            _ => Err(BatchError::InvalidRecord("the records of a batch do not match its count")),
        };
        if read.is_err() {
            // Nothing can be read behind what is broken.
            (self.at, self.seen) = (self.records.len(), self.header.count);
        }
        Some(read)
    }
}
