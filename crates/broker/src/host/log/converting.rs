//! Batches in another encoding than they were written in.

use model::batch::{CONTROL, Encoding};
use model::{Batch, LogRefusal, Protocol, Record};
use recordbatch::{BatchError, BatchWriter, Codec, mapping};

use crate::{OPENED_BYTES_MAX, ReadBlock, WriteBlock};

/// What of a batch is wanted, and how its rows are read.
pub(super) struct Wanted<'a> {
    /// The offset of its first record.
    pub base: u64,
    /// The topic its readers know it by.
    pub topic: &'a str,
    /// Reads the property blocks of AMQP messages.
    pub read_block: ReadBlock,
    /// Which offsets have not been removed.
    pub keep: &'a dyn Fn(u64) -> bool,
}

/// A stored batch as a Kafka batch, without what was removed from it.
pub(super) fn to_kafka(batch: &Batch<'_>, wanted: &Wanted<'_>) -> Result<Vec<u8>, LogRefusal> {
    match batch.summary.encoding {
        Encoding::Rows => rows_to_kafka(batch, wanted),
        Encoding::KafkaV2 => thinned(batch, wanted),
    }
}

fn rows_to_kafka(batch: &Batch<'_>, wanted: &Wanted<'_>) -> Result<Vec<u8>, LogRefusal> {
    let mut writer = BatchWriter::new(wanted.base);
    for (number, row) in batch.records().enumerate() {
        let (_, row) = row.map_err(|damaged| super::reading::damaged(damaged.0))?;
        if (wanted.keep)(wanted.base + number as u64) {
            push(&mut writer, &row, number as i32, batch.summary.ingest, wanted);
        }
        // It ends where its rows do, or who reads on behind it would get it again for ever.
        writer.end_at(number as i32);
    }
    Ok(writer.finish(Codec::None))
}

fn push(writer: &mut BatchWriter, row: &Record<'_>, delta: i32, ingest_ms: i64, wanted: &Wanted<'_>) {
    let mut converted = mapping::to_kafka(row, wanted.topic, ingest_ms, &wanted.read_block);
    // What its properties say of the time does not count where the topic gave it its own. Only a header says less than 0:
    // that there is no time.
    if row.protocol == Protocol::Amqp091 && row.timestamp_ms.is_none() && converted.timestamp >= 0 {
        converted.timestamp = ingest_ms;
    }
    writer.push(&converted.record(delta));
}

/// Records of a batch as rows of AMQP messages.
#[derive(Debug)]
pub(super) struct Rows {
    /// The rows, one behind the other.
    pub bytes: Vec<u8>,
    /// The offset of each and where it begins.
    pub places: Vec<(u64, u32)>,
    /// The offset behind the last that was looked at.
    pub end: u64,
}

/// The records of a Kafka batch from an offset on as rows of AMQP messages: as many as fit in `room` bytes, but one.
/// What was compressed was not opened when it was taken in: where it cannot be read it is passed over, and why is told.
pub(super) fn to_rows(
    batch: &Batch<'_>,
    (base, from, end): (u64, u64, u64),
    topic: &str,
    (read_block, write_block): (ReadBlock, WriteBlock),
    room: usize,
) -> (Rows, Option<BatchError>) {
    let mut rows = Rows { bytes: Vec::new(), places: Vec::new(), end };
    if batch.summary.flags & CONTROL != 0 {
        return (rows, None);
    }
    let opened = match recordbatch::open(batch.body, OPENED_BYTES_MAX) {
        Ok(opened) => opened,
        Err(error) => return (rows, Some(error)),
    };
    for record in opened.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => return (rows, Some(error)),
        };
        let offset = base + record.offset_delta as u64;
        if offset < from {
            continue;
        }
        if rows.bytes.len() >= room {
            rows.end = offset;
            break;
        }
        rows.places.push((offset, rows.bytes.len() as u32));
        let message = mapping::to_amqp(&record, topic, &read_block);
        push_message(&message, record.timestamp, write_block, &mut rows.bytes);
    }
    (rows, None)
}

fn push_message(message: &mapping::Message<'_>, timestamp: i64, write_block: WriteBlock, out: &mut Vec<u8>) {
    let written;
    let prefix = match message.exact {
        Some(exact) => exact,
        None => {
            written = write_block(&message.properties);
            &written
        }
    };
    let row = Record {
        priority: message.properties.priority.unwrap_or(0),
        timestamp_ms: Some(timestamp),
        exchange: &message.exchange,
        routing_key: &message.routing_key,
        prefix,
        body: Some(message.body),
        ..Record::bare(Protocol::Amqp091)
    };
    row.encode(out);
}

/// One row that came in parts, as a Kafka batch.
pub(super) fn row_to_kafka(row: &[u8], ingest_ms: i64, wanted: &Wanted<'_>) -> Result<Vec<u8>, LogRefusal> {
    let (row, _) = Record::decode(row).map_err(|damaged| super::reading::damaged(damaged.0))?;
    let mut writer = BatchWriter::new(wanted.base);
    push(&mut writer, &row, 0, ingest_ms, wanted);
    Ok(writer.finish(Codec::None))
}

fn thinned(batch: &Batch<'_>, wanted: &Wanted<'_>) -> Result<Vec<u8>, LogRefusal> {
    let keep =
        |record: &recordbatch::KafkaRecord<'_>| (wanted.keep)(wanted.base + record.offset_delta as u64);
    let kept = recordbatch::retain(batch.body, OPENED_BYTES_MAX, keep)?;
    // A chunk of which nothing is left is gone from its log.
    kept.ok_or_else(|| super::reading::damaged("a batch has none of the records its log has of it"))
}

#[cfg(test)]
mod tests {
    use model::batch::{HEADER, Summary};

    use super::*;

    fn three_rows() -> Vec<u8> {
        rows(&[None; 3])
    }

    /// A batch of rows with these times, taken in at 1000.
    fn rows(times: &[Option<i64>]) -> Vec<u8> {
        let mut summary = Summary::new(Protocol::Amqp091, 1000);
        let mut body = Vec::new();
        for timestamp_ms in times.iter().copied() {
            let row = Record {
                timestamp_ms,
                routing_key: "t",
                prefix: &[0, 0],
                body: Some(b"a"),
                ..Record::bare(Protocol::Amqp091)
            };
            let before = body.len();
            row.encode(&mut body);
            summary.add(&row, body.len() - before);
        }
        let mut header = [0; HEADER];
        summary.encode(&mut header, &body);
        [&header, &body[..]].concat()
    }

    #[test]
    fn a_batch_of_rows_ends_where_it_did_though_its_last_rows_are_removed() {
        let stored = three_rows();
        let batch = Batch::decode(&stored).unwrap();
        let read_block: ReadBlock = |_| Some(model::Properties::default());
        for (keep, expected) in [(10, vec![10]), (11, vec![11]), (12, vec![12])] {
            let wanted = Wanted { base: 10, topic: "t", read_block, keep: &|offset| offset == keep };
            let bytes = to_kafka(&batch, &wanted).unwrap();
            let opened = recordbatch::open(&bytes, 1 << 20).unwrap();
            let offsets: Vec<u64> =
                opened.records().map(|record| 10 + record.unwrap().offset_delta as u64).collect();
            assert_eq!((offsets, opened.header().last_offset_delta), (expected, 2));
        }
    }

    #[test]
    fn a_row_without_a_time_of_its_own_has_that_of_the_log_whatever_its_properties_say() {
        let seconds: ReadBlock = |_| Some(model::Properties { timestamp: Some(3), ..Default::default() });
        let none: ReadBlock = |_| {
            let header = ("timestamp_in_ms".to_owned(), model::Value::Int(-1));
            Some(model::Properties { headers: model::Arguments(vec![header]), ..Default::default() })
        };
        for (read_block, row, expected) in
            [(seconds, Some(3000), 3000), (seconds, None, 1000), (none, None, -1)]
        {
            let stored = rows(&[row]);
            let batch = Batch::decode(&stored).unwrap();
            let wanted = Wanted { base: 0, topic: "t", read_block, keep: &|_| true };
            let bytes = to_kafka(&batch, &wanted).unwrap();
            let opened = recordbatch::open(&bytes, 1 << 20).unwrap();
            let times: Vec<i64> = opened.records().map(|record| record.unwrap().timestamp).collect();
            assert_eq!(times, [expected], "{row:?}");
        }
    }
}
