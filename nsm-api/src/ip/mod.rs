//! Addresses, routes and prefixes of a connection, as values of [`ipnet`].
//!
//! The wire carries all of them as text. [`IpContext::src_nets`] and its like skip what cannot be read, as the
//! reference does, and suit hops that only look; [`IpContext::validate`] names the first bad field and suits
//! hops that configure or hand out.

mod extra_prefix;
mod policy;
mod port_range;
mod route;
mod validate;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::IpContext;
use crate::connectioncontext::Route;

pub use port_range::{PortRange, PortRangeError};
pub use route::IpRoute;
pub use validate::FieldError;

impl IpContext {
    /// Addresses of the client's side with their prefix lengths; unreadable ones are skipped.
    pub fn src_nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        nets(&self.src_ip_addrs)
    }

    /// Addresses of the endpoint's side with their prefix lengths; unreadable ones are skipped.
    pub fn dst_nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        nets(&self.dst_ip_addrs)
    }

    /// Prefixes that must not be given to the connection; unreadable ones are skipped.
    ///
    /// Who hands out addresses must [`validate`](Self::validate) first, so that no exclusion is lost.
    pub fn excluded_nets(&self) -> impl Iterator<Item = IpNet> + '_ {
        nets(&self.excluded_prefixes)
    }

    /// Routes of the client's side with their next hops.
    ///
    /// A route that names no next hop goes through the endpoint's first address of the same family, unless
    /// its prefix lies inside one of the endpoint's nets: then it is on the link.
    ///
    /// # Errors
    /// [`FieldError`] names the route that cannot be read.
    pub fn resolved_src_routes(&self) -> Result<Vec<IpRoute>, FieldError> {
        let peers: Vec<_> = self.dst_nets().collect();
        resolve("src_routes", &self.src_routes, &peers)
    }

    /// Routes of the endpoint's side with their next hops, by the rule of
    /// [`resolved_src_routes`](Self::resolved_src_routes) with the sides exchanged.
    ///
    /// # Errors
    /// [`FieldError`] names the route that cannot be read.
    pub fn resolved_dst_routes(&self) -> Result<Vec<IpRoute>, FieldError> {
        let peers: Vec<_> = self.src_nets().collect();
        resolve("dst_routes", &self.dst_routes, &peers)
    }

    /// The client's nets whose address lies in none of the endpoint's nets: without routes to them the
    /// endpoint's side would not know that they are on the link.
    pub fn src_link_routes(&self) -> Vec<IpNet> {
        uncovered(self.src_nets(), &self.dst_nets().collect::<Vec<_>>())
    }

    /// The endpoint's nets whose address lies in none of the client's nets.
    pub fn dst_link_routes(&self) -> Vec<IpNet> {
        uncovered(self.dst_nets(), &self.src_nets().collect::<Vec<_>>())
    }
}

fn nets(texts: &[String]) -> impl Iterator<Item = IpNet> + '_ {
    texts.iter().filter_map(|text| text.parse().ok())
}

fn covered(address: IpAddr, nets: &[IpNet]) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

fn uncovered(nets: impl Iterator<Item = IpNet>, others: &[IpNet]) -> Vec<IpNet> {
    nets.filter(|net| !covered(net.addr(), others)).map(|net| net.trunc()).collect()
}

fn resolve(field: &str, routes: &[Route], peers: &[IpNet]) -> Result<Vec<IpRoute>, FieldError> {
    let resolve_one = |(index, route): (usize, &Route)| {
        let mut route = route.parse().map_err(|error| error.inside(format_args!("{field}[{index}]")))?;
        if route.next_hop.is_none() && !covered(route.prefix.addr(), peers) {
            let v4 = route.prefix.addr().is_ipv4();
            route.next_hop = peers.iter().map(IpNet::addr).find(|peer| peer.is_ipv4() == v4);
        }
        Ok(route)
    };
    routes.iter().enumerate().map(resolve_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn route(prefix: &str, next_hop: &str) -> Route {
        Route { prefix: prefix.into(), next_hop: next_hop.into() }
    }

    fn context() -> IpContext {
        IpContext {
            src_ip_addrs: texts(&["172.16.1.1/32", "fd00::1/128", "nonsense"]),
            dst_ip_addrs: texts(&["172.16.1.0/24", "fd00::/128"]),
            ..Default::default()
        }
    }

    #[test]
    fn nets_keep_the_host_address_and_skip_what_is_unreadable() {
        let nets: Vec<String> = context().dst_nets().map(|net| net.to_string()).collect();
        assert_eq!(nets, ["172.16.1.0/24", "fd00::/128"]);
        assert_eq!(context().src_nets().count(), 2);
        let host = IpContext { src_ip_addrs: texts(&["10.0.0.7/24"]), ..Default::default() };
        assert_eq!(host.src_nets().next().unwrap().addr().to_string(), "10.0.0.7");
    }

    #[test]
    fn a_route_without_next_hop_goes_through_the_peer_of_its_family() {
        let mut context = context();
        context.src_routes = vec![
            route("0.0.0.0/0", ""),
            route("::/0", ""),
            route("172.16.1.128/25", ""),
            route("10.0.0.0/8", "172.16.1.9"),
        ];
        let routes = context.resolved_src_routes().unwrap();
        let hops: Vec<Option<String>> = routes.iter().map(|route| route.next_hop.map(|hop| hop.to_string())).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(hops, [some("172.16.1.0"), some("fd00::"), None, some("172.16.1.9")]);
    }

    #[test]
    fn the_endpoints_routes_go_through_the_client() {
        let mut context = context();
        context.dst_routes = vec![route("10.0.0.0/8", "")];
        let routes = context.resolved_dst_routes().unwrap();
        assert_eq!(routes[0].next_hop, Some("172.16.1.1".parse().unwrap()));
    }

    #[test]
    fn without_a_peer_of_the_family_a_route_stays_on_the_link() {
        let context = IpContext { src_routes: vec![route("::/0", "")], ..Default::default() };
        assert_eq!(context.resolved_src_routes().unwrap()[0].next_hop, None);
    }

    #[test]
    fn an_unreadable_route_is_named() {
        let context = IpContext { src_routes: vec![route("::/0", ""), route("10.0.0.0", "")], ..Default::default() };
        assert_eq!(context.resolved_src_routes().unwrap_err().field, "src_routes[1].prefix");
    }

    #[test]
    fn on_the_link_are_the_nets_of_addresses_outside_the_other_sides_nets() {
        let context = context();
        let texts = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(context.src_link_routes()), ["fd00::1/128"]);
        assert_eq!(texts(context.dst_link_routes()), ["172.16.1.0/24", "fd00::/128"]);
    }
}
