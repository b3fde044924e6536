//! The memory of blocks: runs of pages of a few sizes, kept for reuse.
//!
//! In: how many pages are wanted, runs given back. Out: runs of initialised pages, each owned by one holder. Small runs
//! stand alone. Large ones are cut from *slabs* of a few huge pages each: a block of a megabyte in four-kilobyte pages
//! is as many entries of the page tables, for the processor at every copy and for the disk at every write. Never: holds
//! more spare memory than the shelves say and one slab of each size.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::PAGE;

/// Sizes of runs that stand alone, in pages, and how many spare ones of each are kept.
const SINGLES: [(usize, usize); 6] = [(1, 256), (4, 64), (16, 32), (64, 16), (80, 16), (1040, 2)];
/// Runs of more pages, if they are no larger than those in slabs, are cut from one.
const SINGLE_MAX: usize = 80;
/// Sizes of runs in slabs: two and four batches of 256 KiB, with what an entry adds.
const IN_SLABS: [usize; 2] = [146, 292];
/// Pages of a slab: four huge ones.
const SLAB: usize = 2048;
const SLAB_BYTES: usize = SLAB * PAGE;

#[repr(C, align(4096))]
struct Page([u8; PAGE]);

/// A run of initialised pages. Whoever has it has it alone; it is to be given back to the shelves it is from.
pub(crate) struct Pages {
    start: NonNull<Page>,
    count: usize,
}

// SAFETY: a run is owned like a vector; nothing of it is bound to a thread.
unsafe impl Send for Pages {}
// SAFETY: shared references only read.
unsafe impl Sync for Pages {}

impl Default for Pages {
    fn default() -> Self {
        Pages { start: NonNull::dangling(), count: 0 }
    }
}

impl Pages {
    pub fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `count` initialised pages (or to none), aligned, for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.count * PAGE) }
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and nobody else has these pages.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.count * PAGE) }
    }

    /// A run of its own.
    fn single(count: usize) -> Pages {
        let layout = single_layout(count);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Pages { start: start.cast(), count }
    }

    fn free_single(self) {
        if self.count > 0 {
            // SAFETY: it was made by `single` with the same layout, and `self` was its only holder.
            unsafe { dealloc(self.start.as_ptr().cast(), single_layout(self.count)) }
        }
    }
}

fn single_layout(count: usize) -> Layout {
    assert!(count > 0, "a run has pages");
    Layout::array::<Page>(count).expect("a run is far below the address space")
}

fn slab_layout() -> Layout {
    Layout::from_size_align(SLAB_BYTES, SLAB_BYTES).expect("a power of two")
}

/// A piece of memory from which runs of one size are cut.
struct Slab {
    start: NonNull<Page>,
    /// Bits of the runs that nobody holds, and of those that nobody has held yet: their content is undefined.
    free: u32,
    fresh: u32,
}

// SAFETY: a slab owns its memory but for the runs that are held, which are `Send` themselves.
unsafe impl Send for Slab {}

impl Slab {
    fn new(runs: usize) -> Slab {
        let layout = slab_layout();
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        advise_huge(start);
        let all = (1 << runs) - 1;
        Slab { start: start.cast(), free: all, fresh: all }
    }

    /// One of its free runs, of `count` pages.
    fn cut(&mut self, count: usize) -> Pages {
        let place = self.free.trailing_zeros();
        self.free &= !(1 << place);
        // SAFETY: there are so many runs of `count` pages in the slab as it has bits.
        let start = unsafe { self.start.add(place as usize * count) };
        if self.fresh & 1 << place != 0 {
            self.fresh &= !(1 << place);
            // SAFETY: the pages lie in the slab and nobody has them.
            unsafe { start.write_bytes(0, count) };
        }
        Pages { start, count }
    }

    /// Which of its runs that is, if it is one.
    fn place_of(&self, pages: &Pages) -> Option<u32> {
        let from = (pages.start.as_ptr() as usize).checked_sub(self.start.as_ptr() as usize)?;
        (from < SLAB_BYTES).then(|| (from / (pages.count * PAGE)) as u32)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: it was made by `new` with the same layout. A slab is dropped when all of its runs are free, or with
        // the shelves, which everyone who holds a run keeps.
        unsafe { dealloc(self.start.as_ptr().cast(), slab_layout()) }
    }
}

/// Asks for huge pages; without them everything works as well, only slower.
fn advise_huge(start: NonNull<u8>) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range was just allocated, and the advice changes no content.
    let _ =
        unsafe { rustix::mm::madvise(start.as_ptr().cast(), SLAB_BYTES, rustix::mm::Advice::LinuxHugepage) };
    #[cfg(not(target_os = "linux"))]
    let _ = start;
}

/// Runs that are free.
#[derive(Default)]
pub(crate) struct Shelves {
    singles: [Vec<Pages>; SINGLES.len()],
    slabs: [Vec<Slab>; IN_SLABS.len()],
}

impl Shelves {
    /// A run of at least `wanted` pages; its content is whatever it was.
    pub fn take(&mut self, wanted: usize) -> Pages {
        if let Some(size) = IN_SLABS.iter().position(|size| *size >= wanted)
            && wanted > SINGLE_MAX
        {
            return self.cut(size);
        }
        let Some(size) = SINGLES.iter().position(|(size, _)| *size >= wanted) else {
            return Pages::single(wanted);
        };
        self.singles[size].pop().unwrap_or_else(|| Pages::single(SINGLES[size].0))
    }

    fn cut(&mut self, size: usize) -> Pages {
        let (slabs, count) = (&mut self.slabs[size], IN_SLABS[size]);
        // The first that has one, so that the last ones come to be free as a whole.
        let place = slabs.iter().position(|slab| slab.free != 0).unwrap_or_else(|| {
            slabs.push(Slab::new(SLAB / count));
            slabs.len() - 1
        });
        slabs[place].cut(count)
    }

    /// Takes a run back.
    pub fn put_back(&mut self, pages: Pages) {
        if let Some(size) = IN_SLABS.iter().position(|size| *size == pages.count) {
            return self.put_into_slab(size, &pages);
        }
        let size = SINGLES.iter().position(|(size, _)| *size == pages.count);
        match size.filter(|size| self.singles[*size].len() < SINGLES[*size].1) {
            Some(size) => self.singles[size].push(pages),
            None => pages.free_single(),
        }
    }

    fn put_into_slab(&mut self, size: usize, pages: &Pages) {
        let slabs = &mut self.slabs[size];
        let of = slabs.iter_mut().find_map(|slab| slab.place_of(pages).map(|place| (slab, place)));
        let (slab, place) = of.expect("a run goes back to the shelves it is from");
        slab.free |= 1 << place;
        let all = (1 << (SLAB / IN_SLABS[size])) - 1;
        if slabs.iter().filter(|slab| slab.free == all).count() > 1 {
            let last = slabs.iter().rposition(|slab| slab.free == all).expect("there are two");
            slabs.remove(last);
        }
    }
}

impl Drop for Shelves {
    fn drop(&mut self) {
        for shelf in &mut self.singles {
            shelf.drain(..).for_each(Pages::free_single);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prng;

    #[test]
    fn runs_are_large_enough_aligned_and_apart_however_they_come_and_go() {
        let mut shelves = Shelves::default();
        let mut prng = Prng::new(1);
        let mut held: Vec<(u8, Pages)> = Vec::new();
        for step in 0..4000u32 {
            if held.len() < 40 && prng.chance(3, 5) {
                let most = *prng.pick(&[3, 200, 300, 1100]);
                let wanted = 1 + prng.below(most) as usize;
                let mut pages = shelves.take(wanted);
                assert!(pages.len() >= wanted && (pages.start.as_ptr() as usize).is_multiple_of(PAGE));
                let (mark, bytes) = (step as u8, pages.bytes_mut());
                (bytes[0], bytes[wanted * PAGE - 1]) = (mark, mark);
                bytes[PAGE * (wanted / 2)] = mark;
                held.push((mark, pages));
            } else if !held.is_empty() {
                let (mark, pages) = held.swap_remove(prng.below(held.len() as u64) as usize);
                assert_eq!(pages.bytes()[0], mark, "nobody else wrote here");
                shelves.put_back(pages);
            }
        }
        held.into_iter().for_each(|(_, pages)| shelves.put_back(pages));
        assert!(shelves.slabs.iter().all(|slabs| slabs.len() == 1), "spare memory stays within its bound");
    }

    #[test]
    fn a_slab_is_filled_before_another_is_made() {
        let mut shelves = Shelves::default();
        let runs: Vec<Pages> = (0..SLAB / 292).map(|_| shelves.take(292)).collect();
        assert_eq!(shelves.slabs[1].len(), 1);
        let one_more = shelves.take(147);
        assert_eq!((shelves.slabs[1].len(), one_more.len()), (2, 292));
        runs.into_iter().chain([one_more]).for_each(|pages| shelves.put_back(pages));
    }
}
