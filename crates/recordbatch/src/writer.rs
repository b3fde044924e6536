//! Builds a batch from records: of another protocol's rows for Kafka's readers, or of tests.
//!
//! In: records in the order of their offsets. Out: one sealed batch. Never: bounds it; the caller does.

use crate::compression::{Codec, compress};
use crate::fields::{KafkaRecord, put_record};
use crate::header::{COUNT, HEADER, Header, put_header, seal};

/// A batch being built.
#[derive(Clone, Debug)]
pub struct BatchWriter {
    header: Header,
    records: Vec<u8>,
}

impl BatchWriter {
    /// An empty batch that begins at `base_offset` and has no producer.
    pub fn new(base_offset: u64) -> BatchWriter {
        let header = Header {
            base_offset: base_offset as i64,
            size: 0,
            leader_epoch: 0,
            checksum: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: -1,
            max_timestamp: i64::MIN,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: 0,
        };
        BatchWriter { header, records: Vec::new() }
    }

    /// Makes it the batch of an idempotent producer.
    pub fn by_producer(mut self, id: u64, epoch: i16, base_sequence: i32) -> BatchWriter {
        (self.header.producer_id, self.header.producer_epoch) = (id as i64, epoch);
        self.header.base_sequence = base_sequence;
        self
    }

    /// Appends a record. Its offset delta must be above the last one's.
    pub fn push(&mut self, record: &KafkaRecord<'_>) {
        let header = &mut self.header;
        assert!(
            record.offset_delta > header.last_offset_delta,
            "records are written in the order of offsets"
        );
        if header.count == 0 {
            header.base_timestamp = record.timestamp;
        }
        header.count += 1;
        header.last_offset_delta = record.offset_delta;
        header.max_timestamp = header.max_timestamp.max(record.timestamp);
        let timestamp = record.timestamp.wrapping_sub(header.base_timestamp);
        put_record(&mut self.records, &KafkaRecord { timestamp, ..*record });
    }

    /// Bytes of the batch as it is now, before compression.
    pub fn len(&self) -> usize {
        HEADER + self.records.len()
    }

    /// Whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.header.count == 0
    }

    /// Says that the batch takes the offsets up to this one, though its last record may lie below.
    pub fn end_at(&mut self, last_offset_delta: i32) {
        self.header.last_offset_delta = self.header.last_offset_delta.max(last_offset_delta);
    }

    /// The batch, sealed.
    pub fn finish(self, codec: Codec) -> Vec<u8> {
        assert!(self.header.count > 0, "a batch has records");
        sealed(&self.header, codec, &self.records)
    }
}

/// A batch with this header, codec and records.
pub(crate) fn sealed(header: &Header, codec: Codec, records: &[u8]) -> Vec<u8> {
    let mut batch = Vec::with_capacity(HEADER + records.len());
    let attributes = header.attributes & !7 | codec as u16;
    put_header(&mut batch, &Header { attributes, ..*header });
    debug_assert_eq!(batch.len(), COUNT + 4);
    match codec {
        Codec::None => batch.extend_from_slice(records),
        _ => batch.extend_from_slice(&compress(codec, records)),
    }
    seal(&mut batch);
    batch
}
