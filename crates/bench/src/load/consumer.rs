//! One consuming connection: deliveries are parsed by hand, checked against the ledger and acknowledged in batches.
//!
//! In: the server's frames. Out: acks, delivery latencies and the ledger's entries. Never keeps a body.

use super::Amqp;
use super::body::{Arriving, Verdict};
use super::link::Link;
use super::plan::Plan;
use crate::client::{CHANNEL, refuse_close, unexpected};
use crate::clients::{self, Taking};
use crate::error::{Error, Result};
use crate::frames::{Arguments, BODY, HEADER, HEARTBEAT, METHOD, PutFrame};
use crate::socket::Socket;

/// A connection that consumes.
pub(crate) struct Consumer {
    link: Link,
    /// The queues it reads; the consumer tag `c<i>` is that of the i-th.
    queues: Vec<u32>,
    /// Per queue and publisher the position after the last delivery.
    last: Vec<u64>,
    publishers: usize,
    arriving: Option<Delivery>,
    unacked: u64,
    newest_tag: u64,
    /// Deliveries taken.
    delivered: u64,
}

/// A delivery whose body is not there in full.
struct Delivery {
    tag: u64,
    subscription: usize,
    redelivered: bool,
    /// The announced size and the body, once the header is there.
    body: Option<(u64, Arriving)>,
}

impl Consumer {
    /// A consumer of `queues` on a set-up connection; `basic.consume` for each was sent.
    pub(crate) fn new(link: Link, queues: Vec<u32>, publishers: u16) -> Consumer {
        let publishers = usize::from(publishers);
        let last = vec![0; queues.len() * publishers];
        Consumer { link, queues, last, publishers, arriving: None, unacked: 0, newest_tag: 0, delivered: 0 }
    }

    fn take(&mut self, delivery: &Delivery, taking: &mut Taking<'_, Amqp>) {
        let Delivery { tag, subscription, redelivered, body: Some((_, body)) } = delivery else { return };
        // Only now: an ack before the last byte would be one for a message this side does not have.
        self.newest_tag = *tag;
        self.delivered += 1;
        self.unacked += 1;
        taking.ledger.redelivered += u64::from(*redelivered);
        match body.verdict(taking.pattern) {
            Verdict::Corrupt => taking.ledger.flaws.corrupt += 1,
            Verdict::Unstamped => taking.ledger.distinct += 1,
            Verdict::Stamped(stamp) => {
                let last = &mut self.last[subscription * self.publishers..][..self.publishers];
                let queue = self.queues[*subscription];
                taking.ledger.note(taking.plan, queue, stamp, *redelivered, taking.published, last);
                taking.latency.record(stamp.sent_ns, taking.now_ns);
            }
        }
    }
}

impl clients::Consumer<Amqp> for Consumer {
    fn socket(&mut self) -> &mut Socket {
        &mut self.link.socket
    }

    fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Acknowledges all that was taken, once it is worth a frame or nothing more is published.
    fn ask(&mut self, plan: &Plan, publishes: bool) {
        let batch = if publishes { plan.ack_batch() } else { 1 };
        if !plan.auto_ack && self.unacked >= batch {
            self.link.socket.out.put_ack(CHANNEL, self.newest_tag, true);
            self.unacked = 0;
        }
    }

    fn receive(&mut self, taking: &mut Taking<'_, Amqp>) -> Result<()> {
        self.link.read()?;
        while let Some(frame) = self.link.inbox.next_frame()? {
            let mut whole = false;
            match (frame.kind, &mut self.arriving) {
                (METHOD, None) => match frame.method() {
                    Some((60, 60, arguments)) => {
                        self.arriving = Some(delivery(arguments, self.queues.len())?);
                    }
                    Some((60, 21, _)) => {}
                    Some((20, 20, arguments)) => {
                        let active = Arguments(arguments).u8().unwrap_or(1);
                        self.link.socket.out.put_method(CHANNEL, (20, 21), |out| out.push(active));
                    }
                    _ => {
                        refuse_close(&frame)?;
                        return Err(unexpected(&frame));
                    }
                },
                (HEADER, Some(delivery)) if delivery.body.is_none() => {
                    let size = frame.payload.get(4..12).and_then(|bytes| Arguments(bytes).u64());
                    let size =
                        size.ok_or_else(|| Error::new("the server sent a content header cut short"))?;
                    delivery.body = Some((size, Arriving::new(size, taking.pattern)));
                    whole = size == 0;
                }
                (BODY, Some(Delivery { body: Some((size, arriving)), .. })) => {
                    arriving.take(frame.payload, taking.pattern);
                    whole = arriving.taken() >= *size;
                }
                (HEARTBEAT, _) => {}
                _ => {
                    refuse_close(&frame)?;
                    return Err(unexpected(&frame));
                }
            }
            if whole && let Some(delivery) = self.arriving.take() {
                self.take(&delivery, taking);
            }
        }
        Ok(())
    }
}

/// Reads the arguments of `basic.deliver`: the delivery tag, and whose delivery it is.
fn delivery(arguments: &[u8], subscriptions: usize) -> Result<Delivery> {
    let mut arguments = Arguments(arguments);
    let read = |arguments: &mut Arguments<'_>| {
        let consumer = arguments.short_string()?;
        let subscription = subscription(consumer).filter(|i| *i < subscriptions)?;
        let tag = arguments.u64()?;
        Some(Delivery { tag, subscription, redelivered: arguments.u8()? & 1 == 1, body: None })
    };
    read(&mut arguments)
        .ok_or_else(|| Error::new("the server sent a delivery for a consumer it was not asked for"))
}

/// The number in the consumer tag `c<number>`.
fn subscription(tag: &[u8]) -> Option<usize> {
    let digits = tag.strip_prefix(b"c").filter(|d| !d.is_empty() && d.len() < 10)?;
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumer_tag_is_the_subscription() {
        assert_eq!(subscription(b"c0"), Some(0));
        assert_eq!(subscription(b"c917"), Some(917));
        for tag in [&b"c"[..], b"", b"x1", b"c1x", b"c9999999999"] {
            assert_eq!(subscription(tag), None);
        }
    }

    #[test]
    fn a_delivery_for_nobody_is_an_error() {
        let bytes = b"\x02c1\0\0\0\0\0\0\0\x07\x01\0\0";
        let parsed = delivery(bytes, 2).unwrap();
        assert_eq!((parsed.tag, parsed.subscription, parsed.redelivered), (7, 1, true));
        assert!(delivery(bytes, 1).is_err());
        assert!(delivery(&bytes[..9], 2).is_err());
    }
}
