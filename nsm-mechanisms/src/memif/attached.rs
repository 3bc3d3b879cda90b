use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nsm_api::mechanism::FileUrl;
use nsm_api::{Connection, Mechanism};
use nsm_chain::{Error, Result};
use nsm_kernel::Netns;
use nsm_memif::{Address, Config, Memif};
use tokio::task::JoinHandle;

use super::{PacketProcessor, config, processor};

/// A client's interface, and the task that works on it. Dropped, both end.
#[derive(Debug)]
pub(super) struct Attached {
    target: Target,
    task: JoinHandle<()>,
}

/// Where the endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The socket's file; or the network namespace that has the name.
    file: std::path::PathBuf,
    /// A name in the abstract name space, without the `@` before it.
    name: Option<String>,
    payload: String,
}

/// Between two tries to come again to an endpoint that is gone, the first and the longest.
const AGAIN: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

impl Target {
    /// What the answer says.
    pub(crate) fn of(mechanism: &Mechanism, payload: &str) -> Result<Self> {
        let memif = mechanism.as_memif().ok_or_else(|| Error::internal("a target of another mechanism"))?;
        let file = memif.file().map_err(|error| Error::invalid("the MEMIF mechanism cannot be used").because(error))?;
        let Some(FileUrl::Path(file)) = file else {
            return Err(Error::invalid("the next hop's MEMIF mechanism names no socket")
                .hint("its endpoint needs a MemifAccept in its Mechanisms, and a SendFd is needed here"));
        };
        let name = memif.socket_file().map(|name| name.strip_prefix('@').unwrap_or(name).to_owned());
        Ok(Self { file, name, payload: payload.to_owned() })
    }

    async fn connect(&self) -> Result<Memif, nsm_memif::Error> {
        let config = config(&self.payload);
        match &self.name {
            None => Memif::connect(&Address::from(&*self.file), &config).await,
            Some(name) => connect_in(&self.file, Address::abstract_name(name.as_str()), &config).await,
        }
    }
}

/// To a name of another network namespace, if it is another one.
async fn connect_in(netns: &Path, address: Address, config: &Config) -> Result<Memif, nsm_memif::Error> {
    let unreachable = |source| nsm_memif::Error::Unreachable { address: address.to_string(), source };
    let there = Netns::open(netns).map_err(|error| unreachable(std::io::Error::other(error)))?;
    if Netns::current().is_ok_and(|here| here == there) {
        return Memif::connect(&address, config).await;
    }
    let dialled = address.clone();
    let socket = there.run(move || dialled.dial().map_err(std::io::Error::other)).await;
    Memif::connect_on(socket.map_err(|error| unreachable(std::io::Error::other(error)))?, config).await
}

impl Attached {
    /// Connects, and has the processor work on the interface from now on. If the endpoint goes, it is tried again as long as
    /// this lives.
    pub(super) async fn new<P: PacketProcessor>(
        target: Target,
        processor: Arc<P>,
        connection: Connection,
    ) -> Result<Self> {
        let first = target.connect().await.map_err(|error| {
            Error::unavailable("the endpoint's memif cannot be reached")
                .because(error)
                .hint("does the endpoint still run?")
        })?;
        let (again, connection) = (target.clone(), Arc::new(connection));
        let work = async move {
            let mut memif = first;
            loop {
                processor::run(&*processor, memif, &connection).await;
                let mut pause = AGAIN[0];
                memif = loop {
                    tokio::time::sleep(pause).await;
                    match again.connect().await {
                        Ok(memif) => break memif,
                        Err(error) => tracing::debug!(id = connection.id, %error, "not yet again"),
                    }
                    pause = (pause * 2).min(AGAIN[1]);
                };
            }
        };
        Ok(Self { target, task: tokio::spawn(work) })
    }

    pub(super) fn is_to(&self, target: &Target) -> bool {
        self.target == *target
    }

    /// Ends it; when this returns the processor is no longer used.
    pub(super) async fn close(mut self) {
        self.task.abort();
        let _cancelled = (&mut self.task).await;
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.task.abort();
    }
}
