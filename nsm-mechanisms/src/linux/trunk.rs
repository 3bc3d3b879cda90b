//! An interface of an endpoint that several connections share: their packets are told apart by tags.

use nsm_chain::Result;
use nsm_kernel::{
    Error as Kernel, InterfaceSpec, Netns, NetnsId, PeerNeighbours, Snapshot, VethWire, VlanPort, delete_link,
};
use tokio::sync::{Mutex, MutexGuard};

use super::error::failed;
use super::mark::{Mark, Side};

/// A pair, one end in the endpoint's namespace, the other in the node's, where each connection has a port at it. It is made with the
/// first, and goes with the last.
#[derive(Debug, Clone)]
pub(super) struct Trunk {
    endpoint: (Netns, InterfaceSpec),
    node: (Netns, InterfaceSpec),
}

/// Wide enough for whatever connections agree on, as the reference has it.
const MTU: u32 = 16_000;

/// Held while a connection comes to a trunk or leaves one, so that the last to leave knows that it is.
pub(super) async fn lock() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    ONE_AT_A_TIME.lock().await
}

impl Trunk {
    /// The one behind the interface of this name of an endpoint.
    pub(super) fn of(mark: &Mark, endpoint: Netns, name: &str, node: Netns) -> Result<Self> {
        let alias = mark.trunk(endpoint.id(), name);
        let described = |name: &str| {
            let spec = InterfaceSpec::new(name, alias.clone());
            spec.map(|spec| spec.with_mtu(MTU)).map_err(|error| failed("the trunk cannot be described", error))
        };
        let near = described(&mark.name(&alias, Side::Endpoint))?;
        let far = described(name)?.with_mac(mark.mac(&alias, Side::Endpoint));
        Ok(Self { endpoint: (endpoint, far), node: (node, near) })
    }

    /// Where the endpoint is.
    pub(super) fn endpoint(&self) -> &Netns {
        &self.endpoint.0
    }

    /// The way to it in a VLAN that one connection has to itself.
    pub(super) fn port(&self, id: u16) -> VlanPort {
        VlanPort { uplink: self.node.1.name.clone(), id, mac: None }
    }

    /// Makes it, if it is not there. To be called with the [`lock`].
    pub(super) async fn make(&self) -> Result<(), Kernel> {
        let [endpoint, node] = [&self.endpoint, &self.node].map(|(netns, spec)| (netns, spec));
        match VethWire::create(endpoint, node, PeerNeighbours::Learned).await {
            Err(Kernel::NameTaken { alias: Some(alias), .. }) if alias == endpoint.1.alias => {}
            made => drop(made?),
        }
        VlanPort::close(node.0, &node.1.name).await
    }

    /// Removes it, if no connection has a port at it. To be called with the [`lock`].
    pub(super) async fn leave(&self) -> Result<(), Kernel> {
        let [(endpoint, far), (node, near)] = [&self.endpoint, &self.node];
        let ports = match VlanPort::sweep(node, &near.name).await {
            Ok(_) => VlanPort::count(node, &near.name).await?,
            Err(Kernel::Uplink { .. }) => 0,
            Err(error) => return Err(error),
        };
        if ports == 0 {
            delete_link(endpoint, far.name.as_str(), &far.alias).await?;
        }
        Ok(())
    }

    /// Whether this interface is an end of it.
    pub(super) fn is(&self, (netns, name, alias): (NetnsId, &str, &str)) -> bool {
        let is =
            |(at, spec): &(Netns, InterfaceSpec)| at.id() == netns && spec.name.as_str() == name && spec.alias == alias;
        is(&self.endpoint) || is(&self.node)
    }

    /// Whether an end of it should be in that namespace, and is not.
    pub(super) fn differs(&self, snapshot: &Snapshot) -> bool {
        let is_here = |(netns, _): &&(Netns, InterfaceSpec)| netns.id() == snapshot.netns();
        [&self.endpoint, &self.node].into_iter().filter(is_here).any(|(_, spec)| !snapshot.shows(spec))
    }
}
