//! One node's place in the network between nodes: a UDP socket, and the tunnels that share it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;
use nsm_kernel::{Interface, InterfaceSpec, Netns};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tun_rs::SyncDevice;

use crate::counters::Drops;
use crate::message::LARGEST_ANSWER;
use crate::peer::{Inside, Peer};
use crate::peers::Peers;
use crate::send::Work;
use crate::socket::Socket;
use crate::tunnel::padded_to;
use crate::{Entrance, Error, Peering, Reason, Result, Takes, Tunnel, device, receive, send};

/// How exactly timers are kept. The protocol's are of seconds.
const TICK: Duration = Duration::from_millis(250);
/// Tunnels that are tried in a second to find those of handshake initiations. One trial is a checksum of 116 octets, some 0.5 µs:
/// at most a tenth of a processor goes into what may be nobody's.
const TRIALS: u64 = 200_000;

/// A UDP socket in a node's namespace and the tunnels over it. Cloning is cheap; the socket is closed with the last copy and
/// the last tunnel.
///
/// ```no_run
/// use std::time::Duration;
/// use nsm_kernel::{InterfaceSpec, Netns};
/// use nsm_wireguard::{Node, Peering, PrivateKey};
///
/// # async fn example(node: Netns, workload: Netns) -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::bind(&node, "192.0.2.1:51820".parse()?).await?;
/// let private_key = PrivateKey::generate()?;
/// println!("the other end needs to know {}", private_key.public_key());
/// let peering = Peering {
///     private_key,
///     peer: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".parse()?,
///     endpoint: "192.0.2.2:51820".parse()?,
///     keepalive: Some(Duration::from_secs(10)),
/// };
/// let spec = InterfaceSpec::new("nsm-1", "nsm:42")?.with_mtu(1420).with_address("10.0.0.1/24".parse()?);
/// let (interface, tunnel) = node.create(&peering, (&workload, &spec)).await?;
/// // ... the workload's packets to 10.0.0.0/24 go to the peer ...
/// tunnel.close().await;
/// interface.delete().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

/// What the node's tasks and its tunnels work with.
pub(crate) struct Shared {
    pub(crate) socket: Socket,
    pub(crate) drops: Drops,
    pub(crate) trials: Trials,
    pub(crate) spare: Spare,
    pub(crate) peers: Locked,
}

struct Tasks([JoinHandle<()>; 2]);

impl Node {
    /// Opens the node's socket in its namespace, at an address of that namespace; port 0 lets the kernel choose. It is in the
    /// caller's runtime that packets are sealed and opened.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the address is taken or is not this node's, [`Error::Socket`].
    pub async fn bind(netns: &Netns, address: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared {
            socket: Socket::bind(netns, address).await?,
            drops: Drops::default(),
            trials: Trials::default(),
            spare: Spare::default(),
            peers: Locked::default(),
        });
        let tasks = [tokio::spawn(receive::run(Arc::clone(&shared))), tokio::spawn(keep_time(Arc::clone(&shared)))];
        Ok(Self { shared, _tasks: Arc::new(Tasks(tasks)) })
    }

    /// Where the node's socket is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.socket.address()
    }

    /// How many tunnels there are.
    #[must_use]
    pub fn tunnels(&self) -> usize {
        self.shared.peers.read().len()
    }

    /// How many messages were dropped for this reason that belong to no tunnel.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.shared.drops.of(reason)
    }

    /// Makes an interface in a workload's namespace, and the tunnel behind it. The handshake is begun at once. If anything fails
    /// nothing remains.
    ///
    /// # Errors
    /// [`Error::Kernel`] for the interface, such as that its name is taken; [`Error::WeakKey`], [`Error::OwnKey`],
    /// [`Error::Unreachable`], [`Error::Exhausted`].
    pub async fn create(
        &self,
        peering: &Peering,
        (workload, spec): (&Netns, &InterfaceSpec),
    ) -> Result<(Interface, Tunnel)> {
        peering.check(self.address())?;
        let name = spec.name.to_string();
        let (interface, device) = Interface::create_by(workload, spec, move || device::open(&name)).await?;
        match self.carry(peering, &interface, device) {
            Ok(tunnel) => Ok((interface, tunnel)),
            Err(error) => {
                if let Err(stuck) = interface.delete().await {
                    tracing::warn!(error = %stuck, "could not remove an interface whose tunnel failed");
                }
                Err(error)
            }
        }
    }

    /// Takes up an interface that [`create`](Self::create) made: in an earlier life of this process, or for a tunnel that was
    /// closed since, such as one with other keys. Addresses and routes stay as they are.
    ///
    /// # Errors
    /// [`Error::Device`] if the interface is no TUN device, or another process (or a tunnel that was not closed) has it;
    /// otherwise as [`create`](Self::create).
    pub async fn attach(&self, peering: &Peering, interface: &Interface) -> Result<Tunnel> {
        peering.check(self.address())?;
        let name = interface.spec().name.to_string();
        let opened = {
            let name = name.clone();
            // The kernel would make a new one of that name.
            interface.netns().run(move || device::open_there(&name)).await
        };
        let device = opened.map_err(|error| match error {
            nsm_kernel::Error::Kernel { source, .. } => Error::Device { name, source },
            other => other.into(),
        })?;
        interface.opened().await?;
        self.carry(peering, interface, device)
    }

    /// Begins a tunnel without an interface: its packets are exchanged with somebody in this process. What comes out of it
    /// goes to `takes`; what is to go in is pushed into the [`Entrance`] that comes with it. `mtu` is the largest packet that
    /// is sent, in octets: none is padded beyond it.
    ///
    /// # Errors
    /// As [`create`](Self::create), less what concerns the interface.
    pub fn connect(&self, peering: &Peering, mtu: Option<u32>, takes: Arc<dyn Takes>) -> Result<(Tunnel, Entrance)> {
        peering.check(self.address())?;
        let tunnel = self.begin(peering, Inside::Process(takes), mtu)?;
        let entrance = Entrance::new(Arc::clone(tunnel.peer()), Arc::clone(&self.shared));
        Ok((tunnel, entrance))
    }

    fn carry(&self, peering: &Peering, interface: &Interface, device: SyncDevice) -> Result<Tunnel> {
        let name = || interface.spec().name.to_string();
        let device = device::into_async(device).map_err(|source| Error::Device { name: name(), source })?;
        let mut tunnel = self.begin(peering, Inside::Device(device), interface.spec().mtu)?;
        let sender = send::run(Arc::clone(tunnel.peer()), Arc::clone(&self.shared));
        tunnel.sends(tokio::spawn(sender));
        Ok(tunnel)
    }

    fn begin(&self, peering: &Peering, inside: Inside, mtu: Option<u32>) -> Result<Tunnel> {
        let (index, peer) = {
            let mut peers = self.shared.peers.write();
            let index = peers.free_index()?;
            let peer = Arc::new(Peer::new(peering, index, inside, padded_to(mtu)));
            peers.insert(index, Arc::clone(&peer));
            (index, peer)
        };
        let mut buffer = [0; LARGEST_ANSWER];
        if let TunnResult::WriteToNetwork(initiation) = peer.noise().format_handshake_initiation(&mut buffer, false) {
            receive::answer(&self.shared, &peer, peer.endpoint, initiation);
        }
        Ok(Tunnel::new(self.clone(), index, peer))
    }

    /// The tunnel is no longer found. Nobody works with it once this returns but its own task.
    pub(crate) fn forget(&self, index: u32) {
        drop(self.shared.peers.write().remove(index));
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({}, {} tunnels)", self.address(), self.tunnels())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Handshakes that are due, again or for the first time, and keepalives.
async fn keep_time(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buffer = [0; LARGEST_ANSWER];
    loop {
        ticks.tick().await;
        let indices = shared.peers.read().indices();
        for index in indices {
            // A write lock is not kept waiting for all of them.
            let peers = shared.peers.read();
            let Some(peer) = peers.with(index) else { continue };
            let mut noise = peer.noise();
            let due = match noise.update_timers(&mut buffer) {
                // Nobody answered for 90 s, or nothing was sent for long: a wire of NSM is there until it is closed.
                TunnResult::Err(WireGuardError::ConnectionExpired) => {
                    noise.format_handshake_initiation(&mut buffer, false)
                }
                due => due,
            };
            if let TunnResult::WriteToNetwork(due) = due {
                receive::answer(&shared, peer, peer.endpoint, due);
            }
        }
    }
}

/// The node's tunnels, read by what receives and by the clock.
#[derive(Default)]
pub(crate) struct Locked(RwLock<Peers>);

impl Locked {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Peers> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Peers> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffers for sending that nobody uses just now: as many as senders work at once.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Work>>);

impl Spare {
    pub(crate) fn take(&self) -> Work {
        self.lock().pop().unwrap_or_else(Work::new)
    }

    pub(crate) fn put_back(&self, work: Work) {
        self.lock().push(work);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much is tried to find out whose handshake initiations are.
pub(crate) struct Trials {
    begun: Instant,
    second: AtomicU64,
    count: AtomicU64,
}

impl Default for Trials {
    fn default() -> Self {
        Self { begun: Instant::now(), second: AtomicU64::new(0), count: AtomicU64::new(0) }
    }
}

impl Trials {
    /// Whether one more may be made in this second.
    pub(crate) fn one_more(&self) -> bool {
        let now = self.begun.elapsed().as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            self.count.store(0, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) < TRIALS
    }
}
