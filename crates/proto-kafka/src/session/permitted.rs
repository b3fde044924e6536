//! Which operations a client may do, where it asks: whoever was let in may do whatever there is.
//!
//! In: whether it was asked. Out: a set of bits, one for each operation as the protocol numbers them. Never: refuses.
//!
//! ```text
//! operations   3 read  4 write  5 create  6 delete  7 alter  8 describe  10 describe configs  11 alter configs
//!              12 write idempotently
//! ```

/// It was not asked.
const UNTOLD: i32 = i32::MIN;

const fn bits(operations: &[i32]) -> i32 {
    let (mut bits, mut at) = (0, 0);
    while at < operations.len() {
        bits |= 1 << operations[at];
        at += 1;
    }
    bits
}

/// With a topic.
pub(super) const TOPIC: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// With a consumer group.
pub(super) const GROUP: i32 = bits(&[3, 6, 8]);
/// With the cluster, whose configuration is its file's.
pub(super) const CLUSTER: i32 = bits(&[5, 8, 10, 12]);

/// What the response says.
pub(super) fn told(is_asked: bool, operations: i32) -> i32 {
    if is_asked { operations } else { UNTOLD }
}
