//! Which function answers which request.
//!
//! In: a request's number. Out: its reply. Never: requests with records and logins, which have ways of their own.

use super::reply::{Asked, Reply};
use super::{metadata, offsets, versions};
use crate::wire::{Malformed, api};

pub(super) fn reply_to(key: i16, asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    match key {
        api::API_VERSIONS => versions::api_versions(asked),
        api::METADATA => metadata::metadata(asked),
        api::DESCRIBE_CLUSTER => metadata::describe_cluster(asked),
        api::LIST_OFFSETS => offsets::list_offsets(asked),
        api::OFFSET_FOR_LEADER_EPOCH => offsets::epoch_ends(asked),
        _ => Err(Malformed),
    }
}
