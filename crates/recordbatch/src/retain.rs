//! Compaction of one batch: some records go, everything else stays as it was.
//!
//! Offsets, producer and codec stay, and the last offset delta too, so that readers and the producer's sequence see
//! the same batch with gaps. Kept records are copied as they lie.
//!
//! In: a stored batch and a choice. Out: the batch without the others. Never: changes a record.

use crate::compression::Codec;
use crate::error::BatchError;
use crate::fields::KafkaRecord;
use crate::header::Header;
use crate::opened::open;
use crate::writer::sealed;

/// The batch without the records that `keep` does not want; `None` when it wants none. What is compressed is opened
/// to `budget` bytes at most and compressed again the same way.
pub fn retain(
    batch: &[u8],
    budget: usize,
    mut keep: impl FnMut(&KafkaRecord<'_>) -> bool,
) -> Result<Option<Vec<u8>>, BatchError> {
    let opened = open(batch, budget)?;
    let mut kept = Header { count: 0, max_timestamp: i64::MIN, ..*opened.header() };
    let mut bytes = Vec::new();
    let mut records = opened.records();
    while let Some(record) = records.next_with_bytes() {
        let (record, encoded) = record?;
        if keep(&record) {
            bytes.extend_from_slice(encoded);
            kept.count += 1;
            kept.max_timestamp = kept.max_timestamp.max(record.timestamp);
        }
    }
    let codec = Codec::of(&kept)?;
    Ok((kept.count > 0).then(|| sealed(&kept, codec, &bytes)))
}
