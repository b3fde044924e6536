//! The response to a fetch: the one message whose bytes are mostly records.
//!
//! In: what was found per partition. Out: a whole response, large batches shared with the blocks they are in.
//! Never: copies a batch twice, or looks into one.
//!
//! ```text
//! response   i32 throttle  [from 7: i16 error  i32 session]  list of topics
//!   topic    as asked;  list of  i32 partition  i16 error  i64 high watermark  i64 last stable offset
//!            [from 5: i64 log start]  list of aborted transactions  [from 11: i32 preferred replica]  bytes records
//! batch      i64 base offset  i32 length  i32 leader epoch  i8 magic  i32 crc  i16 attributes  ...
//! ```

use base::{Put, SendBuffer};
use model::topic::{Fetched, FetchedBatch, LogRefusal};

use super::encoder::Encoder;
use crate::map::{self, About, Code};

/// From where on a batch is shared instead of copied.
const SHARE_BYTES: usize = 16 << 10;
/// Bytes of a batch up to the end of its leader epoch: those that are written anew.
const REWRITTEN: usize = 16;
const LENGTH_AT: std::ops::Range<usize> = 8..12;

/// What stands in front of the topics.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The request's.
    pub correlation: i32,
    /// The request's.
    pub version: i16,
    /// Of the request as a whole.
    pub code: Code,
    /// The fetch session; 0 for none.
    pub session: i32,
}

/// One partition of the response.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The partition.
    pub partition: i32,
    /// Its own error.
    pub code: Code,
    bounds: Option<(u64, u64)>,
    batches: &'a [FetchedBatch],
}

impl<'a> Part<'a> {
    /// What a client is told of what was found. Batches leave as they are stored, whatever the version asked in: a
    /// client that cannot open one says so.
    pub fn new(partition: i32, found: &'a Result<Fetched, LogRefusal>) -> Part<'a> {
        let found = match found {
            Ok(found) => found,
            Err(refusal) => {
                let code = map::code_of(refusal, About::Topic);
                return Part { partition, code, bounds: None, batches: &[] };
            }
        };
        let bounds = Some((found.start, found.end));
        Part { partition, code: map::NONE, bounds, batches: &found.batches }
    }

    fn record_bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.range.len()).sum()
    }
}

/// Writes a whole response; partitions of one topic that follow each other stand under it together.
pub fn put_fetched<T: PartialEq>(
    head: &Head,
    parts: &[(T, Part<'_>)],
    mut put_topic: impl FnMut(&T, &mut Encoder<'_>),
    out: &mut SendBuffer,
) {
    // First everything but the records, with the places where those belong: the frame's size stands in front.
    let flexible = head.version >= 12;
    let mut bones = Vec::with_capacity(64 + parts.len() * 64);
    let mut cuts = Vec::with_capacity(parts.len());
    let mut fields = Encoder::new(&mut bones, flexible);
    fields.i32(head.correlation);
    fields.tags();
    fields.i32(0);
    if head.version >= 7 {
        fields.i16(head.code);
        fields.i32(head.session);
    }
    let topics: Vec<&[(T, Part<'_>)]> = parts.chunk_by(|a, b| a.0 == b.0).collect();
    fields.structs(topics, |fields, parts| {
        put_topic(&parts[0].0, fields);
        fields.structs(parts, |fields, (_, part)| {
            put_part(head.version, part, fields);
            cuts.push(fields.position());
        });
    });
    fields.tags();
    let records: usize = parts.iter().map(|(_, part)| part.record_bytes()).sum();
    out.tail().put_u32_be((bones.len() + records) as u32);
    let mut from = 0;
    for (cut, (_, part)) in cuts.into_iter().zip(parts) {
        out.tail().extend_from_slice(&bones[from..cut]);
        part.batches.iter().for_each(|batch| put_batch(batch, out));
        from = cut;
    }
    out.tail().extend_from_slice(&bones[from..]);
}

/// Everything of a partition up to its records.
fn put_part(version: i16, part: &Part<'_>, fields: &mut Encoder<'_>) {
    let (start, end) = part.bounds.map_or((-1, -1), |(start, end)| (start.cast_signed(), end.cast_signed()));
    fields.i32(part.partition);
    fields.i16(part.code);
    fields.i64(end);
    fields.i64(end);
    if version >= 5 {
        fields.i64(start);
    }
    fields.length(0);
    if version >= 11 {
        fields.i32(-1);
    }
    fields.length(part.record_bytes());
}

/// A batch with its offset and epoch, which its checksum does not cover.
fn put_batch(batch: &FetchedBatch, out: &mut SendBuffer) {
    let bytes = &batch.block.as_slice()[batch.range.clone()];
    let tail = out.tail();
    tail.put_u64_be(batch.base_offset);
    tail.extend_from_slice(&bytes[LENGTH_AT]);
    tail.put_u32_be(batch.epoch);
    if bytes.len() >= SHARE_BYTES {
        out.share(&batch.block, batch.range.start + REWRITTEN..batch.range.end);
    } else {
        tail.extend_from_slice(&bytes[REWRITTEN..]);
    }
}
