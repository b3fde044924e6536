//! AMQP 0-9-1 frames as the load generator meets them: a cutter for the bytes of a socket, and a writer for the
//! few methods a client sends.
//!
//! In: bytes. Out: frames that borrow them, or encoded frames. Never blocks, never copies a body, and knows only the
//! methods of publishing and consuming; everything else is a class and a method number.
//!
//! ```text
//! frame:  u8 kind | u16 channel | u32 size | payload[size] | u8 0xCE
//! kind 1: payload = u16 class | u16 method | arguments      kind 2: u16 class | u16 0 | u64 body size | properties
//! kind 3: payload = body bytes                              kind 8: heartbeat
//! ```

use crate::error::{Error, Result};

/// Bytes of a frame around its payload.
pub(crate) const FRAME_OVERHEAD: usize = 8;
/// Kind of a frame that carries a method.
pub(crate) const METHOD: u8 = 1;
/// Kind of a frame that carries a content header.
pub(crate) const HEADER: u8 = 2;
/// Kind of a frame that carries a piece of a body.
pub(crate) const BODY: u8 = 3;
/// Kind of a frame that only says that the peer lives.
pub(crate) const HEARTBEAT: u8 = 8;
/// The last byte of every frame.
const FRAME_END: u8 = 0xce;
/// No server's frames are larger than this after the tune the client answers with.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// One whole frame, borrowed from the receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it carries.
    pub(crate) kind: u8,
    /// Its channel.
    pub(crate) channel: u16,
    /// Its payload without head and end byte.
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Cuts the first frame off `bytes`; `None` when it is not there in full yet.
    pub(crate) fn cut(bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>> {
        let Some((head, rest)) = bytes.split_first_chunk::<7>() else { return Ok(None) };
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if size > FRAME_MAX as usize {
            return Err(Error::new(format!(
                "the server sent a frame of {size} bytes, more than it agreed to"
            )));
        }
        let Some(end) = rest.get(size) else { return Ok(None) };
        if *end != FRAME_END {
            return Err(Error::new("the server sent a frame without its end byte"));
        }
        let channel = u16::from_be_bytes([head[1], head[2]]);
        Ok(Some((Frame { kind: head[0], channel, payload: &rest[..size] }, size + FRAME_OVERHEAD)))
    }

    /// Class and method number of a method frame, and its arguments.
    pub(crate) fn method(&self) -> Option<(u16, u16, &'a [u8])> {
        let (head, arguments) = self.payload.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), arguments))
    }
}

/// Reads arguments in order; every read is `None` past the end.
pub(crate) struct Arguments<'a>(pub(crate) &'a [u8]);

impl<'a> Arguments<'a> {
    /// The next `N` bytes.
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// The next octet.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[b]| b)
    }

    /// The next short.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    /// The next long.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_be_bytes)
    }

    /// The next long long.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }

    /// The next short string.
    pub(crate) fn short_string(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u8()?);
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }
}

/// Appends frames to a buffer.
pub(crate) trait PutFrame {
    /// A whole method frame: class, method and what `arguments` writes.
    fn put_method(&mut self, channel: u16, id: (u16, u16), arguments: impl FnOnce(&mut Vec<u8>));
    /// A whole frame of any kind.
    fn put_frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>));
    /// A short string; longer than 255 bytes is the caller's mistake.
    fn put_short(&mut self, text: &str);
    /// A long string or table: its length and its bytes.
    fn put_long(&mut self, bytes: &[u8]);
    /// `basic.ack`, by far the most frequent of what a client sends beside publishes.
    fn put_ack(&mut self, channel: u16, tag: u64, multiple: bool);
}

impl PutFrame for Vec<u8> {
    fn put_method(
        &mut self,
        channel: u16,
        (class, method): (u16, u16),
        arguments: impl FnOnce(&mut Vec<u8>),
    ) {
        self.put_frame(METHOD, channel, |out| {
            out.extend_from_slice(&class.to_be_bytes());
            out.extend_from_slice(&method.to_be_bytes());
            arguments(out);
        });
    }

    fn put_frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
        self.push(kind);
        self.extend_from_slice(&channel.to_be_bytes());
        let at = self.len();
        self.extend_from_slice(&[0; 4]);
        payload(self);
        let size = (self.len() - at - 4) as u32;
        self[at..at + 4].copy_from_slice(&size.to_be_bytes());
        self.push(FRAME_END);
    }

    fn put_short(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("short strings are names made here, below 256 bytes");
        self.push(length);
        self.extend_from_slice(text.as_bytes());
    }

    fn put_long(&mut self, bytes: &[u8]) {
        self.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.extend_from_slice(bytes);
    }

    fn put_ack(&mut self, channel: u16, tag: u64, multiple: bool) {
        self.put_method(channel, (60, 80), |out| {
            out.extend_from_slice(&tag.to_be_bytes());
            out.push(u8::from(multiple));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ack_is_these_bytes() {
        let mut out = Vec::new();
        out.put_ack(1, 0x0102, true);
        assert_eq!(out, [1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 1, 2, 1, 0xce]);
    }

    #[test]
    fn a_bad_end_and_a_huge_size_are_errors() {
        let mut out = Vec::new();
        out.put_ack(1, 1, false);
        *out.last_mut().unwrap() = 0;
        assert!(Frame::cut(&out).is_err());
        assert!(Frame::cut(&[1, 0, 0, 0xff, 0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn frames_come_out_wherever_the_bytes_are_split(
            frames in prop::collection::vec((1u8..9, any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            for (kind, channel, payload) in &frames {
                bytes.put_frame(*kind, *channel, |out| out.extend_from_slice(payload));
            }
            let split = cut.index(bytes.len());
            let (mut buffer, mut at, mut seen) = (bytes[..split].to_vec(), 0, Vec::new());
            for more in [&bytes[split..], &[]] {
                while let Some((frame, used)) = Frame::cut(&buffer[at..]).unwrap() {
                    seen.push((frame.kind, frame.channel, frame.payload.to_vec()));
                    at += used;
                }
                buffer.extend_from_slice(more);
            }
            prop_assert_eq!(at, bytes.len());
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn arguments_never_read_past_the_end(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut arguments = Arguments(&bytes);
            while arguments.short_string().is_some() {}
            prop_assert!(arguments.0.len() <= bytes.len());
            prop_assert!(arguments.u64().is_none() || arguments.0.len() + 8 <= bytes.len());
        }
    }
}
