//! Produce: one append per partition, handed over from where its batch stands in the input, one response for all.
//!
//! In: the frame, whole. Out: appends that borrow from it, then the response. Never: copies a batch.
//!
//! ```text
//! request   [from 3: string transaction, nullable]  i16 acks  i32 timeout  list of topics
//!   topic     string name, or from 13 on 16 bytes id;  list of  i32 partition  bytes batch
//! response  list of topics  [from 1: i32 throttle]
//!   topic     as asked;  list of  i32 partition  i16 error  i64 base offset  [from 2: i64 append time]
//!             [from 5: i64 log start]  [from 8: list of record errors  string text, nullable]
//!   record error  i32 which of the batch  string text, nullable
//! ```

use std::ops::Range;
use std::sync::Arc;

use base::SendBuffer;
use model::topic::{AppendBatch, Appended, BadRecord};
use model::{LogAnswer, TopicId};

use super::Session;
use super::pending::{Kind, Pending};
use super::reply::Topic;
use crate::map::{self, About, Code};
use crate::wire::frame::SIZE_BYTES;
use crate::wire::{Api, Decoder, Encoder, Header, Malformed};

/// Where a batch has its format and its attributes, and the codec in them that clients before version 7 cannot have meant.
const FORMAT_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
const ZSTD: u16 = 4;
/// The oldest version that is taken (older ones are advertised, and refused), and the first that may carry zstd.
const VERSION_MIN: i16 = 3;
const VERSION_ZSTD: i16 = 7;

/// One partition of a request.
#[derive(Debug)]
pub(super) struct Part {
    pub partition: i32,
    /// Refused before the broker was asked.
    pub refused: Option<(Code, &'static str)>,
    /// Where its batch stands in the frame.
    pub batch: Range<usize>,
}

/// One topic of a request.
#[derive(Debug)]
pub(super) struct TopicParts {
    pub topic: Topic,
    /// Where its name stands in the frame.
    pub name: Range<usize>,
    pub parts: Vec<Part>,
}

/// What the response must name, and which appends it waits for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    topics: Arc<Vec<TopicParts>>,
}

/// A frame whose batches are being handed over.
#[derive(Debug)]
pub(super) struct Appending {
    topics: Arc<Vec<TopicParts>>,
    /// The next topic and partition.
    at: (usize, usize),
    token: u64,
    required: i16,
    timeout_ms: u32,
    /// Bytes of the frame, its size included.
    length: usize,
    left: usize,
}

impl Session {
    /// Takes in the frame as far as its fields go and puts its response in line.
    pub(super) fn produce(
        &mut self,
        api: &'static Api,
        header: Header<'_>,
        fields: Decoder<'_>,
        frame: &[u8],
        out: &mut SendBuffer,
    ) -> Result<(), Malformed> {
        let version = header.version;
        let (required, timeout_ms, topics) = read(version, fields, frame)?;
        let left = topics.iter().flat_map(|topic| &topic.parts).filter(|part| part.refused.is_none()).count();
        let any_refused = topics.iter().flat_map(|topic| &topic.parts).any(|part| part.refused.is_some());
        let topics = Arc::new(topics);
        let token = self.queue.tokens(left);
        if left > 0 {
            let length = frame.len() + SIZE_BYTES;
            let topics = topics.clone();
            self.appending =
                Some(Appending { topics, at: (0, 0), token, required, timeout_ms, length, left });
        }
        if required == 0 {
            if any_refused {
                self.end_after_due();
            }
        } else {
            // Its frame does not count: the broker bounds batches once they have been handed over.
            let kind = Kind::Produce(Plan { topics });
            let pending = Pending::new(api, version, header.correlation, kind, token, left);
            self.queue.push(pending);
        }
        self.settle(out);
        Ok(())
    }

    /// The next append of the frame at the front of the input, and how much of the input is used with it.
    pub(super) fn next_append<'i>(&mut self, input: &'i [u8]) -> Option<(usize, u64, AppendBatch<'i>)> {
        let appending = self.appending.as_mut()?;
        let frame = &input[SIZE_BYTES..appending.length];
        let (required, timeout_ms) = (appending.required, appending.timeout_ms);
        let (topic, part) = appending.advance();
        let append = AppendBatch {
            // An empty range where the topic goes by its id.
            topic: std::str::from_utf8(&frame[topic.name.clone()]).expect("was read as text before"),
            id: match topic.topic {
                Topic::Id(id) => Some(TopicId(id)),
                Topic::Name(_) => None,
            },
            partition: part.partition.cast_unsigned(),
            batch: &frame[part.batch.clone()],
            required,
            timeout_ms,
        };
        let token = appending.token;
        (appending.token, appending.left) = (token + 1, appending.left - 1);
        let is_last = appending.left == 0;
        let used = if is_last { appending.length } else { 0 };
        if is_last {
            self.appending = None;
        }
        Some((used, token, append))
    }
}

impl Appending {
    /// The next partition with a batch for the broker.
    fn advance(&mut self) -> (&TopicParts, &Part) {
        loop {
            let (topic, part) = self.at;
            match self.topics[topic].parts.get(part) {
                None => self.at = (topic + 1, 0),
                Some(found) => {
                    self.at.1 += 1;
                    if found.refused.is_none() {
                        return (&self.topics[topic], &self.topics[topic].parts[part]);
                    }
                }
            }
        }
    }
}

/// The acknowledgements asked for, the milliseconds they may take, and why no batch of the request is taken.
type Head = (i16, u32, Option<(Code, &'static str)>);

/// Reads what stands in front of the topics.
pub(super) fn read_head(version: i16, fields: &mut Decoder<'_>) -> Result<Head, Malformed> {
    let is_transaction = version >= VERSION_MIN && fields.nullable_string()?.is_some();
    let acks = fields.i16()?;
    let timeout_ms = u32::try_from(fields.i32()?).unwrap_or(0);
    let refused = match acks {
        _ if version < VERSION_MIN => Some((map::UNSUPPORTED_VERSION, "")),
        _ if is_transaction => {
            Some((map::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "there are no transactions here"))
        }
        -1..=1 => None,
        _ => Some((map::INVALID_REQUIRED_ACKS, "acks must be -1, 0 or 1")),
    };
    Ok((acks, timeout_ms, refused))
}

fn read(
    version: i16,
    mut fields: Decoder<'_>,
    frame: &[u8],
) -> Result<(i16, u32, Vec<TopicParts>), Malformed> {
    let (acks, timeout_ms, refused) = read_head(version, &mut fields)?;
    let here = |fields: &Decoder<'_>| frame.len() - fields.rest().len();
    let topics = fields.structs(|fields| {
        let (topic, name) = match version >= 13 {
            true => (Topic::Id(fields.uuid()?), 0..0),
            false => {
                let name = fields.string()?;
                let end = here(fields);
                (Topic::Name(Arc::from(name)), end - name.len()..end)
            }
        };
        let parts = fields.structs(|fields| {
            let partition = fields.i32()?;
            let batch = fields.nullable_bytes()?.unwrap_or_default();
            let end = here(fields);
            let refused = refused.or_else(|| refusal_of(version, partition, batch));
            Ok(Part { partition, refused, batch: end - batch.len()..end })
        })?;
        Ok(TopicParts { topic, name, parts })
    })?;
    fields.tags()?;
    Ok((acks, timeout_ms, topics))
}

/// What this door sees is wrong without looking into the batch's records.
pub(super) fn refusal_of(version: i16, partition: i32, batch: &[u8]) -> Option<(Code, &'static str)> {
    // What is older has other things there.
    let is_current = batch.get(FORMAT_AT) == Some(&2);
    let attributes = batch.get(ATTRIBUTES_AT..).and_then(|rest| rest.first_chunk()).copied();
    let attributes = attributes.filter(|_| is_current);
    let codec = attributes.map_or(0, |attributes| u16::from_be_bytes(attributes) & 7);
    match codec {
        _ if partition < 0 => Some((map::UNKNOWN_TOPIC_OR_PARTITION, "there is no such partition")),
        _ if batch.is_empty() => Some((map::INVALID_RECORD, "one record batch per partition is needed")),
        ZSTD if version < VERSION_ZSTD => {
            Some((map::UNSUPPORTED_COMPRESSION_TYPE, "zstd needs produce version 7"))
        }
        _ => None,
    }
}

impl Plan {
    /// Of a request that was taken in.
    pub(super) fn of(topics: Vec<TopicParts>) -> Plan {
        Plan { topics: Arc::new(topics) }
    }

    /// Writes the response.
    pub(super) fn write(&self, version: i16, answers: Vec<LogAnswer>, fields: &mut Encoder<'_>) {
        let mut answers = answers.into_iter();
        fields.structs(self.topics.iter(), |fields, topic| {
            topic.topic.put(fields);
            fields.structs(topic.parts.iter(), |fields, part| {
                fields.i32(part.partition);
                match part.refused {
                    Some((code, text)) => put_refused(version, code, &[], Some(text), fields),
                    None => put_answer(version, answers.next(), fields),
                }
            });
        });
        if version >= 1 {
            fields.i32(0);
        }
        fields.tags();
    }
}

fn put_answer(version: i16, answer: Option<LogAnswer>, fields: &mut Encoder<'_>) {
    match answer {
        Some(LogAnswer::Appended(Ok(appended))) => put_part(version, map::NONE, appended, &[], None, fields),
        Some(LogAnswer::Appended(Err(refusal))) => {
            let code = map::code_of(&refusal, About::Topic);
            put_refused(version, code, map::bad_records(&refusal), map::text_of(&refusal), fields);
        }
        _ => super::reply::mismatch(),
    }
}

fn put_refused(version: i16, code: Code, bad: &[BadRecord], text: Option<&str>, fields: &mut Encoder<'_>) {
    let nowhere = Appended { base_offset: u64::MAX, log_append_ms: None, start: u64::MAX };
    put_part(version, code, nowhere, bad, text, fields);
}

fn put_part(
    version: i16,
    code: Code,
    appended: Appended,
    bad: &[BadRecord],
    text: Option<&str>,
    fields: &mut Encoder<'_>,
) {
    fields.i16(code);
    fields.i64(appended.base_offset.cast_signed());
    if version >= 2 {
        fields.i64(appended.log_append_ms.unwrap_or(-1));
    }
    if version >= 5 {
        fields.i64(appended.start.cast_signed());
    }
    if version >= 8 {
        fields.structs(bad, |fields, bad| {
            fields.i32(bad.number.cast_signed());
            fields.nullable_string(Some(&bad.text));
        });
        fields.nullable_string(text);
    }
}
