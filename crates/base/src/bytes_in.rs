//! Reading numbers and slices from bytes that may end early. Nothing is allocated, no length is believed before
//! its bytes are there.

/// The bytes ended before the value did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// A cursor over borrowed bytes. After an `Err(Short)` the position is unspecified.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! number {
    ($be:ident, $le:ident, $t:ty) => {
        /// Reads one number, most significant byte first.
        #[inline]
        pub fn $be(&mut self) -> Result<$t, Short> {
            self.array().map(<$t>::from_be_bytes)
        }
        /// Reads one number, least significant byte first.
        #[inline]
        pub fn $le(&mut self) -> Result<$t, Short> {
            self.array().map(<$t>::from_le_bytes)
        }
    };
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True when nothing is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `n` bytes.
    #[inline]
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Short)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes a fixed number of bytes.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes one byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array().map(|[b]| b)
    }

    number!(u16_be, u16_le, u16);
    number!(u32_be, u32_le, u32);
    number!(u64_be, u64_le, u64);
    number!(i16_be, i16_le, i16);
    number!(i32_be, i32_le, i32);
    number!(i64_be, i64_le, i64);

    /// Takes an unsigned LEB128 number of at most ten bytes.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Short> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Short)
    }

    /// Takes a varint length and that many bytes.
    #[inline]
    pub fn lengthed(&mut self) -> Result<&'a [u8], Short> {
        let length = usize::try_from(self.varint()?).map_err(|_| Short)?;
        self.bytes(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Put;

    #[test]
    fn numbers_come_back_in_both_orders() {
        let mut reader = Reader::new(&[1, 2, 1, 2, 3, 4]);
        assert_eq!(reader.u16_be(), Ok(0x0102));
        assert_eq!(reader.u16_le(), Ok(0x0201));
        assert_eq!(reader.u32_be(), Err(Short));
    }

    #[test]
    fn varints_of_every_width_come_back() {
        for bits in 0..64 {
            for value in [1u64 << bits, (1u64 << bits).wrapping_sub(1), u64::MAX] {
                let mut bytes = Vec::new();
                bytes.put_varint(value);
                assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            }
        }
        assert_eq!(Reader::new(&[0xff; 20]).varint(), Err(Short), "a number without an end");
    }

    #[test]
    fn a_length_is_not_believed_before_its_bytes() {
        let mut bytes = Vec::new();
        bytes.put_varint(u64::MAX);
        assert_eq!(Reader::new(&bytes).lengthed(), Err(Short));
    }
}
