//! What holds for all values: what is set is read back, whatever a peer writes is an error at worst, and what is asked
//! for in the words of a record is that record.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nsm_api::mechanism::keys;
use nsm_api::registry::{Match, NetworkServiceLabels};
use nsm_api::*;
use proptest::prelude::*;
use prost_types::Timestamp;

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(".{0,4}", ".{0,4}", 0..4)
}

fn path() -> impl Strategy<Value = Vec<PathSegment>> {
    let segment =
        ("[ab]", "[12]", "[xy]").prop_map(|(name, id, token)| PathSegment { name, id, token, ..Default::default() });
    prop::collection::vec(segment, 1..6)
}

/// Text that is nearly what a parameter should be.
fn parameter() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9+ .:a-f/-]{0,12}",
        "\\PC{0,12}",
        "(file|inode)://\\PC{0,12}",
        any::<u64>().prop_map(|n| n.to_string())
    ]
}

fn read_all(mechanism: &Mechanism) {
    if let Some(kernel) = mechanism.as_kernel() {
        let _ = (kernel.interface_name(), kernel.netns(), kernel.netns_inode(), kernel.vlan());
        let _ = (kernel.supports_vlan(), kernel.route_local_net());
    }
    if let Some(memif) = mechanism.as_memif() {
        let _ = (memif.file(), memif.socket_file());
    }
    if let Some(vfio) = mechanism.as_vfio() {
        let _ = (vfio.iommu_group(), vfio.vfio_device(), vfio.group_device());
    }
    if let Some(vxlan) = mechanism.as_vxlan() {
        let _ = (vxlan.src_ip(), vxlan.dst_ip(), vxlan.src_port(), vxlan.dst_port(), vxlan.mtu());
        let _ = (vxlan.vni(), vxlan.vni_parity());
    }
    if let Some(vlan) = mechanism.as_vlan() {
        let _ = vlan.id();
    }
    if let Some(srv6) = mechanism.as_srv6() {
        let _ = (srv6.src_host_ip(), srv6.dst_bsid(), srv6.src_localsid());
    }
}

proptest! {
    #[test]
    fn what_is_set_in_a_tunnel_is_read_back(
        src in any::<IpAddr>(), dst in any::<IpAddr>(), ports in any::<(u16, u16)>(), mtu in 1_u32.., vni in 1_u32..1 << 24,
    ) {
        let mut mechanism = Mechanism::vxlan();
        if let Some(mut vxlan) = mechanism.as_vxlan_mut() {
            vxlan.set_src_ip(src).set_dst_ip(dst).set_src_port(ports.0).set_dst_port(ports.1).set_mtu(mtu);
            prop_assert!(vxlan.set_vni(vni).is_ok());
        }
        let vxlan = mechanism.as_vxlan();
        prop_assert_eq!(vxlan.as_ref().map(|vxlan| (vxlan.src_ip(), vxlan.dst_ip())), Some((Ok(Some(src)), Ok(Some(dst)))));
        let numbers = vxlan.map(|vxlan| (vxlan.src_port(), vxlan.dst_port(), vxlan.mtu(), vxlan.vni()));
        prop_assert_eq!(numbers, Some((Ok(Some(ports.0)), Ok(Some(ports.1)), Ok(Some(mtu)), Ok(Some(vni)))));
    }

    #[test]
    fn whatever_a_peer_writes_into_parameters_is_an_error_at_worst(texts in prop::collection::vec(parameter(), 12)) {
        let keys = [
            keys::SRC_IP, keys::DST_IP, keys::SRC_PORT, keys::DST_PORT, keys::ORIG_SRC_IP, keys::ORIG_DST_IP,
            keys::INODE_URL, keys::INTERFACE_NAME, keys::NETNS_INODE, keys::VLAN, keys::VNI, keys::SUPPORTS_VLAN,
        ];
        let parameters: BTreeMap<_, _> = keys.iter().map(|key| (*key).to_owned()).zip(texts).collect();
        for mechanism in [
            Mechanism::kernel(), Mechanism::memif(), Mechanism::vfio(), Mechanism::vxlan(), Mechanism::vlan(),
            Mechanism::srv6(),
        ] {
            read_all(&Mechanism { parameters: parameters.clone(), ..mechanism });
        }
    }

    #[test]
    fn a_run_of_a_path_selects_its_connection(path in path(), from in any::<prop::sample::Index>(), length in 0_usize..6) {
        let from = from.index(path.len());
        let run = path.iter().skip(from).take(length).cloned().collect();
        let connection = Connection {
            network_service: "ns".into(),
            path: Some(Path { index: 0, path_segments: path }),
            ..Default::default()
        };
        let mut selector = MonitorScopeSelector { path_segments: run, network_services: vec![] };
        prop_assert!(selector.matches(&connection));
        // Naming less selects no less.
        for segment in &mut selector.path_segments {
            segment.token.clear();
            segment.name.clear();
        }
        prop_assert!(selector.matches(&connection));
        selector.network_services.push("other".into());
        prop_assert!(!selector.matches(&connection));
    }

    #[test]
    fn a_record_finds_itself(
        name in ".{0,4}", url in ".{0,4}", services in prop::collection::vec(".{0,4}", 0..3), labels in labels(),
        seconds in any::<i64>(),
    ) {
        let service = NetworkService {
            name: name.clone(),
            payload: url.clone(),
            matches: vec![Match { source_selector: labels.clone(), ..Default::default() }],
            ..Default::default()
        };
        let query = NetworkServiceQuery { network_service: Some(service.clone()), watch: false };
        prop_assert!(query.finds(&service));
        let endpoint = NetworkServiceEndpoint {
            name,
            url,
            network_service_labels: services.iter().map(|s| (s.clone(), NetworkServiceLabels { labels: labels.clone() })).collect(),
            network_service_names: services,
            expiration_time: Some(Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        };
        let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(endpoint.clone()), watch: false };
        prop_assert!(query.finds(&endpoint));
    }
}
