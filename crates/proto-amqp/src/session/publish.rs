//! Messages coming in. Whole ones are taken from the input without a copy; the rest is assembled in the channel.
//!
//! The bytes of the last `basic.publish` of a channel and the last sound property block are remembered: publishers
//! repeat themselves, and what is equal need not be checked again.

use base::SendBuffer;
use model::Lane;

use super::channel::{Channel, State};
use super::copies;
use super::inbound::Turn;
use super::outbox::Due;
use super::{Session, Stage};
use crate::map::Fault;
use crate::wire::frame::{self, BODY, HEADER};
use crate::wire::{ContentHeader, Frame, Malformed, Method, Properties, ReplyCode, next_frame, table};

/// Class and number of `basic.publish`.
pub(super) const PUBLISH: (u16, u16) = (60, 40);
/// No message may ever be larger, whatever the configuration says.
const MESSAGE_CEILING: u64 = 512 << 20;
/// Property blocks up to this length are remembered.
const BLOCK_KEPT_MAX: usize = 512;
/// Bytes that method and header of a message may have together to be waited for as a whole.
const HEAD_MAX: usize = 64 << 10;
/// The name that stands for this channel's own reply queue.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// The last `basic.publish` of a channel.
#[derive(Debug, Default)]
pub(super) struct Memo {
    payload: Vec<u8>,
    pub exchange: String,
    pub routing_key: String,
    pub mandatory: bool,
}

impl Memo {
    #[inline]
    fn read(&mut self, payload: &[u8]) -> Result<(), Fault> {
        match self.payload == payload {
            true => Ok(()),
            false => self.read_anew(payload),
        }
    }

    fn read_anew(&mut self, payload: &[u8]) -> Result<(), Fault> {
        self.payload.clear();
        if let Some((exchange, key, mandatory)) = plain(payload) {
            replace(&mut self.exchange, exchange);
            replace(&mut self.routing_key, key);
            self.mandatory = mandatory;
            self.payload.extend_from_slice(payload);
            return Ok(());
        }
        match Method::decode(payload, 1)? {
            Method::BasicPublish { immediate: true, .. } => {
                Err(Fault::new(ReplyCode::NotImplemented, "immediate=true"))
            }
            Method::BasicPublish { exchange, routing_key, mandatory, .. } => {
                exchange.clone_into(&mut self.exchange);
                routing_key.clone_into(&mut self.routing_key);
                self.mandatory = mandatory;
                self.payload.extend_from_slice(payload);
                Ok(())
            }
            _ => Err(Malformed::Syntax("expected basic.publish").into()),
        }
    }
}

/// Exchange, routing key and the mandatory bit of a sound `basic.publish` that asks for nothing else; `None` is for the
/// general decoder to explain. A publisher that goes through many queues in turn comes here with every message.
///
/// ```text
/// class u16 = 60, method u16 = 40, reserved u16, exchange short, routing key short, bits u8: mandatory 1, immediate 2
/// ```
#[inline]
fn plain(payload: &[u8]) -> Option<(&str, &str, bool)> {
    let rest = payload.strip_prefix(&[0, 60, 0, 40])?.get(2..)?;
    let (exchange, rest) = short(rest)?;
    let (key, rest) = short(rest)?;
    match rest {
        [bits @ (0 | 1)] => Some((exchange, key, *bits == 1)),
        _ => None,
    }
}

/// A short string and what is behind it.
#[inline]
fn short(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (text, rest) = short_bytes(bytes)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[inline]
fn short_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Exchange and routing key of the `basic.publish` that the input begins with, neither checked: a hint of what comes.
#[inline]
pub fn coming_publish(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = input.split_first_chunk::<13>()?;
    let [frame::METHOD, _, _, _, _, _, _, 0, 60, 0, 40, _, _] = head else { return None };
    let (exchange, rest) = short_bytes(rest)?;
    short_bytes(rest).map(|(key, _)| (exchange, key))
}

#[inline]
fn replace(text: &mut String, with: &str) {
    text.clear();
    text.push_str(with);
}

/// What of a message has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Idle,
    Header,
    Body,
    /// Whole, and lent or about to be.
    Whole,
}

/// A message being assembled.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub phase: Phase,
    pub prefix: Vec<u8>,
    pub body: Vec<u8>,
    /// Further routing keys, and what they take.
    pub copies: Vec<String>,
    copies_held: usize,
    remaining: u64,
}

impl Content {
    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.prefix.len() + self.body.len() + self.copies_held
    }

    fn clear(&mut self) {
        self.phase = Phase::Idle;
        self.prefix.clear();
        self.body.clear();
        (self.copies, self.copies_held) = (Vec::new(), 0);
        self.body.shrink_to(HEAD_MAX);
    }
}

/// What a sound property block says that the broker needs to know.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Empty: none is remembered.
    block: Vec<u8>,
    pub priority: u8,
    pub timestamp_ms: Option<i64>,
    /// The reply-to names the pseudo-queue.
    wants_reply_queue: bool,
    /// The headers name further routing keys.
    names_copies: bool,
}

impl Checked {
    /// Checks a property block of this user's and notes what it says.
    #[inline]
    fn read(&mut self, block: &[u8], user: &str, nesting_max: u8) -> Result<(), Fault> {
        match !block.is_empty() && self.block == block {
            true => Ok(()),
            false => self.read_anew(block, user, nesting_max),
        }
    }

    fn read_anew(&mut self, block: &[u8], user: &str, nesting_max: u8) -> Result<(), Fault> {
        self.block.clear();
        let properties = Properties::decode(block)?;
        if let Some(fields) = properties.headers {
            table::check_fields(fields, nesting_max)?;
        }
        properties.expiration.map_or(Ok(()), check_expiration)?;
        if let Some(claimed) = properties.user_id.filter(|claimed| *claimed != user.as_bytes()) {
            let claimed = String::from_utf8_lossy(claimed);
            let text = format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
            return Err(Fault::new(ReplyCode::PreconditionFailed, text));
        }
        self.priority = properties.priority.unwrap_or(0);
        self.timestamp_ms = properties.time_ms();
        self.names_copies = properties.headers.is_some_and(copies::are_named);
        self.wants_reply_queue = properties.reply_to == Some(REPLY_TO.as_bytes());
        if block.len() <= BLOCK_KEPT_MAX {
            self.block.extend_from_slice(block);
        }
        Ok(())
    }
}

impl Session {
    /// The message at the start of `rest`, if it is whole or worth waiting for; `None`: frame by frame, then.
    #[inline]
    pub(super) fn whole_publish<'i>(&mut self, rest: &'i [u8]) -> Option<(usize, Turn<'i>)> {
        let [frame::METHOD, _, _, _, _, _, _, 0, 60, 0, 40] = *rest.first_chunk::<11>()? else { return None };
        let method = next_frame(rest, self.frame_max).ok()??;
        let lane = method.channel;
        let channel = self.channels.get_mut(&lane)?;
        if channel.state != State::Open || channel.is_held() || channel.content.phase != Phase::Idle {
            return None;
        }
        let behind = &rest[method.len()..];
        let Some(header) = expected(behind, HEADER, lane, self.frame_max)? else {
            return Some((0, Turn::More));
        };
        let head = method.len() + header.len();
        let content = ContentHeader::decode(header.payload).ok()?;
        let size = usize::try_from(content.body_size).ok()?;
        if (content.class, content.weight) != (60, 0) || size > self.limits.message_bytes_max {
            return None;
        }
        let (body, used) = if size == 0 {
            (&[][..], head)
        } else {
            let behind = &rest[head..];
            let length = |head: &[u8; 7]| u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            let is_split = behind.first_chunk::<7>().is_some_and(|head| length(head) != size);
            if is_split || size > self.frame_max || head > HEAD_MAX {
                return None;
            }
            match expected(behind, BODY, lane, self.frame_max)? {
                Some(body) => (body.payload, head + body.len()),
                None => return Some((0, Turn::More)),
            }
        };
        channel.memo.read(method.payload).ok()?;
        self.checked.read(content.properties, &self.user, self.limits.nesting_max).ok()?;
        if self.checked.wants_reply_queue || self.checked.names_copies {
            return None;
        }
        let token = channel.token();
        Some((used, Turn::Publish(lane, token, content.properties, body)))
    }

    /// `basic.publish` whose content comes frame by frame.
    pub(super) fn publish_begins(&mut self, lane: u16, payload: &[u8]) -> Result<(), Fault> {
        let Some(channel) = self.channels.get_mut(&lane) else { return Ok(()) };
        channel.memo.read(payload)?;
        channel.content.phase = Phase::Header;
        Ok(())
    }

    /// A header or body frame of an open channel.
    pub(super) fn content_frame(&mut self, frame: Frame<'_>, out: &mut SendBuffer) {
        let lane = frame.channel;
        let phase = self.channels.get(&lane).map_or(Phase::Idle, |channel| channel.content.phase);
        let result = match (phase, frame.kind) {
            (Phase::Header, HEADER) => self.content_header(lane, frame.payload),
            (Phase::Body, BODY) => self.content_body(lane, frame.payload),
            (phase, _) => Err(misplaced(phase)),
        };
        if let Err(fault) = result {
            let ids = if phase == Phase::Idle { (0, 0) } else { PUBLISH };
            self.fail(lane, fault, ids, out);
        }
    }

    fn content_header(&mut self, lane: u16, payload: &[u8]) -> Result<(), Fault> {
        let header = ContentHeader::decode(payload)?;
        if header.class != 60 || header.weight != 0 {
            let text =
                format!("expected content header for class 60, got one for class {} instead", header.class);
            return Err(Fault::new(ReplyCode::UnexpectedFrame, text));
        }
        let (size, limit) = (header.body_size, self.limits.message_bytes_max as u64);
        if size > MESSAGE_CEILING {
            let text = format!("content body size {size} exceeds maximum allowed size {MESSAGE_CEILING}");
            return Err(Fault::new(ReplyCode::FrameError, text));
        }
        if size > limit {
            let text = format!("message size {size} is larger than configured max size {limit}");
            return Err(Fault::new(ReplyCode::PreconditionFailed, text));
        }
        self.checked.read(header.properties, &self.user, self.limits.nesting_max)?;
        let names_copies = self.checked.names_copies;
        let mut rewritten = match self.checked.wants_reply_queue {
            true => Some(self.with_reply_queue(lane, header.properties)?),
            false => None,
        };
        let mut keys = Vec::new();
        if names_copies {
            let block = rewritten.as_deref().unwrap_or(header.properties);
            let copies = copies::copies_of(block, self.limits.nesting_max)?;
            (keys, rewritten) = (copies.keys, Some(copies.block));
        }
        let block = rewritten.as_deref().unwrap_or(header.properties);
        let copies_held = keys.iter().map(|key| size_of::<String>() + key.len()).sum();
        self.may_hold(block.len() + copies_held)?;
        let Some(channel) = self.channels.get_mut(&lane) else { return Ok(()) };
        channel.content.prefix.extend_from_slice(block);
        (channel.content.copies, channel.content.copies_held) = (keys, copies_held);
        channel.content.remaining = size;
        channel.content.phase = Phase::Body;
        self.partial += block.len() + copies_held;
        match size {
            0 => self.content_whole(lane),
            _ => Ok(()),
        }
    }

    /// The block with the name of the channel's reply queue in place of the pseudo-queue's.
    fn with_reply_queue(&self, lane: u16, block: &[u8]) -> Result<Vec<u8>, Fault> {
        let queue = self.channels.get(&lane).and_then(|channel| channel.reply_queue.as_ref());
        let Some((queue, _)) = queue else {
            let text = "fast reply consumer does not exist";
            return Err(Fault::new(ReplyCode::PreconditionFailed, text));
        };
        let properties = Properties { reply_to: Some(queue.as_bytes()), ..Properties::decode(block)? };
        let mut rewritten = Vec::with_capacity(block.len() + queue.len());
        properties.encode(&mut rewritten);
        Ok(rewritten)
    }

    fn may_hold(&self, more: usize) -> Result<(), Fault> {
        let limit = self.limits.partial_bytes_max;
        match self.partial + more > limit {
            true => {
                let text = format!("incomplete messages of the connection hold more than {limit} bytes");
                Err(Fault::new(ReplyCode::ResourceError, text))
            }
            false => Ok(()),
        }
    }

    fn content_body(&mut self, lane: u16, part: &[u8]) -> Result<(), Fault> {
        self.may_hold(part.len())?;
        let Some(channel) = self.channels.get_mut(&lane) else { return Ok(()) };
        let Some(remaining) = channel.content.remaining.checked_sub(part.len() as u64) else {
            let text = "content body frame exceeds remaining content size";
            return Err(Fault::new(ReplyCode::FrameError, text));
        };
        channel.content.body.extend_from_slice(part);
        channel.content.remaining = remaining;
        self.partial += part.len();
        match remaining {
            0 => self.content_whole(lane),
            _ => Ok(()),
        }
    }

    fn content_whole(&mut self, lane: u16) -> Result<(), Fault> {
        let Some(channel) = self.channels.get_mut(&lane) else { return Ok(()) };
        channel.content.phase = Phase::Whole;
        // Another channel's message may have been checked since this one's header came.
        self.checked.read(&channel.content.prefix, &self.user, self.limits.nesting_max)?;
        let token = channel.token();
        self.outbox.push_back(Due::Publish { lane: Lane(lane), token });
        Ok(())
    }

    /// The request that was lent last is done with.
    pub(super) fn forget_lent(&mut self) {
        let Some(Due::Publish { lane, .. }) = self.lent.take() else { return };
        if let Some(channel) = self.channels.get_mut(&lane.0) {
            self.partial -= channel.content.held();
            channel.content.clear();
        }
        debug_assert!(self.stage != Stage::Header);
    }
}

/// What is wrong with a frame at this place of a message.
pub(super) fn misplaced(phase: Phase) -> Fault {
    let text = match phase {
        Phase::Idle | Phase::Whole => "expected method frame, got non method frame instead",
        Phase::Header => "expected content header for class 60, got non content header frame instead",
        Phase::Body => "expected content body, got non content body frame instead",
    };
    Fault::new(ReplyCode::UnexpectedFrame, text)
}

/// The frame at the start of `rest`, which should be of this kind and channel: `Some(None)` while it may become
/// that, `None` when it is something else.
#[inline]
fn expected(rest: &[u8], kind: u8, lane: u16, frame_max: usize) -> Option<Option<Frame<'_>>> {
    match rest.first_chunk::<3>() {
        Some([k, c0, c1]) if *k == kind && u16::from_be_bytes([*c0, *c1]) == lane => {
            next_frame(rest, frame_max).ok()
        }
        Some(_) => None,
        None => {
            let [c0, c1] = lane.to_be_bytes();
            [kind, c0, c1].starts_with(rest).then_some(None)
        }
    }
}

/// Milliseconds as text.
fn check_expiration(text: &[u8]) -> Result<(), Fault> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok());
    match number {
        Some(_) => Ok(()),
        None => {
            let text = String::from_utf8_lossy(text);
            let text = format!("invalid expiration '{text}': no_integer");
            Err(Fault::new(ReplyCode::PreconditionFailed, text))
        }
    }
}

impl Channel {
    /// The number of the publish that has just become whole, 0 without confirms.
    #[inline]
    fn token(&mut self) -> u64 {
        self.confirms.as_mut().map_or(0, |confirms| {
            confirms.published += 1;
            confirms.published
        })
    }

    /// Whether a message is under way.
    pub(super) fn is_assembling(&self) -> bool {
        self.content.phase != Phase::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_reads_what_the_general_decoder_reads() {
        for seed in 0..4000 {
            let mut prng = base::Prng::new(seed);
            let text = |prng: &mut base::Prng| "ä-key".repeat(prng.below(4) as usize);
            let (exchange, routing_key) = (text(&mut prng), text(&mut prng));
            let (mandatory, immediate) = (prng.chance(1, 2), prng.chance(1, 8));
            let mut payload = Vec::new();
            Method::BasicPublish { exchange: &exchange, routing_key: &routing_key, mandatory, immediate }
                .encode(&mut payload);
            if prng.chance(1, 2) {
                let at = prng.below(payload.len() as u64) as usize;
                match prng.below(3) {
                    0 => payload.truncate(at),
                    1 => payload[at] ^= 1 << prng.below(8),
                    _ => payload.push(0),
                }
            }
            let general = match Method::decode(&payload, 1) {
                Ok(Method::BasicPublish { exchange, routing_key, mandatory, immediate: false }) => {
                    Some((exchange, routing_key, mandatory))
                }
                _ => None,
            };
            // Bits without a meaning are left to the general decoder, which overlooks them.
            let unknown_bits = payload.last().is_none_or(|bits| *bits > 1);
            let expected = if unknown_bits { None } else { general };
            assert_eq!(plain(&payload), expected, "{payload:?}");
        }
    }
}
