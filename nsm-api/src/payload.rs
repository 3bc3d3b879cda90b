//! What connections carry.

/// Ethernet frames.
pub const ETHERNET: &str = "ETHERNET";
/// IP packets; the default of a network service that says nothing.
pub const IP: &str = "IP";
