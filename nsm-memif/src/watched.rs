use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{Error, Result};

/// Waits for it in this tokio runtime.
#[allow(unsafe_code, reason = "tokio offers no safe way")]
pub(crate) fn watched(file: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it is open and the same as long as the `AsyncFd` has it.
    let watched = unsafe { AsyncFd::register_with_interest(file, interest) };
    watched.map_err(|error| Error::system("register a memif descriptor with the runtime", io::Error::from(error)))
}
