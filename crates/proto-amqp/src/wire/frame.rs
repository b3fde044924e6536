//! Frames: where one ends, and what it carries.
//!
//! ```text
//!  0 type u8        1 method, 2 content header, 3 body, 8 heartbeat
//!  1 channel u16
//!  3 size u32
//!  7 payload
//!  . end u8 = 0xce
//! ```
//! Numbers are big endian.

use base::Put;

/// The type of a method frame.
pub const METHOD: u8 = 1;
/// The type of a content header frame.
pub const HEADER: u8 = 2;
/// The type of a content body frame.
pub const BODY: u8 = 3;
/// The type of a heartbeat frame.
pub const HEARTBEAT: u8 = 8;
/// The last byte of every frame.
pub const END: u8 = 0xce;
/// Bytes of a frame that are not payload.
pub const OVERHEAD: usize = 8;
/// Bytes in front of the payload.
pub const HEAD: usize = 7;
/// The lowest `frame_max` that may be negotiated.
pub const FRAME_MAX_MIN: u32 = 8192;

/// What a client opens with, and what the server answers to anything else.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// A whole heartbeat frame.
pub const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, END];

/// One frame, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// See the constants of this module.
    pub kind: u8,
    /// The channel, 0 for the connection.
    pub channel: u16,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Why the bytes are not a frame. The stream cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// More payload than negotiated: type, channel, size.
    TooLarge(u8, u16, u32),
    /// Another byte where the end must be: type, channel, the byte.
    NoEnd(u8, u16, u8),
}

/// The frame at the start of `input`, or `None` while it is incomplete. `frame_max` counts the whole frame; the
/// payload may be as large, because clients are known to forget the eight bytes around it.
#[inline]
pub fn next_frame(input: &[u8], frame_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [kind, c0, c1, s0, s1, s2, s3] = *head;
    let channel = u16::from_be_bytes([c0, c1]);
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if size as usize > frame_max {
        return Err(FrameError::TooLarge(kind, channel, size));
    }
    let Some((payload, rest)) = rest.split_at_checked(size as usize) else { return Ok(None) };
    match rest.first() {
        None => Ok(None),
        Some(&END) => Ok(Some(Frame { kind, channel, payload })),
        Some(&other) => Err(FrameError::NoEnd(kind, channel, other)),
    }
}

impl Frame<'_> {
    /// Bytes of the whole frame.
    #[inline]
    pub fn len(&self) -> usize {
        self.payload.len() + OVERHEAD
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }
}

/// Appends a frame around `payload`.
#[inline]
pub fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    put_head(out, kind, channel, payload.len());
    out.put(payload);
    out.put_u8(END);
}

/// Appends the head of a frame of `size` payload bytes; the payload and [`END`] must follow.
#[inline]
pub fn put_head(out: &mut Vec<u8>, kind: u8, channel: u16, size: usize) {
    let [c0, c1] = channel.to_be_bytes();
    let [s0, s1, s2, s3] = (size as u32).to_be_bytes();
    out.put(&[kind, c0, c1, s0, s1, s2, s3]);
}

/// Appends a frame whose payload `fill` writes.
#[inline]
pub fn put_frame_with(out: &mut Vec<u8>, kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_head(out, kind, channel, 0);
    fill(out);
    let size = (out.len() - start - HEAD) as u32;
    out[start + 3..start + HEAD].copy_from_slice(&size.to_be_bytes());
    out.put_u8(END);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_holds_and_no_prefix_is_a_frame() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, BODY, 0x0102, b"hi");
        assert_eq!(bytes, [3, 1, 2, 0, 0, 0, 2, b'h', b'i', 0xce]);
        let frame = Frame { kind: BODY, channel: 0x0102, payload: b"hi" };
        assert_eq!(next_frame(&bytes, 10), Ok(Some(frame)));
        assert_eq!(frame.len(), bytes.len());
        for cut in 0..bytes.len() {
            assert_eq!(next_frame(&bytes[..cut], 10), Ok(None));
        }
        let mut same = Vec::new();
        put_frame_with(&mut same, BODY, 0x0102, |out| out.put(b"hi"));
        assert_eq!(same, bytes);
    }

    #[test]
    fn what_is_too_large_or_has_no_end_is_refused() {
        assert_eq!(next_frame(&[1, 0, 0, 0, 1, 0, 0], 65_535), Err(FrameError::TooLarge(1, 0, 65_536)));
        assert_eq!(next_frame(&[8, 0, 3, 0, 0, 0, 0, 0], 100), Err(FrameError::NoEnd(8, 3, 0)));
        assert_eq!(next_frame(&HEARTBEAT_FRAME, 100).map(|f| f.map(|f| f.kind)), Ok(Some(HEARTBEAT)));
    }
}
