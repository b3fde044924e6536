//! Produce requests larger than what is held of one: their batches are handed over one by one as they come, and a
//! batch larger than any topic takes is passed over without being kept.
//!
//! In: the front of the input, as far as it is there. Out: appends that borrow from it, then the response, which is
//! the same as that of a smaller request. Never: holds more than one batch, or believes a count before its bytes.

use std::sync::Arc;

use model::TopicId;
use model::topic::AppendBatch;

use super::Session;
use super::pending::{Kind, Pending};
use super::produce::{self, Part, Plan, TopicParts};
use super::reply::Topic;
use crate::map::{self, Code};
use crate::wire::decoder::ITEMS_MAX;
use crate::wire::frame::{self, SIZE_BYTES};
use crate::wire::{Api, Decoder, Malformed};

/// Bytes of fields between two batches that are waited for: names and tags beyond it are nobody's.
const FIELDS_MAX: usize = 64 << 10;

/// What stands at the front of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Head,
    Topic,
    Partition,
    /// A batch of so many bytes that is handed over.
    Batch(usize),
    /// So many bytes of a batch that is not.
    Passing(usize),
    /// Tags behind a partition, and behind all that ends with it.
    Tags,
    /// So many bytes that mean nothing.
    Trailing,
}

/// A request that is being taken in.
#[derive(Debug)]
pub(super) struct Long {
    api: &'static Api,
    version: i16,
    /// Bytes of the frame that have not been used.
    left: usize,
    next: Next,
    required: i16,
    pub timeout_ms: u32,
    /// Why none of its batches is taken.
    refused: Option<(Code, &'static str)>,
    topics: Vec<TopicParts>,
    /// Still to come, beyond the current ones.
    topics_left: usize,
    parts_left: usize,
    items_left: usize,
}

/// What was found at the front of the input.
pub(super) enum Found<'i> {
    /// A batch for the broker.
    Batch(u64, &'i [u8]),
    /// Nothing that anybody need be told of.
    Passed,
    More,
}

/// Whose batch is being handed over.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub topic: Topic,
    pub partition: u32,
    pub required: i16,
    pub timeout_ms: u32,
}

impl Place {
    /// The append of this batch.
    pub(super) fn append<'a>(&'a self, batch: &'a [u8]) -> AppendBatch<'a> {
        let (topic, id) = match &self.topic {
            Topic::Name(name) => (&**name, None),
            Topic::Id(id) => ("", Some(TopicId(*id))),
        };
        let Place { partition, required, timeout_ms, .. } = *self;
        AppendBatch { topic, id, partition, batch, required, timeout_ms }
    }
}

impl Long {
    /// A request of `size` bytes.
    pub(super) fn begin(size: usize) -> Long {
        Long {
            api: crate::wire::api::api_of(crate::wire::api::PRODUCE).expect("produce is in the table"),
            version: 0,
            left: SIZE_BYTES + size,
            next: Next::Head,
            required: 0,
            timeout_ms: 0,
            refused: None,
            topics: Vec::new(),
            topics_left: 0,
            parts_left: 0,
            items_left: ITEMS_MAX,
        }
    }

    fn count(&mut self, fields: &mut Decoder<'_>) -> Result<usize, Malformed> {
        let count = fields.length()?.unwrap_or(0);
        self.items_left = self.items_left.checked_sub(count).ok_or(Malformed)?;
        Ok(count)
    }

    fn topic(&mut self, fields: &mut Decoder<'_>) -> Result<Next, Malformed> {
        let topic = match self.version >= 13 {
            true => Topic::Id(fields.uuid()?),
            false => Topic::Name(Arc::from(fields.string()?)),
        };
        // What is left is counted only once the count is there, as fields may come in pieces.
        self.parts_left = self.count(fields)?;
        self.topics_left -= 1;
        self.topics.push(TopicParts { topic, name: 0..0, parts: Vec::new() });
        Ok(if self.parts_left == 0 { Next::Tags } else { Next::Partition })
    }

    fn partition(&mut self, fields: &mut Decoder<'_>, bytes_max: usize) -> Result<Next, Malformed> {
        let partition = fields.i32()?;
        let length = fields.length()?.unwrap_or(0);
        let (refused, next) = match self.refused {
            Some(refused) => (Some(refused), Next::Passing(length)),
            None if length > bytes_max => {
                let refused = (map::MESSAGE_TOO_LARGE, "the batch is larger than any topic takes");
                (Some(refused), Next::Passing(length))
            }
            None => (None, Next::Batch(length)),
        };
        let topic = self.topics.last_mut().expect("a partition is of a topic");
        topic.parts.push(Part { partition, refused, batch: 0..0 });
        self.parts_left -= 1;
        Ok(next)
    }

    /// Passes over what ends with a partition, or with a topic without any.
    fn tags(&mut self, fields: &mut Decoder<'_>) -> Result<Next, Malformed> {
        let has_parts = self.topics.last().is_some_and(|topic| !topic.parts.is_empty());
        if has_parts {
            fields.tags()?;
        }
        if self.parts_left > 0 {
            return Ok(Next::Partition);
        }
        if !self.topics.is_empty() {
            fields.tags()?;
        }
        if self.topics_left > 0 {
            return Ok(Next::Topic);
        }
        fields.tags()?;
        Ok(Next::Trailing)
    }

    fn has_refused(&self) -> bool {
        self.topics.iter().flat_map(|topic| &topic.parts).any(|part| part.refused.is_some())
    }
}

impl Session {
    /// Takes what is at the front of the rest of a long request and returns how many bytes of it were used.
    pub(super) fn next_of_long<'i>(&mut self, input: &'i [u8]) -> Result<(usize, Found<'i>), Malformed> {
        let mut long = self.long.take().expect("only asked while there is one");
        let here = &input[..input.len().min(long.left)];
        let (used, found) = match long.next {
            Next::Batch(length) if length > long.left => return Err(Malformed),
            Next::Batch(length) if length > here.len() => (0, Found::More),
            Next::Batch(length) => (length, self.hand_over(&mut long, &here[..length])),
            Next::Passing(length) if length > long.left => return Err(Malformed),
            Next::Passing(length) => {
                let used = length.min(here.len());
                long.next = if used == length { Next::Tags } else { Next::Passing(length - used) };
                (used, if used == 0 && length > 0 { Found::More } else { Found::Passed })
            }
            Next::Trailing => (here.len(), if here.is_empty() { Found::More } else { Found::Passed }),
            _ => self.fields_of_long(&mut long, here)?,
        };
        long.left -= used;
        // Without tags the last batch ends the frame, and no byte may come that would be a reason to look again.
        if long.left == 0 && long.next == Next::Tags {
            long.next = long.tags(&mut Decoder::new(&[], long.api.is_flexible(long.version)))?;
        }
        if long.left == 0 && long.next == Next::Trailing {
            self.finish_long(long);
        } else if long.left == 0 {
            return Err(Malformed);
        } else {
            self.long = Some(long);
        }
        Ok((used, found))
    }

    /// Reads the fields at the front, if all of them are there.
    fn fields_of_long<'i>(&mut self, long: &mut Long, here: &[u8]) -> Result<(usize, Found<'i>), Malformed> {
        let items_left = long.items_left;
        let read = match long.next {
            Next::Head => self.head_of_long(long, here),
            _ => {
                let mut fields = Decoder::new(here, long.api.is_flexible(long.version));
                let next = match long.next {
                    Next::Topic => long.topic(&mut fields),
                    Next::Partition => long.partition(&mut fields, self.limits.message_bytes_max),
                    _ => long.tags(&mut fields),
                };
                next.map(|next| (here.len() - fields.rest().len(), next))
            }
        };
        match read {
            Ok((used, next)) => {
                long.next = next;
                Ok((used, Found::Passed))
            }
            // More bytes may make sense of it.
            Err(Malformed) if here.len() < long.left.min(FIELDS_MAX) => {
                long.items_left = items_left;
                Ok((0, Found::More))
            }
            Err(Malformed) => Err(Malformed),
        }
    }

    fn head_of_long(&mut self, long: &mut Long, here: &[u8]) -> Result<(usize, Next), Malformed> {
        let frame = here.get(SIZE_BYTES..).ok_or(Malformed)?;
        let (header, api, mut fields) = frame::header_of(frame)?;
        // A version that is not understood could not be answered either.
        let api = api.ok_or(Malformed)?;
        let (required, timeout_ms, refused) = produce::read_head(header.version, &mut fields)?;
        let topics = long.count(&mut fields)?;
        (long.api, long.version, long.required, long.timeout_ms) =
            (api, header.version, required, timeout_ms);
        (long.refused, long.topics_left) = (refused, topics);
        if required != 0 {
            let first = self.queue.tokens(0);
            let kind = Kind::Produce(Plan::default());
            let mut pending = Pending::new(api, header.version, header.correlation, kind, first, 0);
            pending.is_open = true;
            self.queue.push(pending);
        }
        let next = if topics == 0 { Next::Tags } else { Next::Topic };
        Ok((here.len() - fields.rest().len(), next))
    }

    /// Hands a whole batch over, unless it is refused already.
    fn hand_over<'i>(&mut self, long: &mut Long, batch: &'i [u8]) -> Found<'i> {
        long.next = Next::Tags;
        let topic = long.topics.last_mut().expect("a batch is of a topic");
        let part = topic.parts.last_mut().expect("a batch is of a partition");
        part.refused = produce::refusal_of(long.version, part.partition, batch);
        if part.refused.is_some() {
            return Found::Passed;
        }
        self.handing = Some(Place {
            topic: topic.topic.clone(),
            partition: part.partition.cast_unsigned(),
            required: long.required,
            timeout_ms: long.timeout_ms,
        });
        let token = self.queue.tokens(1);
        if long.required != 0 {
            self.queue.grow();
        }
        Found::Batch(token, batch)
    }

    fn finish_long(&mut self, long: Long) {
        match long.required {
            0 if long.has_refused() => self.end_after_due(),
            0 => {}
            _ => self.queue.close(Kind::Produce(Plan::of(long.topics))),
        }
    }

    /// Gives up on a request that will not come in whole any more.
    pub(super) fn drop_long(&mut self) {
        if self.long.take().is_some_and(|long| long.required != 0 && long.next != Next::Head) {
            self.queue.drop_open();
        }
    }
}
