//! The server's side: it listens, and maps what a client made.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::control::{Control, within};
use crate::link::Link;
use crate::offer::Offer;
use crate::protocol::{Hello, Init, Message, VERSION};
use crate::shm::Ring;
use crate::watched::watched;
use crate::{Address, Config, Error, Memif, Peer, Result, Violation};

/// A socket that memif clients connect to, for any number of interfaces.
///
/// ```
/// use nsm_memif::{Address, Config, Memif, Server};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("memif-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let address = Address::from(directory.join("server.sock"));
/// let server = Server::bind(&address)?;
/// let (lan, mut wan) = (server.open(Config::new(0))?, server.open(Config::new(1))?);
///
/// let client = tokio::spawn(async move { Memif::connect(&address, &Config::new(1)).await });
/// let mut near = wan.accept().await?;
/// let mut far = client.await??;
/// assert_eq!(near.send_burst(["a packet"])?, 1);
/// far.ready().await?;
/// far.recv_burst(32, |packet| assert_eq!(packet, b"a packet"))?;
/// # drop((server, lan));
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
///
/// Dropped, it listens no more and a socket in the file system is removed; interfaces that are up stay up.
#[derive(Debug)]
pub struct Server {
    address: Address,
    ports: Arc<Ports>,
    listening: AbortHandle,
}

/// One interface of a [`Server`]: it has one client at a time. The next may come when all queues of the [`Memif`] are dropped,
/// or [`accept`](Self::accept) is called again.
///
/// Dropped, its number is free again; a [`Memif`] that is up stays up.
#[derive(Debug)]
pub struct Port {
    config: Config,
    ports: Arc<Ports>,
    clients: mpsc::Receiver<Greeted>,
}

/// Those open, by number.
#[derive(Debug, Default)]
struct Ports(Mutex<HashMap<u32, Entry>>);

#[derive(Debug)]
struct Entry {
    /// One may wait.
    clients: mpsc::Sender<Greeted>,
    /// Lives while there is a client.
    busy: Weak<()>,
}

/// A client that said which interface it wants.
#[derive(Debug)]
struct Greeted {
    control: Control,
    init: Init,
}

/// Clients that have not said yet which interface they want.
const UNKNOWN: usize = 64;
/// How long such a client may take.
const INTRODUCTION: Duration = Duration::from_secs(5);

impl Server {
    /// Listens there, as a task of this tokio runtime. A socket file that nobody listens at is replaced.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] if somebody listens there; [`Error::InvalidAddress`], [`Error::System`] otherwise.
    pub fn bind(address: &Address) -> Result<Self> {
        let socket = address.listen()?;
        let socket = watched(socket, Interest::READABLE).inspect_err(|_| address.remove())?;
        let ports = Arc::new(Ports::default());
        let listening = tokio::spawn(listen(socket, Arc::clone(&ports))).abort_handle();
        Ok(Self { address: address.clone(), ports, listening })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Opens an interface. It has one client at a time: whoever comes while there is one is told so.
    ///
    /// # Errors
    /// [`Error::IdInUse`] if it is open already.
    pub fn open(&self, config: Config) -> Result<Port> {
        let id = config.id;
        let mut ports = self.ports.lock();
        if ports.contains_key(&id) {
            return Err(Error::IdInUse { id });
        }
        let (here, clients) = mpsc::channel(1);
        ports.insert(id, Entry { clients: here, busy: Weak::new() });
        Ok(Port { config, ports: Arc::clone(&self.ports), clients })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.abort();
        self.address.remove();
    }
}

impl Port {
    /// Waits for a client, and until the interface is up. May be given up at any time, and called again when its client is
    /// gone.
    ///
    /// # Errors
    /// What is wrong with the client that came: [`Error::ModeMismatch`], [`Error::WrongSecret`], [`Error::Violation`],
    /// [`Error::TimedOut`] and others. It was told; the next one may be better.
    pub async fn accept(&mut self) -> Result<Memif> {
        self.set_busy(Weak::new());
        let greeted = self.clients.recv().await;
        // Nobody takes the other end away while this port is there.
        let Greeted { control, init } = greeted.ok_or(Error::Closed(crate::Closed::ByUs))?;
        let busy = Arc::new(());
        self.set_busy(Arc::downgrade(&busy));
        establish(control, &init, &self.config, Some(busy)).await
    }

    fn set_busy(&self, busy: Weak<()>) {
        if let Some(entry) = self.ports.lock().get_mut(&self.config.id) {
            entry.busy = busy;
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.ports.lock().remove(&self.config.id);
    }
}

impl Memif {
    /// Serves one client, on a socket that is connected already, without a [`Server`].
    ///
    /// # Errors
    /// As [`Port::accept`], and [`Error::Violation`] if the client wants another interface.
    pub async fn serve_on(socket: OwnedFd, config: &Config) -> Result<Self> {
        let control = Control::new(socket)?;
        let greeting = async {
            let init = greet(&control).await?;
            if init.id == config.id { Ok(init) } else { Err(unmatched(init.id)) }
        };
        match within(config.timeout, "INIT", greeting).await {
            Ok(init) => establish(control, &init, config, None).await,
            Err(error) => {
                control.disconnect(&error);
                Err(error)
            }
        }
    }
}

async fn listen(socket: AsyncFd<OwnedFd>, ports: Arc<Ports>) {
    let places = Arc::new(Semaphore::new(UNKNOWN));
    // With this task they all end.
    let mut clients = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while clients.try_join_next().is_some() {}
        let accepted = async {
            let mut ready = socket.readable().await?;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok::<_, std::io::Error>(ready.try_io(|socket| Ok(accept_with(socket.as_fd(), flags)?)))
        };
        match accepted.await {
            Ok(Ok(Ok(client))) => {
                let ports = Arc::clone(&ports);
                clients.spawn(async move {
                    let outcome = introduce(client, &ports).await;
                    drop(place);
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "a memif client was turned away");
                    }
                });
            }
            // It gave up before it was accepted, or this process has too many files: for a while nobody is accepted.
            Ok(Ok(Err(error))) => {
                tracing::debug!(%error, "a memif client cannot be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(Err(_would_block)) => {}
            Err(error) => {
                tracing::warn!(%error, "a memif socket cannot be listened at any more");
                return;
            }
        }
    }
}

/// Asks a client which interface it wants, and brings it there.
async fn introduce(socket: OwnedFd, ports: &Ports) -> Result<()> {
    let control = Control::new(socket)?;
    let init = match within(INTRODUCTION, "INIT", greet(&control)).await {
        Ok(init) => init,
        Err(error) => {
            control.disconnect(&error);
            return Err(error);
        }
    };
    let (id, mut ports) = (init.id, ports.lock());
    let refused = match ports.get_mut(&id) {
        Some(entry) if entry.busy.strong_count() == 0 => match entry.clients.try_send(Greeted { control, init }) {
            Ok(()) => return Ok(()),
            Err(refused) => (refused.into_inner().control, Error::IdInUse { id }),
        },
        Some(_) => (control, Error::IdInUse { id }),
        None => (control, unmatched(id)),
    };
    let (control, error) = refused;
    control.disconnect(&error);
    Err(error)
}

fn unmatched(id: u32) -> Error {
    Violation::Message(format!("INIT for interface {id}, which is not open")).into()
}

/// Says the limits, and hears what the client wants.
async fn greet(control: &Control) -> Result<Init> {
    let hello = Hello {
        name: crate::PROGRAM.to_owned(),
        min_version: VERSION,
        max_version: VERSION,
        max_region: Offer::MOST_REGIONS - 1,
        max_ring_to_client: Offer::MOST_RINGS - 1,
        max_ring_to_server: Offer::MOST_RINGS - 1,
        max_log2_ring_size: Ring::LARGEST_LOG2,
    };
    control.send(&Message::Hello(hello), None).await?;
    match control.receive().await?.0 {
        Message::Init(Init { version, .. }) if version != VERSION => {
            let [major, minor] = version.to_be_bytes();
            Err(Error::Version { min: major, min_minor: minor, max: major, max_minor: minor })
        }
        Message::Init(init) => Ok(init),
        Message::Disconnect { reason, .. } => Err(Error::Refused { reason }),
        other => Err(Violation::OutOfTurn { got: other.name(), expected: "INIT" }.into()),
    }
}

/// Checks what the client wants, and takes what it offers.
async fn establish(control: Control, init: &Init, config: &Config, busy: Option<Arc<()>>) -> Result<Memif> {
    let offered = async {
        admit(init, config)?;
        control.send(&Message::Ack, None).await?;
        Offer::receive(&control, config).await
    };
    match within(config.timeout, "CONNECT", offered).await {
        Ok((offer, interface)) => {
            let peer = Peer { program: init.name.clone(), interface };
            offer.into_memif(Link::new(control, busy), peer, config).await
        }
        Err(error) => {
            control.disconnect(&error);
            Err(error)
        }
    }
}

fn admit(init: &Init, config: &Config) -> Result<()> {
    if init.mode != config.mode {
        return Err(Error::ModeMismatch { ours: config.mode, theirs: init.mode });
    }
    match &config.secret {
        Some(secret) if !secret.is(&init.secret) => Err(Error::WrongSecret { given: init.secret[0] != 0 }),
        _ => Ok(()),
    }
}

impl Ports {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
