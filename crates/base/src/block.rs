//! Page-aligned buffers that are filled once, shared without copying and recycled.
//!
//! A sealed entry is built in one, handed to consensus, written to disk with direct IO, kept in the cache and read
//! by deliveries: always the same bytes. Fresh large allocations cost a page fault per page, so blocks return to
//! their pool when the last holder lets go.

use std::fmt;
use std::sync::{Arc, Mutex};

use crate::Put;
use crate::pages::{Pages, Shelves};

/// Alignment and granularity of blocks and of the log's writes, in bytes.
pub const PAGE: usize = 4096;

/// Where blocks come from and return to. Clones share the shelves.
#[derive(Clone, Default)]
pub struct Pool {
    shelves: Arc<Mutex<Shelves>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// An empty builder with room for at least `capacity` bytes.
    pub fn builder(&self, capacity: usize) -> BlockBuilder {
        BlockBuilder { pages: self.take(capacity), len: 0, pool: self.clone() }
    }

    /// A block with a copy of `bytes`.
    pub fn block(&self, bytes: &[u8]) -> Block {
        let mut builder = self.builder(bytes.len());
        builder.put(bytes);
        builder.freeze()
    }

    fn take(&self, capacity: usize) -> Pages {
        let pages = capacity.div_ceil(PAGE).max(1);
        self.lock(|shelves| shelves.take(pages))
    }

    fn put_back(&self, pages: Pages) {
        if pages.len() > 0 {
            self.lock(|shelves| shelves.put_back(pages));
        }
    }

    fn lock<T>(&self, act: impl FnOnce(&mut Shelves) -> T) -> T {
        // A poisoned lock means a panic between two pushes: the shelves themselves are still sound.
        act(&mut self.shelves.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

/// A block being filled.
pub struct BlockBuilder {
    pages: Pages,
    len: usize,
    pool: Pool,
}

impl fmt::Debug for BlockBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockBuilder({} bytes)", self.len)
    }
}

impl BlockBuilder {
    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What has been written.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.pages.bytes()[..self.len]
    }

    /// What has been written, to patch headers in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.pages.bytes_mut()[..len]
    }

    /// Appends `n` bytes of unspecified content and returns them to be filled.
    #[inline]
    pub fn extend(&mut self, n: usize) -> &mut [u8] {
        self.reserve(n);
        let start = self.len;
        self.len += n;
        &mut self.pages.bytes_mut()[start..start + n]
    }

    /// Forgets everything behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `n` more bytes.
    #[inline]
    pub fn reserve(&mut self, n: usize) {
        if self.pages.len() * PAGE - self.len < n {
            self.grow(n);
        }
    }

    #[cold]
    fn grow(&mut self, n: usize) {
        let wanted = (self.len + n).max(self.pages.len() * PAGE * 2);
        let mut larger = self.pool.take(wanted);
        larger.bytes_mut()[..self.len].copy_from_slice(self.as_slice());
        let smaller = std::mem::replace(&mut self.pages, larger);
        self.pool.put_back(smaller);
    }

    /// Seals the block: zeroes the rest of its last page and makes it shareable.
    pub fn freeze(mut self) -> Block {
        let padded = self.len.next_multiple_of(PAGE);
        let len = self.len;
        self.pages.bytes_mut()[len..padded].fill(0);
        let pages = std::mem::take(&mut self.pages);
        Block(Arc::new(Slab { pages, len, pool: self.pool.clone() }))
    }
}

impl Drop for BlockBuilder {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.pages));
    }
}

impl Put for BlockBuilder {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend(bytes.len()).copy_from_slice(bytes);
    }
}

/// Immutable shared bytes, aligned to [`PAGE`] and padded with zeros to a multiple of it.
#[derive(Clone)]
pub struct Block(Arc<Slab>);

struct Slab {
    pages: Pages,
    len: usize,
    pool: Pool,
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.pages));
    }
}

impl Block {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.0.pages.bytes()[..self.0.len]
    }

    /// The bytes and the zeros up to the next page boundary: what direct IO writes.
    pub fn padded(&self) -> &[u8] {
        &self.0.pages.bytes()[..self.0.len.next_multiple_of(PAGE)]
    }

    /// Bytes of content.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// True without content.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.0.pages.len() * PAGE
    }

    /// The same memory as reference-counted `Bytes`, for libraries that want those.
    pub fn to_bytes(&self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self.clone())
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes)", self.0.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_aligned_padded_and_keeps_its_bytes_while_growing() {
        let pool = Pool::default();
        let mut builder = pool.builder(10);
        let mut expected = Vec::new();
        for i in 0..5000u32 {
            builder.put_u32_le(i);
            expected.put_u32_le(i);
        }
        let block = builder.freeze();
        assert_eq!(block.as_slice(), expected);
        assert_eq!(block.padded().as_ptr() as usize % PAGE, 0);
        assert_eq!(block.padded().len() % PAGE, 0);
        assert!(block.padded()[block.len()..].iter().all(|b| *b == 0));
    }

    #[test]
    fn a_recycled_block_shows_nothing_of_its_former_life() {
        let pool = Pool::default();
        drop(pool.block(&[0xaa; PAGE]));
        let block = pool.block(&[1]);
        assert_eq!(block.padded()[1..], [0; PAGE - 1]);
    }

    #[test]
    fn memory_returns_only_when_the_last_holder_lets_go() {
        let pool = Pool::default();
        let block = pool.block(b"kept");
        let bytes = block.to_bytes();
        let address = block.as_slice().as_ptr();
        drop(block);
        assert_ne!(pool.block(b"other").as_slice().as_ptr(), address);
        drop(bytes);
        assert_eq!(pool.block(b"again").as_slice().as_ptr(), address);
    }
}
