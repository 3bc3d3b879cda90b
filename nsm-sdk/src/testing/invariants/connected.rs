//! Who wants a connection has one, from end to end.

use nsm_api::mechanism::keys;
use nsm_api::{Connection, PathSegment};

use super::{Rule, Violation, Wanted};
use crate::testing::Census;

/// Every client has exactly the connections that it wants, and every hop along their paths knows them.
#[must_use]
pub fn connected(census: &Census, wanted: &Wanted) -> Vec<Violation> {
    let mut found = Vec::new();
    for (client, id) in wanted {
        match established(census, client, id) {
            Some(connection) => along(census, connection, &mut found),
            None => found.push(Violation::new(Rule::Connected, format!("{client}/{id}"), "a connection", "none")),
        }
    }
    for (client, kept) in &census.clients {
        let unwanted = kept.connections.keys().filter(|id| !wanted.contains(&(client.clone(), (*id).clone())));
        found.extend(unwanted.map(|id| Violation::new(Rule::Unwanted, format!("{client}/{id}"), "nothing", id)));
    }
    found
}

/// Packets flow through every connection that is wanted: over the wires of its path alone, to the interface that the
/// endpoint has for it, between the addresses that both sides believe in.
#[must_use]
pub fn flowing(census: &Census, wanted: &Wanted) -> Vec<Violation> {
    let connections = wanted.iter().filter_map(|(client, id)| Some((client, id, established(census, client, id)?)));
    let check = |(client, id, connection): (&String, &String, &Connection)| {
        let broken = arrives(census, connection).err()?;
        Some(Violation { at: format!("{client}/{id}"), ..broken })
    };
    connections.filter_map(check).collect()
}

fn established<'a>(census: &'a Census, client: &str, id: &str) -> Option<&'a Connection> {
    census.clients.get(client)?.connections.get(id)?.as_deref()
}

fn segments(connection: &Connection) -> &[PathSegment] {
    connection.path.as_ref().map_or(&[], |path| &path.path_segments)
}

fn along(census: &Census, connection: &Connection, found: &mut Vec<Violation>) {
    let path = segments(connection);
    for segment in path.iter().skip(1) {
        let hop = census.hops.get(&segment.name);
        if !hop.is_some_and(|hop| hop.connections.contains_key(&segment.id)) {
            let seen = if hop.is_some() { "a hop that does not know it" } else { "no such hop" };
            found.push(Violation::new(Rule::Connected, &segment.name, format!("connection {}", segment.id), seen));
        }
    }
    let last = path.last().map(|segment| segment.name.as_str()).unwrap_or_default();
    if last != connection.network_service_endpoint_name {
        let expected = format!("a path to {}", connection.network_service_endpoint_name);
        found.push(Violation::new(Rule::Connected, &connection.id, expected, format!("one to {last}")));
    }
}

fn arrives(census: &Census, connection: &Connection) -> Result<(), Violation> {
    let violation = |expected: String, seen: String| Violation::new(Rule::Flowing, "", expected, seen);
    let trail = census.fabric.flows(connection).map_err(|why| violation("packets to flow".into(), why.to_string()))?;
    let path = segments(connection);
    let forwarders = path.iter().filter(|segment| census.fabric.has_forwarder(&segment.name));
    let expected: Vec<_> = forwarders.map(|segment| (segment.name.as_str(), segment.id.as_str())).collect();
    let seen: Vec<_> = trail.wires.iter().map(|(forwarder, id)| (&**forwarder, &**id)).collect();
    if expected != seen {
        return Err(violation(format!("packets over the wires {expected:?}"), format!("over {seen:?}")));
    }
    let end = path.last().and_then(|segment| census.hops.get(&segment.name)?.connections.get(&segment.id)?.as_deref());
    let Some(end) = end else {
        return Err(violation("an endpoint that knows the connection".into(), "none".into()));
    };
    let parameter = |key| end.mechanism.as_ref().and_then(|mechanism| mechanism.parameter(key)).unwrap_or_default();
    let (netns, name) = (parameter(keys::INODE_URL), parameter(keys::INTERFACE_NAME));
    if (netns, name) != (&*trail.end.netns, &*trail.end.name) {
        return Err(violation(format!("packets at {name} of {netns}"), trail.end.to_string()));
    }
    let addresses = |connection: &Connection| {
        let ip = connection.context.as_ref().and_then(|context| context.ip_context.clone()).unwrap_or_default();
        (ip.src_ip_addrs, ip.dst_ip_addrs)
    };
    let (expected, seen) = (addresses(connection), addresses(end));
    if expected == seen { Ok(()) } else { Err(violation(format!("addresses {expected:?}"), format!("{seen:?}"))) }
}
