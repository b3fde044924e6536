//! ListOffsets and OffsetForLeaderEpoch: where offsets are, and where epochs end.
//!
//! In: partitions with what is wanted of each. Out: one question for all, then the response.

use model::topic::{FoundOffset, LogRefusal, OffsetAt};
use model::{LogAnswer, LogRequest};

use super::reply::{Asked, ByTopic, Reply, by_topic, each, mismatch, partition_of};
use crate::map::{self, About};
use crate::wire::{Encoder, Malformed};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The only leader epoch there is to know of.
const EPOCH: i32 = 0;

/// One partition of a request.
struct Wanted {
    partition: i32,
    epoch: i32,
    timestamp: i64,
}

/// What became of it.
type Found = Result<FoundOffset, LogRefusal>;

pub(super) fn list_offsets(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    fields.i32()?;
    if version >= 2 {
        fields.i8()?;
    }
    let topics = by_topic(fields, |fields| {
        let partition = fields.i32()?;
        let epoch = if version >= 4 { fields.i32()? } else { -1 };
        Ok(Wanted { partition, epoch, timestamp: fields.i64()? })
    })?;
    let questions: Vec<_> = each(&topics, |topic, wanted| {
        refusal_of(version, wanted)
            .is_none()
            .then(|| (partition_of(topic, wanted.partition), offset_at(wanted.timestamp)))
    })
    .into_iter()
    .flatten()
    .collect();
    let is_asked = !questions.is_empty();
    let ask = if is_asked { vec![LogRequest::Offsets(questions)] } else { Vec::new() };
    Ok(Reply::after(ask, move |fields, mut answers| {
        let found = match is_asked.then(|| answers.next()) {
            Some(LogAnswer::Offsets(found)) => found,
            Some(_) => mismatch(),
            None => Vec::new(),
        };
        put_offsets(version, &topics, found, fields);
    }))
}

/// What need not be asked of the broker.
fn refusal_of(version: i16, wanted: &Wanted) -> Option<Found> {
    match wanted {
        Wanted { epoch, .. } if *epoch > EPOCH => Some(Err(LogRefusal::UnknownEpoch)),
        Wanted { timestamp, .. } if !is_understood(version, *timestamp) => {
            Some(Err(LogRefusal::Invalid("no such kind of offset".to_owned())))
        }
        // Nothing is kept anywhere else.
        Wanted { timestamp: LATEST_TIERED, .. } => {
            Some(Ok(FoundOffset { offset: None, timestamp_ms: None, epoch: 0 }))
        }
        _ => None,
    }
}

/// Whether the version has a meaning for the timestamp.
fn is_understood(version: i16, timestamp: i64) -> bool {
    let newest = match version {
        ..7 => EARLIEST,
        7 => MAX_TIMESTAMP,
        8 => EARLIEST_LOCAL,
        _ => LATEST_TIERED,
    };
    timestamp >= newest
}

fn offset_at(timestamp: i64) -> OffsetAt {
    match timestamp {
        LATEST => OffsetAt::Latest,
        EARLIEST | EARLIEST_LOCAL => OffsetAt::Earliest,
        MAX_TIMESTAMP => OffsetAt::MaxTimestamp,
        timestamp => OffsetAt::Timestamp(timestamp),
    }
}

fn put_offsets(version: i16, topics: &ByTopic<Wanted>, found: Vec<Found>, fields: &mut Encoder<'_>) {
    let mut found = found.into_iter();
    if version >= 2 {
        fields.i32(0);
    }
    fields.structs(topics, |fields, (topic, partitions)| {
        fields.string(topic);
        fields.structs(partitions, |fields, wanted| {
            let found = refusal_of(version, wanted).or_else(|| found.next()).unwrap_or_else(|| mismatch());
            put_offset(version, wanted, &found, fields);
        });
    });
    fields.tags();
}

fn put_offset(version: i16, wanted: &Wanted, found: &Found, fields: &mut Encoder<'_>) {
    fields.i32(wanted.partition);
    fields.i16(match map::code(found, About::Topic) {
        map::INVALID_REQUEST if !is_understood(version, wanted.timestamp) => map::UNSUPPORTED_VERSION,
        code => code,
    });
    let place = found.as_ref().ok().and_then(|found| Some((found, found.offset?)));
    let (timestamp, offset, epoch) = match place {
        Some((found, offset)) => {
            (found.timestamp_ms.unwrap_or(-1), offset.cast_signed(), found.epoch.cast_signed())
        }
        None => (-1, -1, -1),
    };
    fields.i64(timestamp);
    fields.i64(offset);
    if version >= 4 {
        fields.i32(epoch);
    }
}

/// A partition, the epoch its leader is believed to have, and the epoch asked for.
type Epochs = (i32, i32, i32);

pub(super) fn epoch_ends(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    if version >= 3 {
        fields.i32()?;
    }
    let topics: ByTopic<Epochs> =
        by_topic(fields, |fields| Ok((fields.i32()?, fields.i32()?, fields.i32()?)))?;
    let questions = each(&topics, |topic, (partition, _, epoch)| {
        (partition_of(topic, *partition), u32::try_from(*epoch).unwrap_or(0))
    });
    Ok(Reply::after(vec![LogRequest::EpochEnds(questions)], move |fields, mut answers| {
        let LogAnswer::EpochEnds(ends) = answers.next() else { mismatch() };
        let mut ends = ends.into_iter();
        fields.i32(0);
        fields.structs(&topics, |fields, (topic, partitions)| {
            fields.string(topic);
            fields.structs(partitions, |fields, asked| {
                put_epoch_end(*asked, ends.next().unwrap_or_else(|| mismatch()), fields);
            });
        });
        fields.tags();
    }))
}

fn put_epoch_end(asked: Epochs, end: Result<(u32, u64), LogRefusal>, fields: &mut Encoder<'_>) {
    let (partition, believed, wanted) = asked;
    let end = if believed > EPOCH { Err(LogRefusal::UnknownEpoch) } else { end };
    fields.i16(map::code(&end, About::Topic));
    fields.i32(partition);
    let known = end.ok().map(|(epoch, offset)| (epoch.cast_signed(), offset.cast_signed()));
    // Where an epoch ends that has not begun nobody knows, which is no error.
    let (epoch, offset) = known.filter(|_| (0..=EPOCH).contains(&wanted)).unwrap_or((-1, -1));
    fields.i32(epoch);
    fields.i64(offset);
}
