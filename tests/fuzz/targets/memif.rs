//! What a memif client says, and what it writes into the memory it shares: no message and no octet there leads out of the
//! memory, or leaves anything behind.
#![no_main]

use std::fs::File;
use std::io::{IoSlice, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use nsm_fuzz::Chunks;
use nsm_memif::{Config, Memif};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, sendmsg,
    shutdown, socketpair,
};

/// Octets of the client's memory.
const LENGTH: u64 = 4096;

fn memory() -> Result<OwnedFd> {
    let file = memfd_create("fuzz", MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, LENGTH)?;
    fcntl_add_seals(&file, SealFlags::SHRINK)?;
    Ok(file)
}

fn send(socket: &OwnedFd, octets: &[u8], file: Option<BorrowedFd<'_>>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if file.is_some() {
        beside.push(SendAncillaryMessage::ScmRights(file.as_slice()));
    }
    let _ = sendmsg(socket, &[IoSlice::new(octets)], &mut beside, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}

/// Octets to write, with the place before them.
fn scribble(memory: &File, octets: &[u8]) {
    let Some(([high, low], rest)) = octets.split_first_chunk() else { return };
    let at = u64::from(u16::from_be_bytes([*high, *low])) % LENGTH;
    let rest = &rest[..rest.len().min((LENGTH - at) as usize)];
    memory.write_all_at(rest, at).unwrap();
}

async fn serve(data: &[u8]) {
    let memory = File::from(memory().unwrap());
    let interrupt = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut later = Vec::new();
    for chunk in Chunks(data).take(32) {
        let Some((kind, octets)) = chunk.split_first() else { continue };
        // A message is filled up, so that it need not be spelled out.
        let message = [octets, &[0; 128]].concat();
        let message = &message[..octets.len().max(128)];
        match kind % 5 {
            0 => send(&there, message, None),
            1 => send(&there, message, Some(memory.as_fd())),
            2 => send(&there, message, Some(interrupt.as_fd())),
            3 => scribble(&memory, octets),
            _ => later.push(octets),
        }
    }
    // Nothing follows; what the server says can still be said.
    shutdown(&there, Shutdown::Write).unwrap();
    let Ok(mut memif) = Memif::serve_on(here, &Config::new(0)).await else { return };
    for octets in later {
        scribble(&memory, octets);
        let _ = memif.recv_burst(64, |packet| packet.fill(0xaa));
        let _ = memif.send_burst([[0x55; 100], [0x56; 100]]);
    }
    memif.closed().await;
}

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(data));
});
