//! Messages going out: deliveries, the answer to a get, and what comes back to its publisher.
//!
//! Each is one run of frames behind what is already waiting to be sent; large bodies are shared with the block
//! they were read from.

use base::{Block, Put, SendBuffer};
use model::{Delivered, Item, Outcome, OwnedRecord, Record};

use super::Session;
use super::channel::{Channel, State};
use super::outbox;
use super::settle::Held;
use crate::wire::frame::{self, BODY, END, HEADER, METHOD, OVERHEAD};
use crate::wire::{Method, ReplyCode, content, properties};

/// Bodies from this size on are shared, not copied.
const SHARE_MIN: usize = 16 << 10;

impl Session {
    pub(super) fn deliver(&mut self, delivered: &Delivered, out: &mut SendBuffer) {
        let lane = delivered.lane.0;
        let (Some(consumer), Some(channel)) =
            (self.consumers.get(&delivered.consumer), self.channels.get_mut(&lane))
        else {
            return self.send_back(delivered);
        };
        if channel.state != State::Open {
            return self.send_back(delivered);
        }
        let small_max = (SHARE_MIN - 1).min(self.frame_max - OVERHEAD);
        for item in &delivered.items {
            let Some(record) = record_at(&delivered.block, item) else { continue };
            let tag = channel.take_tag();
            put_deliver(out.tail(), lane, &consumer.head, tag, item.redelivered, &record);
            match record.body {
                Some(body)
                    if item.count == 0 && !delivered.stream && (1..=small_max).contains(&body.len()) =>
                {
                    put_small(out.tail(), lane, record.prefix, body);
                }
                _ => {
                    let told = told_of(item, delivered.stream);
                    put_message(out, lane, &record, told, &delivered.block, self.frame_max);
                }
            }
            if !consumer.no_ack {
                let grants = consumer.is_bounded.then_some(delivered.consumer);
                channel.unacked.push(Held { tag, queue: delivered.queue, seq: item.seq, grants });
            }
        }
    }

    /// Messages that came when nobody was there to take them any more: they were not handed to anybody.
    pub(super) fn send_back(&mut self, delivered: &Delivered) {
        if delivered.settled {
            return;
        }
        for item in &delivered.items {
            let held = Held { tag: 0, queue: delivered.queue, seq: item.seq, grants: None };
            outbox::settle(&mut self.outbox, delivered.lane, &held, Outcome::Return { failed: false });
        }
    }

    /// The answer to `basic.get`: a message and how many are behind it.
    pub(super) fn got(&mut self, delivered: &Delivered, behind: u64, settled: bool, out: &mut SendBuffer) {
        let lane = delivered.lane.0;
        let frame_max = self.frame_max;
        let Some(channel) = self.channels.get_mut(&lane) else { return };
        let Some(item) = delivered.items.first() else { return };
        let Some(record) = record_at(&delivered.block, item) else { return };
        let tag = channel.take_tag();
        Method::BasicGetOk {
            delivery_tag: tag,
            redelivered: item.redelivered,
            exchange: record.exchange,
            routing_key: record.routing_key,
            message_count: u32::try_from(behind).unwrap_or(u32::MAX),
        }
        .put(lane, out.tail());
        let told = told_of(item, delivered.stream);
        put_message(out, lane, &record, told, &delivered.block, frame_max);
        if !settled {
            channel.unacked.push(Held { tag, queue: delivered.queue, seq: item.seq, grants: None });
        }
    }

    /// A mandatory message that no queue took goes back.
    pub(super) fn put_back(&mut self, lane: u16, record: &OwnedRecord, out: &mut SendBuffer) {
        let is_open = |channel: &Channel| channel.state == State::Open;
        if !self.channels.get(&lane).is_some_and(|channel| is_open(channel)) {
            return;
        }
        let out = out.tail();
        Method::BasicReturn {
            reply_code: ReplyCode::NoRoute.number(),
            reply_text: ReplyCode::NoRoute.name(),
            exchange: &record.exchange,
            routing_key: &record.routing_key,
        }
        .put(lane, out);
        content::put_content(out, lane, &record.prefix, &record.body, self.frame_max);
    }
}

/// The row of an item. Rows passed their checksum before they came here, so one that does not decode is left out
/// and stays held rather than bringing the connection down.
#[inline]
fn record_at<'a>(block: &'a Block, item: &Item) -> Option<Record<'a>> {
    let row = block.as_slice().get(item.at as usize..)?;
    Record::decode(row).ok().map(|(record, _)| record)
}

#[inline]
fn put_deliver(out: &mut Vec<u8>, lane: u16, head: &[u8], tag: u64, redelivered: bool, record: &Record<'_>) {
    let short = |text: &'_ str| text.len().min(255);
    let (exchange, key) = (short(record.exchange), short(record.routing_key));
    let size = head.len() + 8 + 1 + 2 + exchange + key;
    out.reserve(size + record.prefix.len() + 64 + record.body.map_or(0, |body| body.len().min(SHARE_MIN)));
    frame::put_head(out, METHOD, lane, size);
    out.put(head);
    let [t0, t1, t2, t3, t4, t5, t6, t7] = tag.to_be_bytes();
    out.put(&[t0, t1, t2, t3, t4, t5, t6, t7, u8::from(redelivered), exchange as u8]);
    out.put(&record.exchange.as_bytes()[..exchange]);
    out.put_u8(key as u8);
    out.put(&record.routing_key.as_bytes()[..key]);
    out.put_u8(END);
}

/// Header and body of a message whose body is one frame: what is fixed between them is written at once.
#[inline]
fn put_small(out: &mut Vec<u8>, lane: u16, prefix: &[u8], body: &[u8]) {
    let [c0, c1] = lane.to_be_bytes();
    let [h0, h1, h2, h3] = ((content::FIXED + prefix.len()) as u32).to_be_bytes();
    let [b0, b1, b2, b3] = (body.len() as u32).to_be_bytes();
    out.put(&[HEADER, c0, c1, h0, h1, h2, h3, 0, 60, 0, 0, 0, 0, 0, 0, b0, b1, b2, b3]);
    out.put(prefix);
    out.put(&[END, BODY, c0, c1, b0, b1, b2, b3]);
    out.put(body);
    out.put_u8(END);
}

/// What the header of a delivery says besides what its publisher wrote: where in its stream a message stands, or
/// how many deliveries of it failed.
#[inline]
fn told_of(item: &Item, stream: bool) -> Option<(&'static str, i64)> {
    match stream {
        true => Some(("x-stream-offset", i64::try_from(item.seq.0).unwrap_or(i64::MAX))),
        false if item.count > 0 => Some(("x-delivery-count", i64::from(item.count))),
        false => None,
    }
}

/// Header and body of a message; `told` is one header more.
#[inline]
fn put_message(
    out: &mut SendBuffer,
    lane: u16,
    record: &Record<'_>,
    told: Option<(&str, i64)>,
    block: &Block,
    frame_max: usize,
) {
    let body = record.body.unwrap_or(&[]);
    if let Some((name, value)) = told {
        let mut prefix = Vec::with_capacity(record.prefix.len() + 32);
        properties::put_with_header(record.prefix, name, value, &mut prefix);
        content::put_header(out.tail(), lane, &prefix, body.len());
    } else {
        content::put_header(out.tail(), lane, record.prefix, body.len());
    }
    // The body is a part of the block, so the distance of their first bytes is its place.
    let start = (body.as_ptr() as usize).wrapping_sub(block.as_slice().as_ptr() as usize);
    for (part, at) in body.chunks(frame_max - OVERHEAD).zip((start..).step_by(frame_max - OVERHEAD)) {
        frame::put_head(out.tail(), BODY, lane, part.len());
        match part.len() < SHARE_MIN {
            true => out.tail().put(part),
            false => out.share(block, at..at + part.len()),
        }
        out.tail().put_u8(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_writes_the_same_bytes() {
        for (prefix, body) in [(&[0x10, 0, 2][..], &[1u8; 16][..]), (&[0, 0], &[7; 9000])] {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            put_small(&mut short, 300, prefix, body);
            content::put_content(&mut long, 300, prefix, body, 65_536);
            assert_eq!(short, long);
        }
    }
}
