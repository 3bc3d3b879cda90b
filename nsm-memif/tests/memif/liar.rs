//! A peer that says and writes what it likes: messages by hand, and memory as a file.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nsm_memif::protocol::{AddRing, COOKIE, Direction, Init, MESSAGE_LENGTH, Message, Mode, VERSION};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Its socket. Everything it does waits, so it has a thread for itself.
pub(crate) struct Liar(pub(crate) OwnedFd);

impl Liar {
    pub(crate) fn say(&self, octets: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(beside.push(SendAncillaryMessage::ScmRights(files)));
        }
        // It may have been thrown out meanwhile.
        let _sent = sendmsg(&self.0, &[IoSlice::new(octets)], &mut beside, SendFlags::NOSIGNAL);
    }

    pub(crate) fn send(&self, message: &Message, file: Option<BorrowedFd<'_>>) {
        self.say(&message.encode(), file.as_slice());
    }

    /// The next message, and a descriptor that came with it; `None` at the end.
    pub(crate) fn hear(&self) -> Option<(Message, Option<OwnedFd>)> {
        let mut octets = [0; MESSAGE_LENGTH];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut octets)];
        let message = recvmsg(&self.0, into, &mut beside, RecvFlags::CMSG_CLOEXEC).ok()?;
        let files = beside.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let file = files.flatten().next();
        (message.bytes > 0).then(|| (Message::decode(&octets).unwrap(), file))
    }

    /// What it is told in the end, behind whatever comes before.
    pub(crate) fn last_words(&self) -> Option<String> {
        while let Some((message, _)) = self.hear() {
            if let Message::Disconnect { reason, .. } = message {
                return Some(reason);
            }
        }
        None
    }

    pub(crate) fn init() -> Init {
        Init { version: VERSION, id: 0, mode: Mode::Ethernet, secret: [0; 24], name: "liar".to_owned() }
    }

    /// Behaves as a client until the interface is up. What it makes: a region with a ring to the server, a ring to the client,
    /// and a buffer for each of their descriptors.
    pub(crate) fn connect(&self, memory: &Memory) {
        self.hear().unwrap();
        self.send(&Message::Init(Self::init()), None);
        self.hear().unwrap();
        self.send(&Message::AddRegion { index: 0, size: memory.length }, Some(memory.file.as_fd()));
        self.hear().unwrap();
        for (direction, offset) in [(Direction::ToServer, 0), (Direction::ToClient, Memory::RING)] {
            let (log2_size, region) = (Memory::LOG2_SIZE, 0);
            let ring = AddRing { direction, index: 0, region, offset, log2_size, private_header: 0 };
            self.send(&Message::AddRing(ring), Some(memory.interrupt.as_fd()));
            self.hear().unwrap();
        }
        self.send(&Message::Connect { interface: "liar0".to_owned() }, None);
        let (connected, _) = self.hear().unwrap();
        assert!(matches!(connected, Message::Connected { .. }), "{connected:?}");
    }
}

/// A client's memory, written as a file: so this needs no unsafe code, and the other side sees it all the same.
pub(crate) struct Memory {
    pub(crate) file: File,
    pub(crate) length: u64,
    pub(crate) interrupt: OwnedFd,
}

impl Memory {
    pub(crate) const LOG2_SIZE: u8 = 3;
    /// Octets of a ring.
    pub(crate) const RING: u32 = 128 + 16 * 8;
    /// Octets of a buffer.
    pub(crate) const BUFFER: u32 = 64;
    /// Where those of the ring to the server begin; those of the other one follow.
    pub(crate) const BUFFERS: u32 = 2 * Self::RING;

    pub(crate) fn new(name: &str) -> Self {
        let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let length = u64::from(Self::BUFFERS + 16 * Self::BUFFER);
        rustix::fs::ftruncate(&file, length).unwrap();
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let interrupt = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let memory = Self { file: file.into(), length, interrupt };
        for ring in [0, 1] {
            memory.put(ring * Self::RING, &COOKIE.to_ne_bytes());
            for slot in 0..8 {
                let offset = Self::BUFFERS + (ring * 8 + slot) * Self::BUFFER;
                memory.descriptor(ring, slot, 0, 0, Self::BUFFER, offset);
            }
        }
        memory
    }

    pub(crate) fn put(&self, at: u32, octets: &[u8]) {
        self.file.write_all_at(octets, at.into()).unwrap();
    }

    /// Ring 0 is the one to the server, ring 1 that to the client.
    pub(crate) fn head(&self, ring: u32, head: u16) {
        self.put(ring * Self::RING + 6, &head.to_ne_bytes());
    }

    pub(crate) fn tail(&self, ring: u32, tail: u16) {
        self.put(ring * Self::RING + 64, &tail.to_ne_bytes());
    }

    pub(crate) fn descriptor(&self, ring: u32, slot: u32, flags: u16, region: u16, length: u32, offset: u32) {
        let mut octets = Vec::new();
        octets.extend_from_slice(&flags.to_ne_bytes());
        octets.extend_from_slice(&region.to_ne_bytes());
        octets.extend_from_slice(&length.to_ne_bytes());
        octets.extend_from_slice(&offset.to_ne_bytes());
        self.put(ring * Self::RING + 128 + slot * 16, &octets);
    }
}

/// Whether this process still has such a memory: open, or mapped.
pub(crate) fn has_memory(name: &str) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = files.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    maps.contains(name) || open.into_iter().any(|target| target.to_string_lossy().contains(name))
}
