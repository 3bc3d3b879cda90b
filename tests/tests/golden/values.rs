//! Names, URLs, ports, prefixes, routes: for each case what the Go code makes of it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use nsm_api::connectioncontext::ExtraPrefixRequest;
use nsm_api::ip::{IpRoute, PortRange};
use nsm_api::mechanism::{FileUrl, VniParity};
use nsm_api::{IpContext, Mechanism, ServiceUrl, names};
use serde::{Deserialize, Serialize};

use crate::corpus::{Encoded, read};

#[derive(Deserialize)]
struct Corpus {
    names: Vec<Name>,
    service_urls: Vec<Service>,
    file_urls: Vec<File>,
    vni_parity: Vec<Parity>,
    port_ranges: Vec<Ports>,
    extra_prefixes: Vec<Prefix>,
    routes: Vec<Routes>,
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    interdomain: bool,
    target: String,
    domain: String,
}

#[derive(Deserialize)]
struct Service {
    text: String,
    valid: bool,
    mechanism: String,
    service: String,
    interface: String,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct File {
    text: String,
    valid: bool,
    device: u64,
    inode: u64,
}

#[derive(Deserialize)]
struct Parity {
    parameters: BTreeMap<String, String>,
    even: bool,
}

#[derive(Deserialize)]
struct Ports {
    text: String,
    valid: bool,
    none: bool,
    first: u16,
    last: u16,
}

#[derive(Deserialize)]
struct Prefix {
    request: Encoded,
    valid: bool,
}

#[derive(Deserialize)]
struct Routes {
    context: Encoded,
    src_routes: Vec<String>,
    dst_routes: Vec<String>,
    src_link_routes: Vec<String>,
    dst_link_routes: Vec<String>,
}

#[derive(Deserialize)]
struct Parameter {
    r#type: String,
    key: String,
    text: String,
    /// Zero or nothing for what cannot be read.
    value: String,
}

fn corpus() -> Corpus {
    read("values.json")
}

#[test]
fn names_are_split_as_in_the_reference() {
    for case in corpus().names {
        let ours = (names::is_interdomain(&case.name), names::target(&case.name), names::domain(&case.name));
        assert_eq!(ours, (case.interdomain, case.target.as_str(), case.domain.as_str()), "{}", case.name);
    }
}

/// What Go's general URL parser lets pass by dropping a part, asking for no service, or for an interface that Linux
/// cannot have. Escapes in names are no part of the form here.
const NO_SERVICES: [&str; 10] = [
    "kernel://my-service:5000/nsm-1",
    "kernel://my-service/a-name-of-16-chr",
    "kernel:///nsm-1",
    "kernel://my-service@/nsm-1",
    "kernel://my-service/nsm-1#part",
    "kernel://my-service/nsm%2D1",
    "kernel://my-service?a=%zz",
    "kernel://my-service?a=1;b=2",
    "my-service",
    "",
];

#[test]
fn service_urls_ask_for_what_they_ask_for_in_the_reference() {
    for case in corpus().service_urls {
        let ours = case.text.parse::<ServiceUrl>();
        if NO_SERVICES.contains(&case.text.as_str()) {
            assert!(case.valid && ours.is_err(), "{}", case.text);
        } else if case.valid {
            let ours = ours.unwrap();
            assert_eq!((&ours.mechanism, &ours.service), (&case.mechanism, &case.service), "{}", case.text);
            assert_eq!(ours.interface.as_deref().unwrap_or_default(), case.interface, "{}", case.text);
            assert_eq!(ours.labels, case.labels, "{}", case.text);
        } else {
            assert!(ours.is_err(), "{}", case.text);
        }
    }
}

#[test]
fn inode_urls_name_the_files_that_they_name_in_the_reference() {
    for case in corpus().file_urls {
        let theirs = case.valid.then_some(FileUrl::Inode { device: case.device, inode: case.inode });
        let ours = case.text.parse().ok().filter(|url| matches!(url, FileUrl::Inode { .. }));
        assert_eq!(ours, theirs, "{}", case.text);
    }
}

/// Files of this machine by their inode URLs.
#[derive(Serialize)]
pub(crate) struct Located {
    path: String,
    url: String,
}

pub(crate) fn files() -> Vec<Located> {
    let locate = |path: &str| {
        let stat = std::fs::metadata(path).unwrap();
        let url = FileUrl::Inode { device: stat.dev(), inode: stat.ino() }.to_string();
        Located { path: path.to_owned(), url }
    };
    ["/dev/null", env!("CARGO_MANIFEST_DIR"), concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")].map(locate).into()
}

#[test]
fn both_sides_of_a_tunnel_issue_the_vnis_that_they_issue_in_the_reference() {
    for case in corpus().vni_parity {
        let mechanism = Mechanism { parameters: case.parameters, ..Mechanism::vxlan() };
        let theirs = if case.even { VniParity::Even } else { VniParity::Odd };
        assert_eq!(mechanism.as_vxlan().unwrap().vni_parity(), Ok(theirs), "{:?}", mechanism.parameters);
    }
}

#[test]
fn ranges_of_ports_are_those_of_the_reference() {
    for case in corpus().port_ranges {
        let ours = PortRange::parse_optional(&case.text);
        if case.text == "90-80" {
            // A range that no port is in.
            assert!(case.valid && ours.is_err());
        } else if case.valid {
            let theirs = if case.none { None } else { PortRange::new(case.first, case.last) };
            assert_eq!(ours, Ok(theirs), "{}", case.text);
        } else {
            assert!(ours.is_err(), "{}", case.text);
        }
    }
}

#[test]
fn requests_for_prefixes_are_valid_if_they_are_in_the_reference() {
    for case in corpus().extra_prefixes {
        let request: ExtraPrefixRequest = case.request.decode();
        // Of a family that it does not know, the reference does not look at the length.
        let unknown = request.addr_family.is_some() && request.family().is_err();
        assert_eq!(request.validate().is_ok(), case.valid && !unknown, "{request:?}");
    }
}

#[test]
fn routes_follow_from_addresses_as_in_the_reference() {
    let text = |route: IpRoute| match route.next_hop {
        Some(next_hop) => format!("{} via {next_hop}", route.prefix),
        None => route.prefix.to_string(),
    };
    for case in corpus().routes {
        let context: IpContext = case.context.decode();
        let ours: Vec<_> = context.resolved_src_routes().unwrap().into_iter().map(text).collect();
        assert_eq!(ours, case.src_routes, "{context:?}");
        let ours: Vec<_> = context.resolved_dst_routes().unwrap().into_iter().map(text).collect();
        assert_eq!(ours, case.dst_routes, "{context:?}");
        let ours: Vec<_> = context.src_link_routes().iter().map(ToString::to_string).collect();
        assert_eq!(ours, case.src_link_routes, "{context:?}");
        let ours: Vec<_> = context.dst_link_routes().iter().map(ToString::to_string).collect();
        assert_eq!(ours, case.dst_link_routes, "{context:?}");
    }
}

#[test]
fn parameters_have_the_values_that_they_have_in_the_reference() {
    fn number<N: Into<u64>, E>(read: Result<Option<N>, E>) -> String {
        read.ok().flatten().map_or(0, Into::into).to_string()
    }
    for case in corpus().parameters {
        let mut mechanism = Mechanism::new("", &case.r#type);
        mechanism.parameters.insert(case.key.clone(), case.text.clone());
        let ours = match (case.r#type.as_str(), case.key.as_str()) {
            ("VXLAN", "vni") => number(mechanism.as_vxlan().unwrap().vni()),
            ("VXLAN", "src_port") => number(mechanism.as_vxlan().unwrap().src_port()),
            ("VXLAN", "MTU") => number(mechanism.as_vxlan().unwrap().mtu()),
            ("VXLAN", "src_ip") => {
                let address = mechanism.as_vxlan().unwrap().src_ip().ok().flatten();
                address.map_or(String::new(), |address| address.to_canonical().to_string())
            }
            ("VLAN", "vlan-id") => number(mechanism.as_vlan().unwrap().id()),
            ("KERNEL", "vlan") => number(mechanism.as_kernel().unwrap().vlan()),
            ("KERNEL", "supportsVlan") => mechanism.as_kernel().unwrap().supports_vlan().to_string(),
            ("KERNEL", "routeLocalNet") => mechanism.as_kernel().unwrap().route_local_net().to_string(),
            // Groups are an `int` of the kernel; the reference reads 64 bits.
            ("VFIO", "iommuGroup") if case.text == "4294967296" => case.text.clone(),
            ("VFIO", "iommuGroup") => mechanism.as_vfio().unwrap().iommu_group().to_string(),
            (kind, key) => panic!("{kind} {key}"),
        };
        assert_eq!(ours, case.value, "{} {} {:?}", case.r#type, case.key, case.text);
    }
}
