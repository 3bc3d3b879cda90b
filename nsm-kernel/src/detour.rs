//! Two tunnels of one number on one node.
//!
//! The kernel tells VXLAN devices apart by their number and UDP port alone, so a second tunnel of the same number, to
//! another node, needs another port. The other node need not know: what it sends to the common port arrives at the second
//! device by a detour, a table of nf_tables of its own, which changes the port of that node's packets of that number, and of
//! no others, behind all filters and just before they are delivered. What the second device sends goes to the
//! other node's port as ever. Without such a tunnel there is no table, and no packet is looked at.

use std::{collections::HashMap, net::IpAddr, ops::RangeInclusive};

use crate::{
    Netns, Result, VxlanTunnel,
    netns::{Lane, work},
    nft::{Attributes, Kind, Nft},
};

/// For further devices of the same number: above those that Linux chooses for clients by itself (32768 to 60999).
pub(crate) const PORTS: RangeInclusive<u16> = 61_000..=61_015;

const PREFIX: &str = "nsm-vxlan-";
const CHAIN: &str = "input";

/// The detours of one namespace.
#[derive(Debug, Default)]
pub(crate) struct Detours {
    /// Names of their tables, with the tunnel if it was set in this life; `None`: nobody has looked yet.
    tables: Option<HashMap<String, Option<VxlanTunnel>>>,
}

impl Detours {
    /// Leads what comes for this tunnel to `port`, where its device listens. The calling thread is in the node's namespace.
    pub(crate) fn put(&mut self, tunnel: &VxlanTunnel, port: u16) -> Result<()> {
        let name = name(tunnel);
        let table = || Attributes::default().text(1, &name);
        let input = Attributes::default().number(1, LOCAL_INPUT).number(2, BEHIND_FILTERS);
        let chain = Attributes::default().text(1, &name).text(3, CHAIN).nested(4, &input).number(5, ACCEPT);
        let rule = |expressions| Attributes::default().text(1, &name).text(2, CHAIN).nested(4, &expressions);
        Nft::open()?.commit(
            &format!("lead packets of VNI {} from {} to port {port}", tunnel.vni, tunnel.remote),
            &[
                // An older one of that name goes.
                (Kind::NewTable, table()),
                (Kind::DelTable, table()),
                (Kind::NewTable, table()),
                (Kind::NewChain, chain.text(7, "filter")),
                (Kind::NewRule, rule(redirect(tunnel, port, Checksum::None))),
                (Kind::NewRule, rule(redirect(tunnel, port, Checksum::Some))),
            ],
        )?;
        self.known().insert(name, Some(*tunnel));
        Ok(())
    }

    /// Takes back what was put, or left by an earlier life. Asks the kernel nothing if there is none.
    pub(crate) fn remove(&mut self, tunnel: &VxlanTunnel) -> Result<()> {
        let name = name(tunnel);
        if !self.known().contains_key(&name) {
            return Ok(());
        }
        let table = || Attributes::default().text(1, &name);
        let what = format!("remove the table {name}");
        // Made first, so that one that is gone already is no error.
        Nft::open()?.commit(&what, &[(Kind::NewTable, table()), (Kind::DelTable, table())])?;
        self.known().remove(&name);
        Ok(())
    }

    /// Whether it was put in this life.
    pub(crate) fn knows(&mut self, tunnel: &VxlanTunnel) -> bool {
        self.known().get(&name(tunnel)).is_some_and(Option::is_some)
    }

    /// Whether one was put, and somebody else has removed it.
    fn lost(&mut self) -> Result<Vec<VxlanTunnel>> {
        let put: Vec<_> = self.known().iter().filter_map(|(name, tunnel)| Some((name.clone(), (*tunnel)?))).collect();
        if put.is_empty() {
            return Ok(Vec::new());
        }
        let there = Nft::open()?.tables()?;
        Ok(put.into_iter().filter(|(name, _)| !there.contains(name)).map(|(_, tunnel)| tunnel).collect())
    }

    /// Whether the detour of this tunnel is there.
    pub(crate) fn is_there(tunnel: &VxlanTunnel) -> Result<bool> {
        Ok(Nft::open()?.tables()?.contains(&name(tunnel)))
    }

    fn known(&mut self) -> &mut HashMap<String, Option<VxlanTunnel>> {
        self.tables.get_or_insert_with(|| {
            // A kernel without nf_tables has none.
            let found = Nft::open().and_then(|mut nft| nft.tables()).unwrap_or_default();
            found.into_iter().filter(|name| name.starts_with(PREFIX)).map(|name| (name, None)).collect()
        })
    }
}

impl VxlanTunnel {
    /// Tunnels through `node` that share their number with another one, and that somebody else has cut: the rules of
    /// nf_tables that lead their packets to their devices are gone, as after `nft flush ruleset`. Asks the kernel nothing if there is
    /// no such tunnel.
    ///
    /// # Errors
    /// [`Error::NoPrivileges`](crate::Error::NoPrivileges) or [`Error::Kernel`](crate::Error::Kernel).
    pub async fn lost(node: &Netns) -> Result<Vec<Self>> {
        let node = node.clone();
        work(Lane::Quick, move |here| {
            here.enter(&node)?;
            node.detours().lost()
        })
        .await
    }

    /// Gives up what was made beside the device of this tunnel, which is gone: there is something if it had to share its number
    /// with another tunnel through `node`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn release(&self, node: &Netns) -> Result<()> {
        let (node, tunnel) = (node.clone(), *self);
        work(Lane::Quick, move |here| {
            here.enter(&node)?;
            node.detours().remove(&tunnel)
        })
        .await
    }
}

/// Follows from the tunnel; of letters that `nft` takes without quotes.
fn name(tunnel: &VxlanTunnel) -> String {
    let remote = tunnel.remote.to_string().replace(':', "_");
    format!("{PREFIX}{}-{remote}-{}", tunnel.vni, tunnel.port)
}

const LOCAL_INPUT: u32 = 1;
/// Behind those of packet filters (0), security modules (50) and source translation (100).
const BEHIND_FILTERS: u32 = 400;
const ACCEPT: u32 = 1;

/// Whether the other node's UDP header has one; over IPv4 it need not (RFC 7348, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checksum {
    None,
    Some,
}

/// Where a field is.
#[derive(Debug, Clone, Copy)]
enum Base {
    Network = 1,
    Transport = 2,
}

/// If it is a packet of the tunnel, it is now for `port`.
fn redirect(tunnel: &VxlanTunnel, port: u16, checksum: Checksum) -> Attributes {
    let (family, (local, remote)) = match (tunnel.local, tunnel.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => (2, ((16, local.octets().to_vec()), (12, remote.octets().to_vec()))),
        (local, remote) => (10, ((24, v6(local)), (8, v6(remote)))),
    };
    const UDP: u8 = 17;
    const NFPROTO: u32 = 15;
    const L4PROTO: u32 = 16;
    // UDP's port at 2 and checksum at 6, and VXLAN's number at 4 of its header.
    let none = [0, 0];
    [
        meta(NFPROTO, family),
        meta(L4PROTO, UDP),
        is(Base::Network, remote.0, &remote.1),
        is(Base::Network, local.0, &local.1),
        is(Base::Transport, 2, &tunnel.port.to_be_bytes()),
        is(Base::Transport, 12, &tunnel.vni.to_be_bytes()[1..]),
        field(Base::Transport, 6, 2).and(compare(checksum == Checksum::None, &none)),
        immediate(&port.to_be_bytes()).and(write(2, 2, checksum)),
    ]
    .into_iter()
    .fold(Attributes::default(), Attributes::and)
}

fn v6(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V6(address) => address.octets().to_vec(),
        IpAddr::V4(address) => address.to_ipv6_mapped().octets().to_vec(),
    }
}

/// The register through which values go from one expression to the next.
const REGISTER: u32 = 1;

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::default().nested(1, &Attributes::default().text(1, name).nested(2, data))
}

fn meta(key: u32, value: u8) -> Attributes {
    expression("meta", &Attributes::default().number(1, REGISTER).number(2, key)).and(compare(true, &[value]))
}

fn is(base: Base, offset: u32, value: &[u8]) -> Attributes {
    field(base, offset, value.len() as u32).and(compare(true, value))
}

fn field(base: Base, offset: u32, length: u32) -> Attributes {
    let place = Attributes::default().number(1, REGISTER).number(2, base as u32);
    expression("payload", &place.number(3, offset).number(4, length))
}

fn compare(equal: bool, value: &[u8]) -> Attributes {
    let data = Attributes::default().number(1, REGISTER).number(2, u32::from(!equal));
    expression("cmp", &data.nested(3, &Attributes::default().bytes(1, value)))
}

fn immediate(value: &[u8]) -> Attributes {
    let data = Attributes::default().number(1, REGISTER);
    expression("immediate", &data.nested(2, &Attributes::default().bytes(1, value)))
}

/// Writes the register into the transport header, and into its checksum what that changes.
fn write(offset: u32, length: u32, checksum: Checksum) -> Attributes {
    let place = Attributes::default().number(5, REGISTER).number(2, Base::Transport as u32);
    let place = place.number(3, offset).number(4, length);
    expression(
        "payload",
        &match checksum {
            Checksum::None => place.number(6, 0),
            Checksum::Some => place.number(6, 1).number(7, 6),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_somebody_removes_is_missed_and_one_that_an_earlier_life_left_is_known() {
        if let Some(obstacle) = crate::privileges().obstacle {
            eprintln!("skipped: {obstacle}");
            return;
        }
        let node = Netns::create().await.unwrap();
        let tunnel = |remote: &str| VxlanTunnel {
            vni: 7,
            local: remote.replace('9', "1").parse().unwrap(),
            remote: remote.parse().unwrap(),
            port: 4789,
            remote_port: 4789,
            ttl: None,
        };
        let (four, six) = (tunnel("192.0.2.9"), tunnel("2001:db8::9"));
        let cut = node.run(move || {
            let mut detours = Detours::default();
            detours.put(&four, 61_000)?;
            detours.put(&six, 61_001)?;
            assert_eq!((detours.lost()?, Detours::is_there(&six)?), (Vec::new(), true));
            let table = Attributes::default().text(1, &name(&six));
            Nft::open()?.commit("remove a table", &[(Kind::DelTable, table)])?;
            let lost = detours.lost()?;
            // Nothing is there that could not be removed.
            detours.remove(&six)?;
            let mut next_life = Detours::default();
            next_life.remove(&six)?;
            next_life.remove(&four)?;
            Ok::<_, crate::Error>((lost, Nft::open()?.tables()?))
        });
        assert_eq!(cut.await.unwrap(), (vec![six], Vec::new()));
    }
}
