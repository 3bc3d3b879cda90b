//! What an interface should look like.

mod name;

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

pub use name::InterfaceName;

use crate::{Error, NatRules, Rate, Result, VlanPort};

/// Desired state of one interface in one namespace: plain data, compared to find what has to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Final name in its namespace.
    pub name: InterfaceName,
    /// MTU in bytes; `None` leaves the kernel's default.
    pub mtu: Option<u32>,
    /// Hardware address; `None` lets the kernel choose one.
    pub mac: Option<[u8; 6]>,
    /// The mark by which the interface is known as ours (link alias, at most 255 bytes), such as
    /// `nsm:<connection id>`.
    pub alias: String,
    /// Addresses; a v4 or v6 address shorter than a host prefix also makes its connected route.
    pub addresses: Vec<IpNet>,
    /// Routes in the main table.
    pub routes: Vec<Route>,
    /// Static neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Policy routes. Where several match a packet the *last* decides, as with rules that are
    /// added one by one without priority.
    pub policies: Vec<Policy>,
    /// Makes it one side of a relay: all that comes in goes out of the interface of this name in the same namespace, as it
    /// is, and nothing of it reaches the namespace, which sends nothing of its own either. It stays down until that one is
    /// there.
    pub joined_to: Option<InterfaceName>,
    /// Makes it a way into a VLAN: all that comes in goes there, and nothing of it reaches the namespace.
    pub vlan: Option<VlanPort>,
    /// The most it sends; `None`: as fast as it can, by the kernel's own queue.
    pub rate: Option<Rate>,
    /// How addresses are translated in its namespace, by a table of its own; `None`: there is no such table.
    pub nat: Option<NatRules>,
}

/// A route through the interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Destination; host bits are ignored.
    pub prefix: IpNet,
    /// Next hop. Without one the destination is on the link (scope link); with one it is taken to be
    /// reachable through this interface whatever its own address (`onlink`).
    pub via: Option<IpAddr>,
}

/// A neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour {
    /// Protocol address.
    pub ip: IpAddr,
    /// Hardware address.
    pub mac: [u8; 6],
    /// `true`: stays until removed. `false`: starts as reachable and ages as a learned one does.
    pub permanent: bool,
}

/// Traffic selected by source, protocol and ports takes routes of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Source prefix; `None` is any.
    pub from: Option<IpNet>,
    /// IP protocol number; `None` is any.
    pub proto: Option<u8>,
    /// Destination ports; `None` is any.
    pub dst_ports: Option<RangeInclusive<u16>>,
    /// Source ports; `None` is any.
    pub src_ports: Option<RangeInclusive<u16>>,
    /// Where the traffic goes; empty means everything, directly through the interface.
    pub routes: Vec<Route>,
}

impl InterfaceSpec {
    /// An interface with a name and a mark and nothing else.
    ///
    /// # Errors
    /// [`Error::InvalidName`], or [`Error::InvalidSpec`] for a mark the kernel cannot keep.
    pub fn new(name: &str, alias: impl Into<String>) -> Result<Self> {
        let spec = Self {
            name: name.parse()?,
            mtu: None,
            mac: None,
            alias: alias.into(),
            addresses: Vec::new(),
            routes: Vec::new(),
            neighbours: Vec::new(),
            policies: Vec::new(),
            joined_to: None,
            vlan: None,
            rate: None,
            nat: None,
        };
        spec.validate()?;
        Ok(spec)
    }

    /// Sets the MTU.
    #[must_use]
    pub fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Sets the hardware address.
    #[must_use]
    pub fn with_mac(mut self, mac: [u8; 6]) -> Self {
        self.mac = Some(mac);
        self
    }

    /// Adds an address.
    #[must_use]
    pub fn with_address(mut self, address: IpNet) -> Self {
        self.addresses.push(address);
        self
    }

    /// Adds a route.
    #[must_use]
    pub fn with_route(mut self, prefix: IpNet, via: Option<IpAddr>) -> Self {
        self.routes.push(Route { prefix, via });
        self
    }

    /// Adds a permanent neighbour.
    #[must_use]
    pub fn with_neighbour(mut self, ip: IpAddr, mac: [u8; 6]) -> Self {
        self.neighbours.push(Neighbour { ip, mac, permanent: true });
        self
    }

    /// Adds a policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policies.push(policy);
        self
    }

    /// Makes it one side of a relay, of which the other side is the interface of this name.
    #[must_use]
    pub fn joined_to(mut self, other: InterfaceName) -> Self {
        self.joined_to = Some(other);
        self
    }

    /// Makes it a way into a VLAN.
    #[must_use]
    pub fn into_vlan(mut self, port: VlanPort) -> Self {
        self.vlan = Some(port);
        self
    }

    /// Limits what it sends.
    #[must_use]
    pub fn with_rate(mut self, rate: Rate) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Translates addresses by these rules.
    #[must_use]
    pub fn with_nat(mut self, rules: NatRules) -> Self {
        self.nat = Some(rules);
        self
    }

    /// Finds what the kernel would refuse or misread, before anything is touched.
    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |reason: String| Err(Error::InvalidSpec { interface: self.name.to_string(), reason });
        if self.alias.len() > 255 || self.alias.contains('\0') {
            return invalid(format!("mark {:?} is longer than 255 bytes or contains NUL", self.alias));
        }
        if self.mac.is_some_and(|mac| mac[0] & 1 == 1 || mac == [0; 6]) {
            return invalid("hardware address is a multicast address or zero".to_owned());
        }
        let policy_routes = self.policies.iter().flat_map(|p| &p.routes);
        for route in self.routes.iter().chain(policy_routes) {
            if route.via.is_some_and(|via| via.is_ipv4() != route.prefix.addr().is_ipv4()) {
                return invalid(format!("route {route} mixes IPv4 and IPv6"));
            }
        }
        for policy in &self.policies {
            for ports in [&policy.dst_ports, &policy.src_ports].into_iter().flatten() {
                if ports.is_empty() || *ports.start() == 0 {
                    return invalid(format!("port range {}-{} is empty or begins with 0", ports.start(), ports.end()));
                }
            }
            if let Some(from) = policy.from
                && policy.routes.iter().any(|r| r.prefix.addr().is_ipv4() != from.addr().is_ipv4())
            {
                return invalid(format!("policy from {from} has routes of the other address family"));
            }
        }
        let has = !self.addresses.is_empty() || !self.routes.is_empty() || !self.policies.is_empty();
        if let Some(vlan) = &self.vlan {
            vlan.validate(self.name.as_str())?;
            if has || self.joined_to.is_some() {
                return invalid("a way into a VLAN has no addresses or routes, and leads nowhere else".to_owned());
            }
        }
        if let Some(other) = &self.joined_to
            && (has || *other == self.name)
        {
            return invalid(format!("a side of a relay has no addresses or routes, and another side than {other}"));
        }
        Ok(())
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.prefix)?;
        match self.via {
            Some(via) => write!(f, " via {via}"),
            None => Ok(()),
        }
    }
}
