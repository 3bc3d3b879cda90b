//! Where randomness comes from in a simulation.
//!
//! Whatever wants random bytes in a program asks the system by `getrandom`: the keys of every `HashMap`, ids of
//! connections, pauses between tries. This module stands in its place (as madsim's does): to a thread that runs a
//! simulation it answers from the seed, to every other thread as the system does.

use std::cell::{Cell, RefCell};

thread_local! {
    /// This thread's generator; none outside a simulation.
    static SEEDED: RefCell<Option<Random>> = const { RefCell::new(None) };
    /// Whether it was asked.
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread gets its random bytes from the seed.
pub(crate) fn seed_this_thread(seed: u64) {
    SEEDED.set(Some(Random::new(seed)));
    ASKED.set(false);
}

/// Whether this thread has asked for random bytes since it got its seed.
pub(crate) fn was_asked() -> bool {
    ASKED.get()
}

/// A generator that is seeded. Good enough to spread things, and repeatable.
#[derive(Debug)]
pub struct Random(nsm_mechanisms::Random);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(nsm_mechanisms::Random::seeded(seed))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next()
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        // The bias is far below what any schedule could show.
        usize::try_from(self.number() % (end.max(1) as u64)).unwrap_or_default()
    }

    /// A number from `least` to `most`.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// True so often in a hundred times.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of these; none, if there are none.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}

/// Fills `buffer` from this thread's seed; false: it has none.
fn fill(buffer: &mut [u8]) -> bool {
    // A thread that is ending has none either.
    let filled = SEEDED.try_with(|seeded| {
        let Some(random) = &mut *seeded.borrow_mut() else {
            return false;
        };
        for chunk in buffer.chunks_mut(8) {
            let bytes = random.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        ASKED.set(true);
        true
    });
    filled.unwrap_or(false)
}

/// Stands in the place of libc's function of this name, throughout the program.
///
/// # Safety
/// As of that function: `buffer` must be valid for writes of `length` bytes.
#[allow(unsafe_code, reason = "std, uuid and ring ask libc by this symbol; there is no other place to answer them")]
// SAFETY: the name and the signature are libc's, so whoever links against it finds what he expects.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if !buffer.is_null() && length > 0 {
        // SAFETY: the caller says that these bytes may be written, and does not read them before we return.
        unsafe { std::ptr::write_bytes(buffer.cast::<u8>(), 0, length) };
        // SAFETY: as above; they have just been initialized.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        if fill(bytes) {
            return isize::try_from(length).unwrap_or(isize::MAX);
        }
    }
    // SAFETY: the system call that libc's own function makes, with the caller's own arguments.
    let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
    isize::try_from(got).unwrap_or(-1)
}
