//! Offsets that groups remember: committed, asked for, deleted.
//!
//! In: offsets by topic and partition. Out: questions to the coordinator, then the response.

use model::LogRequest;
use model::membership::{Commit, CommittedOffset, GroupAnswer, GroupRequest, Membership};
use model::topic::{LogRefusal, PartitionRef, TopicRef};

use super::reply::{Asked, ByTopic, Reply, by_topic, distinct, each, mismatch, partition_of};
use crate::map::{self, About, Code};
use crate::wire::{Decoder, Encoder, Malformed};

/// One partition of a commit: its number and its offset.
type Committing = (i32, CommittedOffset);

pub(super) fn commit(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let who = Membership {
        group: fields.string()?.to_owned(),
        generation: fields.i32()?,
        member: fields.string()?.to_owned(),
        instance: if version >= 7 { fields.nullable_string()?.map(str::to_owned) } else { None },
    };
    if version <= 4 {
        // How long the offsets are to be kept, which is the broker's affair.
        fields.i64()?;
    }
    let topics: ByTopic<Committing> = by_topic(fields, |fields| committing(version, fields))?;
    let offsets =
        each(&topics, |topic, (partition, offset)| (partition_of(topic, *partition), offset.clone()));
    let mut ask = Vec::new();
    if !offsets.is_empty() {
        ask.push(LogRequest::Group(GroupRequest::Commit(Commit { who, offsets })));
    }
    let is_asked = !ask.is_empty();
    Ok(Reply::after(ask, move |fields, mut answers| {
        let done = if is_asked { committed(answers.group()) } else { Vec::new() };
        put_committed(version, &topics, done, fields);
    }))
}

fn committing(version: i16, fields: &mut Decoder<'_>) -> Result<Committing, Malformed> {
    let (partition, offset) = (fields.i32()?, fields.i64()?);
    let epoch = if version >= 6 { fields.i32()? } else { -1 };
    let metadata = fields.nullable_string()?.unwrap_or_default().to_owned();
    let epoch = u32::try_from(epoch).ok();
    // Some clients commit -2 for the beginning and -1 for the end, and understand it when they are told.
    Ok((partition, CommittedOffset { offset: offset.cast_unsigned(), epoch, metadata }))
}

fn committed(answer: GroupAnswer) -> Vec<Result<(), LogRefusal>> {
    match answer {
        GroupAnswer::Committed(done) => done,
        _ => mismatch(),
    }
}

fn put_committed(
    version: i16,
    topics: &ByTopic<Committing>,
    done: Vec<Result<(), LogRefusal>>,
    fields: &mut Encoder<'_>,
) {
    let mut done = done.into_iter();
    if version >= 3 {
        fields.i32(0);
    }
    fields.structs(topics, |fields, (topic, partitions)| {
        fields.string(topic);
        fields.structs(partitions, |fields, (partition, _)| {
            fields.i32(*partition);
            fields.i16(next_code(&mut done));
        });
    });
    fields.tags();
}

/// The code of the next result. Where there is none nothing is known of what happened.
fn next_code(done: &mut impl Iterator<Item = Result<(), LogRefusal>>) -> Code {
    done.next().map_or(map::UNKNOWN_SERVER_ERROR, |done| match &done {
        // A topic that may not be read is one's own affair, everything else is the group's.
        Err(LogRefusal::Denied(_)) => map::TOPIC_AUTHORIZATION_FAILED,
        done => map::code(done, About::Group),
    })
}

/// A group whose offsets are asked for; no partitions: all there are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    name: String,
    partitions: Option<ByTopic<i32>>,
}

pub(super) fn committed_offsets(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let mut groups = match version {
        ..8 => vec![Group { name: fields.string()?.to_owned(), partitions: partitions(version, fields)? }],
        _ => fields.structs(|fields| {
            let name = fields.string()?.to_owned();
            if version >= 9 {
                fields.nullable_string()?;
                fields.i32()?;
            }
            Ok(Group { name, partitions: partitions(version, fields)? })
        })?,
    };
    distinct(&mut groups);
    let ask = groups.iter().map(|group| {
        let partitions = group.partitions.as_ref();
        let partitions =
            partitions.map(|topics| each(topics, |topic, partition| partition_of(topic, *partition)));
        LogRequest::Group(GroupRequest::Offsets { group: group.name.clone(), partitions })
    });
    Ok(Reply::after(ask.collect(), move |fields, mut answers| {
        if version >= 3 {
            fields.i32(0);
        }
        match version {
            ..8 => put_group(version, &groups[0], &offsets(answers.group()), fields),
            _ => fields.structs(&groups, |fields, group| {
                fields.string(&group.name);
                put_group(version, group, &offsets(answers.group()), fields);
            }),
        }
        fields.tags();
    }))
}

fn partitions(version: i16, fields: &mut Decoder<'_>) -> Result<Option<ByTopic<i32>>, Malformed> {
    let topics =
        fields.nullable_structs(|fields| Ok((fields.string()?.to_owned(), fields.list(Decoder::i32)?)))?;
    // The oldest version knows no null.
    Ok(if version >= 2 { topics } else { Some(topics.unwrap_or_default()) })
}

/// What a coordinator says of committed offsets.
type Offsets = Result<Vec<(PartitionRef, Option<CommittedOffset>)>, LogRefusal>;

fn offsets(answer: GroupAnswer) -> Offsets {
    match answer {
        GroupAnswer::Offsets(offsets) => offsets,
        _ => mismatch(),
    }
}

/// The topics of one group, and the error of all of it.
fn put_group(version: i16, group: &Group, offsets: &Offsets, fields: &mut Encoder<'_>) {
    let code = map::code(offsets, About::Group);
    match (offsets, &group.partitions) {
        (Ok(offsets), _) => put_offsets(version, offsets, fields),
        // The oldest version has its errors at the partitions only.
        (Err(_), Some(topics)) if version < 2 => fields.structs(topics, |fields, (topic, partitions)| {
            fields.string(topic);
            fields.structs(partitions, |fields, partition| {
                put_offset(version, partition.cast_unsigned(), None, code, fields);
            });
        }),
        (Err(_), _) => fields.length(0),
    }
    if version >= 2 {
        fields.i16(code);
    }
}

fn put_offsets(version: i16, offsets: &[(PartitionRef, Option<CommittedOffset>)], fields: &mut Encoder<'_>) {
    let topics: Vec<_> = offsets.chunk_by(|a, b| a.0.topic == b.0.topic).collect();
    fields.structs(topics, |fields, offsets| {
        match &offsets[0].0.topic {
            TopicRef::Name(name) => fields.string(name),
            TopicRef::Id(_) => fields.string(""),
        }
        fields.structs(offsets, |fields, (at, offset)| {
            put_offset(version, at.partition, offset.as_ref(), map::NONE, fields);
        });
    });
}

fn put_offset(
    version: i16,
    partition: u32,
    offset: Option<&CommittedOffset>,
    code: Code,
    fields: &mut Encoder<'_>,
) {
    fields.i32(partition.cast_signed());
    fields.i64(offset.map_or(-1, |offset| offset.offset.cast_signed()));
    if version >= 5 {
        fields.i32(offset.and_then(|offset| offset.epoch).map_or(-1, u32::cast_signed));
    }
    fields.string(offset.map_or("", |offset| &offset.metadata));
    fields.i16(code);
}

pub(super) fn delete_offsets(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let fields = &mut asked.fields;
    let group = fields.string()?.to_owned();
    let topics: ByTopic<i32> = by_topic(fields, |fields| fields.i32())?;
    let partitions = each(&topics, |topic, partition| partition_of(topic, *partition));
    Ok(Reply::group(GroupRequest::DeleteOffsets { group, partitions }, move |fields, answer| {
        let done = committed(answer);
        let of_group = done.iter().find(|done| is_of_group(done));
        fields.i16(of_group.map_or(map::NONE, |done| map::code(done, About::Group)));
        fields.i32(0);
        let mut done = done.iter().cloned();
        let topics = if of_group.is_some() { &[][..] } else { &topics[..] };
        fields.structs(topics, |fields, (topic, partitions)| {
            fields.string(topic);
            fields.structs(partitions, |fields, partition| {
                fields.i32(*partition);
                fields.i16(next_code(&mut done));
            });
        });
    }))
}

/// Whether the refusal concerns the group as a whole.
fn is_of_group(done: &Result<(), LogRefusal>) -> bool {
    use LogRefusal as R;
    matches!(
        done,
        Err(R::UnknownGroup
            | R::InvalidGroup
            | R::GroupNotEmpty
            | R::CoordinatorLoading
            | R::Unavailable(..))
    )
}
