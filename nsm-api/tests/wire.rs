//! The numbers and names that peers of other makes rely on.

use nsm_api::connection::monitor_connection_server;
use nsm_api::connectioncontext::{
    DnsContext, EthernetContext, ExtraPrefixRequest, IpContext, IpFamily, IpNeighbor, PolicyRoute, Route,
};
use nsm_api::ipam::{PrefixRequest, PrefixResponse, ipam_server};
use nsm_api::networkservice::network_service_server;
use nsm_api::registry::{
    Destination, Match, Metadata, NetworkServiceLabels, network_service_endpoint_registry_server,
    network_service_registry_server,
};
use nsm_api::*;
use prost::Message;
use prost_types::Timestamp;

/// Numbers of the fields in an encoded message, in the order they were written, each once.
fn fields(message: &impl Message) -> Vec<u32> {
    let bytes = message.encode_to_vec();
    let mut rest = bytes.as_slice();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (number, kind) = prost::encoding::decode_key(&mut rest).expect("a key");
        prost::encoding::skip_field(kind, number, &mut rest, Default::default()).expect("a field");
        found.push(number);
    }
    found.dedup();
    found
}

fn text() -> String {
    "x".to_owned()
}

fn texts() -> Vec<String> {
    vec![text()]
}

fn map<V>(value: V) -> std::collections::BTreeMap<String, V> {
    [(text(), value)].into()
}

#[test]
fn services_are_called_by_the_names_of_the_reference() {
    assert_eq!(network_service_server::SERVICE_NAME, "networkservice.NetworkService");
    assert_eq!(monitor_connection_server::SERVICE_NAME, "connection.MonitorConnection");
    assert_eq!(network_service_registry_server::SERVICE_NAME, "registry.NetworkServiceRegistry");
    assert_eq!(network_service_endpoint_registry_server::SERVICE_NAME, "registry.NetworkServiceEndpointRegistry");
    assert_eq!(ipam_server::SERVICE_NAME, "ipam.IPAM");
}

#[test]
fn a_connection_has_the_numbers_of_the_reference() {
    let segment = PathSegment {
        name: text(),
        id: text(),
        token: text(),
        expires: Some(Timestamp::default()),
        metrics: map(text()),
    };
    assert_eq!(fields(&segment), [1, 2, 3, 4, 5]);
    let path = Path { index: 1, path_segments: vec![segment.clone()] };
    assert_eq!(fields(&path), [1, 2]);
    let mechanism = Mechanism { cls: text(), r#type: text(), parameters: map(text()) };
    assert_eq!(fields(&mechanism), [1, 2, 3]);
    let connection = Connection {
        id: text(),
        network_service: text(),
        mechanism: Some(mechanism.clone()),
        context: Some(ConnectionContext::default()),
        labels: map(text()),
        path: Some(path),
        network_service_endpoint_name: text(),
        payload: text(),
        state: State::ReselectRequested.into(),
    };
    assert_eq!(fields(&connection), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let request =
        NetworkServiceRequest { connection: Some(connection.clone()), mechanism_preferences: vec![mechanism] };
    assert_eq!(fields(&request), [1, 2]);
    let event = ConnectionEvent { r#type: ConnectionEventType::Delete.into(), connections: map(connection) };
    assert_eq!(fields(&event), [1, 2]);
    let selector = MonitorScopeSelector { path_segments: vec![segment], network_services: texts() };
    assert_eq!(fields(&selector), [1, 2]);
    assert_eq!((State::Down as i32, State::RefreshRequested as i32), (1, 2));
    assert_eq!((ConnectionEventType::Update as i32, ConnectionEventType::Delete as i32), (1, 2));
}

#[test]
fn a_context_has_the_numbers_of_the_reference() {
    let route = Route { prefix: text(), next_hop: text() };
    let neighbor = IpNeighbor { ip: text(), hardware_address: text() };
    let policy =
        PolicyRoute { from: text(), proto: text(), dst_port: text(), src_port: text(), routes: vec![route.clone()] };
    let extra = ExtraPrefixRequest {
        addr_family: Some(IpFamily::default()),
        prefix_len: 1,
        required_number: 1,
        requested_number: 1,
    };
    assert_eq!((fields(&route), fields(&neighbor)), (vec![1, 2], vec![1, 2]));
    assert_eq!((fields(&policy), fields(&extra)), (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4]));
    // Swapped source and destination ports would still be five fields.
    let port = PolicyRoute { dst_port: text(), ..Default::default() };
    assert_eq!(fields(&port), [3]);
    let ip = IpContext {
        src_ip_addrs: texts(),
        dst_ip_addrs: texts(),
        src_ip_required: true,
        dst_ip_required: true,
        src_routes: vec![route.clone()],
        dst_routes: vec![route],
        excluded_prefixes: texts(),
        ip_neighbors: vec![neighbor],
        extra_prefix_request: vec![extra],
        extra_prefixes: texts(),
        policies: vec![policy],
    };
    assert_eq!(fields(&ip), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    let context = ConnectionContext {
        ip_context: Some(ip),
        dns_context: Some(DnsContext::default()),
        ethernet_context: Some(EthernetContext::default()),
        extra_context: map(text()),
        mtu: 1500,
    };
    assert_eq!(fields(&context), [1, 2, 3, 4, 5]);
}

#[test]
fn registry_and_ipam_have_the_numbers_of_the_reference() {
    let rule = Match {
        source_selector: map(text()),
        routes: vec![Destination { destination_selector: map(text()), weight: 1 }],
        fallthrough: true,
        metadata: Some(Metadata::default()),
    };
    assert_eq!((fields(&rule), fields(&rule.routes[0])), (vec![1, 2, 3, 4], vec![1, 2]));
    let service = NetworkService { name: text(), payload: text(), matches: vec![rule], path_ids: texts() };
    assert_eq!(fields(&service), [1, 2, 3, 4]);
    let endpoint = NetworkServiceEndpoint {
        name: text(),
        network_service_names: texts(),
        network_service_labels: map(NetworkServiceLabels { labels: map(text()) }),
        url: text(),
        expiration_time: Some(Timestamp::default()),
        initial_registration_time: Some(Timestamp::default()),
        path_ids: texts(),
    };
    assert_eq!(fields(&endpoint), [1, 2, 3, 4, 5, 6, 7]);
    let initial =
        NetworkServiceEndpoint { initial_registration_time: Some(Timestamp::default()), ..Default::default() };
    assert_eq!(fields(&initial), [6]);
    assert_eq!(fields(&PrefixRequest { r#type: 1, prefix: text(), exclude_prefixes: texts() }), [1, 2, 3]);
    assert_eq!(fields(&PrefixResponse { prefix: text(), exclude_prefixes: texts() }), [2, 3]);
}

#[test]
fn equal_messages_have_equal_bytes_whatever_the_order_of_their_maps() {
    let labels = |keys: [&str; 3]| keys.map(|key| (key.to_owned(), text())).into();
    let connection = |keys| Connection { labels: labels(keys), ..Default::default() }.encode_to_vec();
    assert_eq!(connection(["a", "b", "c"]), connection(["c", "a", "b"]));
}
