//! What was carried, and what was not and why.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use boringtun::noise::errors::WireGuardError;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a packet or message was not carried on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// A name of the kind that metrics have.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// Not a WireGuard message: unknown type, or a length that its type does not have.
    Malformed = "malformed",
    /// A message for a tunnel or a session that this node does not have.
    UnknownReceiver = "unknown_receiver",
    /// A handshake that does not know the public key of any tunnel to its sender's address.
    UnknownInitiator = "unknown_initiator",
    /// It was not sealed with the key of its session or handshake, or it was altered.
    NotAuthentic = "not_authentic",
    /// It was received before, or is too old to tell.
    Replayed = "replayed",
    /// Its counter is at the end of what a session may carry (2^64 - 2^13 - 1 messages).
    CounterExhausted = "counter_exhausted",
    /// What was sealed in it is no IP packet.
    NotIp = "not_ip",
    /// More handshakes at once than are answered without a cookie.
    UnderLoad = "under_load",
    /// The workload's interface did not take it: it is down or gone.
    Interface = "interface",
    /// The network between the nodes did not take it: no route, too large, queue full.
    Network = "network",
    /// The workload's interface gave something that cannot be cut into packets.
    Segmentation = "segmentation",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<&WireGuardError> for Reason {
    fn from(error: &WireGuardError) -> Self {
        use WireGuardError as E;
        match error {
            E::WrongIndex | E::NoCurrentSession | E::ConnectionExpired | E::UnexpectedPacket => Self::UnknownReceiver,
            E::WrongKey | E::InvalidMac | E::InvalidAeadTag | E::InvalidTai64nTimestamp => Self::NotAuthentic,
            E::WrongTai64nTimestamp | E::InvalidCounter | E::DuplicateCounter => Self::Replayed,
            E::UnderLoad => Self::UnderLoad,
            E::DestinationBufferTooSmall | E::LockFailed => Self::Segmentation,
            E::InvalidPacket | E::IncorrectPacketLength | E::WrongPacketType => Self::Malformed,
        }
    }
}

/// How many were dropped, by reason.
#[derive(Debug, Default)]
pub(crate) struct Drops([AtomicU64; Reason::ALL.len()]);

impl Drops {
    pub(crate) fn count(&self, reason: Reason, packets: usize) {
        self.0[reason as usize].fetch_add(packets as u64, Ordering::Relaxed);
    }

    pub(crate) fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

/// Packets and octets in one direction.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl Carried {
    pub(crate) fn count(&self, packets: usize, octets: usize) {
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    pub(crate) fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    pub(crate) fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_for_itself() {
        let drops = Drops::default();
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
            drops.count(*reason, at + 1);
        }
        assert!(Reason::ALL.iter().enumerate().all(|(at, reason)| drops.of(*reason) == at as u64 + 1));
    }
}
