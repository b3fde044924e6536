//! What operators ask of groups: which there are, how they stand, and that they be deleted.
//!
//! In: names and filters. Out: one question to the coordinator, then the response.

use model::LogRefusal;
use model::membership::{GroupAnswer, GroupDescription, GroupPhase, GroupRequest};

use super::permitted;
use super::reply::{Asked, Reply, distinct, mismatch};
use crate::map::{self, About};
use crate::wire::{Decoder, Encoder, Malformed};

/// The only type of group there is.
const CLASSIC: &str = "classic";

fn phase_name(phase: GroupPhase) -> &'static str {
    match phase {
        GroupPhase::Dead => "Dead",
        GroupPhase::Empty => "Empty",
        GroupPhase::PreparingRebalance => "PreparingRebalance",
        GroupPhase::CompletingRebalance => "CompletingRebalance",
        GroupPhase::Stable => "Stable",
    }
}

fn names(fields: &mut Decoder<'_>) -> Result<Vec<String>, Malformed> {
    let mut names = fields.list(|fields| Ok(fields.string()?.to_owned()))?;
    distinct(&mut names);
    Ok(names)
}

fn groups(answer: GroupAnswer) -> Vec<GroupDescription> {
    match answer {
        GroupAnswer::Groups(groups) => groups,
        _ => mismatch(),
    }
}

pub(super) fn describe(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let version = asked.version;
    let names = names(&mut asked.fields)?;
    let operations = permitted::told(version >= 3 && asked.fields.bool()?, permitted::GROUP);
    Ok(Reply::group(GroupRequest::Describe(names), move |fields, answer| {
        if version >= 1 {
            fields.i32(0);
        }
        fields.structs(&groups(answer), |fields, group| put_group(version, group, operations, fields));
        fields.tags();
    }))
}

fn put_group(version: i16, group: &GroupDescription, operations: i32, fields: &mut Encoder<'_>) {
    let is_missing = version >= 6 && group.phase == GroupPhase::Dead;
    fields.i16(if is_missing { map::GROUP_ID_NOT_FOUND } else { map::NONE });
    if version >= 6 {
        fields.nullable_string(is_missing.then_some("there is no such group"));
    }
    fields.string(&group.group);
    fields.string(phase_name(group.phase));
    fields.string(&group.protocol_type);
    fields.string(&group.protocol);
    fields.structs(&group.members, |fields, member| {
        fields.string(&member.member);
        if version >= 4 {
            fields.nullable_string(member.instance.as_deref());
        }
        fields.string(&member.client_id);
        fields.string(&member.client_host);
        fields.bytes(&member.metadata);
        fields.bytes(&member.assignment);
    });
    if version >= 3 {
        fields.i32(operations);
    }
}

pub(super) fn list(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let states = if version >= 4 { names(fields)? } else { Vec::new() };
    let types = if version >= 5 { names(fields)? } else { Vec::new() };
    Ok(Reply::group(GroupRequest::List, move |fields, answer| {
        let is_listed = |list: &[String], name: &str| {
            list.is_empty() || list.iter().any(|listed| listed.eq_ignore_ascii_case(name))
        };
        let mut groups = groups(answer);
        groups.retain(|group| is_listed(&states, phase_name(group.phase)) && is_listed(&types, CLASSIC));
        if version >= 1 {
            fields.i32(0);
        }
        fields.i16(map::NONE);
        fields.structs(&groups, |fields, group| {
            fields.string(&group.group);
            fields.string(&group.protocol_type);
            if version >= 4 {
                fields.string(phase_name(group.phase));
            }
            if version >= 5 {
                fields.string(CLASSIC);
            }
        });
        fields.tags();
    }))
}

pub(super) fn delete(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let names = names(&mut asked.fields)?;
    Ok(Reply::group(GroupRequest::Delete(names.clone()), move |fields, answer| {
        let GroupAnswer::Deleted(done) = answer else { mismatch() };
        let done: Vec<(&String, &Result<(), LogRefusal>)> = names.iter().zip(&done).collect();
        fields.i32(0);
        fields.structs(done, |fields, (name, done)| {
            fields.string(name);
            fields.i16(map::code(done, About::Group));
        });
        fields.tags();
    }))
}
