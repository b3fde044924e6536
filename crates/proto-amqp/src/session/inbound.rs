//! Input is cut into frames, each goes to where the connection or its channel is: handled, parked or refused.
//!
//! Frames of a channel that waits for an answer are parked and go on, in order, when it has come; the other
//! channels go on meanwhile. A whole publish takes the short way of `publish.rs`.

use base::SendBuffer;
use model::Lane;

use super::channel::{Channel, State};
use super::outbox::Due;
use super::{Session, Stage};
use crate::map::Fault;
use crate::wire::frame::{self, END, FrameError, HEARTBEAT};
use crate::wire::{Frame, Method, PROTOCOL_HEADER, ReplyCode, next_frame};

/// What came of decoding, before anything is lent.
pub(super) enum Turn<'i> {
    /// A request is due.
    Due,
    /// A message is whole in the input: channel, token, property block, body.
    Publish(u16, u64, &'i [u8], &'i [u8]),
    More,
    Waiting,
    End,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes,
    /// Not now: an answer must come first, and no more may be parked.
    NotYet,
}

/// Class and number of `connection.close`.
const CLOSE: (u16, u16) = (10, 50);
/// How many settlements are gathered before they are handed over.
const GATHERED_MAX: usize = 64;

impl Session {
    pub(super) fn decode<'i>(&mut self, input: &'i [u8], out: &mut SendBuffer) -> (usize, Turn<'i>) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let is_due = if self.is_due() { !self.may_gather(rest) } else { self.replay(out) };
            if is_due {
                return (used, Turn::Due);
            }
            match self.stage {
                Stage::Ended => return (input.len(), Turn::End),
                Stage::Authenticating | Stage::Entering => return self.waiting(used),
                Stage::Header => match self.protocol_header(rest, out) {
                    0 if self.stage == Stage::Header => return (used, Turn::More),
                    n => {
                        used += n;
                        continue;
                    }
                },
                Stage::Open => {
                    if let Some((n, turn)) = self.whole_publish(rest) {
                        return (used + n, turn);
                    }
                }
                _ => {}
            }
            let frame = match next_frame(rest, self.frame_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => return self.incomplete(used, rest),
                Err(error) => {
                    self.lost(error, out);
                    continue;
                }
            };
            if self.frame(frame, out) == Taken::NotYet {
                return self.waiting(used);
            }
            used += frame.len();
            self.count_unauthenticated(frame.len());
        }
    }

    fn waiting<'i>(&mut self, used: usize) -> (usize, Turn<'i>) {
        self.clock.excuse();
        (used, Turn::Waiting)
    }

    fn incomplete<'i>(&mut self, used: usize, rest: &[u8]) -> (usize, Turn<'i>) {
        let is_known = matches!(self.stage, Stage::Open | Stage::Closing | Stage::Failed);
        if !is_known && self.unauthenticated_bytes + rest.len() > self.limits.unauthenticated_bytes_max {
            self.stage = Stage::Ended;
            return (used + rest.len(), Turn::End);
        }
        // Behind a close nothing matters that does not end the connection by itself.
        (used, Turn::More)
    }

    fn count_unauthenticated(&mut self, bytes: usize) {
        if matches!(self.stage, Stage::Starting | Stage::Authenticating | Stage::Tuning | Stage::Opening) {
            self.unauthenticated_bytes += bytes;
            if self.unauthenticated_bytes > self.limits.unauthenticated_bytes_max {
                self.stage = Stage::Ended;
            }
        }
    }

    /// Consumes the protocol header, or nothing while it is incomplete.
    fn protocol_header(&mut self, rest: &[u8], out: &mut SendBuffer) -> usize {
        let start = &rest[..rest.len().min(8)];
        // 0-9 is close enough to 0-9-1 that its clients are content with the answer.
        let known = [PROTOCOL_HEADER, *b"AMQP\x01\x01\x00\x09"];
        if !known.iter().any(|header| header.starts_with(start)) {
            out.tail().extend_from_slice(&PROTOCOL_HEADER);
            self.stage = Stage::Ended;
            return rest.len();
        }
        if start.len() < 8 {
            return 0;
        }
        self.start(out.tail());
        8
    }

    /// A frame that cannot be: the stream is lost, so nothing more is read.
    fn lost(&mut self, error: FrameError, out: &mut SendBuffer) {
        if matches!(self.stage, Stage::Open | Stage::Tuning | Stage::Opening) {
            self.fail_connection(Fault::from(error), (0, 0), out);
        }
        self.stage = Stage::Ended;
    }

    /// Whether the next frame is an acknowledgement that may join the settlements due.
    fn may_gather(&self, rest: &[u8]) -> bool {
        let is_ack =
            rest.len() >= 21 && rest[0] == frame::METHOD && rest[3..11] == [0, 0, 0, 13, 0, 60, 0, 80];
        is_ack
            && rest[20] == END
            && self.stage == Stage::Open
            && self.replaying.is_empty()
            && match self.outbox.back() {
                Some(Due::Settle(_, settlements)) => settlements.len() < GATHERED_MAX,
                due => due.is_none(),
            }
    }

    /// Lets parked frames go on until a request is due; returns whether one is.
    pub(super) fn replay(&mut self, out: &mut SendBuffer) -> bool {
        while !self.is_due() {
            let Some(lane) = self.replaying.front().copied() else { return false };
            if !self.replay_frame(lane, out) {
                self.replaying.pop_front();
            }
        }
        true
    }

    /// Lets one parked frame of the channel go on; false when none may.
    fn replay_frame(&mut self, lane: u16, out: &mut SendBuffer) -> bool {
        let Some(channel) = self.channels.get_mut(&lane) else { return false };
        let is_stuck = channel.awaited.is_some() || channel.state == State::Closing;
        if is_stuck || matches!(channel.state, State::Failed { confirmed: true, .. }) {
            return false;
        }
        let parked = std::mem::take(&mut channel.parked);
        let at = std::mem::take(&mut channel.replayed);
        let Ok(Some(frame)) = next_frame(&parked[at..], self.frame_max) else {
            if channel.state == State::Closed {
                self.channels.remove(&lane);
            }
            return false;
        };
        self.parked -= frame.len();
        let end = at + frame.len();
        self.channel_frame(frame, out);
        if self.stage != Stage::Open {
            self.parked = 0;
            return false;
        }
        let channel = self.channels.entry(lane).or_insert_with(|| Box::new(Channel::new()));
        if end < parked.len() {
            (channel.parked, channel.replayed) = (parked, end);
        } else if channel.state == State::Closed {
            self.channels.remove(&lane);
        }
        true
    }

    /// Takes one frame in, wherever the connection is.
    fn frame(&mut self, frame: Frame<'_>, out: &mut SendBuffer) -> Taken {
        match self.stage {
            Stage::Open => match frame.channel {
                // What the client sent on its channels before it closes still counts.
                0 if self.parked > 0 && ids_of(frame.payload) == CLOSE => return Taken::NotYet,
                0 => self.connection_frame(frame, out),
                lane => return self.lane_frame(lane, frame, out),
            },
            Stage::Closing | Stage::Failed => self.frame_behind_close(frame, out),
            _ => self.handshake_frame(frame, out),
        }
        Taken::Yes
    }

    fn lane_frame(&mut self, lane: u16, frame: Frame<'_>, out: &mut SendBuffer) -> Taken {
        if let Some(channel) = self.channels.get_mut(&lane)
            && channel.is_held()
            && frame.kind != HEARTBEAT
        {
            if self.parked + frame.len() > self.limits.partial_bytes_max / 2 {
                return Taken::NotYet;
            }
            if channel.replayed > channel.parked.len() / 2 {
                channel.parked.drain(..std::mem::take(&mut channel.replayed));
            }
            frame::put_frame(&mut channel.parked, frame.kind, lane, frame.payload);
            self.parked += frame.len();
            return Taken::Yes;
        }
        self.channel_frame(frame, out);
        Taken::Yes
    }

    fn connection_frame(&mut self, frame: Frame<'_>, out: &mut SendBuffer) {
        match frame.kind {
            HEARTBEAT if frame.is_empty() => {}
            frame::METHOD => self.connection_method(frame.payload, out),
            kind => self.fail_connection(unexpected(kind, frame), (0, 0), out),
        }
    }

    /// A frame of a channel that need not wait.
    fn channel_frame(&mut self, frame: Frame<'_>, out: &mut SendBuffer) {
        let lane = frame.channel;
        let state = self.channels.get(&lane).map_or(State::Closed, |channel| channel.state);
        match (frame.kind, state) {
            (HEARTBEAT, _) => self.fail_connection(unexpected(HEARTBEAT, frame), (0, 0), out),
            (frame::METHOD, State::Open) => self.channel_method(lane, frame.payload, out),
            (frame::METHOD, State::Closed) => self.method_before_open(lane, frame.payload, out),
            (frame::METHOD, _) => self.method_behind_close(lane, frame.payload, out),
            (frame::HEADER | frame::BODY, State::Open) => self.content_frame(frame, out),
            (frame::HEADER | frame::BODY, State::Closed) => {
                let text = "expected method frame, got non method frame instead";
                self.fail_connection(Fault::new(ReplyCode::UnexpectedFrame, text), (0, 0), out);
            }
            (frame::HEADER | frame::BODY, _) => {}
            (kind, _) => self.fail_connection(unexpected(kind, frame), (0, 0), out),
        }
    }

    fn method_before_open(&mut self, lane: u16, payload: &[u8], out: &mut SendBuffer) {
        match Method::decode(payload, self.limits.nesting_max) {
            Ok(Method::ChannelOpen {}) if self.open_channels() >= usize::from(self.channel_max) => {
                let text = format!(
                    "number of channels opened ({}) has reached the negotiated channel_max ({})",
                    self.open_channels(),
                    self.channel_max
                );
                self.fail_connection(Fault::new(ReplyCode::NotAllowed, text), (0, 0), out);
            }
            Ok(Method::ChannelOpen {}) => {
                let channel = self.channels.entry(lane).or_insert_with(|| Box::new(Channel::new()));
                channel.reset(State::Open);
                Method::ChannelOpenOk {}.put(lane, out.tail());
            }
            Ok(other) => {
                let fault = Fault::new(ReplyCode::ChannelError, "expected 'channel.open'");
                self.fail_connection(fault, other.ids(), out);
            }
            Err(malformed) => self.fail_connection(malformed.into(), ids_of(payload), out),
        }
    }

    fn open_channels(&self) -> usize {
        self.channels.values().filter(|channel| channel.state != State::Closed).count()
    }

    /// After a channel error only the end of the channel matters.
    fn method_behind_close(&mut self, lane: u16, payload: &[u8], out: &mut SendBuffer) {
        match Method::decode(payload, self.limits.nesting_max) {
            Ok(Method::ChannelClose { .. }) => Method::ChannelCloseOk {}.put(lane, out.tail()),
            Ok(Method::ChannelCloseOk {}) => self.channel_close_ok(lane),
            _ => {}
        }
    }

    fn channel_close_ok(&mut self, lane: u16) {
        let Some(channel) = self.channels.get_mut(&lane) else { return };
        match channel.state {
            State::Failed { tidied: true, .. } => self.free_channel(lane),
            State::Failed { .. } => channel.state = State::Failed { confirmed: true, tidied: false },
            _ => {}
        }
    }

    /// The broker has let go of the lane.
    pub(super) fn lane_closed(&mut self, lane: Lane, out: &mut SendBuffer) {
        let Some(channel) = self.channels.get_mut(&lane.0) else { return };
        match channel.state {
            State::Closing => {
                Method::ChannelCloseOk {}.put(lane.0, out.tail());
                self.free_channel(lane.0);
            }
            State::Failed { confirmed: true, .. } => self.free_channel(lane.0),
            State::Failed { .. } => channel.state = State::Failed { confirmed: false, tidied: true },
            State::Open | State::Closed => {}
        }
    }

    fn free_channel(&mut self, lane: u16) {
        let Some(channel) = self.channels.get_mut(&lane) else { return };
        channel.reset(State::Closed);
        match channel.parked.is_empty() {
            true => drop(self.channels.remove(&lane)),
            false => self.replaying.push_back(lane),
        }
    }
}

/// Class and number of a method whose fields may be wrong.
pub(super) fn ids_of(payload: &[u8]) -> (u16, u16) {
    match payload.first_chunk::<4>() {
        Some([a, b, c, d]) => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        None => (0, 0),
    }
}

pub(super) fn unexpected(kind: u8, frame: Frame<'_>) -> Fault {
    let code = match kind {
        frame::METHOD | frame::HEADER | frame::BODY => ReplyCode::UnexpectedFrame,
        HEARTBEAT if frame.is_empty() => ReplyCode::UnexpectedFrame,
        _ => ReplyCode::FrameError,
    };
    Fault::new(code, format!("type {kind}, {} octets on channel {}", frame.payload.len(), frame.channel))
}
