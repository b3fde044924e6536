//! What waits to be sent on one connection: small things copied together, large bodies shared with the log's
//! blocks and sent by vectored writes.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;

use crate::Block;

#[derive(Debug)]
enum Chunk {
    Own(Vec<u8>),
    Shared(Block, Range<usize>),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(block, range) => &block.as_slice()[range.clone()],
        }
    }
}

/// Bytes in the order they must leave.
#[derive(Debug, Default)]
pub struct SendBuffer {
    sealed: VecDeque<Chunk>,
    tail: Vec<u8>,
    sent_of_head: usize,
    sealed_len: usize,
}

impl SendBuffer {
    /// Bytes not yet sent.
    #[inline]
    pub fn len(&self) -> usize {
        self.sealed_len + self.tail.len() - self.sent_of_head
    }

    /// True when everything has been sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where encoders append.
    #[inline]
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Appends a part of a block without copying it. Worth it from about 16 KiB on.
    pub fn share(&mut self, block: &Block, range: Range<usize>) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.sealed_len += tail.len();
            self.sealed.push_back(Chunk::Own(tail));
        }
        self.sealed_len += range.len();
        self.sealed.push_back(Chunk::Shared(block.clone(), range));
    }

    /// Fills `out` with what comes next and returns how many slices were filled.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail = std::iter::once(self.tail.as_slice());
        let mut all = self.sealed.iter().map(Chunk::as_slice).chain(tail);
        let mut skip = self.sent_of_head;
        let mut filled = 0;
        while filled < out.len() {
            let Some(slice) = all.next() else { break };
            let slice = &slice[std::mem::take(&mut skip)..];
            if !slice.is_empty() {
                out[filled] = IoSlice::new(slice);
                filled += 1;
            }
        }
        filled
    }

    /// Forgets the first `n` bytes: they have been sent.
    pub fn advance(&mut self, n: usize) {
        self.sent_of_head += n;
        while let Some(head) = self.sealed.front() {
            let length = head.as_slice().len();
            if self.sent_of_head < length {
                return;
            }
            self.sent_of_head -= length;
            self.sealed_len -= length;
            self.sealed.pop_front();
        }
        assert!(self.sent_of_head <= self.tail.len(), "more sent than there was");
        // A tail that never runs quite empty must not keep what has left: moved down once half of it is gone.
        if self.sent_of_head == self.tail.len() || self.sent_of_head >= 65_536.max(self.tail.len() / 2) {
            self.tail.drain(..self.sent_of_head);
            self.sent_of_head = 0;
        }
    }

    /// Lends a spare buffer to an encoder's tail that has none of its own.
    pub fn lend(&mut self, spare: impl FnOnce() -> Vec<u8>) {
        if self.tail.capacity() == 0 {
            self.tail = spare();
        }
    }

    /// Takes the tail's memory back when everything has been sent, so that an idle connection holds none.
    pub fn reclaim(&mut self) -> Option<Vec<u8>> {
        (self.is_empty() && self.tail.capacity() > 0).then(|| std::mem::take(&mut self.tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pool, Prng};

    fn drain(buffer: &mut SendBuffer, prng: &mut Prng) -> Vec<u8> {
        let mut sent = Vec::new();
        while !buffer.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let filled = buffer.slices(&mut slices);
            let all: Vec<u8> = slices[..filled].iter().flat_map(|s| s.iter().copied()).collect();
            let n = 1 + prng.below(all.len() as u64) as usize;
            sent.extend_from_slice(&all[..n]);
            buffer.advance(n);
        }
        sent
    }

    #[test]
    fn what_goes_in_comes_out_in_order_however_it_is_cut() {
        let pool = Pool::default();
        let mut prng = Prng::new(1);
        for _ in 0..200 {
            let mut buffer = SendBuffer::default();
            let mut expected = Vec::new();
            for piece in 0..prng.below(12) as u8 {
                let bytes = vec![piece; prng.below(50) as usize];
                expected.extend_from_slice(&bytes);
                if prng.chance(1, 2) && !bytes.is_empty() {
                    buffer.share(&pool.block(&bytes), 0..bytes.len());
                } else {
                    buffer.tail().extend_from_slice(&bytes);
                }
            }
            assert_eq!(buffer.len(), expected.len());
            assert_eq!(drain(&mut buffer, &mut prng), expected);
        }
    }

    #[test]
    fn an_idle_buffer_gives_its_memory_back() {
        let mut buffer = SendBuffer::default();
        buffer.lend(|| Vec::with_capacity(100));
        buffer.tail().push(1);
        assert!(buffer.reclaim().is_none());
        buffer.advance(1);
        assert!(buffer.reclaim().is_some_and(|spare| spare.capacity() >= 100));
    }
}
