//! The allocator of the `nsm` program, with a count of what is held: allocated and not freed.
//!
//! A program that wants to know makes it its own:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: nsm_tests::heap::Counting = nsm_tests::heap::Counting;
//!
//! nsm_tests::heap::count(true);
//! let before = nsm_tests::heap::held();
//! let kept = vec![0_u8; 1000];
//! assert_eq!(nsm_tests::heap::held() - before, 1000);
//! drop(kept);
//! assert_eq!(nsm_tests::heap::held(), before);
//! ```

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use mimalloc::MiMalloc;

/// Mimalloc. Counts while it is asked to: counting takes time, where time is measured too.
#[derive(Debug, Clone, Copy)]
pub struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static HELD: AtomicI64 = AtomicI64::new(0);

/// Counts from now on, or no longer.
pub fn count(counts: bool) {
    COUNTS.store(counts, Ordering::SeqCst);
}

/// How many bytes are held of those that were allocated while it counted. Less than none, if others were freed meanwhile.
#[must_use]
pub fn held() -> i64 {
    HELD.load(Ordering::SeqCst)
}

fn add(bytes: usize, sign: i64) {
    if COUNTS.load(Ordering::Relaxed) {
        HELD.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX) * sign, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call goes on to mimalloc with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(layout.size(), -1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(layout.size(), -1);
        add(size, 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}
