//! Endings: of a channel or the connection, by the client's wish, by a fault, or because the node goes away.

use base::SendBuffer;
use model::{Lane, Outcome, Request};

use super::channel::State;
use super::outbox::{self, Due};
use super::{Session, Stage};
use crate::map::Fault;
use crate::wire::{Frame, Method, ReplyCode, frame};

impl Session {
    /// Closes what the fault's code says must close; `ids` are those of the method that caused it.
    pub(super) fn fail(&mut self, lane: u16, fault: Fault, ids: (u16, u16), out: &mut SendBuffer) {
        match lane == 0 || fault.code.is_hard() {
            true => self.fail_connection(fault, ids, out),
            false => self.fail_channel(lane, fault, ids, out),
        }
    }

    fn fail_channel(&mut self, lane: u16, fault: Fault, ids: (u16, u16), out: &mut SendBuffer) {
        self.flush_confirms(out.tail());
        Method::ChannelClose {
            reply_code: fault.code.number(),
            reply_text: &fault.code.text(&fault.text),
            class: ids.0,
            method: ids.1,
        }
        .put(lane, out.tail());
        self.end_channel(lane, State::Failed { confirmed: false, tidied: false });
        // Among the parked frames may be the client's own close, which must be answered.
        if self.channels.get(&lane).is_some_and(|channel| !channel.parked.is_empty()) {
            self.replaying.push_back(lane);
        }
    }

    /// The channel is over as far as the broker is concerned.
    pub(super) fn end_channel(&mut self, lane: u16, state: State) {
        self.return_held(lane);
        let Some(channel) = self.channels.get_mut(&lane) else { return };
        self.partial -= channel.content.held();
        for consumer in channel.tags.values() {
            self.consumers.remove(consumer);
        }
        channel.reset(state);
        self.grants.retain(|(consumer, _)| self.consumers.contains_key(consumer));
        self.outbox.retain(|due| !matches!(due, Due::Publish { lane: on, .. } if on.0 == lane));
        self.due(Request::CloseLane { lane: Lane(lane) });
    }

    /// What the channel's consumers hold is for others, or for later.
    pub(super) fn return_held(&mut self, lane: u16) {
        let Some(channel) = self.channels.get_mut(&lane) else { return };
        let outcome = Outcome::Return { failed: true };
        for held in std::mem::take(&mut channel.unacked).into_held() {
            outbox::settle(&mut self.outbox, Lane(lane), &held, outcome);
        }
    }

    /// Sends `connection.close` and reads on only for its `close-ok`.
    pub(super) fn fail_connection(&mut self, fault: Fault, ids: (u16, u16), out: &mut SendBuffer) {
        if matches!(self.stage, Stage::Failed | Stage::Ended) {
            return;
        }
        self.flush_confirms(out.tail());
        Method::ConnectionClose {
            reply_code: fault.code.number(),
            reply_text: &fault.code.text(&fault.text),
            class: ids.0,
            method: ids.1,
        }
        .put(0, out.tail());
        self.end_connection(Stage::Failed);
        self.clock.closing();
    }

    /// The connection is over as far as the broker is concerned.
    fn end_connection(&mut self, stage: Stage) {
        if matches!(self.stage, Stage::Open | Stage::Entering) {
            self.outbox.retain(|due| !matches!(due, Due::Publish { .. }));
            let mut lanes: Vec<u16> = self.channels.keys().copied().collect();
            lanes.sort_unstable();
            lanes.into_iter().for_each(|lane| self.return_held(lane));
            self.due(Request::Close);
        }
        self.stage = stage;
        self.channels.clear();
        self.consumers.clear();
        self.replaying.clear();
        self.confirming.clear();
        self.grants.clear();
        (self.partial, self.parked) = (0, 0);
    }

    /// The client wants to close.
    pub(super) fn client_closes(&mut self, out: &mut SendBuffer) {
        self.flush_confirms(out.tail());
        match self.stage {
            Stage::Open => {
                self.end_connection(Stage::Closing);
                self.clock.closing();
            }
            _ => {
                Method::ConnectionCloseOk {}.put(0, out.tail());
                self.stage = Stage::Ended;
            }
        }
    }

    /// The broker has tidied up behind a closing client.
    pub(super) fn broker_closed(&mut self, out: &mut SendBuffer) {
        if self.stage == Stage::Closing {
            Method::ConnectionCloseOk {}.put(0, out.tail());
            self.stage = Stage::Ended;
        }
    }

    pub(super) fn frame_behind_close(&mut self, frame: Frame<'_>, out: &mut SendBuffer) {
        if frame.kind != frame::METHOD || frame.channel != 0 {
            return;
        }
        match Method::decode(frame.payload, self.limits.nesting_max) {
            Ok(Method::ConnectionCloseOk {}) if self.stage == Stage::Failed => self.stage = Stage::Ended,
            Ok(Method::ConnectionClose { .. }) if self.stage == Stage::Failed => {
                Method::ConnectionCloseOk {}.put(0, out.tail());
                self.stage = Stage::Ended;
            }
            _ => {}
        }
    }

    /// The node is going away: tells the client, or just ends where it could not understand.
    pub fn shutdown(&mut self, out: &mut SendBuffer) {
        match self.stage {
            Stage::Open | Stage::Tuning | Stage::Opening | Stage::Entering => {
                let text = "broker forced connection closure with reason 'shutdown'";
                self.fail_connection(Fault::new(ReplyCode::ConnectionForced, text), (0, 0), out);
            }
            Stage::Closing | Stage::Failed => {}
            _ => self.stage = Stage::Ended,
        }
    }
}
