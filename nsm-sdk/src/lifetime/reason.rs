use std::fmt;

/// Why a connection is made again. A fact of each Request that [`Heal`](super::Heal) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The next hop cannot be heard any more: its process ended, or there is no way there.
    NextHopLost,
    /// The next hop closed it, because it was not refreshed in time, say; or does not know it, because it restarted.
    ClosedThere,
    /// A hop further on lost what comes behind it.
    HopLost,
    /// Nobody answers at the endpoint.
    EndpointGone,
    /// Packets do not get through.
    PacketsStopped,
    /// The network service no longer lets the client have its endpoint.
    ServiceChanged,
    /// Whoever asked for the connection wants a fresh choice.
    Asked,
}

impl Reason {
    /// Its name where programs read it, such as `endpoint-gone`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NextHopLost => "next-hop-lost",
            Self::ClosedThere => "closed-there",
            Self::HopLost => "hop-lost",
            Self::EndpointGone => "endpoint-gone",
            Self::PacketsStopped => "packets-stopped",
            Self::ServiceChanged => "service-changed",
            Self::Asked => "asked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextHopLost => "the next hop is lost",
            Self::ClosedThere => "the next hop closed it",
            Self::HopLost => "a hop further on is lost",
            Self::EndpointGone => "nobody answers at the endpoint",
            Self::PacketsStopped => "packets do not get through",
            Self::ServiceChanged => "the network service moved it",
            Self::Asked => "a fresh choice was asked for",
        })
    }
}
