//! Finding who serves, and who carries.

mod discover;
mod discover_forwarder;
mod network_service_watch;
mod round_robin;

pub use discover::Discover;
pub use discover_forwarder::DiscoverForwarder;
pub(crate) use discover_forwarder::FORWARDER;
pub use network_service_watch::NetworkServiceWatch;
pub use round_robin::RoundRobin;
