//! Producer ids given out, and figures of partitions: their sizes and the producers they remember.
//!
//! In: partitions, or nothing. Out: one question, then the response. Never: transactions, which do not exist here.

use base::{Bug, planted};
use model::topic::{LogRefusal, PartitionFigures, PartitionRef, ProducerFigures};
use model::{LogAnswer, LogRequest};

use super::reply::{Answers, Asked, ByTopic, Reply, distinct_partitions, each, mismatch, partition_of};
use crate::map::{self, About};
use crate::wire::{Decoder, Encoder, Malformed};

/// The place that sizes are told of. Where it is on the disk is not a client's affair.
const PLACE: &str = "/waystation";

pub(super) fn init_producer(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let fields = &mut asked.fields;
    let is_transaction = fields.nullable_string()?.is_some();
    fields.i32()?;
    // A producer that had an id and comes again gets a new one: its numbers begin anew.
    let ask = if is_transaction { Vec::new() } else { vec![LogRequest::Producer] };
    Ok(Reply::after(ask, move |fields, mut answers| {
        let given = match is_transaction.then_some(()) {
            // The planted bug lets transactions begin, which nothing ends.
            Some(()) if planted(Bug::BeginTransaction) => Ok(1 << 40),
            // Clients ask again for ever where a coordinator is said to be missing; this code is final in all.
            Some(()) => Err(map::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
            None => match answers.next() {
                LogAnswer::Producer(given) => given.map_err(|refusal| map::code_of(&refusal, About::Cluster)),
                _ => mismatch(),
            },
        };
        fields.i32(0);
        fields.i16(given.err().unwrap_or(map::NONE));
        fields.i64(given.map_or(-1, u64::cast_signed));
        fields.i16(if given.is_ok() { 0 } else { -1 });
        fields.tags();
    }))
}

/// What became of one partition.
type Found = Result<PartitionFigures, (PartitionRef, LogRefusal)>;

fn figures(answers: &mut Answers) -> Vec<Found> {
    match answers.next() {
        LogAnswer::Partitions(found) => found,
        _ => mismatch(),
    }
}

pub(super) fn describe_producers(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let fields = &mut asked.fields;
    let mut topics: ByTopic<i32> =
        fields.structs(|fields| Ok((fields.string()?.to_owned(), fields.list(Decoder::i32)?)))?;
    distinct_partitions(&mut topics);
    let partitions = each(&topics, |topic, partition| partition_of(topic, *partition));
    Ok(Reply::after(vec![LogRequest::Partitions(Some(partitions))], move |fields, mut answers| {
        let mut found = figures(&mut answers).into_iter();
        fields.i32(0);
        fields.structs(&topics, |fields, (topic, partitions)| {
            fields.string(topic);
            fields.structs(partitions, |fields, partition| {
                let found = found.next().unwrap_or_else(|| mismatch()).map_err(|(_, refusal)| refusal);
                fields.i32(*partition);
                fields.i16(map::code(&found, About::Topic));
                fields.nullable_string(map::text(&found));
                let producers = found.map(|found| found.producers).unwrap_or_default();
                fields.structs(&producers, |fields, producer| put_producer(producer, fields));
            });
        });
        fields.tags();
    }))
}

fn put_producer(producer: &ProducerFigures, fields: &mut Encoder<'_>) {
    fields.i64(producer.id.cast_signed());
    fields.i32(i32::from(producer.epoch));
    fields.i32(producer.last_sequence);
    fields.i64(producer.last_timestamp_ms);
    // No transaction's coordinator, and no transaction.
    fields.i32(-1);
    fields.i64(-1);
}

pub(super) fn log_dirs(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let (version, fields) = (asked.version, &mut asked.fields);
    let mut topics: Option<ByTopic<i32>> =
        fields.nullable_structs(|fields| Ok((fields.string()?.to_owned(), fields.list(Decoder::i32)?)))?;
    topics.iter_mut().for_each(distinct_partitions);
    let wanted = topics.map(|topics| each(&topics, |topic, partition| partition_of(topic, *partition)));
    Ok(Reply::after(vec![LogRequest::Partitions(wanted)], move |fields, mut answers| {
        // What is not there has no size, and is left out.
        let mut found: Vec<_> = figures(&mut answers).into_iter().flatten().collect();
        found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        fields.i32(0);
        if version >= 3 {
            fields.i16(map::NONE);
        }
        fields.structs([&found], |fields, found| {
            fields.i16(map::NONE);
            fields.string(PLACE);
            put_sizes(found, fields);
            if version >= 4 {
                // How much room there is is not told.
                fields.i64(-1);
                fields.i64(-1);
            }
        });
        fields.tags();
    }))
}

fn put_sizes(found: &[PartitionFigures], fields: &mut Encoder<'_>) {
    let topics: Vec<_> = found.chunk_by(|a, b| a.topic == b.topic).collect();
    fields.structs(topics, |fields, partitions| {
        fields.string(&partitions[0].topic);
        fields.structs(partitions, |fields, figures| {
            fields.i32(figures.partition.cast_signed());
            fields.i64(figures.bytes.cast_signed());
            fields.i64(0);
            fields.bool(false);
        });
    });
}
