use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::Connection;
use nsm_api::mechanism::FileUrl;
use nsm_chain::{Error, Result};
use nsm_memif::{Address, Config, Port, Server};

use super::{PacketProcessor, processor};

/// Where one connection's client is awaited. Dropped, the file is removed.
#[derive(Debug)]
pub(crate) struct Socket {
    _server: Server,
    port: Port,
    pub(super) url: FileUrl,
}

impl Socket {
    /// At this path, where nothing is.
    pub(super) fn at(path: PathBuf, config: Config) -> Result<Self> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::internal(format!("cannot listen for a memif client at {}: {error}", path.display()))
        };
        let server = Server::bind(&Address::from(&*path)).map_err(|error| cannot(&error))?;
        set_permissions(&path, Permissions::from_mode(0o666)).map_err(|error| cannot(&error))?;
        let port = server.open(config).map_err(|error| cannot(&error))?;
        Ok(Self { _server: server, port, url: FileUrl::Path(path) })
    }
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
