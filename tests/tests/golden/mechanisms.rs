//! Mechanisms, made and read through the views of nsm-api.

use nsm_api::Mechanism;
use nsm_api::mechanism::FileUrl;

use crate::messages::{Ours, ours, theirs};

/// The mechanisms of the corpus.
pub(crate) fn all() -> Vec<Ours> {
    vec![
        ours("kernel", kernel()),
        ours("memif socket", memif_socket()),
        ours("memif abstract", memif_abstract()),
        ours("vfio", vfio()),
        ours("vxlan", vxlan()),
        ours("wireguard", wireguard()),
        ours("ipsec", ipsec()),
        ours("srv6", srv6()),
        ours("vlan", vlan()),
        ours("noop", Mechanism::noop()),
    ]
}

const NETNS: &str = "/proc/4711/ns/net";
const TEMPLATE: &str = "-N NSM;-A PREROUTING -i {{ .NsmInterfaceName }} -j NSM";
const SRC_WIREGUARD: &str = "c291cmNlIGtleSBvZiAzMiBieXRlcyBpbiBiYXNlNjQ=";
const DST_WIREGUARD: &str = "ZGVzdGluYXRpb24ga2V5IG9mIDMyIGJ5dGVzIGluIDY=";

fn netns() -> FileUrl {
    FileUrl::from_path(NETNS).unwrap()
}

fn kernel() -> Mechanism {
    let mut mechanism = Mechanism::kernel();
    let mut kernel = mechanism.as_kernel_mut().unwrap();
    kernel.set_netns(&netns()).set_netns_inode(4026531840).set_pci_address("0000:01:00.0").set_token_id("token-7");
    kernel.set_supports_vlan(true).set_route_local_net(true).set_iptables4_nat_template(TEMPLATE);
    kernel.set_interface_name("nsm-1").unwrap().set_vlan(4094).unwrap();
    mechanism
}

fn memif_socket() -> Mechanism {
    let mut mechanism = Mechanism::memif();
    mechanism.as_memif_mut().unwrap().set_socket(&FileUrl::from_path("/run/vpp/memif 1.sock").unwrap());
    mechanism
}

fn memif_abstract() -> Mechanism {
    let mut mechanism = Mechanism::memif();
    mechanism.as_memif_mut().unwrap().set_abstract_socket(&netns(), "@nsm/memif-1");
    mechanism
}

fn vfio() -> Mechanism {
    let mut mechanism = Mechanism::vfio();
    let mut vfio = mechanism.as_vfio_mut().unwrap();
    vfio.set_cgroup_dir("/sys/fs/cgroup/devices/pod-1").set_pci_address("0000:01:00.0").set_token_id("token-7");
    vfio.set_iommu_group(42).set_vfio_device((10, 196)).set_group_device((243, 0));
    mechanism
}

fn vxlan() -> Mechanism {
    let mut mechanism = Mechanism::vxlan();
    let mut vxlan = mechanism.as_vxlan_mut().unwrap();
    vxlan.set_src_ip("10.0.0.1".parse().unwrap()).set_dst_ip("fd00::2".parse().unwrap());
    vxlan.set_src_port(4789).set_dst_port(65535).set_mtu(1450).set_vni(0xff_ffff).unwrap();
    mechanism
}

fn wireguard() -> Mechanism {
    let mut mechanism = Mechanism::wireguard();
    let mut wireguard = mechanism.as_wireguard_mut().unwrap();
    wireguard.set_src_ip("10.0.0.1".parse().unwrap()).set_dst_ip("fd00::2".parse().unwrap());
    wireguard.set_src_port(51820).set_dst_port(51821).set_mtu(1420);
    wireguard.set_src_public_key(SRC_WIREGUARD).set_dst_public_key(DST_WIREGUARD);
    mechanism
}

fn ipsec() -> Mechanism {
    let mut mechanism = Mechanism::ipsec();
    let mut ipsec = mechanism.as_ipsec_mut().unwrap();
    ipsec.set_src_ip("10.0.0.1".parse().unwrap()).set_dst_ip("fd00::2".parse().unwrap());
    ipsec.set_src_port(500).set_dst_port(4500).set_mtu(1400);
    ipsec.set_src_public_key("source key").set_dst_public_key("destination key");
    mechanism
}

fn srv6() -> Mechanism {
    let mut mechanism = Mechanism::srv6();
    let mut srv6 = mechanism.as_srv6_mut().unwrap();
    srv6.set_src_host_ip("fd00::1".parse().unwrap()).set_dst_host_ip("fd00::2".parse().unwrap());
    srv6.set_src_bsid("fd00:1::1".parse().unwrap()).set_dst_bsid("fd00:1::2".parse().unwrap());
    srv6.set_src_localsid("fd00:2::1".parse().unwrap()).set_dst_localsid("fd00:2::2".parse().unwrap());
    srv6.set_src_host_localsid("fd00:3::1".parse().unwrap()).set_dst_host_localsid("fd00:3::2".parse().unwrap());
    srv6.set_src_hw_addr("02:00:00:00:00:01").set_dst_hw_addr("02:00:00:00:00:02");
    mechanism
}

fn vlan() -> Mechanism {
    let mut mechanism = Mechanism::vlan();
    mechanism.as_vlan_mut().unwrap().set_id(4094).unwrap();
    mechanism
}

#[test]
fn local_mechanisms_of_the_reference_read_through_our_views() {
    let mechanism: Mechanism = theirs("kernel");
    let kernel = mechanism.as_kernel().unwrap();
    assert_eq!(kernel.interface_name(), Ok(Some("nsm-1")));
    assert_eq!((kernel.netns(), kernel.netns_inode()), (Ok(Some(netns())), Ok(Some(4026531840))));
    assert_eq!((kernel.pci_address(), kernel.token_id()), (Some("0000:01:00.0"), Some("token-7")));
    assert_eq!((kernel.supports_vlan(), kernel.vlan(), kernel.route_local_net()), (true, Ok(Some(4094)), true));
    assert_eq!(kernel.iptables4_nat_template(), Some(TEMPLATE));

    let mechanism: Mechanism = theirs("memif socket");
    let memif = mechanism.as_memif().unwrap();
    assert_eq!(memif.file(), Ok(Some(FileUrl::Path("/run/vpp/memif 1.sock".into()))));
    assert_eq!(memif.socket_file(), None);
    let mechanism: Mechanism = theirs("memif abstract");
    let memif = mechanism.as_memif().unwrap();
    assert_eq!((memif.file(), memif.socket_file()), (Ok(Some(netns())), Some("@nsm/memif-1")));

    let mechanism: Mechanism = theirs("vfio");
    let vfio = mechanism.as_vfio().unwrap();
    assert_eq!((vfio.cgroup_dir(), vfio.iommu_group()), (Some("/sys/fs/cgroup/devices/pod-1"), 42));
    assert_eq!((vfio.pci_address(), vfio.token_id()), (Some("0000:01:00.0"), Some("token-7")));
    assert_eq!((vfio.vfio_device(), vfio.group_device()), ((10, 196), (243, 0)));
}

#[test]
fn remote_mechanisms_of_the_reference_read_through_our_views() {
    macro_rules! ends {
        ($view:expr, $src_port:expr, $dst_port:expr, $mtu:expr) => {
            let (src, dst) = ("10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap());
            assert_eq!(($view.src_ip(), $view.dst_ip()), (Ok(Some(src)), Ok(Some(dst))));
            assert_eq!(($view.src_port(), $view.dst_port()), (Ok(Some($src_port)), Ok(Some($dst_port))));
            assert_eq!($view.mtu(), Ok(Some($mtu)));
        };
    }
    let mechanism: Mechanism = theirs("vxlan");
    let vxlan = mechanism.as_vxlan().unwrap();
    ends!(vxlan, 4789, 65535, 1450);
    assert_eq!(vxlan.vni(), Ok(Some(0xff_ffff)));

    let mechanism: Mechanism = theirs("wireguard");
    let wireguard = mechanism.as_wireguard().unwrap();
    ends!(wireguard, 51820, 51821, 1420);
    assert_eq!((wireguard.src_public_key(), wireguard.dst_public_key()), (Some(SRC_WIREGUARD), Some(DST_WIREGUARD)));

    let mechanism: Mechanism = theirs("ipsec");
    let ipsec = mechanism.as_ipsec().unwrap();
    ends!(ipsec, 500, 4500, 1400);
    assert_eq!((ipsec.src_public_key(), ipsec.dst_public_key()), (Some("source key"), Some("destination key")));

    let mechanism: Mechanism = theirs("srv6");
    let srv6 = mechanism.as_srv6().unwrap();
    let texts = [
        (srv6.src_host_ip(), "fd00::1"),
        (srv6.dst_host_ip(), "fd00::2"),
        (srv6.src_bsid(), "fd00:1::1"),
        (srv6.dst_bsid(), "fd00:1::2"),
        (srv6.src_localsid(), "fd00:2::1"),
        (srv6.dst_localsid(), "fd00:2::2"),
        (srv6.src_host_localsid(), "fd00:3::1"),
        (srv6.dst_host_localsid(), "fd00:3::2"),
    ];
    for (address, text) in texts {
        assert_eq!(address, text.parse().ok());
    }
    assert_eq!((srv6.src_hw_addr(), srv6.dst_hw_addr()), (Some("02:00:00:00:00:01"), Some("02:00:00:00:00:02")));

    let mechanism: Mechanism = theirs("vlan");
    assert_eq!(mechanism.as_vlan().unwrap().id(), Ok(Some(4094)));
    let mechanism: Mechanism = theirs("noop");
    assert!(mechanism.is(nsm_api::mechanism::NOOP));
}
