//! Cutting the input into requests and reading what stands in front of their fields.
//!
//! In: bytes as they came. Out: the size of a frame, its header, its fields. Never: reads fields.
//!
//! ```text
//! request  i32 size  i16 key  i16 version  i32 correlation  string client (nullable)  [tags]  fields
//! ```
//! The client's name has a fixed-width length in every version; tags follow it where the request is flexible.

use super::api::{self, Api};
use super::decoder::{Decoder, Malformed};

/// Bytes of the size in front of a frame.
pub const SIZE_BYTES: usize = 4;

/// What stands in front of a request's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which request.
    pub key: i16,
    /// In which version.
    pub version: i16,
    /// What its response must carry.
    pub correlation: i32,
    /// How the client calls itself; empty where it does not.
    pub client: &'a str,
}

/// The size of the frame at the front of `input`, the size itself not counted; `None` while it is incomplete.
pub fn size_of(input: &[u8]) -> Option<i32> {
    input.first_chunk().map(|size| i32::from_be_bytes(*size))
}

/// The number of the request at the front of `input`, as soon as it is there.
pub fn key_of(input: &[u8]) -> Option<i16> {
    input.get(SIZE_BYTES..)?.first_chunk().map(|key| i16::from_be_bytes(*key))
}

/// Reads the header of a frame (without its size) and returns the decoder of the fields. A version that is not
/// understood is read as far as its header goes in every version.
pub fn header_of<'a>(frame: &'a [u8]) -> Result<(Header<'a>, Option<&'static Api>, Decoder<'a>), Malformed> {
    let mut fields = Decoder::new(frame, false);
    let (key, version, correlation) = (fields.i16()?, fields.i16()?, fields.i32()?);
    let api = api::api_of(key).filter(|api| api.takes(version));
    let Some(api) = api else {
        return Ok((Header { key, version, correlation, client: "" }, None, fields));
    };
    let client = fields.nullable_string()?.unwrap_or_default();
    fields.set_flexible(api.is_flexible(version));
    fields.tags()?;
    Ok((Header { key, version, correlation, client }, Some(api), fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_in_both_forms() {
        let fixed = [0, 3, 0, 1, 0, 0, 0, 7, 0, 1, b'c', 0xaa];
        let (header, _, fields) = header_of(&fixed).expect("sound");
        assert_eq!(header, Header { key: 3, version: 1, correlation: 7, client: "c" });
        assert_eq!(fields.rest(), [0xaa]);
        let flexible = [0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 1, 5, 1, 0, 0xaa];
        let (header, api, fields) = header_of(&flexible).expect("sound");
        assert_eq!((header.client, api.map(|api| api.key), fields.rest()), ("", Some(3), &[0xaa][..]));
        let (_, api, _) = header_of(&[0, 3, 0, 99, 0, 0, 0, 7]).expect("sound");
        assert_eq!(api, None, "a version that is not understood");
    }
}
