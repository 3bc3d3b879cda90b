//! Messages: theirs mean the values that we make, and ours have the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use nsm_api::connectioncontext::{
    DnsConfig, DnsContext, EthernetContext, ExtraPrefixRequest, IpFamily, IpNeighbor, PolicyRoute, Route,
    ip_family::Family,
};
use nsm_api::ipam::{PrefixRequest, PrefixResponse};
use nsm_api::registry::{Destination, Match, Metadata, NetworkServiceLabels};
use nsm_api::*;
use prost::Message;
use prost_types::Timestamp;

use crate::corpus::{Encoded, read};
use crate::mechanisms;

const FILE: &str = "messages.json";

/// Go writes empty keys and values of map entries, prost leaves them out: both mean the same.
const EMPTY_ENTRIES: [&str; 2] = ["empty entries", "empty labels"];

/// A value of ours.
pub(crate) struct Ours {
    pub(crate) encoded: Encoded,
    value: Box<dyn Meaning>,
}

pub(crate) fn ours<M: Message + Default + PartialEq + Debug + 'static>(name: &str, value: M) -> Ours {
    Ours { encoded: Encoded { name: name.to_owned(), bytes: value.encode_to_vec() }, value: Box::new(value) }
}

trait Meaning {
    /// How what an encoding of theirs means differs from this value.
    fn difference(&self, theirs: &Encoded) -> Option<String>;
}

impl<M: Message + Default + PartialEq + Debug> Meaning for M {
    fn difference(&self, theirs: &Encoded) -> Option<String> {
        let decoded: M = theirs.decode();
        (decoded != *self).then(|| format!("is {decoded:?} and not {self:?}"))
    }
}

/// The message of the corpus by that name.
pub(crate) fn theirs<M: Message + Default>(name: &str) -> M {
    let all: Vec<Encoded> = read(FILE);
    all.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no {name}")).decode()
}

#[test]
fn messages_of_the_reference_mean_our_values_and_ours_have_their_bytes() {
    let corpus: Vec<Encoded> = read(FILE);
    let mut unseen: BTreeSet<&str> = corpus.iter().map(|one| one.name.as_str()).collect();
    for one in all() {
        let name = one.encoded.name.as_str();
        assert!(unseen.remove(name), "{name} is missing in the corpus, or made twice");
        let theirs = corpus.iter().find(|theirs| theirs.name == name).unwrap();
        if let Some(difference) = one.value.difference(theirs) {
            panic!("{name} {difference}");
        }
        if !EMPTY_ENTRIES.contains(&name) {
            assert_eq!(one.encoded.bytes, theirs.bytes, "{name}");
        }
    }
    assert!(unseen.is_empty(), "not compared: {unseen:?}");
}

/// Every message of the corpus.
pub(crate) fn all() -> Vec<Ours> {
    let mut all = mechanisms::all();
    let preference = |mechanism: Mechanism| Mechanism { parameters: BTreeMap::new(), ..mechanism };
    all.push(ours(
        "request",
        NetworkServiceRequest {
            connection: Some(connection()),
            mechanism_preferences: vec![preference(Mechanism::kernel()), preference(Mechanism::vxlan())],
        },
    ));
    let empty = NetworkServiceRequest { connection: Some(Connection::default()), ..Default::default() };
    all.push(ours("empty request", empty));
    all.push(ours("connection", connection()));
    let labels = labels([("", "no key"), ("no value", "")]);
    all.push(ours("empty entries", Connection { labels, ..Default::default() }));
    all.push(ours(
        "selector",
        MonitorScopeSelector {
            path_segments: vec![
                PathSegment { name: "nsc".into(), ..Default::default() },
                PathSegment { id: "id-2".into(), token: "token-2".into(), ..Default::default() },
            ],
            network_services: texts(&["secure-ns", "other-ns"]),
        },
    ));
    for (name, kind) in [
        ("event INITIAL_STATE_TRANSFER", ConnectionEventType::InitialStateTransfer),
        ("event UPDATE", ConnectionEventType::Update),
        ("event DELETE", ConnectionEventType::Delete),
    ] {
        let down = Connection { id: "id-1".into(), state: State::Down.into(), ..Default::default() };
        let connections = [("id-1".to_owned(), down), ("id-2".to_owned(), connection())].into();
        all.push(ours(name, ConnectionEvent { r#type: kind.into(), connections }));
    }
    for (name, state) in [
        ("state UP", State::Up),
        ("state DOWN", State::Down),
        ("state REFRESH_REQUESTED", State::RefreshRequested),
        ("state RESELECT_REQUESTED", State::ReselectRequested),
    ] {
        all.push(ours(name, Connection { id: "id".into(), state: state.into(), ..Default::default() }));
    }
    all.extend(registry());
    all
}

fn registry() -> Vec<Ours> {
    let expired = NetworkServiceEndpoint {
        name: "nse-1".into(),
        expiration_time: Some(Timestamp { seconds: -1, nanos: 0 }),
        ..Default::default()
    };
    let unlabelled = NetworkServiceEndpoint {
        network_service_labels: [("secure-ns".to_owned(), NetworkServiceLabels::default())].into(),
        ..Default::default()
    };
    let (prefix, exclude_prefixes) = ("10.0.0.0/24".to_owned(), texts(&["10.0.0.0/30"]));
    let allocate = ipam::Type::Allocate.into();
    vec![
        ours("network service", service()),
        ours("network service query", NetworkServiceQuery { network_service: Some(service()), watch: true }),
        ours("network service response", NetworkServiceResponse { network_service: Some(service()), deleted: true }),
        ours("endpoint", endpoint()),
        ours("endpoint query", NetworkServiceEndpointQuery { network_service_endpoint: Some(endpoint()), watch: true }),
        ours(
            "endpoint response",
            NetworkServiceEndpointResponse { network_service_endpoint: Some(endpoint()), deleted: true },
        ),
        ours("expired at once", expired),
        ours("empty labels", unlabelled),
        ours(
            "prefix request",
            PrefixRequest { r#type: allocate, prefix: prefix.clone(), exclude_prefixes: exclude_prefixes.clone() },
        ),
        ours("prefix response", PrefixResponse { prefix, exclude_prefixes }),
    ]
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

fn labels<const N: usize>(values: [(&str, &str); N]) -> BTreeMap<String, String> {
    values.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn moment() -> Option<Timestamp> {
    Some(Timestamp { seconds: 1709164800, nanos: 123456789 })
}

fn connection() -> Connection {
    let mut mechanism = Mechanism::kernel();
    mechanism.as_kernel_mut().unwrap().set_interface_name("nsm-1").unwrap();
    Connection {
        id: "id-2".into(),
        network_service: "secure-ns@floating.domain".into(),
        mechanism: Some(mechanism),
        context: Some(context()),
        labels: labels([("nodeName", "node-1"), ("app", "wéb")]),
        path: Some(Path {
            index: 1,
            path_segments: vec![
                PathSegment {
                    name: "nsc".into(),
                    id: "id-1".into(),
                    token: "token-1".into(),
                    expires: moment(),
                    metrics: BTreeMap::new(),
                },
                PathSegment {
                    name: "nsmgr".into(),
                    id: "id-2".into(),
                    token: "token-2".into(),
                    expires: Some(Timestamp { seconds: 253402300799, nanos: 0 }),
                    metrics: labels([("client_interface", "KERNEL/nsm-1"), ("rx_bytes", "18446744073709551615")]),
                },
            ],
        }),
        network_service_endpoint_name: "nse-1".into(),
        payload: payload::ETHERNET.into(),
        state: State::ReselectRequested.into(),
    }
}

fn context() -> ConnectionContext {
    let route = |prefix: &str, next_hop: &str| Route { prefix: prefix.into(), next_hop: next_hop.into() };
    ConnectionContext {
        ip_context: Some(IpContext {
            src_ip_addrs: texts(&["172.16.1.1/32", "fd00::1/128"]),
            dst_ip_addrs: texts(&["172.16.1.0/24", "fd00::/128"]),
            src_ip_required: true,
            dst_ip_required: true,
            src_routes: vec![route("0.0.0.0/0", ""), route("10.0.0.0/8", "172.16.1.9")],
            dst_routes: vec![route("172.16.1.1/32", "")],
            excluded_prefixes: texts(&["10.96.0.0/12"]),
            ip_neighbors: vec![IpNeighbor { ip: "172.16.1.0".into(), hardware_address: "02:00:00:00:00:02".into() }],
            extra_prefix_request: vec![ExtraPrefixRequest {
                addr_family: Some(IpFamily { family: Family::Ipv6.into() }),
                prefix_len: 64,
                required_number: 1,
                requested_number: 2,
            }],
            extra_prefixes: texts(&["fd00:1::/64"]),
            policies: vec![PolicyRoute {
                from: "172.16.1.1".into(),
                proto: "6".into(),
                dst_port: "80".into(),
                src_port: "1024-65535".into(),
                routes: vec![route("0.0.0.0/0", "172.16.1.0")],
            }],
        }),
        dns_context: Some(DnsContext {
            configs: vec![DnsConfig { dns_server_ips: texts(&["172.16.1.0"]), search_domains: texts(&["my.domain"]) }],
        }),
        ethernet_context: Some(EthernetContext {
            src_mac: "02:00:00:00:00:01".into(),
            dst_mac: "02:00:00:00:00:02".into(),
            vlan_tag: -1,
        }),
        extra_context: labels([("b", "2"), ("a", "1")]),
        mtu: 9000,
    }
}

fn service() -> NetworkService {
    NetworkService {
        name: "secure-ns".into(),
        payload: payload::IP.into(),
        matches: vec![
            Match {
                source_selector: labels([("app", "firewall")]),
                routes: vec![
                    Destination { destination_selector: labels([("nodeName", "{{.nodeName}}")]), weight: u32::MAX },
                    Destination::default(),
                ],
                fallthrough: true,
                metadata: Some(Metadata { labels: labels([("p2p", "true")]) }),
            },
            Match::default(),
        ],
        path_ids: texts(&["spiffe://golden.test/client", "spiffe://golden.test/server"]),
    }
}

fn endpoint() -> NetworkServiceEndpoint {
    let of_service = NetworkServiceLabels { labels: labels([("app", "firewall"), ("nodeName", "node-1")]) };
    NetworkServiceEndpoint {
        name: "nse-1@my.domain".into(),
        network_service_names: texts(&["secure-ns", "other-ns"]),
        network_service_labels: [
            ("secure-ns".to_owned(), of_service),
            ("other-ns".to_owned(), NetworkServiceLabels { labels: labels([("app", "other")]) }),
        ]
        .into(),
        url: mechanism::FileUrl::Inode { device: 4, inode: 4026531840 }.to_string(),
        expiration_time: moment(),
        initial_registration_time: Some(Timestamp { seconds: 1709164800, nanos: 1 }),
        path_ids: texts(&["spiffe://golden.test/client"]),
    }
}
