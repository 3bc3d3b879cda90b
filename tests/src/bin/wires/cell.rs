//! The matrix: which ends, over which way, with which packets.

use std::fmt;

use nsm_api::payload;

/// One wire to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) client: End,
    pub(crate) way: Way,
    pub(crate) endpoint: End,
    pub(crate) payload: Payload,
    pub(crate) inner: Inner,
}

/// What a workload has of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Kernel,
    Memif,
    /// Nothing: the two find their packets without the mesh.
    Noop,
}

/// What lies between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Local,
    Vxlan(Family),
    /// VXLAN to a node in the middle and on from there.
    Relay(Family),
    Wireguard(Family),
    /// A VLAN of the network outside, in which the endpoint's host is; the endpoint itself is only asked where that is.
    Vlan,
}

/// Of the network between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    Ip,
    Ethernet,
}

/// Which addresses the two ends get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inner {
    V4,
    V6,
    Both,
}

impl Cell {
    /// Whether no wire can be made: one end has an interface, the other has none and wants none.
    pub(crate) fn is_refused(&self) -> bool {
        (self.client == End::Noop) != (self.endpoint == End::Noop)
    }

    /// Every cell, those of one way together.
    pub(crate) fn all() -> Vec<Self> {
        let ways = [
            Way::Local,
            Way::Vxlan(Family::V4),
            Way::Vxlan(Family::V6),
            Way::Relay(Family::V4),
            Way::Relay(Family::V6),
            Way::Wireguard(Family::V4),
            Way::Wireguard(Family::V6),
            Way::Vlan,
        ];
        let nothing = |client| {
            let (way, payload, inner) = (Way::Local, Payload::Ip, Inner::Both);
            Self { client, way, endpoint: End::Noop, payload, inner }
        };
        let mut cells = vec![nothing(End::Noop), nothing(End::Kernel)];
        for way in ways {
            for payload in [Payload::Ip, Payload::Ethernet] {
                if payload == Payload::Ethernet && matches!(way, Way::Wireguard(_)) {
                    continue;
                }
                if matches!(way, Way::Relay(_)) {
                    // What is in the frames that it passes on is nobody's business but the two ends'.
                    cells.push(Self { client: End::Kernel, way, endpoint: End::Kernel, payload, inner: Inner::Both });
                    continue;
                }
                for inner in [Inner::V4, Inner::V6, Inner::Both] {
                    cells.push(Self { client: End::Kernel, way, endpoint: End::Kernel, payload, inner });
                }
                if way == Way::Vlan {
                    continue;
                }
                // With shared memory both families go the same way.
                for (client, endpoint) in
                    [(End::Memif, End::Memif), (End::Kernel, End::Memif), (End::Memif, End::Kernel)]
                {
                    cells.push(Self { client, way, endpoint, payload, inner: Inner::Both });
                }
            }
        }
        cells
    }
}

impl Way {
    pub(crate) fn family(self) -> Option<Family> {
        match self {
            Self::Local => None,
            Self::Vlan => Some(Family::V4),
            Self::Vxlan(family) | Self::Relay(family) | Self::Wireguard(family) => Some(family),
        }
    }
}

impl Payload {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ip => payload::IP,
            Self::Ethernet => payload::ETHERNET,
        }
    }
}

impl Inner {
    pub(crate) fn v4(self) -> bool {
        self != Self::V6
    }

    pub(crate) fn v6(self) -> bool {
        self != Self::V4
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |end| match end {
            End::Kernel => "KERNEL",
            End::Memif => "MEMIF",
            End::Noop => "NOOP",
        };
        let way = match self.way {
            Way::Local => "local",
            Way::Vxlan(Family::V4) => "VXLAN over IPv4",
            Way::Vxlan(Family::V6) => "VXLAN over IPv6",
            Way::Relay(Family::V4) => "VXLAN relayed over IPv4",
            Way::Relay(Family::V6) => "VXLAN relayed over IPv6",
            Way::Wireguard(Family::V4) => "WIREGUARD over IPv4",
            Way::Wireguard(Family::V6) => "WIREGUARD over IPv6",
            Way::Vlan => "VLAN outside",
        };
        let inner = match self.inner {
            Inner::V4 => "IPv4",
            Inner::V6 => "IPv6",
            Inner::Both => "dual stack",
        };
        let ends = format!("{} {way} {}", end(self.client), end(self.endpoint));
        write!(f, "{ends:<36} {:<8} {inner:<10}", self.payload.name())
    }
}
