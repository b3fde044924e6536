//! Record batches of version 2, written and read by hand: every record carries its number in a header.
//!
//! ```text
//! batch    i64 base offset  i32 length  i32 leader epoch  i8 2  u32 crc  i16 attributes  i32 last delta
//!          i64 base time  i64 highest time  i64 producer  i16 epoch  i32 base sequence  i32 count  records
//! record   varint length  i8 0  varint time delta  varint offset delta  bytes key  bytes value  headers
//! ```
//! The crc covers what stands behind it. Records may be packed.

use base::crc32c;

use super::snappy;
use super::wire::{Fields, PutFields};
use crate::client::Fault;

/// Bytes in front of the records.
const HEADER: usize = 61;
const COVERED: usize = 21;
/// The name of the header with a record's number.
const NUMBER: &[u8] = b"n";

/// A record as it is written.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    pub number: usize,
    pub time_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// A record as it was read.
#[derive(Clone, Debug)]
pub(super) struct GotRecord {
    pub offset: u64,
    pub number: usize,
    pub time_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// A batch as it was read.
#[derive(Clone, Debug)]
pub(super) struct GotBatch {
    pub base: u64,
    /// The offset behind its last.
    pub end: u64,
    pub crc: [u8; 4],
    pub records: Vec<GotRecord>,
}

/// Who writes, and the number of the first record; nobody in particular: all -1.
pub(super) type By = (i64, i16, i32);

/// The attribute of batches that belong to a transaction.
pub(super) const TRANSACTIONAL: i16 = 0x10;
/// The attribute of batches whose records are packed by Snappy.
pub(super) const SNAPPY: i16 = 2;
/// The attribute of batches whose time is the log's.
const LOG_TIME: i16 = 8;

/// A whole batch.
pub(super) fn write(records: &[NewRecord], attributes: i16, (producer, epoch, sequence): By) -> Vec<u8> {
    let first_ms = records.first().map_or(0, |record| record.time_ms);
    let last_ms = records.iter().map(|record| record.time_ms).max().unwrap_or(0);
    let mut covered = Vec::new();
    covered.i16(attributes);
    covered.i32(records.len() as i32 - 1);
    covered.i64(first_ms);
    covered.i64(last_ms);
    covered.i64(producer);
    covered.i16(epoch);
    covered.i32(sequence);
    covered.i32(records.len() as i32);
    let mut all = Vec::new();
    for (delta, record) in records.iter().enumerate() {
        let mut bytes = vec![0];
        bytes.varint(record.time_ms - first_ms);
        bytes.varint(delta as i64);
        put_var_bytes(&mut bytes, record.key.as_deref());
        put_var_bytes(&mut bytes, record.value.as_deref());
        bytes.varint(1);
        put_var_bytes(&mut bytes, Some(NUMBER));
        put_var_bytes(&mut bytes, Some(&(record.number as u64).to_be_bytes()));
        all.varint(bytes.len() as i64);
        all.extend_from_slice(&bytes);
    }
    covered.extend(if attributes & SNAPPY == 0 { all } else { snappy::pack(&all) });
    let mut batch = Vec::new();
    batch.i64(0);
    batch.i32((COVERED - 12 + covered.len()) as i32);
    batch.i32(-1);
    batch.i8(2);
    batch.extend_from_slice(&crc32c(&covered).to_be_bytes());
    batch.extend_from_slice(&covered);
    batch
}

fn put_var_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.varint(bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

/// All batches of an answer: it has whole ones only.
pub(super) fn read_all(mut bytes: &[u8]) -> Result<Vec<GotBatch>, Fault> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = Fields(bytes.get(8..).unwrap_or_default()).i32()?;
        let (batch, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| bytes.split_at_checked(12 + length))
            .filter(|(batch, _)| batch.len() >= HEADER)
            .ok_or_else(|| ("L11", "an answer ends within a batch".to_owned()))?;
        all.push(read(batch)?);
        bytes = rest;
    }
    Ok(all)
}

fn read(bytes: &[u8]) -> Result<GotBatch, Fault> {
    let crc = crc32c(&bytes[COVERED..]).to_be_bytes();
    if bytes[16] != 2 || bytes[COVERED - 4..COVERED] != crc {
        return Err(("L11", "a batch does not match its checksum".to_owned()));
    }
    let attributes = Fields(&bytes[COVERED..]).i16()?;
    if attributes & TRANSACTIONAL != 0 {
        return Err(("K5", "a batch of a transaction is read that never ended".to_owned()));
    }
    if attributes & !(SNAPPY | LOG_TIME) != 0 {
        return Err(("L11", format!("a batch has the attributes {attributes:#x}")));
    }
    let base = Fields(bytes).i64()?.cast_unsigned();
    let mut fields = Fields(&bytes[COVERED + 2..]);
    let (last, first_ms) = (fields.i32()?, fields.i64()?);
    let last_ms = fields.i64()?;
    fields.take(8 + 2 + 4)?;
    let count = fields.i32()?;
    let unpacked;
    if attributes & SNAPPY != 0 {
        unpacked = snappy::unpack(fields.0)?;
        fields = Fields(&unpacked);
    }
    let mut records = Vec::new();
    for _ in 0..count {
        let length = fields.varint()?;
        let mut record = Fields(fields.take(usize::try_from(length).unwrap_or(usize::MAX))?);
        record.take(1)?;
        let (time, delta) = (record.varint()?, record.varint()?);
        let (key, value) = (record.var_bytes()?, record.var_bytes()?);
        records.push(GotRecord {
            offset: base + delta.cast_unsigned(),
            number: number_of(record)?,
            time_ms: if attributes & LOG_TIME == 0 { first_ms + time } else { last_ms },
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
        });
    }
    if !fields.0.is_empty() || last < 0 {
        return Err(("L11", "a batch has more than its records".to_owned()));
    }
    Ok(GotBatch { base, end: base + u64::from(last.cast_unsigned()) + 1, crc, records })
}

fn number_of(mut headers: Fields<'_>) -> Result<usize, Fault> {
    let strange = || ("L11", "a record came without its number or with more".to_owned());
    let mut number = None;
    for _ in 0..headers.varint()? {
        let (name, value) = (headers.var_bytes()?, headers.var_bytes()?);
        match (name, number) {
            (Some(NUMBER), None) => number = value.and_then(|value| value.try_into().ok()),
            // What came by AMQP says so.
            (Some(name), _) if name.starts_with(b"amqp.") => {}
            _ => return Err(strange()),
        }
    }
    let number = number.filter(|_| headers.0.is_empty());
    number.map(|number| u64::from_be_bytes(number) as usize).ok_or_else(strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_every_changed_byte_is_noticed() {
        let record = |number: usize, key: Option<&[u8]>, value: Option<&[u8]>| NewRecord {
            number,
            time_ms: 1000 - number as i64,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
        };
        let records =
            [record(7, None, Some(b"v")), record(8, Some(b"k"), None), record(9, Some(b""), Some(b""))];
        let packed = read_all(&write(&records, SNAPPY, (5, 0, 3))).unwrap();
        assert_eq!(packed[0].records.len(), 3);
        let batch = write(&records, 0, (5, 0, 3));
        let read = read_all(&batch).unwrap();
        assert_eq!((read.len(), read[0].base, read[0].end), (1, 0, 3));
        for (at, (new, got)) in records.iter().zip(&read[0].records).enumerate() {
            assert_eq!((got.offset, got.number, got.time_ms), (at as u64, new.number, new.time_ms));
            assert_eq!((&got.key, &got.value), (&new.key, &new.value));
        }
        for at in COVERED..batch.len() {
            let mut changed = batch.clone();
            changed[at] ^= 1;
            assert!(read_all(&changed).is_err());
        }
        assert!(read_all(&batch[..batch.len() - 1]).is_err());
    }
}
