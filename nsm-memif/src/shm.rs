//! Memory that a peer writes too. All access to it is here, behind functions that nobody can misuse.
//!
//! No reference into shared memory ever exists: a peer may change any octet at any time. Indices and descriptors are
//! atomics, packets are copied by volatile reads and writes, and every offset is checked against the region first.

#![allow(unsafe_code, reason = "mapping memory, and access to memory that another process writes")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use rustix::fs::{FileType, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::protocol::COOKIE;

/// Octets of a ring before its first descriptor: the cookie, flags and head, then, in a cache line of its own, the tail.
const DESCRIPTORS: usize = 128;
/// Octets of a descriptor.
const DESCRIPTOR: usize = 16;
/// The flag of a ring whose consumer wants no interrupts.
const MASK_INTERRUPT: u16 = 1;
/// The flag of a descriptor whose packet goes on in the next one.
const NEXT: u16 = 1;
/// Where memory files live (`TMPFS_MAGIC` of statfs(2)).
const TMPFS: i64 = 0x0102_1994;
/// An offset has 32 bits, so no more of a region can be named.
const LONGEST_REGION: u64 = 1 << 32;

/// Memory shared with the peer, mapped.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: it is nothing but an address range that stays mapped as long as the region lives, on whichever thread; all access
// is by atomics or volatile, never through references.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// New memory, all zero, and its descriptor for the peer. Nobody can shrink it.
    pub(crate) fn create(length: usize) -> io::Result<(Self, OwnedFd)> {
        let file = rustix::fs::memfd_create("memif", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Self::map(&file, length)?, file))
    }

    /// The peer's memory. Refused with a reason if touching it could ever end this process (SIGBUS): a file shorter than
    /// `length`, or, unless `trusting`, one that the peer could shrink or whose pages may run out.
    pub(crate) fn open(file: &OwnedFd, length: u64, trusting: bool) -> Result<Self, String> {
        let said = |error: rustix::io::Errno| format!("its descriptor cannot be examined: {error}");
        let status = rustix::fs::fstat(file).map_err(said)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err("its descriptor is no memory".to_owned());
        }
        if length == 0 || length > LONGEST_REGION {
            return Err(format!("{length} octets, where 1 to {LONGEST_REGION} are possible"));
        }
        if u64::try_from(status.st_size).unwrap_or(0) < length {
            return Err(format!("its file has {} octets, not the {length} announced", status.st_size));
        }
        if !trusting {
            let unsafe_file = "allow it with Config::trust_unsealed_memory if the peer is trusted";
            if rustix::fs::fstatfs(file).map_err(said)?.f_type as i64 != TMPFS {
                return Err(format!("its file is not plain memory, so its pages may run out; {unsafe_file}"));
            }
            let seals = rustix::fs::fcntl_get_seals(file).unwrap_or(SealFlags::empty());
            if !seals.contains(SealFlags::SHRINK) {
                return Err(format!("its file is not sealed against shrinking (F_SEAL_SHRINK); {unsafe_file}"));
            }
        }
        let length = usize::try_from(length).map_err(|_| format!("{length} octets are too many for this machine"))?;
        Self::map(file, length).map_err(|error| format!("it cannot be mapped: {error}"))
    }

    fn map(file: &OwnedFd, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, wherever the kernel puts it, overlaps nothing of ours.
        let base = unsafe {
            rustix::mm::mmap(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file.as_fd(), 0)
        }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Self { base, length })
    }

    /// Whether these octets are in it.
    pub(crate) fn contains(&self, offset: u32, length: u32) -> bool {
        u64::from(offset) + u64::from(length) <= self.length as u64
    }

    /// Copies from it. What is not in it is not copied.
    pub(crate) fn read(&self, offset: u32, into: &mut [u8]) {
        if let Some(from) = self.at(offset, into.len()) {
            // SAFETY: `at` checked that all of it is mapped; `into` is ours alone.
            unsafe { copy(from, into.as_mut_ptr(), into.len()) };
        }
    }

    /// Copies into it. What would not be in it is not copied.
    pub(crate) fn write(&self, offset: u32, from: &[u8]) {
        if let Some(to) = self.at(offset, from.len()) {
            // SAFETY: `at` checked that all of it is mapped.
            unsafe { copy(from.as_ptr(), to, from.len()) };
        }
    }

    /// Copies from this region to another, or within it.
    pub(crate) fn copy_to(&self, offset: u32, to: &Self, to_offset: u32, length: usize) {
        if let (Some(from), Some(to)) = (self.at(offset, length), to.at(to_offset, length)) {
            // SAFETY: `at` checked both; that they may overlap is no matter to single reads and writes.
            unsafe { copy(from, to, length) };
        }
    }

    fn at(&self, offset: u32, length: usize) -> Option<*mut u8> {
        let end = (offset as usize).checked_add(length)?;
        // SAFETY: it does not leave the mapping.
        (end <= self.length).then(|| unsafe { self.base.as_ptr().add(offset as usize) })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has an address in it any more: rings keep their region.
        let _cannot_fail = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// Copies octet by octet as far as anybody can tell, eight at a time where possible.
///
/// # Safety
/// `length` octets are mapped at both addresses; each may change meanwhile, at the hands of another process.
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    /// Eight octets at any address.
    #[derive(Clone, Copy)]
    #[repr(C, packed)]
    struct Word(u64);
    let words = length / size_of::<Word>();
    for at in 0..words {
        // SAFETY: within `length`; `Word` needs no alignment, and volatile access makes nothing of what it finds.
        unsafe { to.cast::<Word>().add(at).write_volatile(from.cast::<Word>().add(at).read_volatile()) };
    }
    for at in words * size_of::<Word>()..length {
        // SAFETY: within `length`.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
}

/// One descriptor, copied out of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// The packet goes on in the next one.
    pub(crate) next: bool,
    pub(crate) region: u16,
    pub(crate) length: u32,
    pub(crate) offset: u32,
}

/// A ring in a region.
///
/// It begins with the cookie (u32), flags (u16) and head (u16); the tail (u16) is at octet 64; descriptors of 16 octets
/// follow at 128: flags (u16), region (u16), length (u32), offset (u32), metadata (u32).
#[derive(Debug)]
pub(crate) struct Ring {
    _mapped: Arc<Region>,
    base: *mut u8,
    log2_size: u8,
}

// SAFETY: `base` is an address in the region that the ring keeps mapped, and which may be used from any thread.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// The largest ring: indices have 16 bits, and a full one must differ from an empty one.
    pub(crate) const LARGEST_LOG2: u8 = 14;

    /// Octets that a ring takes.
    pub(crate) const fn length(log2_size: u8) -> usize {
        DESCRIPTORS + (DESCRIPTOR << log2_size)
    }

    /// The ring at this place, if all of it is there.
    pub(crate) fn new(region: &Arc<Region>, offset: u32, log2_size: u8) -> Result<Self, String> {
        if log2_size > Self::LARGEST_LOG2 {
            return Err(format!("2^{log2_size} descriptors, where 2^{} are possible", Self::LARGEST_LOG2));
        }
        if !offset.is_multiple_of(8) {
            return Err(format!("it begins at octet {offset}, which is no multiple of 8"));
        }
        let base = region.at(offset, Self::length(log2_size)).ok_or("it is not within its region")?;
        Ok(Self { _mapped: Arc::clone(region), base, log2_size })
    }

    /// Number of its descriptors.
    pub(crate) fn size(&self) -> u16 {
        1 << self.log2_size
    }

    /// Makes an empty ring.
    pub(crate) fn initialise(&self) {
        self.half(4).store(MASK_INTERRUPT, Ordering::Relaxed);
        self.set_head(0);
        self.set_tail(0);
        // SAFETY: the ring's first four octets, aligned to 8 as `new` checked.
        unsafe { AtomicU32::from_ptr(self.base.cast()) }.store(COOKIE, Ordering::Release);
    }

    /// Whether somebody made a ring of it.
    pub(crate) fn is_initialised(&self) -> bool {
        // SAFETY: as in `initialise`.
        unsafe { AtomicU32::from_ptr(self.base.cast()) }.load(Ordering::Acquire) == COOKIE
    }

    /// Where the client is: behind the last packet it sent, or the last empty buffer it gave.
    pub(crate) fn head(&self) -> u16 {
        self.half(6).load(Ordering::Acquire)
    }

    /// Publishes the client's place, and all that was written before.
    pub(crate) fn set_head(&self, head: u16) {
        self.half(6).store(head, Ordering::Release);
    }

    /// Where the server is: behind the last packet it took, or sent.
    pub(crate) fn tail(&self) -> u16 {
        self.half(64).load(Ordering::Acquire)
    }

    /// Publishes the server's place, and all that was written before.
    pub(crate) fn set_tail(&self, tail: u16) {
        self.half(64).store(tail, Ordering::Release);
    }

    /// Says, as the consumer, whether interrupts are wanted. What is read from the ring after this is newer than it.
    pub(crate) fn want_interrupts(&self, wanted: bool) {
        self.half(4).store(if wanted { 0 } else { MASK_INTERRUPT }, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether the consumer, which may have looked before the last index was published, wants an interrupt.
    pub(crate) fn wants_interrupt(&self) -> bool {
        fence(Ordering::SeqCst);
        self.half(4).load(Ordering::Relaxed) & MASK_INTERRUPT == 0
    }

    /// The descriptor of an index; indices go on beyond the ring's size.
    pub(crate) fn descriptor(&self, index: u16) -> Descriptor {
        let [first, second] = self.words(index).map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
        Descriptor {
            next: u16::from_ne_bytes([first[0], first[1]]) & NEXT != 0,
            region: u16::from_ne_bytes([first[2], first[3]]),
            length: u32::from_ne_bytes([first[4], first[5], first[6], first[7]]),
            offset: u32::from_ne_bytes([second[0], second[1], second[2], second[3]]),
        }
    }

    /// Writes a descriptor.
    pub(crate) fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        let [flags, region] = [if descriptor.next { NEXT } else { 0 }, descriptor.region].map(u16::to_ne_bytes);
        let [length, offset] = [descriptor.length, descriptor.offset].map(u32::to_ne_bytes);
        let [first, second] = self.words(index);
        let fields = [flags[0], flags[1], region[0], region[1], length[0], length[1], length[2], length[3]];
        first.store(u64::from_ne_bytes(fields), Ordering::Relaxed);
        second.store(u64::from_ne_bytes([offset[0], offset[1], offset[2], offset[3], 0, 0, 0, 0]), Ordering::Relaxed);
    }

    fn words(&self, index: u16) -> [&AtomicU64; 2] {
        let slot = usize::from(index & (self.size() - 1));
        // SAFETY: the slot is within the ring, which is within its region, mapped as long as `self` lives; it is aligned
        // to 8, as the base is; an atomic may change at other hands.
        [0, 8].map(|part| unsafe { AtomicU64::from_ptr(self.base.add(DESCRIPTORS + slot * DESCRIPTOR + part).cast()) })
    }

    fn half(&self, at: usize) -> &AtomicU16 {
        debug_assert!(at < DESCRIPTORS && at.is_multiple_of(2), "a field of the ring's head");
        // SAFETY: within the first 128 octets of the ring, and even; otherwise as in `words`.
        unsafe { AtomicU16::from_ptr(self.base.add(at).cast()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_that_could_end_this_process_is_not_mapped() {
        let unsealed = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, 8192).unwrap();
        assert!(Region::open(&unsealed, 8192, false).unwrap_err().contains("F_SEAL_SHRINK"));
        Region::open(&unsealed, 8192, true).unwrap();
        rustix::fs::fcntl_add_seals(&unsealed, SealFlags::SHRINK).unwrap();
        Region::open(&unsealed, 8192, false).unwrap();
        for (length, trusting) in [(8193, true), (0, true), (LONGEST_REGION + 1, true), (u64::MAX, false)] {
            Region::open(&unsealed, length, trusting).unwrap_err();
        }
        let file = OwnedFd::from(std::fs::File::open(std::env::current_exe().unwrap()).unwrap());
        assert!(Region::open(&file, 4096, false).unwrap_err().contains("plain memory"));
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(Region::open(&pipe.into(), 4096, true).unwrap_err().contains("no memory"));
        let null = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
        assert!(Region::open(&null, 4096, true).unwrap_err().contains("no memory"));
    }

    #[test]
    fn a_ring_is_within_its_region_or_not_at_all() {
        let (region, _file) = Region::create(4096).unwrap();
        let region = Arc::new(region);
        let last = 4096 - u32::try_from(Ring::length(4)).unwrap();
        let ring = Ring::new(&region, last, 4).unwrap();
        ring.initialise();
        ring.set_descriptor(15, Descriptor { next: true, region: 3, length: 5, offset: 7 });
        assert_eq!(ring.descriptor(15 + 32), Descriptor { next: true, region: 3, length: 5, offset: 7 });
        let mut end = [0; 16];
        region.read(4096 - 16, &mut end);
        assert_eq!(end[..2], 1u16.to_ne_bytes());
        for (offset, log2_size) in [(last + 8, 4), (last, 5), (4, 4), (u32::MAX - 7, 4), (0, 15), (0, 255)] {
            Ring::new(&region, offset, log2_size).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn copies_are_exact(from in prop::collection::vec(any::<u8>(), 0..100), offset in 0u32..4096, other in 0u32..4096) {
            let (region, _file) = Region::create(4096).unwrap();
            let fits = |offset: u32| offset as usize + from.len() <= 4096;
            region.write(offset, &from);
            let mut back = vec![0xee; from.len()];
            region.read(offset, &mut back);
            prop_assert_eq!(&back, if fits(offset) { &from } else { &vec![0xee; from.len()] });
            if fits(offset) && fits(other) && offset.abs_diff(other) as usize >= from.len() {
                region.copy_to(offset, &region, other, from.len());
                region.read(other, &mut back);
                prop_assert_eq!(&back, &from);
            }
        }
    }
}
