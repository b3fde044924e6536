//! Why bytes are no batch that can be taken or read, and which refusal that is.
//!
//! In: nothing. Out: one closed list. Never: holds bytes of a client.

use model::LogRefusal;

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// A format older than version 2.
    OldFormat,
    /// The bytes are not what their header says: length, checksum, a newer format.
    Corrupt(&'static str),
    /// The codec of the attributes is not known.
    UnknownCompression,
    /// Sound in form, refused in content.
    InvalidRecord(&'static str),
    /// A timestamp that makes no sense.
    InvalidTimestamp,
    /// What is not served.
    Unsupported(&'static str),
    /// Opened, the batch is larger than the budget.
    OverBudget,
}

impl From<BatchError> for LogRefusal {
    fn from(error: BatchError) -> LogRefusal {
        match error {
            BatchError::OldFormat => LogRefusal::OldFormat,
            BatchError::Corrupt(why) => LogRefusal::CorruptBatch(why.into()),
            BatchError::UnknownCompression => LogRefusal::UnknownCompression,
            BatchError::InvalidRecord(why) => LogRefusal::InvalidRecord(why.into(), Vec::new()),
            BatchError::InvalidTimestamp => LogRefusal::InvalidTimestamp(Vec::new()),
            BatchError::Unsupported(why) => LogRefusal::Invalid(why.into()),
            BatchError::OverBudget => LogRefusal::TooLarge("the batch is too large when opened".into()),
        }
    }
}
