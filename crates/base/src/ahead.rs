//! Memory that is needed soon: asked for while there is other work, so that nobody waits for it later.
//!
//! Thousands of queues that take turns are in no cache. Whoever goes through a list of them asks for one some places
//! ahead of the one in hand.
#![allow(unsafe_code)]

/// Bytes that the processor fetches at once.
const LINE: usize = 64;

/// Asks the processor for the memory of `value` itself, not for what it points to. A hint: nothing depends on it.
#[inline]
pub fn prefetch<T: ?Sized>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    let lead = start.addr() % LINE;
    for line in (0..lead + size_of_val(value)).step_by(LINE) {
        prefetch_line(start.wrapping_add(line).wrapping_sub(lead));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(at: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction neither reads nor writes as far as a program can tell, and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_: *const i8) {}
