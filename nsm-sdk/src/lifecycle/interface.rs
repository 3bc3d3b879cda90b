use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use nsm_api::Connection;
use nsm_api::connectioncontext::{ConnectionContext, IpContext};
use nsm_api::mechanism::FileUrl;

use crate::lifetime::Reason;

/// What a connection gives its side: an interface with addresses, and who is at the other end.
#[derive(Clone)]
pub struct Interface {
    connection: Arc<Connection>,
    broken: Option<Reason>,
}

/// What of a connection may change while it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// The endpoint.
    Endpoint,
    /// The mechanism: the interface's name, its namespace.
    Mechanism,
    /// Addresses on either side.
    Addresses,
    /// Routes, policy routes and neighbours on either side.
    Routes,
    /// DNS servers and search domains.
    Dns,
    /// The MTU.
    Mtu,
    /// Whatever else the context holds: hardware addresses, the extra context.
    Context,
    /// Labels.
    Labels,
    /// The hops that it goes through, or whether they stand: [`Interface::broken`].
    Path,
}

impl Interface {
    pub(super) fn of(connection: Arc<Connection>) -> Self {
        Self { connection, broken: None }
    }

    pub(super) fn breaks(&self, why: Reason) -> Self {
        Self { connection: Arc::clone(&self.connection), broken: Some(why) }
    }

    /// The whole connection, as this side has it.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The name of the kernel interface; none where the mechanism is another.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.connection.mechanism.as_ref()?.as_kernel()?.interface_name().ok()?
    }

    /// Of shared memory (MEMIF): the socket at which a program, memif's client, finds the other side. It is a descriptor of this
    /// process, so other processes that may look into it reach it too, as long as the connection is up.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        let memif = self.connection.mechanism.as_ref()?.as_memif()?;
        // A name in the abstract name space is no file.
        let (None, Ok(Some(FileUrl::Path(path)))) = (memif.socket_file(), memif.file()) else { return None };
        let of_this_process = path.strip_prefix("/proc/self").ok();
        let shown = of_this_process.map(|rest| PathBuf::from(format!("/proc/{}", std::process::id())).join(rest));
        Some(shown.unwrap_or(path))
    }

    /// The client's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ip().into_iter().flat_map(IpContext::src_nets)
    }

    /// The endpoint's addresses.
    pub fn peers(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ip().into_iter().flat_map(IpContext::dst_nets)
    }

    /// The endpoint's name.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.connection.network_service_endpoint_name
    }

    /// The network service's name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.connection.network_service
    }

    /// The names of the hops, the client's first.
    pub fn hops(&self) -> impl Iterator<Item = &str> {
        self.connection.path.iter().flat_map(|path| &path.path_segments).map(|segment| segment.name.as_str())
    }

    /// What broke in the control plane, if it is being mended there while packets still flow, or while nothing has been
    /// taken away yet. None: all is well.
    #[must_use]
    pub fn broken(&self) -> Option<Reason> {
        self.broken
    }

    fn context(&self) -> Option<&ConnectionContext> {
        self.connection.context.as_ref()
    }

    fn ip(&self) -> Option<&IpContext> {
        self.context()?.ip_context.as_ref()
    }

    /// In which parts the other one differs. What a Request asks for (excluded prefixes, preferences) and what each
    /// refresh makes anew (tokens, ids, metrics) does not count.
    pub(super) fn differences(&self, other: &Self) -> BTreeSet<Part> {
        let (mine, theirs) = (&*self.connection, &*other.connection);
        let (no_ip, no_context) = (IpContext::default(), ConnectionContext::default());
        let (my_ip, their_ip) = (self.ip().unwrap_or(&no_ip), other.ip().unwrap_or(&no_ip));
        let (here, there) = (self.context().unwrap_or(&no_context), other.context().unwrap_or(&no_context));
        let addresses = |ip: &IpContext| (ip.src_ip_addrs.clone(), ip.dst_ip_addrs.clone(), ip.extra_prefixes.clone());
        let routes = |ip: &IpContext| {
            (ip.src_routes.clone(), ip.dst_routes.clone(), ip.policies.clone(), ip.ip_neighbors.clone())
        };
        let path = self.hops().eq(other.hops()) && self.broken == other.broken;
        let differs = [
            (Part::Endpoint, mine.network_service_endpoint_name != theirs.network_service_endpoint_name),
            (Part::Mechanism, mine.mechanism != theirs.mechanism),
            (Part::Addresses, addresses(my_ip) != addresses(their_ip)),
            (Part::Routes, routes(my_ip) != routes(their_ip)),
            (Part::Dns, here.dns_context != there.dns_context),
            (Part::Mtu, here.mtu != there.mtu),
            (
                Part::Context,
                (&here.ethernet_context, &here.extra_context) != (&there.ethernet_context, &there.extra_context),
            ),
            (Part::Labels, mine.labels != theirs.labels),
            (Part::Path, !path),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
    }
}

impl Part {
    /// Its name where programs read it, such as `addresses`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Mechanism => "mechanism",
            Self::Addresses => "addresses",
            Self::Routes => "routes",
            Self::Dns => "dns",
            Self::Mtu => "mtu",
            Self::Context => "context",
            Self::Labels => "labels",
            Self::Path => "path",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Interface {
    /// Such as `interface nsm-1, 10.1.0.1/32 to 10.1.0.0/32, vpn of nse-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |nets: Vec<IpNet>| {
            let texts: Vec<_> = nets.iter().map(IpNet::to_string).collect();
            if texts.is_empty() { "no address".to_owned() } else { texts.join(", ") }
        };
        let (own, peers) = (joined(self.addresses().collect()), joined(self.peers().collect()));
        match (self.name(), self.socket()) {
            (Some(name), _) => write!(f, "interface {name}, ")?,
            (None, Some(socket)) => write!(f, "memif at {}, ", socket.display())?,
            (None, None) => f.write_str("no kernel interface, ")?,
        }
        write!(f, "{own} to {peers}, {} of {}", self.service(), self.endpoint())?;
        self.broken.map_or(Ok(()), |why| write!(f, "; being mended: {why}"))
    }
}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interface({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::connection::{Mechanism, Path, PathSegment};

    type Change = fn(&mut Connection);

    fn interface(change: Change) -> Interface {
        let segment = |name: &str| PathSegment { name: name.into(), ..Default::default() };
        let mut connection = Connection {
            network_service: "vpn".into(),
            network_service_endpoint_name: "nse-1".into(),
            mechanism: Some(Mechanism::kernel()),
            path: Some(Path { index: 0, path_segments: vec![segment("nsc"), segment("nse-1")] }),
            ..Default::default()
        };
        change(&mut connection);
        Interface::of(Arc::new(connection))
    }

    impl Interface {
        fn with(self, mechanism: Mechanism) -> Self {
            Self::of(Arc::new(Connection { mechanism: Some(mechanism), ..Connection::clone(&self.connection) }))
        }
    }

    fn ip(connection: &mut Connection) -> &mut IpContext {
        connection.context.get_or_insert_default().ip_context.get_or_insert_default()
    }

    #[test]
    fn each_change_is_of_its_part_and_what_every_refresh_changes_is_none() {
        let parts: [(Part, Change); 9] = [
            (Part::Endpoint, |c| c.network_service_endpoint_name = "nse-2".into()),
            (Part::Mechanism, |c| c.mechanism = Some(Mechanism::memif())),
            (Part::Addresses, |c| ip(c).src_ip_addrs.push("10.0.0.1/32".into())),
            (Part::Routes, |c| ip(c).src_routes.push(Default::default())),
            (Part::Dns, |c| c.context.get_or_insert_default().dns_context = Some(Default::default())),
            (Part::Mtu, |c| c.context.get_or_insert_default().mtu = 1400),
            (Part::Context, |c| {
                c.context.get_or_insert_default().extra_context.insert("a".into(), "b".into());
            }),
            (Part::Labels, |c| drop(c.labels.insert("a".into(), "b".into()))),
            (Part::Path, |c| c.path.get_or_insert_default().path_segments.clear()),
        ];
        for (part, change) in parts {
            let found = interface(|_| {}).differences(&interface(change));
            assert_eq!(found.into_iter().collect::<Vec<_>>(), [part]);
        }
        let refreshed = interface(|c| {
            ip(c).excluded_prefixes.push("10.0.0.0/8".into());
            c.path.get_or_insert_default().path_segments[1].token = "new".into();
        });
        assert!(interface(|_| {}).differences(&refreshed).is_empty());
    }

    #[test]
    fn shared_memory_says_where_its_socket_is_for_other_processes_too() {
        let shared = |path: &'static str, name: &'static str| {
            let mut mechanism = Mechanism::memif();
            mechanism.as_memif_mut().unwrap().set_abstract_socket(&FileUrl::from_path(path).unwrap(), name);
            interface(move |_| {}).with(mechanism)
        };
        let ours = format!("/proc/{}/fd/7", std::process::id());
        assert_eq!(
            shared("/proc/self/fd/7", "").to_string(),
            format!("memif at {ours}, no address to no address, vpn of nse-1")
        );
        assert_eq!(shared("/run/memif.sock", "").socket(), Some("/run/memif.sock".into()));
        assert_eq!(shared("/proc/self/ns/net", "memif-1").socket(), None, "that is no file");
        assert_eq!(interface(|_| {}).socket(), None);
    }
}
