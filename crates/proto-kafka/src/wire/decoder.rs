//! Reading the fields of a request, in both forms the protocol has: fixed-width lengths, and from a version of each
//! request on ("flexible") varint lengths with tagged fields behind every structure.
//!
//! In: borrowed bytes of one whole frame. Out: numbers, borrowed strings, lists. Never: believes a count before its
//! bytes are there, and never lets one request name more than [`ITEMS_MAX`] things.
//!
//! ```text
//!            fixed                      flexible
//! string     i16 length (-1 null)       varint length + 1 (0 null)
//! bytes      i32 length (-1 null)       varint length + 1 (0 null)
//! list       i32 count (-1 null)        varint count + 1 (0 null)
//! structure  fields                     fields, varint count of tags, per tag: varint tag, varint length, bytes
//! ```

use base::{Reader, Short};

/// Elements of all lists of one request together: what is built of them is larger than their bytes.
pub const ITEMS_MAX: usize = 100_000;
/// Bytes of one string, as the fixed form bounds them.
const STRING_MAX: usize = i16::MAX as usize;

/// The bytes are no sound request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<Short> for Malformed {
    fn from(_: Short) -> Malformed {
        Malformed
    }
}

/// A cursor over the fields of one request.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: Reader<'a>,
    flexible: bool,
    items_left: usize,
}

macro_rules! number {
    ($name:ident, $read:ident, $t:ty) => {
        /// Reads a number.
        #[inline]
        pub fn $name(&mut self) -> Result<$t, Malformed> {
            Ok(self.rest.$read()?)
        }
    };
}

impl<'a> Decoder<'a> {
    /// Starts at the first field.
    pub fn new(bytes: &'a [u8], flexible: bool) -> Decoder<'a> {
        Decoder { rest: Reader::new(bytes), flexible, items_left: ITEMS_MAX }
    }

    number!(i16, i16_be, i16);
    number!(i32, i32_be, i32);
    number!(i64, i64_be, i64);

    /// Reads what is left, to see how far one has come.
    pub fn rest(&self) -> &'a [u8] {
        self.rest.rest()
    }

    /// From here on fields are in the flexible form, or not.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Reads a number of one byte.
    #[inline]
    pub fn i8(&mut self) -> Result<i8, Malformed> {
        Ok(self.rest.u8()?.cast_signed())
    }

    /// Reads a truth value.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.rest.u8()? != 0)
    }

    /// Reads an identity of 16 bytes.
    #[inline]
    pub fn uuid(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_be_bytes(self.rest.array()?))
    }

    /// Reads a string that must be there.
    pub fn string(&mut self) -> Result<&'a str, Malformed> {
        self.nullable_string()?.ok_or(Malformed)
    }

    /// Reads a string that may be null.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, Malformed> {
        let length = match self.flexible {
            true => self.compact_length()?,
            false => fixed_length(i64::from(self.rest.i16_be()?))?,
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_MAX {
            return Err(Malformed);
        }
        std::str::from_utf8(self.rest.bytes(length)?).map(Some).map_err(|_| Malformed)
    }

    /// Reads bytes that must be there.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        self.nullable_bytes()?.ok_or(Malformed)
    }

    /// Reads bytes that may be null.
    pub fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length()? {
            Some(length) => Ok(Some(self.rest.bytes(length)?)),
            None => Ok(None),
        }
    }

    /// Reads a list of plain values; null is as good as empty.
    pub fn list<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        Ok(self.nullable_list(item)?.unwrap_or_default())
    }

    /// Reads a list of plain values that may be null.
    pub fn nullable_list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        let Some(count) = self.count()? else { return Ok(None) };
        let mut items = Vec::with_capacity(count.min(16));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(Some(items))
    }

    /// Reads a list of structures; null is as good as empty.
    pub fn structs<T>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        Ok(self.nullable_structs(item)?.unwrap_or_default())
    }

    /// Reads a list of structures that may be null.
    pub fn nullable_structs<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Vec<T>>, Malformed> {
        self.nullable_list(|fields| {
            let value = item(fields)?;
            fields.tags()?;
            Ok(value)
        })
    }

    /// Passes over the tagged fields at the end of a structure, where there are any.
    pub fn tags(&mut self) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.rest.varint()? {
            self.rest.varint()?;
            self.rest.lengthed()?;
        }
        Ok(())
    }

    /// The count of a list: never more than there are bytes, as every element has at least one.
    fn count(&mut self) -> Result<Option<usize>, Malformed> {
        let Some(count) = self.length()? else { return Ok(None) };
        if count > self.rest.rest().len() || count > self.items_left {
            return Err(Malformed);
        }
        self.items_left -= count;
        Ok(Some(count))
    }

    /// The length of bytes or the count of a list, whether or not they are there; `None` for null.
    pub(crate) fn length(&mut self) -> Result<Option<usize>, Malformed> {
        match self.flexible {
            true => self.compact_length(),
            false => fixed_length(i64::from(self.rest.i32_be()?)),
        }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        let length = usize::try_from(self.rest.varint()?).map_err(|_| Malformed)?;
        Ok(length.checked_sub(1))
    }
}

fn fixed_length(length: i64) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_strings_lists_and_tags_are_read() {
        let mut fixed = Decoder::new(&[0, 2, b'h', b'i', 0xff, 0xff, 0, 0, 0, 1, 7], false);
        assert_eq!(fixed.string(), Ok("hi"));
        assert_eq!(fixed.nullable_string(), Ok(None));
        assert_eq!(fixed.list(Decoder::i8), Ok(vec![7]));
        assert_eq!(fixed.tags(), Ok(()));
        let mut flexible = Decoder::new(&[3, b'h', b'i', 0, 2, 7, 1, 9, 2, 0xaa, 0xbb, 5], true);
        assert_eq!(flexible.string(), Ok("hi"));
        assert_eq!(flexible.nullable_string(), Ok(None));
        assert_eq!(flexible.structs(Decoder::i8), Ok(vec![7]));
        assert_eq!(flexible.rest(), [5]);
    }

    #[test]
    fn a_claimed_count_is_worth_nothing_without_its_bytes() {
        assert_eq!(Decoder::new(&[0x7f, 0xff, 0xff, 0xff, 1], false).list(Decoder::i8), Err(Malformed));
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1], true).list(Decoder::i8), Err(Malformed));
        assert_eq!(Decoder::new(&[0xff, 0xff, 0xff, 0xfe], false).list(Decoder::i8), Err(Malformed));
        assert_eq!(Decoder::new(&[0xff, 0xfe], false).nullable_string(), Err(Malformed));
    }

    #[test]
    fn one_request_names_a_bounded_number_of_things() {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            bytes.extend_from_slice(&40_000i32.to_be_bytes());
            bytes.resize(bytes.len() + 40_000, 0);
        }
        let mut fields = Decoder::new(&bytes, false);
        assert_eq!(fields.list(Decoder::i8).map(|items| items.len()), Ok(40_000));
        assert_eq!(fields.list(Decoder::i8).map(|items| items.len()), Ok(40_000));
        assert_eq!(fields.list(Decoder::i8), Err(Malformed));
    }
}
