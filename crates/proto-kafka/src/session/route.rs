//! Which function answers which request.
//!
//! In: a request's number. Out: its reply. Never: requests with records and logins, which have ways of their own.

use super::reply::{Asked, Reply};
use super::{commits, configs, group_admin, groups, metadata, offsets, producers, topics, versions};
use crate::wire::{Malformed, api};

pub(super) fn reply_to(key: i16, asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    match key {
        api::API_VERSIONS => versions::api_versions(asked),
        api::METADATA => metadata::metadata(asked),
        api::DESCRIBE_CLUSTER => metadata::describe_cluster(asked),
        api::LIST_OFFSETS => offsets::list_offsets(asked),
        api::OFFSET_FOR_LEADER_EPOCH => offsets::epoch_ends(asked),
        api::FIND_COORDINATOR => groups::find_coordinator(asked),
        api::JOIN_GROUP => groups::join(asked),
        api::SYNC_GROUP => groups::sync(asked),
        api::HEARTBEAT => groups::heartbeat(asked),
        api::LEAVE_GROUP => groups::leave(asked),
        api::OFFSET_COMMIT => commits::commit(asked),
        api::OFFSET_FETCH => commits::committed_offsets(asked),
        api::OFFSET_DELETE => commits::delete_offsets(asked),
        api::DESCRIBE_GROUPS => group_admin::describe(asked),
        api::LIST_GROUPS => group_admin::list(asked),
        api::DELETE_GROUPS => group_admin::delete(asked),
        api::CREATE_TOPICS => topics::create(asked),
        api::DELETE_TOPICS => topics::delete(asked),
        api::DELETE_RECORDS => topics::delete_records(asked),
        api::CREATE_PARTITIONS => topics::enlarge(asked),
        api::DESCRIBE_CONFIGS => configs::describe(asked),
        api::ALTER_CONFIGS => configs::replace(asked),
        api::INCREMENTAL_ALTER_CONFIGS => configs::change(asked),
        api::INIT_PRODUCER_ID => producers::init_producer(asked),
        api::DESCRIBE_PRODUCERS => producers::describe_producers(asked),
        api::DESCRIBE_LOG_DIRS => producers::log_dirs(asked),
        _ => unreachable!("every kind of request in the table has its function"),
    }
}
