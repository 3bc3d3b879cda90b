use std::fmt;

/// Why a connection is made again. A fact of each Request that [`Heal`](super::Heal) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The next hop cannot be heard any more: its process ended, or there is no way there.
    Lost,
    /// The next hop closed it, or does not know it.
    Closed,
    /// A hop further on lost what comes behind it.
    Down,
    /// Nobody answers at the endpoint.
    EndpointGone,
    /// Packets do not get through.
    NoPackets,
    /// The network service no longer lets the client have its endpoint.
    ServiceChanged,
    /// It could not be refreshed in time, and hops further on let it go.
    Expired,
    /// Whoever asked for the connection wants a fresh choice.
    Asked,
}

impl Reason {
    /// Its name where programs read it, such as `endpoint-gone`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "next-hop-lost",
            Self::Closed => "closed-there",
            Self::Down => "hop-lost",
            Self::EndpointGone => "endpoint-gone",
            Self::NoPackets => "packets-stopped",
            Self::ServiceChanged => "service-changed",
            Self::Expired => "expired",
            Self::Asked => "asked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the next hop is lost",
            Self::Closed => "the next hop closed it",
            Self::Down => "a hop further on is lost",
            Self::EndpointGone => "nobody answers at the endpoint",
            Self::NoPackets => "packets do not get through",
            Self::ServiceChanged => "the network service moved it",
            Self::Expired => "it was not refreshed in time",
            Self::Asked => "a fresh choice was asked for",
        })
    }
}
