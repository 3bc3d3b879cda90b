//! Editing the addresses and routes of a connection's context.

use std::net::IpAddr;

use ipnet::IpNet;
use nsm_api::IpContext;
use nsm_api::connection::Connection;
use nsm_api::connectioncontext::Route;

/// The IP context, made if there is none.
pub(super) fn ip_context(connection: &mut Connection) -> &mut IpContext {
    connection.context.get_or_insert_default().ip_context.get_or_insert_default()
}

/// Adds an address with its prefix length, unless it is there.
pub(super) fn add_address(list: &mut Vec<String>, net: IpNet) {
    if !list.iter().any(|text| text.parse() == Ok(net)) {
        list.push(net.to_string());
    }
}

/// Adds a route to a host on the link, unless it is there.
pub(super) fn add_host_route(list: &mut Vec<Route>, host: IpAddr) {
    if !list.iter().any(|route| is_host_route(route, host)) {
        list.push(Route { prefix: IpNet::from(host).to_string(), next_hop: String::new() });
    }
}

/// Takes out each client address that `doomed` says, and the endpoint's host route to it.
pub(super) fn remove_src(context: &mut IpContext, doomed: impl Fn(IpAddr) -> bool) {
    remove(&mut context.src_ip_addrs, &mut context.dst_routes, doomed);
}

/// Takes out each endpoint address that `doomed` says, and the client's host route to it.
pub(super) fn remove_dst(context: &mut IpContext, doomed: impl Fn(IpAddr) -> bool) {
    remove(&mut context.dst_ip_addrs, &mut context.src_routes, doomed);
}

fn remove(addresses: &mut Vec<String>, routes: &mut Vec<Route>, doomed: impl Fn(IpAddr) -> bool) {
    addresses.retain(|text| {
        let Some(address) = text.parse::<IpNet>().ok().map(|net| net.addr()).filter(|address| doomed(*address)) else {
            return true;
        };
        routes.retain(|route| !is_host_route(route, address));
        false
    });
}

fn is_host_route(route: &Route, host: IpAddr) -> bool {
    route.prefix.parse() == Ok(IpNet::from(host))
}
