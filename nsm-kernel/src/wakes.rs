//! Descriptors that wake a task.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Watches a descriptor for this. Must be called within a tokio runtime.
///
/// What owns it must always hand out that one, and close it when it is dropped, as a file, a socket and an epoll set do.
#[allow(unsafe_code, reason = "tokio asks for a promise that the type system cannot keep")]
pub(crate) fn watched<T: AsFd + AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: its callers give what this asks for: a file, a netlink socket, an epoll set.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(io::Error::from)
}
