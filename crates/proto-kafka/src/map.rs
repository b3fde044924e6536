//! Which error code and text a refusal becomes: the one table from the broker's refusals to the protocol's codes.
//!
//! In: [`LogRefusal`] and what was asked about. Out: a [`Code`]. Never: decides whether something is refused.

use model::LogRefusal;
use model::topic::BadRecord;

/// An error code of the protocol; 0 is success.
pub type Code = i16;

macro_rules! codes {
    ($($name:ident $code:literal;)*) => { $(#[allow(missing_docs)] pub const $name: Code = $code;)* };
}

codes! {
    UNKNOWN_SERVER_ERROR -1;
    NONE 0;
    OFFSET_OUT_OF_RANGE 1;
    CORRUPT_MESSAGE 2;
    UNKNOWN_TOPIC_OR_PARTITION 3;
    LEADER_NOT_AVAILABLE 5;
    REQUEST_TIMED_OUT 7;
    MESSAGE_TOO_LARGE 10;
    OFFSET_METADATA_TOO_LARGE 12;
    COORDINATOR_LOAD_IN_PROGRESS 14;
    COORDINATOR_NOT_AVAILABLE 15;
    INVALID_TOPIC_EXCEPTION 17;
    INVALID_REQUIRED_ACKS 21;
    ILLEGAL_GENERATION 22;
    INCONSISTENT_GROUP_PROTOCOL 23;
    INVALID_GROUP_ID 24;
    UNKNOWN_MEMBER_ID 25;
    INVALID_SESSION_TIMEOUT 26;
    REBALANCE_IN_PROGRESS 27;
    TOPIC_AUTHORIZATION_FAILED 29;
    GROUP_AUTHORIZATION_FAILED 30;
    CLUSTER_AUTHORIZATION_FAILED 31;
    INVALID_TIMESTAMP 32;
    UNSUPPORTED_SASL_MECHANISM 33;
    ILLEGAL_SASL_STATE 34;
    UNSUPPORTED_VERSION 35;
    TOPIC_ALREADY_EXISTS 36;
    INVALID_PARTITIONS 37;
    INVALID_REPLICATION_FACTOR 38;
    INVALID_REPLICA_ASSIGNMENT 39;
    INVALID_CONFIG 40;
    INVALID_REQUEST 42;
    POLICY_VIOLATION 44;
    OUT_OF_ORDER_SEQUENCE_NUMBER 45;
    INVALID_PRODUCER_EPOCH 47;
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED 53;
    KAFKA_STORAGE_ERROR 56;
    SASL_AUTHENTICATION_FAILED 58;
    NON_EMPTY_GROUP 68;
    GROUP_ID_NOT_FOUND 69;
    FETCH_SESSION_ID_NOT_FOUND 70;
    INVALID_FETCH_SESSION_EPOCH 71;
    FENCED_LEADER_EPOCH 74;
    UNKNOWN_LEADER_EPOCH 75;
    UNSUPPORTED_COMPRESSION_TYPE 76;
    MEMBER_ID_REQUIRED 79;
    GROUP_MAX_SIZE_REACHED 81;
    FENCED_INSTANCE_ID 82;
    GROUP_SUBSCRIBED_TO_TOPIC 86;
    INVALID_RECORD 87;
    UNKNOWN_TOPIC_ID 100;
    FETCH_SESSION_TOPIC_ID_ERROR 106;
    MISMATCHED_ENDPOINT_TYPE 114;
    UNSUPPORTED_ENDPOINT_TYPE 115;
}

/// What a request was about, where the same refusal has different codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// A topic or its records.
    Topic,
    /// A consumer group.
    Group,
    /// The cluster as a whole.
    Cluster,
}

/// The code of a refusal.
pub fn code_of(refusal: &LogRefusal, about: About) -> Code {
    use LogRefusal as R;
    match refusal {
        R::UnknownPartition => UNKNOWN_TOPIC_OR_PARTITION,
        R::UnknownTopicId => UNKNOWN_TOPIC_ID,
        R::NotYet => LEADER_NOT_AVAILABLE,
        R::BadName(_) => INVALID_TOPIC_EXCEPTION,
        R::Exists(_) => TOPIC_ALREADY_EXISTS,
        R::CorruptBatch(_) => CORRUPT_MESSAGE,
        R::OldFormat => INVALID_RECORD,
        R::UnknownCompression => UNSUPPORTED_COMPRESSION_TYPE,
        R::InvalidRecord(..) => INVALID_RECORD,
        R::InvalidTimestamp(_) => INVALID_TIMESTAMP,
        R::TooLarge(_) => MESSAGE_TOO_LARGE,
        R::OutOfRange(..) => OFFSET_OUT_OF_RANGE,
        R::FencedEpoch => FENCED_LEADER_EPOCH,
        R::UnknownEpoch => UNKNOWN_LEADER_EPOCH,
        R::OutOfSequence => OUT_OF_ORDER_SEQUENCE_NUMBER,
        R::StaleProducer => INVALID_PRODUCER_EPOCH,
        R::InvalidPartitions(_) => INVALID_PARTITIONS,
        R::InvalidReplicas(_) => INVALID_REPLICATION_FACTOR,
        R::InvalidAssignment(_) => INVALID_REPLICA_ASSIGNMENT,
        R::InvalidConfig(_) => INVALID_CONFIG,
        R::Invalid(_) => INVALID_REQUEST,
        R::Denied(_) => denied(about),
        R::Forbidden(_) => POLICY_VIOLATION,
        R::CoordinatorLoading => COORDINATOR_LOAD_IN_PROGRESS,
        R::StaleGeneration => ILLEGAL_GENERATION,
        R::UnknownMember => UNKNOWN_MEMBER_ID,
        R::MemberIdRequired(_) => MEMBER_ID_REQUIRED,
        R::FencedMember => FENCED_INSTANCE_ID,
        R::Rebalancing => REBALANCE_IN_PROGRESS,
        R::InconsistentProtocol => INCONSISTENT_GROUP_PROTOCOL,
        R::InvalidSessionTimeout => INVALID_SESSION_TIMEOUT,
        R::InvalidGroup => INVALID_GROUP_ID,
        R::UnknownGroup => GROUP_ID_NOT_FOUND,
        R::GroupNotEmpty => NON_EMPTY_GROUP,
        R::GroupFull(_) => GROUP_MAX_SIZE_REACHED,
        R::GroupSubscribed => GROUP_SUBSCRIBED_TO_TOPIC,
        R::MetadataTooLarge => OFFSET_METADATA_TOO_LARGE,
        R::Unavailable(_, may_happen) => unavailable(*may_happen, about),
    }
}

fn denied(about: About) -> Code {
    match about {
        About::Topic => TOPIC_AUTHORIZATION_FAILED,
        About::Group => GROUP_AUTHORIZATION_FAILED,
        About::Cluster => CLUSTER_AUTHORIZATION_FAILED,
    }
}

/// Every code here is retried by all clients. What may still happen is a time-out, after which a producer without
/// numbers knows that it may write twice; what did not happen (a full disk) is a storage error, after which clients
/// ask for metadata and come again until their own delivery time-out, instead of taking it for fatal.
fn unavailable(may_happen: bool, about: About) -> Code {
    match (about, may_happen) {
        (About::Group, _) => COORDINATOR_NOT_AVAILABLE,
        (_, true) => REQUEST_TIMED_OUT,
        (_, false) => KAFKA_STORAGE_ERROR,
    }
}

/// The code of a result.
pub fn code<T>(result: &Result<T, LogRefusal>, about: About) -> Code {
    result.as_ref().err().map_or(NONE, |refusal| code_of(refusal, about))
}

/// What a person may want to know beyond the code.
pub fn text_of(refusal: &LogRefusal) -> Option<&str> {
    use LogRefusal as R;
    match refusal {
        R::BadName(text)
        | R::Exists(text)
        | R::CorruptBatch(text)
        | R::InvalidRecord(text, _)
        | R::TooLarge(text)
        | R::InvalidPartitions(text)
        | R::InvalidReplicas(text)
        | R::InvalidAssignment(text)
        | R::InvalidConfig(text)
        | R::Invalid(text)
        | R::Denied(text)
        | R::Forbidden(text)
        | R::GroupFull(text)
        | R::Unavailable(text, _) => Some(text),
        R::InvalidTimestamp(_) => Some("a record has a timestamp that this topic does not take"),
        R::OldFormat => Some("record batches of version 2 are needed"),
        _ => None,
    }
}

/// The records for which a batch is refused, where they are known.
pub fn bad_records(refusal: &LogRefusal) -> &[BadRecord] {
    match refusal {
        LogRefusal::InvalidRecord(_, records) | LogRefusal::InvalidTimestamp(records) => records,
        _ => &[],
    }
}

/// The text of a result.
pub fn text<T>(result: &Result<T, LogRefusal>) -> Option<&str> {
    result.as_ref().err().and_then(text_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_now_is_retried_and_says_whether_it_may_have_happened() {
        let full = LogRefusal::Unavailable("disk full".to_owned(), false);
        let slow = LogRefusal::Unavailable("no answer".to_owned(), true);
        assert_eq!(code_of(&full, About::Topic), KAFKA_STORAGE_ERROR);
        assert_eq!(code_of(&slow, About::Topic), REQUEST_TIMED_OUT);
        assert_eq!(code_of(&slow, About::Group), COORDINATOR_NOT_AVAILABLE);
        assert_eq!(text_of(&full), Some("disk full"));
    }

    #[test]
    fn who_may_not_is_told_what_it_was_about() {
        let denied = LogRefusal::Denied("no".to_owned());
        let codes = [About::Topic, About::Group, About::Cluster].map(|about| code_of(&denied, about));
        assert_eq!(codes, [29, 30, 31]);
        assert_eq!(code::<()>(&Ok(()), About::Topic), NONE);
    }

    #[test]
    fn a_full_group_is_said_to_be_full() {
        let full = LogRefusal::GroupFull("2000 members".to_owned());
        assert_eq!((code_of(&full, About::Group), text_of(&full)), (81, Some("2000 members")));
    }
}
