//! A rewrite: a batch that from now on stands in place of one that a log has, without records that were removed.
//!
//! ```text
//!  0 first offset u64       of the batch in the log
//!  8 entry u64             16 place u32             where what it replaces is: anything else there, and it is void
//! 20 left out u32           how many removed offsets it has no record of
//! 24 batch                  as many offsets as the one before, the same producer and numbers
//! ```
//! Numbers are little endian.

use base::Reader;

use crate::record::Damaged;
use crate::{Batch, Index};

/// Bytes in front of the batch.
pub const REWRITE_HEADER: usize = 24;

/// What a rewrite replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The first offset of the batch.
    pub first: u64,
    /// The entry it is in.
    pub index: Index,
    /// Where its header begins in that entry.
    pub at: u32,
    /// How many removed offsets the new batch has no record of.
    pub left_out: u32,
}

impl Replaced {
    /// As it stands in front of the new batch.
    pub fn encode(&self) -> [u8; REWRITE_HEADER] {
        let mut bytes = [0; REWRITE_HEADER];
        bytes[..8].copy_from_slice(&self.first.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.index.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.at.to_le_bytes());
        bytes[20..].copy_from_slice(&self.left_out.to_le_bytes());
        bytes
    }

    /// Reads the body of a rewrite: what it replaces, and the new batch.
    pub fn decode(body: &[u8]) -> Result<(Replaced, Batch<'_>), Damaged> {
        let mut reader = Reader::new(body);
        let (first, index) = (reader.u64_le()?, Index(reader.u64_le()?));
        let (at, left_out) = (reader.u32_le()?, reader.u32_le()?);
        Ok((Replaced { first, index, at, left_out }, Batch::decode(reader.rest())?))
    }
}

#[cfg(test)]
mod tests {
    use base::Pool;

    use super::*;
    use crate::batch::{Encoding, HEADER, KAFKA_MIN, Summary};
    use crate::{Entry, EntryBuilder, OpSequence, OperationKind, Origin, Protocol, QueueId};

    #[test]
    fn the_drawing_holds() {
        let replaced = Replaced { first: 0x0102, index: Index(5), at: 64, left_out: 7 };
        let summary =
            Summary { encoding: Encoding::KafkaV2, count: 1, span: 8, ..Summary::new(Protocol::Kafka, 7) };
        let body = [3; KAFKA_MIN];
        let mut entry = EntryBuilder::new(&Pool::default(), 0, Origin(7), OpSequence(1));
        assert_eq!(entry.rewrite(QueueId(3), &replaced, &summary, &body), OpSequence(1));
        let block = entry.seal(0, 0);
        #[rustfmt::skip]
        let golden = [
            13, 0, 0, 0, 181, 0, 0, 0,  3, 0, 0, 0, 0, 0, 0, 0,  7, 0, 0, 0, 0, 0, 0, 0,  1, 0, 0, 0, 0, 0, 0, 0,
            2, 1, 0, 0, 0, 0, 0, 0,  5, 0, 0, 0, 0, 0, 0, 0,  64, 0, 0, 0,  7, 0, 0, 0,
            1, 1, 0, 0, 96, 0, 2, 0,  61, 0, 0, 0,
        ];
        assert_eq!(block.as_slice()[32..32 + golden.len()], golden);
        let operation = Entry::decode(block.as_slice()).unwrap().operations().next().unwrap().unwrap();
        assert_eq!((operation.kind, operation.is_native_append()), (OperationKind::Rewrite, false));
        let (found, batch) = Replaced::decode(operation.body).unwrap();
        assert_eq!((found, batch.summary, batch.body), (replaced, summary, &body[..]));
        let at = operation.at + REWRITE_HEADER;
        assert_eq!(Batch::decode(&block.as_slice()[at..at + HEADER + KAFKA_MIN]), Ok(batch));
        for cut in 0..operation.body.len() {
            assert!(Replaced::decode(&operation.body[..cut]).is_err());
        }
    }
}
