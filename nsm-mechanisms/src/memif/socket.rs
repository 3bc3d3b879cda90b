use std::fs::{DirBuilder, Permissions, set_permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nsm_api::Connection;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Error, Result};
use nsm_memif::{Address, Config, Port, Server};

use super::{PacketProcessor, processor};

/// A directory that only this user can enter, gone with this value.
///
/// Whoever is sent the descriptor of a socket in it needs no way through it, so that the descriptor is the only way to the
/// socket, also for other users.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    next: AtomicU64,
}

impl Directory {
    pub(super) fn within(base: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("nsm-memif-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                // Left by an earlier process of that number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self { path, next: AtomicU64::new(0) }),
            }
        }
    }

    /// A socket for one connection.
    pub(super) fn socket(&self, config: Config) -> Result<Socket> {
        self.socket_named(&format!("{}.sock", self.next.fetch_add(1, Ordering::Relaxed)), config)
    }

    /// Where a socket of this name is.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A socket of this name, which no other one has.
    pub(super) fn socket_named(&self, name: &str, config: Config) -> Result<Socket> {
        let path = self.path(name);
        let cannot = |error: &dyn std::fmt::Display| {
            Error::internal(format!("cannot listen for a memif client at {}: {error}", path.display()))
        };
        let server = Server::bind(&Address::from(&*path)).map_err(|error| cannot(&error))?;
        set_permissions(&path, Permissions::from_mode(0o666)).map_err(|error| cannot(&error))?;
        let port = server.open(config).map_err(|error| cannot(&error))?;
        Ok(Socket { _server: server, port, url: FileUrl::Path(path) })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Its sockets are gone, or go with their own tasks a moment later.
        let _best_effort = std::fs::remove_dir_all(&self.path);
    }
}

/// Where one connection's client is awaited. Dropped, the file is removed.
#[derive(Debug)]
pub(crate) struct Socket {
    _server: Server,
    port: Port,
    pub(super) url: FileUrl,
}

/// Between a client that was turned away and the next one.
const BREATH: Duration = Duration::from_millis(10);

/// Has the processor serve one client after the other.
pub(super) async fn serve(socket: &mut Socket, processor: &impl PacketProcessor, connection: &Arc<Connection>) {
    loop {
        match socket.port.accept().await {
            Ok(memif) => processor::run(processor, memif, connection).await,
            Err(error) => {
                tracing::warn!(id = connection.id, %error, "a memif client was turned away");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}
