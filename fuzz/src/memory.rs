//! Counts the bytes that are allocated, so that a target can say how much its subject may hold.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static HELD: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a counter; a target makes it its `#[global_allocator]`.
pub struct Counting;

// SAFETY: every call goes to the system's allocator as it came; only numbers are kept beside.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        HIGHEST.fetch_max(held, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

/// A place in time from which allocations are counted.
pub struct Mark(usize);

impl Mark {
    /// From now on.
    pub fn set() -> Mark {
        let held = HELD.load(Relaxed);
        HIGHEST.store(held, Relaxed);
        Mark(held)
    }

    /// Bytes held now beyond those held at the mark.
    pub fn held(&self) -> usize {
        HELD.load(Relaxed).saturating_sub(self.0)
    }

    /// The most that was held at any moment since.
    pub fn highest(&self) -> usize {
        HIGHEST.load(Relaxed).saturating_sub(self.0)
    }
}
