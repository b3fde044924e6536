//! Input is cut into frames; each is read, asked about and put in line for its response.
//!
//! In: bytes. Out: what arose. Never: looks at a frame that has not come in whole, beyond its size and its kind; but
//! one of records that is too large to be held is looked at as it comes.

use base::SendBuffer;
use model::topic::AppendBatch;

use super::long::{Found, Long};
use super::pending::{Kind, Pending};
use super::reply::{Asked, Reply};
use super::{Due, Session, Stage};
use crate::wire::api::{self, Api};
use crate::wire::frame::{self, SIZE_BYTES};
use crate::wire::{Decoder, Header, Malformed};

/// Requests under way on one connection.
const UNDER_WAY_MAX: usize = 64;
/// Bytes of the frames of requests under way beyond which no further one is read.
const UNDER_WAY_BYTES_MAX: usize = 4 << 20;
/// What a frame that is held may have beyond one largest message.
const FRAME_MARGIN: usize = 1 << 20;

/// What came of decoding, before anything is lent.
pub(super) enum Turn<'i> {
    /// A request is due.
    Due,
    /// A batch stands in the input: its token, and the batch.
    Append(u64, AppendBatch<'i>),
    /// Likewise, of a long request, which knows the place.
    AppendOfLong(u64, &'i [u8]),
    More,
    Waiting,
    End,
}

/// What is to be done with the frame at the front.
enum Front {
    /// It is whole and of this length, its size included.
    Whole(usize),
    /// It begins, and is too large to be waited for.
    Long(usize),
    More,
    Waiting,
    /// A question about who is there comes first.
    Due,
    Lost,
}

impl Session {
    pub(super) fn decode<'i>(&mut self, input: &'i [u8], out: &mut SendBuffer) -> (usize, Turn<'i>) {
        let mut used = 0;
        loop {
            if !self.outbox.is_empty() {
                return (used, Turn::Due);
            }
            let rest = &input[used..];
            if let Some((taken, token, batch)) = self.next_append(rest) {
                return (used + taken, Turn::Append(token, batch));
            }
            match self.stage {
                Stage::Ended => return (input.len(), Turn::End),
                Stage::Ending => return (input.len(), Turn::More),
                Stage::Admitting | Stage::Entering => return (used, Turn::Waiting),
                Stage::Fresh | Stage::Open => {}
            }
            if self.long.is_some() {
                match self.next_of_long(rest) {
                    Ok((taken, Found::Batch(token, batch))) => {
                        return (used + taken, Turn::AppendOfLong(token, batch));
                    }
                    Ok((taken, Found::Passed)) => {
                        used += taken;
                        self.settle(out);
                    }
                    Ok((_, Found::More)) => return (used, Turn::More),
                    Err(Malformed) => self.end(),
                }
                continue;
            }
            let length = match self.front(rest, out.len()) {
                Front::Whole(length) => length,
                Front::Long(size) => {
                    self.long = Some(Long::begin(size));
                    continue;
                }
                Front::More => return (used, Turn::More),
                Front::Waiting => return (used, Turn::Waiting),
                Front::Due => continue,
                Front::Lost => {
                    self.end();
                    continue;
                }
            };
            match self.frame(&rest[SIZE_BYTES..length], out) {
                Ok(()) if self.appending.is_some() => {}
                Ok(()) => used += length,
                Err(Malformed) => self.end(),
            }
        }
    }

    /// Looks at the front of the input as far as it is there.
    fn front(&mut self, rest: &[u8], unsent: usize) -> Front {
        let Some(size) = frame::size_of(rest) else { return Front::More };
        let Ok(size) = usize::try_from(size) else { return Front::Lost };
        if size > self.limits.request_bytes_max {
            return Front::Lost;
        }
        if self.stage == Stage::Fresh && !self.login.is_raw() {
            let Some(key) = frame::key_of(rest) else { return Front::More };
            if !matches!(key, api::API_VERSIONS | api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE) {
                self.stage = Stage::Admitting;
                self.outbox.push_back(Due::Anonymous);
                return Front::Due;
            }
        }
        if self.stage == Stage::Fresh && size > self.limits.unauthenticated_bytes_max {
            return Front::Lost;
        }
        let is_long = size > self.limits.message_bytes_max + FRAME_MARGIN;
        match is_long.then(|| frame::key_of(rest)) {
            Some(None) => return Front::More,
            Some(Some(key)) if key != api::PRODUCE => return Front::Lost,
            Some(_) => {}
            None if rest.len() < SIZE_BYTES + size => return Front::More,
            None => {}
        }
        self.is_stuck = self.is_full(if is_long { 0 } else { size });
        match self.is_stuck || unsent > self.limits.send_bytes_max {
            true => Front::Waiting,
            false if is_long => Front::Long(size),
            false => Front::Whole(SIZE_BYTES + size),
        }
    }

    /// Whether what is under way must become less before another request is read.
    fn is_full(&self, size: usize) -> bool {
        let is_heavy = self.queue.bytes() + size > UNDER_WAY_BYTES_MAX && !self.queue.is_empty();
        self.queue.len() >= UNDER_WAY_MAX || is_heavy
    }

    /// Takes in one whole frame, without its size.
    fn frame(&mut self, bytes: &[u8], out: &mut SendBuffer) -> Result<(), Malformed> {
        if self.login.is_raw() {
            return self.raw_token(bytes);
        }
        let (header, api, fields) = frame::header_of(bytes)?;
        let Some(api) = api else { return self.not_understood(header, out) };
        match api.key {
            api::PRODUCE => self.produce(api, header, fields, bytes, out),
            api::FETCH => self.fetch(api, header, fields, bytes.len(), out),
            api::SASL_AUTHENTICATE => self.authenticate(api, header, fields, out),
            _ => self.other(api, header, fields, bytes.len(), out),
        }
    }

    fn other(
        &mut self,
        api: &'static Api,
        header: Header<'_>,
        fields: Decoder<'_>,
        bytes: usize,
        out: &mut SendBuffer,
    ) -> Result<(), Malformed> {
        let Header { version, client, .. } = header;
        let mut asked = Asked { version, client, peer: &self.peer, node: &self.node, fields };
        let reply = match api.key {
            api::SASL_HANDSHAKE => self.login.handshake(&mut asked, self.stage == Stage::Open)?,
            _ => super::route::reply_to(api.key, &mut asked)?,
        };
        self.put_in_line(api, header, reply, bytes, out);
        Ok(())
    }

    /// Asks the reply's questions and puts its response in line.
    pub(super) fn put_in_line(
        &mut self,
        api: &'static Api,
        header: Header<'_>,
        reply: Reply,
        bytes: usize,
        out: &mut SendBuffer,
    ) {
        let first = self.queue.tokens(reply.ask.len());
        let questions = reply.ask.len();
        self.outbox.extend((first..).zip(reply.ask).map(|(token, request)| Due::Log(token, request)));
        let kind = Kind::Other(reply.respond);
        let mut pending = Pending::new(api, header.version, header.correlation, kind, first, questions);
        pending.bytes = bytes;
        self.queue.push(pending);
        self.settle(out);
    }
}
