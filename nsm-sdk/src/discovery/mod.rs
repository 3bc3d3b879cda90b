//! Finding who serves, and who carries.

mod discover;
mod discover_forwarder;
mod network_service_watch;
mod round_robin;

use nsm_chain::Call;

pub use discover::Discover;
pub use discover_forwarder::DiscoverForwarder;
pub(crate) use discover_forwarder::FORWARDER;
pub use network_service_watch::NetworkServiceWatch;
pub use round_robin::RoundRobin;

/// A try at the first of so many that are left: it gets its share of the caller's time.
fn share(call: Call, left: usize) -> Call {
    match (call.remaining(), u32::try_from(left)) {
        (Some(remaining), Ok(left @ 2..)) => call.within(remaining / left),
        _ => call,
    }
}
