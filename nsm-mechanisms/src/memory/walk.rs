//! Whether packets get from a client to its endpoint, and back.

use std::net::IpAddr;
use std::sync::Arc;

use nsm_api::{Connection, ConnectionContext};

use super::{Fabric, Inner, Interface, Standing, Tunnel};

/// The wires that packets pass, from the client on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// Each by its forwarder and the connection's id there.
    pub wires: Vec<(Arc<str>, Arc<str>)>,
    /// Where they arrive.
    pub end: Interface,
}

/// Why no packet gets through a connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The connection's mechanism is none of the kernel's.
    #[error("the connection has no KERNEL interface")]
    NotKernel,
    /// Nothing is where the client's interface should be.
    #[error("{0} is not there")]
    NoInterface(Interface),
    /// The client's interface is the other end of somebody's wire.
    #[error("{interface} is the far end of wire {id} of {forwarder}")]
    WrongEnd {
        /// Which interface.
        interface: Interface,
        /// Whose wire.
        forwarder: Arc<str>,
        /// Its connection.
        id: Arc<str>,
    },
    /// One end of the tunnel is there, the other is not.
    #[error("nothing ends the {0}")]
    NoFarEnd(Tunnel),
    /// The tunnel's packets do not pass between the nodes.
    #[error("the underlay lets nothing pass from {from} to {to}")]
    Cut {
        /// From this address.
        from: IpAddr,
        /// To this one.
        to: IpAddr,
    },
    /// A wire has other addresses than the client believes.
    #[error("wire {id} of {forwarder} has {side} addresses {seen:?}, the client expects {expected:?}")]
    Addresses {
        /// Whose wire.
        forwarder: Arc<str>,
        /// Its connection.
        id: Arc<str>,
        /// `source` or `destination`.
        side: &'static str,
        /// What the client believes.
        expected: Vec<String>,
        /// What was programmed.
        seen: Vec<String>,
    },
    /// A wire that leads on begins elsewhere than the one before it ends.
    #[error("packets arrive at {arrived}, but wire {id} of {forwarder} leads on from {from}")]
    Gap {
        /// Where they arrive.
        arrived: Interface,
        /// From where it goes on.
        from: Interface,
        /// Whose wire leads on.
        forwarder: Arc<str>,
        /// Its connection.
        id: Arc<str>,
    },
}

impl Fabric {
    /// Whether packets flow both ways between the client's interface and the endpoint's, as the client's copy of the
    /// connection describes it. Where endpoints on the way pass traffic on, over all of them.
    ///
    /// # Errors
    /// The first place, seen from the client, that lets nothing pass.
    pub fn flows(&self, connection: &Connection) -> Result<Trail, Broken> {
        self.lock().walk(connection)
    }
}

impl Inner {
    fn walk(&self, connection: &Connection) -> Result<Trail, Broken> {
        let from = connection.mechanism.as_ref().and_then(Interface::of).ok_or(Broken::NotKernel)?;
        let context = connection.context.clone().unwrap_or_default();
        let first = self.begins_at(&from).or_else(|| self.ahead(connection, None));
        let mut wire = first.ok_or_else(|| Broken::NoInterface(from.clone()))?;
        if from.netns.is_empty() && wire.place.ends.first().is_none_or(|end| end.name != from.name) {
            return Err(Broken::NoInterface(from));
        }
        let mut trail = Vec::new();
        loop {
            if wire.wire.caller.as_kernel().is_none() {
                let (forwarder, id) = (Arc::clone(&wire.forwarder), Arc::clone(&wire.wire.id));
                return Err(Broken::WrongEnd { interface: from, forwarder, id });
            }
            wire.has(&context)?;
            trail.push((Arc::clone(&wire.forwarder), Arc::clone(&wire.wire.id)));
            if wire.wire.next.as_kernel().is_none() {
                wire = self.across(wire)?;
                wire.has(&context)?;
                trail.push((Arc::clone(&wire.forwarder), Arc::clone(&wire.wire.id)));
            }
            let Some(arrived) = wire.place.ends.last().cloned() else {
                return Err(Broken::NotKernel);
            };
            let Some(on) = self.ahead(connection, Some(wire)) else {
                return Ok(Trail { wires: trail, end: arrived });
            };
            if let Some(from) = on.place.ends.first().filter(|from| from.netns != arrived.netns) {
                let (forwarder, id) = (Arc::clone(&on.forwarder), Arc::clone(&on.wire.id));
                return Err(Broken::Gap { arrived, from: from.clone(), forwarder, id });
            }
            wire = on;
        }
    }

    /// The wire of which this is an end.
    fn begins_at(&self, interface: &Interface) -> Option<&Standing> {
        self.wires.values().find(|standing| standing.place.ends.iter().any(|end| end.is(interface)))
    }

    /// The first wire along the connection's path, or the first one behind another.
    fn ahead(&self, connection: &Connection, behind: Option<&Standing>) -> Option<&Standing> {
        let segments = connection.path.as_ref().map_or(&[][..], |path| &path.path_segments);
        let is = |s: &Standing, at: usize| *s.forwarder == *segments[at].name && *s.wire.id == *segments[at].id;
        let start = match behind {
            Some(wire) => (0..segments.len()).find(|at| is(wire, *at))? + 1,
            None => 0,
        };
        (start..segments.len()).find_map(|at| self.wires.values().find(|standing| is(standing, at)))
    }

    /// The wire at the other end of this one's tunnel.
    fn across(&self, near: &Standing) -> Result<&Standing, Broken> {
        let Some(tunnel) = &near.place.tunnel else {
            return Err(Broken::NotKernel);
        };
        for (from, to) in [(tunnel.local, tunnel.remote), (tunnel.remote, tunnel.local)] {
            if self.cuts.contains(&(from, to)) {
                return Err(Broken::Cut { from, to });
            }
        }
        let far = Tunnel { local: tunnel.remote, remote: tunnel.local, ..tunnel.clone() };
        let end = self.wires.values().find(|standing| standing.place.tunnel.as_ref() == Some(&far));
        end.ok_or_else(|| Broken::NoFarEnd(tunnel.clone()))
    }
}

impl Standing {
    /// Whether it has the addresses that the client believes in.
    fn has(&self, context: &ConnectionContext) -> Result<(), Broken> {
        let addresses = |context: &ConnectionContext| {
            let ip = context.ip_context.clone().unwrap_or_default();
            [ip.src_ip_addrs, ip.dst_ip_addrs]
        };
        let sides = ["source", "destination"].into_iter();
        for (side, (expected, seen)) in sides.zip(addresses(context).into_iter().zip(addresses(&self.wire.context))) {
            if expected != seen {
                let (forwarder, id) = (Arc::clone(&self.forwarder), Arc::clone(&self.wire.id));
                return Err(Broken::Addresses { forwarder, id, side, expected, seen });
            }
        }
        Ok(())
    }
}
