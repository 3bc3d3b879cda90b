//! Putting one host into a VLAN of a network outside, on a kernel that need not know of VLANs.
//!
//! The host is behind an interface of the node, its port. BPF programs at `clsact` send what comes in through the port out of
//! the uplink, with the tag of the VLAN, and what comes in through the uplink with that tag and for the host's hardware
//! address, or for a group of them, out of the port, without it. Everything else goes its way as if they were not there. There
//! is no bridge, so nothing that hosts of one node would have to share, and two of them reach each other only if the network
//! outside sends back what comes from here.

mod names;
mod programs;

use crate::{
    Error, InterfaceName, InterfaceSpec, Netns, Result,
    netns::{Here, Lane, work},
    rtnl::{
        Rtnl,
        filter::{self, Filter, Way},
        link::{self, LinkFacts},
        neighbour,
    },
    sysctl,
};
use names::{AT_PORT, read};

/// A host's place in a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VlanPort {
    /// The interface of the node by which the network is reached. It may have addresses, and be the port of a bridge.
    pub uplink: InterfaceName,
    /// Number of the VLAN, 1 to 4094 (IEEE 802.1Q); 0: frames have no tag.
    pub id: u16,
    /// The host's hardware address. Frames for no other one reach it, but those for groups. `None`: it has the VLAN to itself,
    /// and all frames of it reach it.
    pub mac: Option<[u8; 6]>,
}

const LAST_ID: u16 = 4094;

impl VlanPort {
    pub(crate) fn validate(&self, port: &str) -> Result<()> {
        if self.id > LAST_ID || self.uplink.as_str() == port {
            let reason = format!("VLAN {} by {} is none: the last one is {LAST_ID}", self.id, self.uplink);
            return Err(Error::InvalidSpec { interface: port.to_owned(), reason });
        }
        Ok(())
    }

    /// Whether this process may put hosts into VLANs.
    ///
    /// # Errors
    /// Why it may not: BPF programs are for root of the whole system.
    pub fn allowed() -> Result<()> {
        programs::untag().load().map(drop)
    }

    /// The largest packet, in octets, that passes by this uplink.
    ///
    /// # Errors
    /// [`Error::Uplink`] if it is not there.
    pub async fn mtu(node: &Netns, uplink: &InterfaceName) -> Result<u32> {
        at(node, uplink, |_, uplink| Ok(uplink.mtu)).await
    }

    /// Removes what an earlier life of this process left at the uplink for ports that are gone; says how much that was.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub async fn sweep(node: &Netns, uplink: &InterfaceName) -> Result<usize> {
        at(node, uplink, |rtnl, LinkFacts { index: uplink, .. }| {
            let (mut gone, mut left_out) = (Vec::new(), Vec::new());
            for filter in rtnl.filters(uplink, Way::In)? {
                if let Some((port, _, mac)) = read(&filter.name)
                    && rtnl.link_at(filter.number)?.is_none_or(|link| link.name != port)
                {
                    gone.push(filter::remove(uplink, Way::In, filter.number));
                    left_out.extend(mac.map(|mac| neighbour::leave_out(uplink, mac)));
                }
            }
            let count = gone.len();
            rtnl.apply(gone.into_iter().chain(left_out).collect()).map(|()| count)
        })
        .await
    }

    /// How many ports this uplink leads to.
    ///
    /// # Errors
    /// [`Error::Uplink`] if it is not there, or what the kernel refuses.
    pub async fn count(node: &Netns, uplink: &InterfaceName) -> Result<usize> {
        at(node, uplink, |rtnl, uplink| {
            let filters = rtnl.filters(uplink.index, Way::In)?;
            Ok(filters.iter().filter(|filter| read(&filter.name).is_some()).count())
        })
        .await
    }

    /// Has nothing else reach the node by this uplink, which is its end of a trunk, than what is for ports.
    ///
    /// # Errors
    /// [`Error::Uplink`] if it is not there, or what the kernel refuses.
    pub async fn close(node: &Netns, uplink: &InterfaceName) -> Result<()> {
        at(node, uplink, |rtnl, uplink| {
            let last = Filter::nothing_else();
            if rtnl.filters(uplink.index, Way::In)?.contains(&last) {
                return Ok(());
            }
            rtnl.apply(filter::put(uplink.index, Way::In, &last, &programs::nothing().load()?).into())
        })
        .await
    }

    /// Gives up what was made at the uplink for a port, which is gone.
    ///
    /// # Errors
    /// What the kernel refuses. Without the uplink there is nothing.
    pub async fn release(uplink: &InterfaceName, node: &Netns, port: &InterfaceName) -> Result<()> {
        let (uplink, node, port) = (uplink.clone(), node.clone(), port.clone());
        work(Lane::Quick, move |here| release(here, &uplink, &node, &port)).await
    }

    /// Makes what is missing of it for the interface `spec`, which has this number; says how many changes that took. `rtnl` is a
    /// socket in the namespace that the thread is in.
    pub(crate) fn put(&self, rtnl: &mut Rtnl, netns: &Netns, spec: &InterfaceSpec, port: u32) -> Result<usize> {
        sysctl::disable_ipv6(spec.name.as_str())?;
        if found(rtnl, port, spec.name.as_str())?.as_ref() == Some(self) {
            return Ok(0);
        }
        let uplink = uplink(rtnl, netns, &self.uplink)?;
        let unusable = |reason| Error::Uplink { name: self.uplink.to_string(), netns: netns.id(), reason };
        if !uplink.up {
            return Err(unusable("it is down: set it up".to_owned()));
        }
        if let Some(mtu) = spec.mtu.filter(|mtu| *mtu > uplink.mtu) {
            let less = uplink.mtu;
            return Err(unusable(format!("it takes packets of {less} octets, and {mtu} are asked for: raise its MTU")));
        }
        let before = rtnl.writes();
        let (to, from) = (Filter::to(uplink.index, self.id), Filter::from(port, spec.name.as_str(), self));
        let heard = |mac| [neighbour::take_in(uplink.index, mac), link::hear_groups(uplink.index)];
        let mut requests: Vec<_> = self.mac.into_iter().flat_map(heard).collect();
        // Open until the kernel has made filters of them.
        let [out, back, tagged] =
            [self.out_of(uplink.index).load()?, programs::untag().load()?, self.into(port).load()?];
        requests.extend(filter::put(port, Way::In, &to, &out));
        if self.id != 0 {
            requests.extend(filter::put(port, Way::Out, &Filter::untag(), &back));
        }
        requests.extend(filter::put(uplink.index, Way::In, &from, &tagged));
        rtnl.apply(requests)?;
        Ok(rtnl.writes() - before)
    }
}

/// What the interface of this number and name is a way into, if all of that is there.
pub(crate) fn found(rtnl: &mut Rtnl, port: u32, name: &str) -> Result<Option<VlanPort>> {
    let out = rtnl.filters(port, Way::In)?.into_iter().find(|filter| filter.number == AT_PORT);
    let to = out.as_ref().and_then(|filter| filter.name.strip_prefix("to ")?.split_once(" vlan "));
    let Some((uplink, id)) = to.and_then(|(uplink, id)| Some((uplink.parse().ok()?, id.parse().ok()?))) else {
        return Ok(None);
    };
    if id != 0 && !rtnl.filters(port, Way::Out)?.contains(&Filter::untag()) {
        return Ok(None);
    }
    let from = rtnl.filters(uplink, Way::In)?.into_iter().find(|filter| filter.number == port);
    let Some((_, _, mac)) =
        from.as_ref().and_then(|filter| read(&filter.name)).filter(|from| (from.0, from.1) == (name, id))
    else {
        return Ok(None);
    };
    let uplink = rtnl.link_at(uplink)?.and_then(|link| link.name.parse().ok());
    Ok(uplink.map(|uplink| VlanPort { uplink, id, mac }))
}

/// As [`VlanPort::release`].
pub(crate) fn release(here: &mut Here, uplink: &InterfaceName, node: &Netns, port: &InterfaceName) -> Result<()> {
    here.enter(node)?;
    let mut rtnl = Rtnl::open()?;
    let Some(uplink) = rtnl.link(uplink)?.map(|link| link.index) else {
        return Ok(());
    };
    let mut gone = Vec::new();
    for filter in rtnl.filters(uplink, Way::In)? {
        if let Some((_, _, mac)) = read(&filter.name).filter(|(name, ..)| *name == port.as_str()) {
            gone.push(filter::remove(uplink, Way::In, filter.number));
            gone.extend(mac.map(|mac| neighbour::leave_out(uplink, mac)));
        }
    }
    rtnl.apply(gone)
}

/// Takes back what was made at the uplink for a port whose making failed.
pub(crate) fn forget(here: &mut Here, netns: &Netns, spec: &InterfaceSpec) {
    if let Some(vlan) = &spec.vlan
        && let Err(error) = release(here, &vlan.uplink, netns, &spec.name)
    {
        tracing::warn!(%error, interface = %spec.name, "could not remove what leads to a port that failed");
    }
}

/// Does this at an uplink of a node.
async fn at<T: Send + 'static>(
    node: &Netns,
    name: &InterfaceName,
    what: impl FnOnce(&mut Rtnl, LinkFacts) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (node, name) = (node.clone(), name.clone());
    work(Lane::Quick, move |here| {
        here.enter(&node)?;
        let mut rtnl = Rtnl::open()?;
        let uplink = uplink(&mut rtnl, &node, &name)?;
        what(&mut rtnl, uplink)
    })
    .await
}

fn uplink(rtnl: &mut Rtnl, netns: &Netns, name: &InterfaceName) -> Result<LinkFacts> {
    let none = || Error::Uplink {
        name: name.to_string(),
        netns: netns.id(),
        reason: "it is not there: see the file that names it".to_owned(),
    };
    rtnl.link(name)?.ok_or_else(none)
}
