//! What is done in every mesh, in this order, each step in what the ones before left.

use std::collections::BTreeSet;
use std::time::SystemTime;

use nsm_api::connection::{ConnectionEvent, ConnectionEventType, PathSegment, State};
use nsm_api::registry::NetworkServiceEndpoint;
use nsm_api::{Connection, NetworkService};

use crate::language::Event;
use crate::mesh::{Mesh, SERVICE};
use crate::role::Outcome;

/// The columns of the matrix.
pub(crate) const COLUMNS: [&str; 11] = [
    "join",
    "watch",
    "find",
    "request",
    "refresh",
    "monitor",
    "endpoint dies",
    "manager restarts",
    "close",
    "leave",
    "nothing left",
];

/// What one step leaves for the next ones.
#[derive(Debug, Default)]
pub(crate) struct Story {
    watch: String,
    connection: Connection,
}

/// The connection's id.
const ID: &str = "connection-1";

/// Runs the scenario of this column.
pub(crate) async fn run(column: &str, mesh: &mut Mesh, story: &mut Story) -> Outcome {
    match column {
        "join" => join(mesh).await,
        "watch" => watch(mesh, story).await,
        "find" => find(mesh).await,
        "request" => request(mesh, story).await,
        "refresh" => refresh(mesh, story).await,
        "monitor" => monitor(mesh, story).await,
        "endpoint dies" => endpoint_dies(mesh, story).await,
        "manager restarts" => manager_restarts(mesh, story).await,
        "close" => close(mesh, story).await,
        "leave" => leave(mesh, story).await,
        "nothing left" => nothing_left(mesh),
        _ => Err(format!("no scenario {column:?}")),
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Registry, manager and forwarder come up, and the client registers a network service.
async fn join(mesh: &mut Mesh) -> Outcome {
    mesh.start("registry", "registry").await?;
    for name in mesh.hops().iter().skip(1) {
        mesh.start(name.trim_end_matches("-2"), name).await?;
    }
    mesh.start("client", "client").await?;
    let service: NetworkService = mesh.role("client")?.gives(&format!("register-service {SERVICE}")).await?;
    check(service.name == SERVICE && service.payload == "IP", || format!("registered as {service:?}"))
}

/// The client watches the endpoints of the service: one registers, and registers again.
async fn watch(mesh: &mut Mesh, story: &mut Story) -> Outcome {
    story.watch = mesh.role("client")?.told(&format!("watch-endpoints {SERVICE}")).await?;
    let ready = mesh.start("endpoint", "endpoint-1").await?;
    let registered: NetworkServiceEndpoint = ready.message()?;
    check(registered.name == "endpoint-1", || format!("registered as {registered:?}"))?;
    let client = mesh.role("client")?;
    client.hears(0, "that endpoint-1 is registered", |event| story.sees(event, "endpoint-1", false)).await?;

    let before = client.now();
    mesh.role("endpoint-1")?.does("register").await?;
    client.hears(before, "that endpoint-1 is registered again", |event| story.sees(event, "endpoint-1", false)).await?;
    Ok(())
}

impl Story {
    /// Whether the watch tells of this endpoint.
    fn sees(&self, event: &Event, name: &str, deleted: bool) -> bool {
        let about = || event.message::<NetworkServiceEndpoint>().is_ok_and(|endpoint| endpoint.name == name);
        event.event == "seen" && event.to == self.watch && event.deleted == deleted && about()
    }
}

async fn find(mesh: &Mesh) -> Outcome {
    let client = mesh.role("client")?;
    let service: NetworkService = client.gives(&format!("find-service {SERVICE}")).await?;
    check(service.name == SERVICE && service.payload == "IP", || format!("found {service:?}"))?;

    let endpoint: NetworkServiceEndpoint = client.gives(&format!("find-endpoints {SERVICE}")).await?;
    let labels = endpoint.network_service_labels.get(SERVICE).and_then(|labels| labels.labels.get("app"));
    check(endpoint.name == "endpoint-1", || format!("found {endpoint:?}"))?;
    check(endpoint.network_service_names == [SERVICE], || format!("it serves {:?}", endpoint.network_service_names))?;
    check(labels.is_some_and(|app| app == "endpoint-1"), || format!("labels {:?}", endpoint.network_service_labels))?;
    check(!endpoint.url.is_empty(), || "it has no URL".to_owned())?;
    let expires = endpoint.expiration_time.and_then(|time| SystemTime::try_from(time).ok());
    check(expires.is_some_and(|time| time > SystemTime::now()), || format!("it expires at {expires:?}"))?;
    let since = endpoint.initial_registration_time.and_then(|time| SystemTime::try_from(time).ok());
    check(since.is_some_and(|time| time < SystemTime::now()), || format!("it is registered since {since:?}"))
}

async fn request(mesh: &Mesh, story: &mut Story) -> Outcome {
    story.connection = mesh.role("client")?.gives(&format!("request {ID} {SERVICE}")).await?;
    let connection = &story.connection;
    sound(mesh, connection, "endpoint-1")?;
    let addresses = connection.context.as_ref().and_then(|context| context.ip_context.as_ref());
    let addresses = addresses.ok_or("it has no addresses")?;
    check(addresses.src_ip_addrs == ["172.16.1.1/32"], || format!("source addresses {:?}", addresses.src_ip_addrs))?;
    check(addresses.dst_ip_addrs == ["172.16.1.0/32"], || format!("addresses {:?}", addresses.dst_ip_addrs))?;
    let routes = |routes: &[nsm_api::connectioncontext::Route], to: &str| routes.iter().any(|route| route.prefix == to);
    check(routes(&addresses.src_routes, "172.16.1.0/32"), || format!("routes {:?}", addresses.src_routes))?;
    check(routes(&addresses.dst_routes, "172.16.1.1/32"), || format!("routes back {:?}", addresses.dst_routes))?;

    let asked: Connection = asked(mesh, 0, "endpoint-1").await?;
    let last = segments(connection).last().ok_or("it has no path")?;
    check(asked.id == last.id, || format!("the endpoint knows it as {:?}, the path as {:?}", asked.id, last.id))?;
    check(asked.labels.get("app").is_some_and(|app| app == "interop"), || format!("labels {:?}", asked.labels))
}

/// What every connection of a client must be.
fn sound(mesh: &Mesh, connection: &Connection, endpoint: &str) -> Outcome {
    let names: Vec<_> = segments(connection).iter().map(|segment| segment.name.as_str()).collect();
    check(names == [mesh.hops(), &[endpoint]].concat(), || format!("its path is {names:?}"))?;
    let path = connection.path.as_ref().ok_or("it has no path")?;
    let first = segments(connection).first().ok_or("its path is empty")?;
    check(path.index == 0 && connection.id == first.id && connection.id == ID, || {
        format!("it is {:?}, at {} of a path that begins with {:?}", connection.id, path.index, first.id)
    })?;
    for segment in segments(connection) {
        let expires = segment.expires.and_then(|time| SystemTime::try_from(time).ok());
        check(expires.is_some_and(|time| time > SystemTime::now()), || {
            format!("the token of {} expires at {expires:?}", segment.name)
        })?;
        check(segment.token.split('.').count() == 3, || format!("{} has no token", segment.name))?;
    }
    check(connection.network_service_endpoint_name == endpoint, || {
        format!("its endpoint is {:?}", connection.network_service_endpoint_name)
    })?;
    check(connection.network_service == SERVICE && connection.payload == "IP", || {
        format!("it is of {:?} with payload {:?}", connection.network_service, connection.payload)
    })?;
    check(connection.state() == State::Up, || format!("it is {:?}", connection.state()))?;
    let mechanism = connection.mechanism.as_ref().ok_or("it has no mechanism")?;
    check(mechanism.r#type == "KERNEL" && mechanism.cls == "LOCAL", || format!("its mechanism is {mechanism:?}"))?;
    check(mechanism.parameter("name") == Some("nsm-1"), || format!("its interface is {:?}", mechanism.parameters))
}

fn segments(connection: &Connection) -> &[PathSegment] {
    connection.path.as_ref().map_or(&[], |path| path.path_segments.as_slice())
}

/// What an endpoint has been asked for, from there on.
async fn asked(mesh: &Mesh, since: usize, endpoint: &str) -> Outcome<Connection> {
    mesh.role(endpoint)?.hears(since, "that it was asked", |event| event.event == "requested").await?.message()
}

async fn refresh(mesh: &Mesh, story: &mut Story) -> Outcome {
    let before = mesh.role("endpoint-1")?.now();
    let connection: Connection = mesh.role("client")?.gives(&format!("refresh {ID}")).await?;
    sound(mesh, &connection, "endpoint-1")?;
    let ids = |connection: &Connection| segments(connection).iter().map(|one| one.id.clone()).collect::<Vec<_>>();
    check(ids(&connection) == ids(&story.connection), || "the ids of its path changed".to_owned())?;
    check(connection.context == story.connection.context, || {
        format!("from {:?} to {:?}", story.connection.context, connection.context)
    })?;
    asked(mesh, before, "endpoint-1").await?;
    story.connection = connection;
    Ok(())
}

/// Follows the connection at the manager, and returns what it is told first.
async fn follow(mesh: &Mesh, connection: &Connection) -> Outcome<(String, ConnectionEvent)> {
    let client = mesh.role("client")?;
    let segment = segments(connection).first().ok_or("the connection has no path")?;
    let since = client.now();
    let number = client.told(&format!("monitor {} {}", segment.id, segment.name)).await?;
    let told = client.hears(since, "the first of a monitor", |event| event.to == number).await?;
    check(told.event == "seen", || format!("the monitor ended: {} {}", told.code, told.error))?;
    let first: ConnectionEvent = told.message()?;
    check(first.r#type() == ConnectionEventType::InitialStateTransfer, || format!("it begins with {first:?}"))?;
    Ok((number, first))
}

/// The connection's id at the manager.
fn at_manager(connection: &Connection) -> Outcome<String> {
    let segment = segments(connection).get(1).ok_or("the path has no second segment")?;
    Ok(segment.id.clone())
}

/// Whether an event of this monitor tells this about the connection.
fn tells(event: &Event, number: &str, what: ConnectionEventType, id: &str) -> bool {
    let told = || event.message::<ConnectionEvent>();
    event.to == number && told().is_ok_and(|told| told.r#type() == what && told.connections.contains_key(id))
}

async fn monitor(mesh: &Mesh, story: &mut Story) -> Outcome {
    let client = mesh.role("client")?;
    let (number, first) = follow(mesh, &story.connection).await?;
    let id = at_manager(&story.connection)?;
    let known =
        first.connections.get(&id).ok_or_else(|| format!("{id} is not among {:?}", first.connections.keys()))?;
    let path = known.path.as_ref().ok_or("what it tells has no path")?;
    check(known.id == id && path.index == 1, || format!("it tells {:?} at {}", known.id, path.index))?;
    check(path.path_segments.len() == mesh.hops().len() + 1, || {
        format!("its path has {} segments", path.path_segments.len())
    })?;
    check(known.state() == State::Up, || format!("it tells {:?}", known.state()))?;

    let since = client.now();
    story.connection = client.gives(&format!("refresh {ID}")).await?;
    let update = |event: &Event| tells(event, &number, ConnectionEventType::Update, &id);
    client.hears(since, "that the connection was updated", update).await?;
    Ok(())
}

/// A second endpoint registers, the first one is killed: the client gets the second by itself.
async fn endpoint_dies(mesh: &mut Mesh, story: &mut Story) -> Outcome {
    mesh.start("endpoint", "endpoint-2").await?;
    let since = mesh.role("client")?.now();
    mesh.kill("endpoint-1").await?;
    healed(mesh, story, since).await?;
    let addresses = story.connection.context.as_ref().and_then(|context| context.ip_context.as_ref());
    let addresses = addresses.map(|addresses| addresses.src_ip_addrs.as_slice()).unwrap_or_default();
    check(addresses.iter().any(|address| address.starts_with("172.16.2.")), || format!("its addresses: {addresses:?}"))
}

/// The manager is killed and started again: the client gets through it by itself.
async fn manager_restarts(mesh: &mut Mesh, story: &mut Story) -> Outcome {
    let since = mesh.role("client")?.now();
    mesh.kill("manager").await?;
    mesh.start("manager", "manager").await?;
    healed(mesh, story, since).await
}

/// The client has got the connection again, at the second endpoint, and can refresh it.
async fn healed(mesh: &Mesh, story: &mut Story, since: usize) -> Outcome {
    let got = |event: &Event| {
        let connection = event.message::<Connection>();
        event.event == "connected" && connection.is_ok_and(|got| got.network_service_endpoint_name == "endpoint-2")
    };
    mesh.role("client")?.hears(since, "that it was connected to endpoint-2", got).await?;
    story.connection = mesh.role("client")?.gives(&format!("refresh {ID}")).await?;
    sound(mesh, &story.connection, "endpoint-2")
}

async fn close(mesh: &Mesh, story: &mut Story) -> Outcome {
    let (client, endpoint) = (mesh.role("client")?, mesh.role("endpoint-2")?);
    let (number, first) = follow(mesh, &story.connection).await?;
    let id = at_manager(&story.connection)?;
    check(first.connections.contains_key(&id), || format!("the manager knows {:?}", first.connections.keys()))?;

    let (since, endpoint_since) = (client.now(), endpoint.now());
    client.does(&format!("close {ID}")).await?;
    endpoint.hears(endpoint_since, "that it was closed", |event| event.event == "closed").await?;
    let deleted = |event: &Event| tells(event, &number, ConnectionEventType::Delete, &id);
    client.hears(since, "that the connection was deleted", deleted).await?;
    let (_, first) = follow(mesh, &story.connection).await?;
    check(first.connections.is_empty(), || format!("the manager still knows {:?}", first.connections.keys()))
}

/// The endpoint unregisters, and the client's watch, which outlived the manager, sees it.
async fn leave(mesh: &Mesh, story: &Story) -> Outcome {
    let client = mesh.role("client")?;
    let since = client.now();
    mesh.role("endpoint-2")?.does("leave").await?;
    if !mesh.loses_departures() {
        client.hears(since, "that endpoint-2 has gone", |event| story.sees(event, "endpoint-2", true)).await?;
    }
    let found = client.does(&format!("find-endpoints {SERVICE}")).await?.messages::<NetworkServiceEndpoint>()?;
    check(found.iter().all(|endpoint| endpoint.name != "endpoint-2"), || "endpoint-2 is still registered".to_owned())
}

/// Whatever the roles were asked for has been closed.
fn nothing_left(mesh: &Mesh) -> Outcome {
    for name in mesh.hops().iter().copied().filter(|name| name.starts_with("forwarder")).chain(["endpoint-2"]) {
        let mut open = BTreeSet::new();
        for event in mesh.role(name)?.history() {
            match &*event.event {
                "requested" => _ = open.insert(event.message::<Connection>()?.id),
                "closed" => _ = open.remove(&event.message::<Connection>()?.id),
                _ => {}
            }
        }
        check(open.is_empty(), || format!("{name} still has {open:?}"))?;
    }
    Ok(())
}
