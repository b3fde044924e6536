//! Message bodies that prove themselves: who published them, as which message, when, and that no byte changed.
//!
//! In: publisher, sequence, time. Out: ready-made publish frames, and the verdict over a received body. Bodies below
//! 16 bytes carry no stamp and are only counted.
//!
//! ```text
//! body: u16 publisher | u48 sequence | u64 time in ns | pattern, byte i of the body = low byte of (i * 151 + 29)
//! ```

use crate::client::CHANNEL;
use crate::frames::{BODY, FRAME_OVERHEAD, HEADER, PutFrame};

/// Bytes of a stamp.
pub(crate) const STAMP: usize = 16;

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Number of the publisher.
    pub(crate) publisher: u16,
    /// Number of the message of that publisher, from 0; 48 bits.
    pub(crate) sequence: u64,
    /// When it was sent, or in an open loop should have been, in nanoseconds since the start of the run.
    pub(crate) sent_ns: u64,
}

impl Stamp {
    /// The 16 bytes.
    pub(crate) fn encoded(self) -> [u8; STAMP] {
        debug_assert!(self.sequence < 1 << 48);
        let who = u64::from(self.publisher) << 48 | self.sequence;
        (u128::from(who) << 64 | u128::from(self.sent_ns)).to_be_bytes()
    }

    /// The stamp that `bytes` are.
    pub(crate) fn decoded(bytes: [u8; STAMP]) -> Stamp {
        let all = u128::from_be_bytes(bytes);
        let who = (all >> 64) as u64;
        Stamp { publisher: (who >> 48) as u16, sequence: who & ((1 << 48) - 1), sent_ns: all as u64 }
    }
}

/// The bytes of a body of `size` before it is stamped.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(151).wrapping_add(29)) as u8).collect()
}

/// The frames of a publish, encoded once: per message one copy and 16 patched bytes.
pub(crate) struct Template {
    /// `basic.publish` to each target.
    publishes: Vec<Vec<u8>>,
    /// The content header and all body frames.
    content: Vec<u8>,
    /// Where the stamp is in `content`, if bodies have one.
    stamp_at: Option<usize>,
}

impl Template {
    /// Frames for bodies of `size` bytes to each of `targets` (exchange and routing key).
    pub(crate) fn new(
        targets: &[(String, String)],
        size: usize,
        persistent: bool,
        frame_max: usize,
    ) -> Template {
        let publish = |(exchange, key): &(String, String)| {
            let mut frame = Vec::new();
            frame.put_method(CHANNEL, (60, 40), |out| {
                out.extend_from_slice(&[0, 0]);
                out.put_short(exchange);
                out.put_short(key);
                out.push(0);
            });
            frame
        };
        let mut content = Vec::new();
        content.put_frame(HEADER, CHANNEL, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(size as u64).to_be_bytes());
            // The only property is the delivery mode.
            out.extend_from_slice(&[0x10, 0, if persistent { 2 } else { 1 }]);
        });
        let stamp_at = (size >= STAMP).then_some(content.len() + FRAME_OVERHEAD - 1);
        for piece in pattern(size).chunks(frame_max - FRAME_OVERHEAD) {
            content.put_frame(BODY, CHANNEL, |out| out.extend_from_slice(piece));
        }
        Template { publishes: targets.iter().map(publish).collect(), content, stamp_at }
    }

    /// How many targets there are.
    pub(crate) fn targets(&self) -> u64 {
        self.publishes.len() as u64
    }

    /// Appends one message; targets are served in turn.
    pub(crate) fn put(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let target = if self.publishes.len() == 1 { 0 } else { (stamp.sequence % self.targets()) as usize };
        out.extend_from_slice(&self.publishes[target]);
        let at = out.len();
        out.extend_from_slice(&self.content);
        if let Some(stamp_at) = self.stamp_at {
            out[at + stamp_at..at + stamp_at + STAMP].copy_from_slice(&stamp.encoded());
        }
    }
}

/// A body being received, in however many pieces.
pub(crate) struct Arriving {
    stamp: [u8; STAMP],
    offset: usize,
    intact: bool,
}

/// The verdict over a whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every byte is as published.
    Stamped(Stamp),
    /// Too small to carry a stamp.
    Unstamped,
    /// The size or a byte differs from anything that was published.
    Corrupt,
}

impl Arriving {
    /// A body whose header announces `announced` bytes where `pattern` is what is published.
    pub(crate) fn new(announced: u64, pattern: &[u8]) -> Self {
        Arriving { stamp: [0; STAMP], offset: 0, intact: announced == pattern.len() as u64 }
    }

    /// Takes the next piece.
    pub(crate) fn take(&mut self, piece: &[u8], pattern: &[u8]) {
        let begin = self.offset;
        self.offset += piece.len();
        let Some(expected) = pattern.get(begin..self.offset) else {
            self.intact = false;
            return;
        };
        let stamped = if pattern.len() < STAMP { 0 } else { STAMP.saturating_sub(begin).min(piece.len()) };
        self.stamp[STAMP.min(begin)..][..stamped].copy_from_slice(&piece[..stamped]);
        self.intact &= piece[stamped..] == expected[stamped..];
    }

    /// Bytes taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.offset as u64
    }

    /// What it was, once whole.
    pub(crate) fn verdict(&self, pattern: &[u8]) -> Verdict {
        match self.intact && self.offset == pattern.len() {
            false => Verdict::Corrupt,
            true if pattern.len() < STAMP => Verdict::Unstamped,
            true => Verdict::Stamped(Stamp::decoded(self.stamp)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{Frame, METHOD};
    use proptest::prelude::*;

    const STAMP_A: Stamp = Stamp { publisher: 0x0102, sequence: 0x0304_0506_0708, sent_ns: 0x090a };

    #[test]
    fn a_stamp_is_these_bytes() {
        assert_eq!(STAMP_A.encoded(), [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 9, 10]);
        assert_eq!(Stamp::decoded(STAMP_A.encoded()), STAMP_A);
    }

    #[test]
    fn a_publish_is_a_method_a_header_and_bodies_to_the_targets_in_turn() {
        let targets = [(String::new(), "a".to_owned()), (String::new(), "b".to_owned())];
        let template = Template::new(&targets, 40, true, 8 + 32);
        let mut out = Vec::new();
        template.put(&mut out, STAMP_A);
        template.put(&mut out, Stamp { sequence: 1, ..STAMP_A });
        let mut kinds = Vec::new();
        let mut at = 0;
        while let Some((frame, used)) = Frame::cut(&out[at..]).unwrap() {
            kinds.push((frame.kind, frame.payload.len()));
            at += used;
        }
        let one = [(METHOD, 10), (HEADER, 15), (BODY, 32), (BODY, 8)];
        assert_eq!(kinds, [one, one].concat());
        assert_eq!((out[7 + 8], out[out.len() / 2 + 7 + 8]), (b'a', b'b'));
        assert_eq!(&out[18 + 23 + 7..][..16], &STAMP_A.encoded());
    }

    fn received(body: &[u8], pattern: &[u8], cuts: &[usize]) -> Verdict {
        let mut arriving = Arriving::new(body.len() as u64, pattern);
        let mut at = 0;
        for cut in cuts.iter().copied().chain([body.len()]) {
            let end = cut.clamp(at, body.len());
            arriving.take(&body[at..end], pattern);
            at = end;
        }
        arriving.verdict(pattern)
    }

    proptest! {
        #[test]
        fn a_body_is_recognised_however_it_is_cut(size in 0usize..80, cuts in prop::collection::vec(0usize..80, 0..4)) {
            let pattern = pattern(size);
            let mut body = pattern.clone();
            let mut cuts = cuts;
            cuts.sort_unstable();
            if size >= STAMP {
                body[..STAMP].copy_from_slice(&STAMP_A.encoded());
                prop_assert_eq!(received(&body, &pattern, &cuts), Verdict::Stamped(STAMP_A));
            } else {
                prop_assert_eq!(received(&body, &pattern, &cuts), Verdict::Unstamped);
            }
        }

        #[test]
        fn one_changed_byte_behind_the_stamp_is_noticed(size in 17usize..80, at in any::<prop::sample::Index>()) {
            let pattern = pattern(size);
            let mut body = pattern.clone();
            body[STAMP + at.index(size - STAMP)] ^= 0x10;
            prop_assert_eq!(received(&body, &pattern, &[20]), Verdict::Corrupt);
            prop_assert_eq!(received(&pattern[1..], &pattern, &[]), Verdict::Corrupt);
        }
    }
}
