//! Decisions taken from the front of the fuzzer's bytes; zeros once they are used up, so that every run ends.

/// What is left of the bytes.
pub struct Draws<'a>(pub &'a [u8]);

impl<'a> Draws<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number in `0..bound`, of one byte: `bound` is 1 to 256.
    pub fn below(&mut self, bound: u16) -> u16 {
        u16::from(self.byte()) % bound
    }

    /// Whether a bit is set.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number of any size, small ones more often.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=250 => u64::from(small),
            251 => u64::MAX,
            252 => 1 << 62,
            _ => self.bytes(8).iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }

    /// Up to `length` bytes.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Bytes behind their length, which is one byte.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.bytes(usize::from(length))
    }

    /// One of the items.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::from(self.byte()) % items.len()]
    }
}
