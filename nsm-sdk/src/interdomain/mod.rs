//! Network services of other domains: `vpn@example.org`.
//!
//! A domain is a mesh with a registry of its own. A name with a domain in it leads from the registry through this
//! domain's proxies to the other domain's registry, and a Request for what was found there through both domains'
//! manager proxies. A floating domain has a registry that others register with, and no nodes.
//!
//! | element | where | what it does |
//! |---|---|---|
//! | [`Interdomain`] | registry | sends names of other domains to the manager proxy |
//! | [`InterdomainBypass`] | manager proxy, registry half | puts the proxy into the way of what is found and registered |
//! | [`InterdomainNextHop`] | manager proxy | sends a Request on to the other domain, or into this one |
//! | [`SwapIp`] | manager proxy | translates addresses between inside and outside |
//! | [`ClusterInfo`] | manager proxy | labels with the cluster |
//! | [`DnsResolve`] | registry proxy | asks the other domain's registry, which DNS finds |
//!
//! The stacks of them are [`ManagerProxy`](crate::stacks::ManagerProxy) and
//! [`RegistryProxy`](crate::registry::stacks::RegistryProxy). The whole way, with a picture: `docs/interdomain.md`.

mod bypass;
mod cluster_info;
mod dns_resolve;
mod next_hop;
mod resolver;
mod route;
mod swap_ip;

pub use bypass::InterdomainBypass;
pub use cluster_info::ClusterInfo;
pub use dns_resolve::DnsResolve;
pub use next_hop::InterdomainNextHop;
pub use resolver::{DomainResolver, MANAGER_PROXY, REGISTRY, ResolveError};
pub use route::Interdomain;
pub use swap_ip::SwapIp;

use nsm_api::names;
use nsm_chain::Record;

/// Gives every name in an answer the form in which it was asked for.
fn restore<R: Record>(answer: &mut R, asked: &R) {
    answer.rename(|name| {
        let as_asked = asked.services().iter().find(|service| names::target(service) == names::target(name));
        as_asked.cloned().unwrap_or_else(|| name.to_owned())
    });
    answer.set_name(asked.name().to_owned());
}
