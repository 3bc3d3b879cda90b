//! What the tests share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nsm_memif::{Address, Config, Memif};

/// How long something may take that happens at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for what happens at once.
#[track_caller]
pub(crate) fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move { tokio::time::timeout(SOON, what).await.unwrap_or_else(|_| panic!("nothing happened at {place}")) }
}

/// Two ends of one interface: the server's, the client's.
pub(crate) async fn pair(config: &Config) -> (Memif, Memif) {
    pair_of(config, config).await
}

/// The same, each as it is told.
pub(crate) async fn pair_of(server: &Config, client: &Config) -> (Memif, Memif) {
    let (here, there) = socket_pair();
    let (server, client) = tokio::join!(Memif::serve_on(here, server), Memif::connect_on(there, client));
    (server.unwrap(), client.unwrap())
}

/// Two connected sockets of the control channel's kind.
pub(crate) fn socket_pair() -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A packet that differs from others in every part.
pub(crate) fn frame(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let octets = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    octets.take(length).collect()
}

/// A directory of this test's own, gone with it.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("nsm-memif-{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("memif.sock")
    }

    pub(crate) fn address(&self) -> Address {
        self.file().into()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}
