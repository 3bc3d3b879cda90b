//! By what our interfaces are known as ours.

use nsm_chain::{Error, Result};
use nsm_kernel::{NetnsId, VlanPort, VxlanTunnel};

use crate::memif::copying::Kind;

/// The kernel keeps at most this many octets of a link's alias (`IFALIASZ` less the terminating zero).
const LONGEST_ALIAS: usize = 255;
const LONGEST_NAME: usize = 100;
/// Where other marks have a connection's id.
const TRUNK: &str = "(trunk)";

/// The beginning of every mark of one forwarder: `nsm:<forwarder>:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark(String);

impl Mark {
    pub(super) fn new(forwarder: &str) -> Result<Self> {
        // A colon would let one forwarder's marks begin like another's.
        if forwarder.is_empty() || forwarder.len() > LONGEST_NAME || forwarder.contains([':', '\0']) {
            return Err(Error::invalid(format!("the forwarder's name {forwarder:?} cannot mark interfaces"))
                .hint("give it a name of 1 to 100 octets without a colon"));
        }
        Ok(Self(format!("nsm:{forwarder}:")))
    }

    pub(super) fn prefix(&self) -> &str {
        &self.0
    }

    /// The mark of a connection's interface. A tunnel is part of its device's mark: a device of another tunnel must not
    /// be taken for it.
    pub(super) fn of(&self, id: &str, tunnel: Option<Carrier<'_>>) -> Result<String> {
        let mut mark = format!("{}{id}", self.0);
        match tunnel {
            Some(Carrier::Vxlan(VxlanTunnel { vni, local, remote, port, remote_port, .. })) => {
                mark += &format!(" vxlan {vni} {local} {remote} {port}");
                if remote_port != port {
                    mark += &format!(" {remote_port}");
                }
            }
            // The kernel's part of it is the same whatever the keys are and wherever the peer is.
            Some(Carrier::Wireguard) => mark += " wireguard",
            Some(Carrier::Memif(Kind::Ip)) => mark += " memif ip",
            Some(Carrier::Memif(Kind::Ethernet)) => mark += " memif ethernet",
            Some(Carrier::Vlan(VlanPort { uplink, id, .. })) => mark += &format!(" vlan {id} {uplink}"),
            None => {}
        }
        // A space would let one connection's marks look like those of another's tunnel.
        if id.is_empty() || mark.len() > LONGEST_ALIAS || id.contains([' ', '\0']) {
            return Err(Error::invalid("the connection's id cannot mark an interface")
                .hint("ids are short and without spaces; the reference uses UUIDs"));
        }
        Ok(mark)
    }

    /// The mark of an interface of this name in an endpoint's namespace, that several connections share, and of its other end.
    pub(super) fn trunk(&self, netns: NetnsId, name: &str) -> String {
        format!("{}{TRUNK} {netns} {name}", self.0)
    }

    /// Whether a mark is that of a trunk.
    pub(super) fn is_trunk(&self, mark: &str) -> bool {
        self.id(mark) == Some(TRUNK)
    }

    /// Whose mark it is, if it is one of this forwarder's.
    pub(super) fn id<'a>(&self, mark: &'a str) -> Option<&'a str> {
        mark.strip_prefix(&self.0).map(|rest| rest.split(' ').next().unwrap_or(rest)).filter(|id| !id.is_empty())
    }

    /// The kernel's tunnel that a mark names.
    pub(super) fn tunnel(mark: &str) -> Option<VxlanTunnel> {
        let mut words = mark.split(' ').skip(1);
        words.next().filter(|word| *word == "vxlan")?;
        let vni = words.next()?.parse().ok()?;
        let (local, remote) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let port = words.next()?.parse().ok()?;
        let remote_port = words.next().map_or(Ok(port), str::parse).ok()?;
        Some(VxlanTunnel { vni, local, remote, port, remote_port, ttl: None })
    }

    /// Whether a link with this alias is one of this connection, of whatever tunnel.
    pub(super) fn names(&self, id: &str, alias: &str) -> bool {
        let rest = alias.strip_prefix(&self.0).and_then(|rest| rest.strip_prefix(id));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// The name of a connection's interface in the node's own namespace: of fifteen octets, as long as the kernel allows.
    pub(super) fn name(&self, id: &str, side: Side) -> String {
        let hash = self.hash(id, side);
        let digits =
            (0..12).map(|at| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(hash >> (5 * at)) as usize % 32]));
        format!("nsm{}", digits.collect::<String>())
    }

    /// A hardware address that follows from connection and side: it stays when the wire is made anew, so what the other
    /// end has learned stays true, and the neighbours of a new wire are known before it is made.
    pub(super) fn mac(&self, id: &str, side: Side) -> [u8; 6] {
        let hash = self.hash(id, side);
        let [a, b, c, d, e, f, _, _] = (hash ^ (hash >> 32)).to_le_bytes();
        // Locally administered, one host (IEEE 802, section 8).
        [(a & 0xfc) | 0x02, b, c, d, e, f]
    }

    /// FNV-1a, 64 bits: the same in every release.
    fn hash(&self, id: &str, side: Side) -> u64 {
        let octets = self.0.bytes().chain(id.bytes()).chain([0, side as u8]);
        octets.fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// What tunnel a device belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Carrier<'a> {
    /// A device of the kernel's, of this very tunnel.
    Vxlan(&'a VxlanTunnel),
    /// A TUN device.
    Wireguard,
    /// No tunnel: a TUN or TAP device, whose packets are copied.
    Memif(Kind),
    /// No tunnel: it is a way into a VLAN.
    Vlan(&'a VlanPort),
}

/// Which end of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The client's.
    Client = 1,
    /// The endpoint's.
    Endpoint = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_different_forwarders_never_begin_alike() {
        assert!(Mark::new("a:b").is_err() && Mark::new("").is_err() && Mark::new(&"x".repeat(101)).is_err());
        let (a, ab) = (Mark::new("a").unwrap(), Mark::new("ab").unwrap());
        assert_eq!(a.of("1", None).unwrap(), "nsm:a:1");
        assert!(!ab.of("1", None).unwrap().starts_with(a.prefix()));
    }

    #[test]
    fn a_tunnel_is_part_of_the_mark() {
        let mut tunnel = VxlanTunnel {
            vni: 42,
            local: "10.0.0.1".parse().unwrap(),
            remote: "10.0.0.2".parse().unwrap(),
            port: 4789,
            remote_port: 4789,
            ttl: None,
        };
        let mark = Mark::new("fwd").unwrap();
        let elsewhere = VxlanTunnel { remote_port: 4790, ..tunnel };
        assert_eq!(
            mark.of("1", Some(Carrier::Vxlan(&elsewhere))).unwrap(),
            "nsm:fwd:1 vxlan 42 10.0.0.1 10.0.0.2 4789 4790"
        );
        assert_eq!(mark.of("1", Some(Carrier::Vxlan(&tunnel))).unwrap(), "nsm:fwd:1 vxlan 42 10.0.0.1 10.0.0.2 4789");
        let before = mark.of("1", Some(Carrier::Vxlan(&tunnel))).unwrap();
        tunnel.vni = 43;
        assert_ne!(mark.of("1", Some(Carrier::Vxlan(&tunnel))).unwrap(), before);
        let former = VxlanTunnel { vni: 42, ..tunnel };
        assert_eq!((mark.id(&before), Mark::tunnel(&before)), (Some("1"), Some(former)));
        let elsewhere = VxlanTunnel { remote_port: 4790, ..former };
        let far = mark.of("1", Some(Carrier::Vxlan(&elsewhere))).unwrap();
        assert_eq!(Mark::tunnel(&far), Some(elsewhere));
        assert_eq!((mark.id("nsm:other:1"), mark.id("nsm:fwd:"), Mark::tunnel("nsm:fwd:1")), (None, None, None));
        assert!(mark.names("1", &before) && mark.names("1", "nsm:fwd:1"));
        let sealed = mark.of("1", Some(Carrier::Wireguard)).unwrap();
        assert_eq!((&*sealed, mark.id(&sealed), Mark::tunnel(&sealed)), ("nsm:fwd:1 wireguard", Some("1"), None));
        assert!(!mark.names("1", "nsm:fwd:12") && !mark.names("1", "nsm:other:1"));
    }

    #[test]
    fn an_id_that_does_not_fit_is_refused() {
        let mark = Mark::new("fwd").unwrap();
        for id in ["", "a\0b", "1 vxlan 5", &"x".repeat(250)] {
            assert!(mark.of(id, None).is_err(), "{id:?}");
        }
    }

    #[test]
    fn hardware_addresses_are_stable_local_and_differ_by_side() {
        let mark = Mark::new("fwd").unwrap();
        let (client, endpoint) = (mark.mac("1", Side::Client), mark.mac("1", Side::Endpoint));
        assert_eq!(client, mark.mac("1", Side::Client));
        assert_ne!(client, endpoint);
        assert_eq!((client[0] & 3, endpoint[0] & 3), (2, 2));
        let names = [Side::Client, Side::Endpoint].map(|side| mark.name("1", side));
        assert_eq!(names[0], mark.name("1", Side::Client));
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| name.len() == 15 && name.parse::<nsm_kernel::InterfaceName>().is_ok()));
    }
}
