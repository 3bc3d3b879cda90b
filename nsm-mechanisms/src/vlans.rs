use std::collections::HashMap;
use std::sync::Arc;

use nsm_api::mechanism::keys;
use nsm_api::{Connection, Mechanism};
use nsm_chain::{Error, Result};
use nsm_kernel::{Error as Kernel, InterfaceName, Netns, VlanPort};

/// The label of a connection by which its endpoint says where its VLAN is.
pub(crate) const VIA: &str = "via";

/// The networks outside whose VLANs this node's workloads may be put into, by what the label `via` of a connection calls them.
#[derive(Debug, Clone)]
pub struct Vlans(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Netns,
    by_via: HashMap<String, Uplink>,
}

#[derive(Debug)]
struct Uplink {
    name: InterfaceName,
    mtu: u32,
}

impl Vlans {
    /// Pairs of what a network is called and the interface in the namespace `node` that leads there. Their MTUs are read now, and
    /// what an earlier life of a forwarder left there for nobody is removed.
    ///
    /// # Errors
    /// If this process may not load BPF programs; a name that is none; [`Uplink`](nsm_kernel::Error::Uplink) for an interface that is not there.
    pub async fn new<S: Into<String>>(node: Netns, uplinks: impl IntoIterator<Item = (S, S)>) -> Result<Self, Kernel> {
        VlanPort::allowed()?;
        let mut by_via = HashMap::new();
        for (via, name) in uplinks {
            let name: InterfaceName = name.into().parse()?;
            VlanPort::sweep(&node, &name).await?;
            let mtu = VlanPort::mtu(&node, &name).await?;
            by_via.insert(via.into(), Uplink { name, mtu });
        }
        Ok(Self(Arc::new(Inner { node, by_via })))
    }

    /// Where the interfaces are that lead there.
    pub(crate) fn node(&self) -> &Netns {
        &self.0.node
    }

    pub(crate) fn uplinks(&self) -> impl Iterator<Item = &InterfaceName> {
        self.0.by_via.values().map(|uplink| &uplink.name)
    }

    /// Completes the mechanism that an endpoint answered with by what only this node knows: the interface that leads there, and
    /// its MTU.
    pub(crate) fn complete(&self, connection: &Connection, next: &mut Mechanism) -> Result<()> {
        let Some(via) = connection.labels.get(VIA) else {
            return Err(Error::invalid("the endpoint chose VLAN, and did not say where that is")
                .hint("it must set the connection's label via"));
        };
        let Some(uplink) = self.0.by_via.get(via) else {
            let mut known: Vec<_> = self.0.by_via.keys().map(String::as_str).collect();
            known.sort_unstable();
            let via: String = via.chars().take(64).collect();
            return Err(Error::precondition(format!(
                "no interface of this node leads to {via:?}, only to {}",
                known.join(", ")
            ))
            .hint("name one for it in the forwarder's device selector file"));
        };
        next.set_parameter(keys::INTERFACE_NAME, uplink.name.as_str());
        next.set_parameter(keys::MTU, uplink.mtu.to_string());
        Ok(())
    }

    /// The way there for a host with this hardware address, by a mechanism that was completed.
    pub(crate) fn port(&self, next: &Mechanism, mac: [u8; 6]) -> Result<VlanPort> {
        let invalid = |error| Error::invalid("the VLAN mechanism cannot be used").because(error);
        let id = next.as_vlan().map_or(Ok(None), |vlan| vlan.id()).map_err(invalid)?;
        let id = id.ok_or_else(|| {
            Error::invalid("the VLAN mechanism names no VLAN")
                .hint("the endpoint must set vlan-id; 0 is for frames without tag")
        })?;
        let named = next.parameter(keys::INTERFACE_NAME);
        let uplink = self.uplinks().find(|uplink| named == Some(uplink.as_str()));
        let uplink = uplink.ok_or_else(|| Error::internal("a VLAN without an interface that leads there"))?;
        Ok(VlanPort { uplink: uplink.clone(), id, mac: Some(mac) })
    }
}
