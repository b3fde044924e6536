//! Writing the fields of a response, in the two forms that `decoder.rs` draws, and the frame around them.
//!
//! In: values. Out: bytes behind what a buffer holds already. Never: decides what is answered.
//!
//! ```text
//! response  i32 size  i32 correlation  [tags, where the header is flexible]  fields
//! ```

use base::Put;

/// A writer of the fields of one response.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    flexible: bool,
}

macro_rules! number {
    ($name:ident, $t:ty) => {
        /// Writes a number.
        #[inline]
        pub fn $name(&mut self, value: $t) {
            self.out.extend_from_slice(&value.to_be_bytes());
        }
    };
}

impl<'o> Encoder<'o> {
    /// Writes behind what `out` holds.
    pub fn new(out: &'o mut Vec<u8>, flexible: bool) -> Encoder<'o> {
        Encoder { out, flexible }
    }

    number!(i8, i8);
    number!(i16, i16);
    number!(i32, i32);
    number!(i64, i64);
    number!(uuid, u128);

    /// How many bytes the buffer holds.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// Writes a truth value.
    pub fn bool(&mut self, value: bool) {
        self.out.push(u8::from(value));
    }

    /// Writes a string.
    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    /// Writes a string or null; what is longer than a string can be is cut.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        let value = value.map(|value| &value[..value.floor_char_boundary(i16::MAX as usize)]);
        match (self.flexible, value) {
            (true, Some(value)) => self.out.put_varint(value.len() as u64 + 1),
            (true, None) => self.out.push(0),
            (false, Some(value)) => self.out.put_u16_be(value.len() as u16),
            (false, None) => self.i16(-1),
        }
        self.out.extend_from_slice(value.unwrap_or_default().as_bytes());
    }

    /// Writes bytes.
    pub fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.out.extend_from_slice(value);
    }

    /// Writes the length of bytes or the count of a list that follow.
    pub fn length(&mut self, length: usize) {
        match self.flexible {
            true => self.out.put_varint(length as u64 + 1),
            false => self.out.put_u32_be(length as u32),
        }
    }

    /// Writes a list of plain values.
    pub fn list<I: ExactSizeIterator>(
        &mut self,
        items: impl IntoIterator<Item = I::Item, IntoIter = I>,
        mut item: impl FnMut(&mut Self, I::Item),
    ) {
        let items = items.into_iter();
        self.length(items.len());
        items.for_each(|value| item(self, value));
    }

    /// Writes a list of structures without tagged fields.
    pub fn structs<I: ExactSizeIterator>(
        &mut self,
        items: impl IntoIterator<Item = I::Item, IntoIter = I>,
        mut item: impl FnMut(&mut Self, I::Item),
    ) {
        self.list(items, |fields, value| {
            item(fields, value);
            fields.tags();
        });
    }

    /// Ends a structure without tagged fields.
    pub fn tags(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }
}

/// Writes one whole response.
pub fn put_response(
    out: &mut Vec<u8>,
    correlation: i32,
    header_tags: bool,
    body_flexible: bool,
    body: impl FnOnce(&mut Encoder<'_>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&correlation.to_be_bytes());
    if header_tags {
        out.push(0);
    }
    body(&mut Encoder::new(out, body_flexible));
    let size = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_framed_in_both_forms() {
        let body = |fields: &mut Encoder<'_>| {
            fields.i16(3);
            fields.string("hi");
            fields.nullable_string(None);
            fields.structs([1i8], |fields, value| fields.i8(value));
            fields.tags();
        };
        let mut out = vec![0xee];
        put_response(&mut out, 9, false, false, body);
        assert_eq!(out[1..], [0, 0, 0, 17, 0, 0, 0, 9, 0, 3, 0, 2, b'h', b'i', 0xff, 0xff, 0, 0, 0, 1, 1]);
        out.clear();
        put_response(&mut out, 9, true, true, body);
        assert_eq!(out, [0, 0, 0, 15, 0, 0, 0, 9, 0, 0, 3, 3, b'h', b'i', 0, 2, 1, 0, 0]);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_between_characters() {
        let mut out = Vec::new();
        Encoder::new(&mut out, false).string(&"é".repeat(40_000));
        assert_eq!(out.len(), 2 + 32_766);
    }
}
