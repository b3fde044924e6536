//! Writing numbers and slices to a growing buffer.

/// Anything bytes can be appended to.
pub trait Put {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    #[inline]
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }
    /// Appends a number, most significant byte first.
    #[inline]
    fn put_u16_be(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }
    /// Appends a number, most significant byte first.
    #[inline]
    fn put_u32_be(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }
    /// Appends a number, most significant byte first.
    #[inline]
    fn put_u64_be(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }
    /// Appends a number, least significant byte first.
    #[inline]
    fn put_u16_le(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }
    /// Appends a number, least significant byte first.
    #[inline]
    fn put_u32_le(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }
    /// Appends a number, least significant byte first.
    #[inline]
    fn put_u64_le(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }
    /// Appends an unsigned LEB128 number.
    #[inline]
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8((value as u8) | 0x80);
            value >>= 7;
        }
        self.put_u8(value as u8);
    }
    /// Appends a varint length and the bytes.
    #[inline]
    fn put_lengthed(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
