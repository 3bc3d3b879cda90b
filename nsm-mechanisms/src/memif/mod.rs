//! The MEMIF mechanism: shared memory between two workloads of one node.
//!
//! The endpoint is memif's server, the client its client. The endpoint's socket, a file, travels to the client by its
//! descriptor, from hop to hop (`SendFd`, `RecvFd` of the SDK); the client connects to it directly. So a forwarder between
//! them only passes it on: no packet and no message of memif goes through it. Where one of the two has something else than
//! MEMIF, or is on another node, the forwarder is memif's other side and copies (`copying`).

mod accept;
mod attached;
pub(crate) mod copying;
mod directory;
mod offer;
mod processor;
mod socket;
mod with_memif;

pub use accept::MemifAccept;
pub(crate) use attached::Target;
pub use copying::Copied;
pub use offer::MemifOffer;
pub use processor::PacketProcessor;
pub use with_memif::WithMemif;

use nsm_api::payload;
use nsm_memif::Config;
use nsm_memif::protocol::Mode;

/// Settings by what the connection carries: number 0, no secret, as the reference has it.
fn config(carries: &str) -> Config {
    Config::new(0).mode(if carries == payload::ETHERNET { Mode::Ethernet } else { Mode::Ip })
}

#[cfg(test)]
mod tests;
