//! Members of consumer groups: finding the coordinator, joining, sharing, staying and leaving.
//!
//! In: a member's requests. Out: one question to the coordinator each, then the response. Never: what a group decides.

use std::sync::Arc;

use model::LogRefusal;
use model::membership::{GroupAnswer, GroupRequest, Join, Joined, Membership, Sync, Synced};

use super::reply::{Asked, Node, Reply, mismatch};
use crate::map::{self, About};
use crate::wire::{Decoder, Encoder, Malformed};

/// The only kind of coordinator there is.
const GROUP: i8 = 0;

pub(super) fn find_coordinator(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let (kind, keys) = match version {
        ..4 => {
            let key = fields.string()?.to_owned();
            (if version >= 1 { fields.i8()? } else { GROUP }, vec![key])
        }
        _ => (fields.i8()?, fields.list(|fields| Ok(fields.string()?.to_owned()))?),
    };
    fields.tags()?;
    let node = Arc::clone(asked.node);
    // For a transaction any code but this one makes some clients ask for ever.
    let refusal = match kind {
        GROUP => None,
        1 => Some((map::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "there are no transactions here")),
        _ => Some((map::INVALID_REQUEST, "there is no such kind of coordinator")),
    };
    Ok(Reply::now(move |fields| {
        if version >= 1 {
            fields.i32(0);
        }
        match version {
            ..4 => put_coordinator_of_one(version, refusal, &node, fields),
            _ => fields.structs(&keys, |fields, key| put_coordinator(key, refusal, &node, fields)),
        }
        fields.tags();
    }))
}

/// A code and what it says.
type Refused = Option<(map::Code, &'static str)>;

fn put_coordinator_of_one(version: i16, refusal: Refused, node: &Node, fields: &mut Encoder<'_>) {
    fields.i16(refusal.map_or(map::NONE, |(code, _)| code));
    if version >= 1 {
        fields.nullable_string(refusal.map(|(_, text)| text));
    }
    put_place(refusal, node, fields);
}

fn put_coordinator(key: &str, refusal: Refused, node: &Node, fields: &mut Encoder<'_>) {
    fields.string(key);
    put_place(refusal, node, fields);
    fields.i16(refusal.map_or(map::NONE, |(code, _)| code));
    fields.nullable_string(refusal.map(|(_, text)| text));
}

fn put_place(refusal: Refused, node: &Node, fields: &mut Encoder<'_>) {
    let (id, host, port) = match refusal {
        None => (node.id, node.host.as_str(), i32::from(node.port)),
        Some(_) => (-1, "", -1),
    };
    fields.i32(id);
    fields.string(host);
    fields.i32(port);
}

pub(super) fn join(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, client_id) = (asked.version, asked.client.to_owned());
    let client_host = asked.peer.to_owned();
    let fields = &mut asked.fields;
    let group = fields.string()?.to_owned();
    let session_timeout = fields.i32()?;
    let rebalance_timeout = if version >= 1 { fields.i32()? } else { session_timeout };
    let join = Join {
        group,
        member: fields.string()?.to_owned(),
        instance: instance(version >= 5, fields)?,
        client_id,
        client_host,
        session_timeout_ms: u32::try_from(session_timeout).unwrap_or(0),
        rebalance_timeout_ms: u32::try_from(rebalance_timeout).unwrap_or(0),
        protocol_type: fields.string()?.to_owned(),
        protocols: fields.structs(|fields| Ok((fields.string()?.to_owned(), fields.bytes()?.to_owned())))?,
        id_required: version >= 4,
        can_skip_assignment: version >= 9,
    };
    let member = join.member.clone();
    Ok(Reply::group(GroupRequest::Join(join), move |fields, answer| {
        let GroupAnswer::Joined(joined) = answer else { mismatch() };
        put_joined(version, joined, member, fields);
    }))
}

/// The name of a static member, in versions that have one.
fn instance(is_there: bool, fields: &mut Decoder<'_>) -> Result<Option<String>, Malformed> {
    match is_there {
        true => Ok(fields.nullable_string()?.map(str::to_owned)),
        false => Ok(None),
    }
}

fn put_joined(version: i16, joined: Result<Joined, LogRefusal>, member: String, fields: &mut Encoder<'_>) {
    let code = map::code(&joined, About::Group);
    let is_joined = joined.is_ok();
    let joined = joined.unwrap_or_else(|refusal| {
        // Who must come again is told its id where it would have been told that of its place.
        let member = match refusal {
            LogRefusal::MemberIdRequired(id) => id,
            _ => member,
        };
        Joined { generation: -1, member, ..Joined::default() }
    });
    if version >= 2 {
        fields.i32(0);
    }
    fields.i16(code);
    fields.i32(joined.generation);
    if version >= 7 {
        fields.nullable_string(is_joined.then_some(&joined.protocol_type));
        fields.nullable_string(is_joined.then_some(&joined.protocol));
    } else {
        fields.string(&joined.protocol);
    }
    fields.string(&joined.leader);
    if version >= 9 {
        fields.bool(joined.skip_assignment);
    }
    fields.string(&joined.member);
    fields.structs(&joined.members, |fields, member| {
        fields.string(&member.member);
        if version >= 5 {
            fields.nullable_string(member.instance.as_deref());
        }
        fields.bytes(&member.metadata);
    });
    fields.tags();
}

/// Group, generation, member and instance as three requests have them in front.
fn membership(version: i16, fields: &mut Decoder<'_>) -> Result<Membership, Malformed> {
    Ok(Membership {
        group: fields.string()?.to_owned(),
        generation: fields.i32()?,
        member: fields.string()?.to_owned(),
        instance: instance(version >= 3, fields)?,
    })
}

pub(super) fn sync(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let who = membership(version, fields)?;
    let protocol_type = instance(version >= 5, fields)?;
    let protocol = instance(version >= 5, fields)?;
    let assignments =
        fields.structs(|fields| Ok((fields.string()?.to_owned(), fields.bytes()?.to_owned())))?;
    let sync = Sync { who, protocol_type, protocol, assignments };
    Ok(Reply::group(GroupRequest::Sync(sync), move |fields, answer| {
        let GroupAnswer::Synced(synced) = answer else { mismatch() };
        put_synced(version, &synced, fields);
    }))
}

fn put_synced(version: i16, synced: &Result<Synced, LogRefusal>, fields: &mut Encoder<'_>) {
    if version >= 1 {
        fields.i32(0);
    }
    fields.i16(map::code(synced, About::Group));
    let synced = synced.as_ref().ok();
    if version >= 5 {
        fields.nullable_string(synced.map(|synced| synced.protocol_type.as_str()));
        fields.nullable_string(synced.map(|synced| synced.protocol.as_str()));
    }
    fields.bytes(synced.map_or(&[], |synced| &synced.assignment));
    fields.tags();
}

pub(super) fn heartbeat(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let version = asked.version;
    let who = membership(version, &mut asked.fields)?;
    Ok(Reply::group(GroupRequest::Heartbeat(who), move |fields, answer| {
        let GroupAnswer::Done(done) = answer else { mismatch() };
        if version >= 1 {
            fields.i32(0);
        }
        fields.i16(map::code(&done, About::Group));
        fields.tags();
    }))
}

pub(super) fn leave(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let group = fields.string()?.to_owned();
    let members: Vec<(String, Option<String>)> = match version {
        ..3 => vec![(fields.string()?.to_owned(), None)],
        _ => fields.structs(|fields| {
            let member = (fields.string()?.to_owned(), instance(true, fields)?);
            if version >= 5 {
                fields.nullable_string()?;
            }
            Ok(member)
        })?,
    };
    let ask = GroupRequest::Leave { group, members: members.clone() };
    Ok(Reply::group(ask, move |fields, answer| {
        let GroupAnswer::Left(left) = answer else { mismatch() };
        put_left(version, &members, left, fields);
    }))
}

/// What became of those who leave.
type Left = Result<Vec<Result<(), LogRefusal>>, LogRefusal>;

fn put_left(version: i16, members: &[(String, Option<String>)], left: Left, fields: &mut Encoder<'_>) {
    let mut code = map::code(&left, About::Group);
    let left = left.unwrap_or_default();
    if let (..3, Some(only)) = (version, left.first()) {
        code = map::code(only, About::Group);
    }
    if version >= 1 {
        fields.i32(0);
    }
    fields.i16(code);
    if version >= 3 {
        fields.structs(members.iter().zip(&left), |fields, ((member, instance), left)| {
            fields.string(member);
            fields.nullable_string(instance.as_deref());
            fields.i16(map::code(left, About::Group));
        });
    }
    fields.tags();
}
