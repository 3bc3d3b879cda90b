use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nsm_api::Mechanism;
use nsm_api::mechanism::ParameterError;
use nsm_chain::{Error, Result};
use nsm_kernel::Netns;
use nsm_wireguard::{Node, Peering, PublicKey, Secret};

/// What WireGuard adds to a packet in the network between nodes: IP 20 or 40 octets, UDP 8, WireGuard 32, as the reference
/// counts them.
const OVERHEAD_V4: u32 = 60;
const OVERHEAD_V6: u32 = 80;
/// As often as the reference, so that who translates addresses between the nodes remembers the tunnel.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// This node's WireGuard: a UDP socket for all tunnels, and a pair of keys for each.
#[derive(Debug, Clone)]
pub struct Wireguard {
    node: Node,
    secret: Secret,
    mtu: u32,
}

/// Which side of a tunnel we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The one that offers: the source in the mechanism's parameters.
    Offering,
    /// The one that accepts: the destination.
    Accepting,
}

impl Wireguard {
    /// UDP port where nothing else is said; the reference's, too.
    pub const DEFAULT_PORT: u16 = 51_820;

    /// Opens the socket in the namespace that has the node's address. `mtu` is that of the network between the nodes, in
    /// octets.
    ///
    /// # Errors
    /// The address is another's or taken, or there is no privilege.
    pub async fn bind(netns: &Netns, address: SocketAddr, mtu: u32) -> Result<Self> {
        // Without it no tunnel could be made later.
        let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        device.map_err(|error| {
            Error::precondition("WireGuard needs the device /dev/net/tun")
                .because(error)
                .hint("pass it to the container")
        })?;
        let failed = |error| Error::precondition(format!("no WireGuard at {address}")).because(error);
        let node = Node::bind(netns, address).await.map_err(failed)?;
        Ok(Self { node, secret: Secret::generate().map_err(failed)?, mtu })
    }

    /// Where the socket is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.node.address()
    }

    /// The node's tunnels.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// That of the network between the nodes, in octets.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Largest packet in octets that fits through a tunnel.
    #[must_use]
    pub fn tunnel_mtu(&self) -> u32 {
        self.mtu.saturating_sub(if self.address().is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 })
    }

    /// A mechanism to offer to the next hop of this connection: our address, port, MTU, and the connection's public key. The
    /// other side adds its own.
    #[must_use]
    pub fn offer(&self, id: &str) -> Mechanism {
        let mut mechanism = Mechanism::wireguard();
        if let Some(mut wireguard) = mechanism.as_wireguard_mut() {
            wireguard
                .set_src_ip(self.address().ip())
                .set_src_port(self.address().port())
                .set_src_public_key(&self.public_key(id, End::Offering))
                .set_mtu(self.tunnel_mtu());
        }
        mechanism
    }

    /// Completes a mechanism that the caller of this connection offers.
    ///
    /// # Errors
    /// What it lacks, or why there can be no tunnel to its sender.
    pub fn accept(&self, id: &str, mechanism: &mut Mechanism) -> Result<()> {
        let mtu =
            mechanism.as_wireguard().and_then(|wireguard| wireguard.mtu().transpose()).transpose().map_err(bad)?;
        if let Some(mut wireguard) = mechanism.as_wireguard_mut() {
            wireguard
                .set_dst_ip(self.address().ip())
                .set_dst_port(self.address().port())
                .set_dst_public_key(&self.public_key(id, End::Accepting))
                .set_mtu(mtu.map_or(self.tunnel_mtu(), |mtu| mtu.min(self.tunnel_mtu())));
        }
        self.peering(id, mechanism, End::Accepting).map(drop)
    }

    /// Between whom the tunnel of a complete mechanism is.
    pub(crate) fn peering(&self, id: &str, mechanism: &Mechanism, ours: End) -> Result<Peering> {
        let Some(wireguard) = mechanism.as_wireguard() else {
            return Err(Error::unsupported(format!("{} is not WIREGUARD", mechanism.r#type)));
        };
        let (ip, port, key, prefix) = match ours {
            End::Offering => (wireguard.dst_ip(), wireguard.dst_port(), wireguard.dst_public_key(), "dst"),
            End::Accepting => (wireguard.src_ip(), wireguard.src_port(), wireguard.src_public_key(), "src"),
        };
        let missing = |what: &str| {
            Error::invalid(format!("the WIREGUARD mechanism has no {prefix}_{what}"))
                .hint("each side must set its address, its port and its public key")
        };
        let ip: IpAddr = ip.map_err(bad)?.ok_or_else(|| missing("ip"))?;
        let port = port.map_err(bad)?.filter(|port| *port != 0).ok_or_else(|| missing("port"))?;
        let peer: PublicKey =
            key.ok_or_else(|| missing("public_key"))?.parse().map_err(|error: nsm_wireguard::Error| {
                Error::invalid("the WIREGUARD mechanism cannot be used").because(error)
            })?;
        let peering = Peering {
            private_key: self.secret.key(&name(id, ours)),
            peer,
            endpoint: SocketAddr::new(ip, port),
            keepalive: Some(KEEPALIVE),
        };
        peering.check(self.address()).map_err(|error| {
            let what = "there can be no WireGuard tunnel";
            match error {
                nsm_wireguard::Error::Unreachable { .. } => Error::unsupported(what).because(error),
                _ => Error::invalid(what).because(error),
            }
        })?;
        Ok(peering)
    }

    fn public_key(&self, id: &str, ours: End) -> String {
        self.secret.key(&name(id, ours)).public_key().to_string()
    }
}

/// What the key of one side of a connection is called: another one for each, as one connection may have both.
fn name(id: &str, ours: End) -> String {
    let side = match ours {
        End::Offering => "source",
        End::Accepting => "destination",
    };
    format!("{side} of {id}")
}

fn bad(error: ParameterError) -> Error {
    Error::invalid("the WIREGUARD mechanism cannot be used").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_chain::Code;
    use proptest::prelude::*;

    async fn wireguard(address: &str) -> Wireguard {
        let netns = Netns::current().unwrap();
        let node = Node::bind(&netns, SocketAddr::new(address.parse().unwrap(), 0)).await.unwrap();
        Wireguard { node, secret: Secret::generate().unwrap(), mtu: 1500 }
    }

    fn offered(wireguard: &Wireguard, from: &str) -> Mechanism {
        let mut mechanism = wireguard.offer("1");
        mechanism.as_wireguard_mut().unwrap().set_src_ip(from.parse().unwrap());
        mechanism
    }

    #[tokio::test]
    async fn each_side_adds_its_address_port_and_key() {
        let (near, far) = (wireguard("127.0.0.1").await, Wireguard { mtu: 1400, ..wireguard("127.0.0.1").await });
        let mut mechanism = near.offer("near");
        far.accept("far", &mut mechanism).unwrap();
        let view = mechanism.as_wireguard().unwrap();
        assert_eq!((view.src_ip(), view.dst_ip()), (Ok("127.0.0.1".parse().ok()), Ok("127.0.0.1".parse().ok())));
        assert_eq!(view.src_port(), Ok(Some(near.address().port())));
        assert_eq!(view.dst_port(), Ok(Some(far.address().port())));
        assert_eq!(view.mtu(), Ok(Some(1340)));
        let (ours, theirs) = (
            near.peering("near", &mechanism, End::Offering).unwrap(),
            far.peering("far", &mechanism, End::Accepting).unwrap(),
        );
        assert_eq!((ours.private_key.public_key(), theirs.private_key.public_key()), (theirs.peer, ours.peer));
        assert_eq!((ours.endpoint, theirs.endpoint), (far.address(), near.address()));
    }

    #[tokio::test]
    async fn a_connection_keeps_its_keys_and_shares_them_with_no_other() {
        let wireguard = wireguard("127.0.0.1").await;
        let key = |id: &str| wireguard.offer(id).parameter("src_public_key").map(str::to_owned);
        assert_eq!(key("1"), key("1"));
        assert_ne!(key("1"), key("2"));
        let mut mechanism = offered(&wireguard, "127.0.0.2");
        wireguard.accept("1", &mut mechanism).unwrap();
        assert_ne!(mechanism.parameter("src_public_key"), mechanism.parameter("dst_public_key"));
        assert!(!format!("{wireguard:?} {mechanism:?}").contains(&wireguard.secret.key("source of 1").to_base64()));
    }

    #[tokio::test]
    async fn what_cannot_be_a_tunnel_is_refused() {
        let wireguard = wireguard("127.0.0.1").await;
        let refused = |change: &dyn Fn(&mut Mechanism)| {
            let mut mechanism = offered(&wireguard, "127.0.0.2");
            change(&mut mechanism);
            wireguard.accept("1", &mut mechanism).unwrap_err().code()
        };
        for key in ["src_ip", "src_port", "src_public_key"] {
            assert_eq!(refused(&|mechanism| _ = mechanism.parameters.remove(key)), Code::InvalidArgument, "{key}");
        }
        for (key, value) in [("src_ip", "x"), ("src_port", "0"), ("src_public_key", "AAAA"), ("MTU", "x")] {
            assert_eq!(
                refused(&|mechanism| mechanism.set_parameter(key, value)),
                Code::InvalidArgument,
                "{key}={value}"
            );
        }
        // All zero: a key with which nothing is secret.
        let zero = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        assert_eq!(refused(&|mechanism| mechanism.set_parameter("src_public_key", zero)), Code::InvalidArgument);
        for address in ["fd00::1", "0.0.0.0", "224.0.0.1"] {
            assert_eq!(
                refused(&|mechanism| mechanism.set_parameter("src_ip", address)),
                Code::Unimplemented,
                "{address}"
            );
        }
        assert_eq!(wireguard.accept("1", &mut Mechanism::kernel()).unwrap_err().code(), Code::Unimplemented);
    }

    proptest! {
        #[test]
        fn whatever_peers_send_is_accepted_or_refused(
            parameters in prop::collection::btree_map(
                prop::sample::select(vec!["src_ip", "src_port", "src_public_key", "dst_ip", "dst_public_key", "MTU"]),
                prop_oneof![".{0,50}", Just("127.0.0.2".to_owned()), Just("51820".to_owned())], 0..6)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let wireguard = wireguard("127.0.0.1").await;
                let mut mechanism = wireguard.offer("1");
                for (key, value) in parameters {
                    mechanism.set_parameter(key, value);
                }
                let _outcome = wireguard.accept("1", &mut mechanism);
            });
        }
    }
}
