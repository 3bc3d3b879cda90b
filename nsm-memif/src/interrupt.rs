use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Result;
use crate::watched::watched;

/// The eventfd of a ring: its producer writes it, its consumer waits for it.
#[derive(Debug)]
pub(crate) struct Interrupt(OwnedFd);

impl Interrupt {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// The peer's, if it is one: to write to any other file might do anything.
    pub(crate) fn from_peer(file: OwnedFd) -> Result<Self, String> {
        let what = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|error| format!("its descriptor cannot be examined: {error}"))?;
        if what.as_os_str() != "anon_inode:[eventfd]" {
            return Err(format!("its descriptor is {}, no eventfd", what.display()));
        }
        rustix::io::ioctl_fionbio(&file, true).map_err(|error| format!("its eventfd cannot be prepared: {error}"))?;
        Ok(Self(file))
    }

    /// Wakes the consumer.
    ///
    /// The descriptor's flags are shared with the peer, which could make writing block again and fill the counter. So it is
    /// asked first; a peer that does both in the very moment between stops this thread until it reads the counter.
    pub(crate) fn raise(&self) {
        let mut asked = [PollFd::new(&self.0, PollFlags::OUT)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut asked, Some(&now)) == Ok(1) && asked[0].revents().contains(PollFlags::OUT) {
            // A full counter has woken the consumer already.
            let _woken = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

/// The consumer's end.
///
/// The counter is never read: each write wakes whoever waits, whatever the counter says, because the runtime waits for
/// edges (epoll(7), `EPOLLET`).
#[derive(Debug)]
pub(crate) struct Wakes(AsyncFd<OwnedFd>);

impl Wakes {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(interrupt: Interrupt) -> Result<Self> {
        watched(interrupt.0, Interest::READABLE).map(Self)
    }

    /// Waits for the next write; for none that was before the last wait.
    pub(crate) async fn next(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
