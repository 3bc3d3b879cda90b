//! What happens to interfaces of many namespaces, as the kernel tells it.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_route::{
    RouteNetlinkMessage as M,
    address::AddressScope,
    nsid::{NsidAttribute, NsidMessage},
    route::RouteAttribute,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    Error, InterfaceSpec, Netns, NetnsId, Result,
    netns::{Lane, work},
    rtnl::{Request, Rtnl, link::LinkFacts, parse},
    wakes::watched,
};

/// Tells when somebody changes interfaces of namespaces.
///
/// One socket for all of them (`NETLINK_LISTEN_ALL_NSID`), in the namespace of the process: a socket in a workload's
/// namespace would keep that alive. It needs CAP_NET_BROADCAST over them.
#[derive(Debug)]
pub struct Events {
    socket: AsyncFd<Socket>,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    home: NetnsId,
    home_counts: bool,
    /// By the number that the namespace has in ours.
    others: HashMap<i32, NetnsId>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An interface with a mark has this state now.
    Link(NetnsId, LinkState),
    /// An interface was removed, or lost an address or a route.
    Less {
        /// Where.
        netns: NetnsId,
        /// The number of the interface.
        index: u32,
    },
    /// More happened than was heard: anything may have changed.
    Missed,
}

/// What an interface is like, apart from addresses and routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkState(LinkFacts);

impl LinkState {
    /// Its number.
    pub fn index(&self) -> u32 {
        self.0.index
    }

    /// Whether it is as `spec` says, up, under that name and mark.
    pub fn shows(&self, spec: &InterfaceSpec) -> bool {
        self.0.shows(spec)
    }
}

/// Multicast groups of rtnetlink (`linux/rtnetlink.h`): links, addresses and routes of both families, namespace numbers.
const GROUPS: [u32; 6] = [1, 5, 7, 9, 11, 28];
/// What is read of it (RTM_NEWLINK, RTM_DELLINK, RTM_DELADDR, RTM_DELROUTE, RTM_DELNSID): most of what is told is that
/// something was added, by ourselves.
const TELLING: [u16; 5] = [16, 17, 21, 25, 89];
/// Room for some thousand notifications; what does not fit is [`Event::Missed`].
const ROOM: usize = 4 << 20;
const RECEIVE: usize = 32 * 1024;
/// So many datagrams are read before the caller is told.
const BATCH: usize = 256;

impl Events {
    /// Begins to listen; to nothing yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`] or [`Error::Kernel`].
    pub async fn open() -> Result<Self> {
        let (socket, home) = work(Lane::Quick, |_| {
            let failed = |e| Error::os("listen to rtnetlink notifications", e);
            Ok((listening().map_err(failed)?, Netns::current()?.id()))
        })
        .await?;
        let socket =
            watched(socket, Interest::READABLE).map_err(|e| Error::os("wait for rtnetlink notifications", e))?;
        let watched = Mutex::new(Watched { home, home_counts: false, others: HashMap::new() });
        Ok(Self { socket, watched })
    }

    /// Listens to this namespace from now on. Holds nothing of it.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`] or [`Error::Kernel`].
    pub async fn add(&self, netns: &Netns) -> Result<()> {
        let id = netns.id();
        {
            let mut watched = self.watched();
            if id == watched.home {
                watched.home_counts = true;
                return Ok(());
            }
            if watched.others.values().any(|known| *known == id) {
                return Ok(());
            }
        }
        let netns = netns.clone();
        let number = work(Lane::Quick, move |_| number_of(&netns)).await?;
        self.watched().others.insert(number, id);
        Ok(())
    }

    /// Listens no longer to namespaces that are not to be kept.
    pub fn retain(&self, keep: impl Fn(NetnsId) -> bool) {
        let mut watched = self.watched();
        watched.home_counts = watched.home_counts && keep(watched.home);
        watched.others.retain(|_, id| keep(*id));
    }

    /// Waits until something happened, and says what. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// [`Error::Kernel`] if the socket is broken.
    pub async fn next(&self) -> Result<Vec<Event>> {
        let failed = |e| Error::os("read rtnetlink notifications", e);
        loop {
            let mut ready = self.socket.readable().await.map_err(failed)?;
            let mut events = Vec::new();
            for _ in 0..BATCH {
                match ready.try_io(|socket| receive(socket.get_ref())) {
                    Ok(Ok((datagram, number))) => self.read(&datagram, number, &mut events),
                    Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => events.push(Event::Missed),
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(Err(error)) => return Err(failed(error)),
                    Err(_would_block) => break,
                }
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn read(&self, datagram: &[u8], number: Option<i32>, events: &mut Vec<Event>) {
        let mut watched = self.watched();
        for message in parse::messages(datagram).filter(|message| TELLING.contains(&message.kind)) {
            let Ok(message) = message.decode() else { continue };
            if let M::DelNsId(gone) = &message {
                if let Some(number) = nsid(gone) {
                    watched.others.remove(&number);
                }
                continue;
            }
            let netns = match number {
                None => watched.home_counts.then_some(watched.home),
                Some(number) => watched.others.get(&number).copied(),
            };
            events.extend(netns.and_then(|netns| event(netns, message)));
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(netns: NetnsId, message: M) -> Option<Event> {
    let less = |index| Some(Event::Less { netns, index });
    match message {
        M::NewLink(link) => {
            let facts = LinkFacts::from(link);
            facts.alias.is_some().then_some(Event::Link(netns, LinkState(facts)))
        }
        M::DelLink(link) => less(link.header.index),
        M::DelAddress(address) if address.header.scope == AddressScope::Universe => less(address.header.index),
        M::DelRoute(route) => route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => less(*index),
            _ => None,
        }),
        _ => None,
    }
}

fn listening() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.set_rx_buf_sz(ROOM)?;
    socket.set_listen_all_namespaces(true)?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    socket.set_non_blocking(true)?;
    Ok(socket)
}

/// The number by which our namespace knows this one; given to it if it has none. It ends with the namespace.
fn number_of(netns: &Netns) -> Result<i32> {
    let about = |mut attributes: Vec<NsidAttribute>| {
        let mut message = NsidMessage::default();
        attributes.push(NsidAttribute::Fd(netns.as_fd().as_raw_fd().cast_unsigned()));
        message.attributes = attributes;
        message
    };
    let mut rtnl = Rtnl::open()?;
    rtnl.apply(vec![Request::add(M::NewNsId(about(vec![NsidAttribute::Id(-1)])))])?;
    match rtnl.get(M::GetNsId(about(Vec::new())))? {
        Some(M::NewNsId(found)) => nsid(&found),
        _ => None,
    }
    .filter(|number| *number >= 0)
    .ok_or_else(|| Error::os(format!("number network namespace {}", netns.id()), io::ErrorKind::NotFound.into()))
}

fn nsid(message: &NsidMessage) -> Option<i32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(number) => Some(*number),
        _ => None,
    })
}

/// One datagram, and the number of the namespace it is about; none if that is ours.
fn receive(socket: &Socket) -> io::Result<(Vec<u8>, Option<i32>)> {
    let mut buffer = vec![0; RECEIVE];
    let mut control = nix::cmsg_space!(i32);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let number = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Unknown(message)
            if (message.cmsg_header.cmsg_level, message.cmsg_header.cmsg_type)
                == (libc::SOL_NETLINK, libc::NETLINK_LISTEN_ALL_NSID) =>
        {
            let octets = message.data_bytes.first_chunk::<4>()?;
            Some(i32::from_ne_bytes(*octets))
        }
        _ => None,
    });
    let length = received.bytes;
    buffer.truncate(length);
    Ok((buffer, number))
}
