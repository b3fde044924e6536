//! Content: the header frame and the body frames behind a method that carries a message.
//!
//! ```text
//! payload of a header frame: class u16 = 60, weight u16 = 0, body size u64, property block
//! ```

use base::{Put, Reader};

use super::{Malformed, frame};

/// The class of the only methods that carry content.
pub const BASIC: u16 = 60;
/// Bytes of a content header in front of its property block.
pub const FIXED: usize = 12;

/// The payload of a content header frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method that it belongs to.
    pub class: u16,
    /// Unused, must be 0.
    pub weight: u16,
    /// Bytes of the body that follows.
    pub body_size: u64,
    /// The property block.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a header frame.
    #[inline]
    pub fn decode(payload: &'a [u8]) -> Result<ContentHeader<'a>, Malformed> {
        let mut reader = Reader::new(payload);
        Ok(ContentHeader {
            class: reader.u16_be()?,
            weight: reader.u16_be()?,
            body_size: reader.u64_be()?,
            properties: reader.rest(),
        })
    }
}

/// Appends the header frame of a body of `body_size` bytes.
#[inline]
pub fn put_header(out: &mut Vec<u8>, channel: u16, properties: &[u8], body_size: usize) {
    frame::put_head(out, frame::HEADER, channel, FIXED + properties.len());
    let mut fixed = [0; FIXED];
    fixed[..2].copy_from_slice(&BASIC.to_be_bytes());
    fixed[4..].copy_from_slice(&(body_size as u64).to_be_bytes());
    out.put(&fixed);
    out.put(properties);
    out.put_u8(frame::END);
}

/// Appends header and body frames, none longer than `frame_max`; an empty body has no body frame.
#[inline]
pub fn put_content(out: &mut Vec<u8>, channel: u16, properties: &[u8], body: &[u8], frame_max: usize) {
    put_header(out, channel, properties, body.len());
    for part in body.chunks(frame_max - frame::OVERHEAD) {
        frame::put_frame(out, frame::BODY, channel, part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        put_content(&mut out, 2, &[0x10, 0, 2], b"hello", 11);
        #[rustfmt::skip]
        let golden = [
            2, 0, 2, 0, 0, 0, 15, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x10, 0, 2, 0xce,
            3, 0, 2, 0, 0, 0, 3, b'h', b'e', b'l', 0xce,
            3, 0, 2, 0, 0, 0, 2, b'l', b'o', 0xce,
        ];
        assert_eq!(out, golden);
        let header = ContentHeader { class: 60, weight: 0, body_size: 5, properties: &[0x10, 0, 2] };
        assert_eq!(ContentHeader::decode(&golden[7..22]), Ok(header));
        assert!(ContentHeader::decode(&golden[7..18]).is_err());
    }
}
