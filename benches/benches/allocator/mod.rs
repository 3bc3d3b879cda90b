//! The allocator of the `nsm` program, which counts what is held while it is asked to.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use mimalloc::MiMalloc;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static COUNTS: AtomicBool = AtomicBool::new(false);
static HELD: AtomicI64 = AtomicI64::new(0);

/// Starts to count, and says from where.
pub(crate) fn start() -> i64 {
    COUNTS.store(true, Ordering::SeqCst);
    HELD.load(Ordering::SeqCst)
}

/// Stops counting, and says how far it has come, in bytes.
pub(crate) fn stop() -> i64 {
    COUNTS.store(false, Ordering::SeqCst);
    HELD.load(Ordering::SeqCst)
}

fn count(bytes: usize, sign: i64) {
    if COUNTS.load(Ordering::Relaxed) {
        HELD.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX) * sign, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call goes on to mimalloc with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}
