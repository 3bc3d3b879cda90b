//! What is asked of the kernel for the interfaces of one wire.

use nsm_chain::Result;
use nsm_kernel::{
    Error as Kernel, Interface, InterfaceSpec, PeerNeighbours, VethWire, VlanPort, delete_link, reconcile,
};

use super::error::{Trouble, failed};
use super::plan::{End, Plan};
use super::trunk;
use super::tunnel::Tunnel;
use crate::memif::copying::Device;

/// What a wire consists of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In the order of the plan's ends.
    pub(super) interfaces: Vec<Interface>,
    /// Who carries its packets, where the kernel does not; for each tunnel of our own, in the same order.
    pub(super) running: Vec<nsm_wireguard::Tunnel>,
    /// The end of the wire that nobody copies yet.
    pub(super) device: Option<Device>,
}

/// Makes all of them, or none.
pub(super) async fn create(plan: &Plan) -> Result<Parts, Trouble> {
    let Some(trunk) = &plan.trunk else { return create_own(plan).await };
    let _others_wait = trunk::lock().await;
    trunk.make().await?;
    let created = create_own(plan).await;
    if created.is_err()
        && let Err(error) = trunk.leave().await
    {
        tracing::warn!(%error, "could not remove a trunk that nobody uses");
    }
    created
}

async fn create_own(plan: &Plan) -> Result<Parts, Trouble> {
    if let [End { tunnel: None, .. }, End { tunnel: None, .. }] = &plan.ends[..] {
        let [caller, next] = [&plan.ends[0], &plan.ends[1]].map(|end| (&end.netns, &end.spec));
        // Hardware addresses are fixed, so the specs name all neighbours that are to be known.
        let pair = VethWire::create(caller, next, PeerNeighbours::Learned).await?;
        return Ok(Parts { interfaces: vec![pair.a().clone(), pair.b().clone()], ..Parts::default() });
    }
    let mut parts = Parts::default();
    for end in &plan.ends {
        if let Err(error) = create_end(end, &mut parts).await {
            undo(&plan.ends, parts).await;
            return Err(error);
        }
    }
    // The first side of a relay was waiting for the second.
    if let Some(waiting) = plan.ends.first().filter(|end| end.spec.joined_to.is_some())
        && let Err(error) = reconcile(&waiting.netns, &waiting.spec).await
    {
        undo(&plan.ends, parts).await;
        return Err(error.into());
    }
    Ok(parts)
}

/// Makes the end of a tunnel.
async fn create_end(end: &End, parts: &mut Parts) -> Result<(), Trouble> {
    let at = (&end.netns, &end.spec);
    match &end.tunnel {
        Some(Tunnel::Vxlan { vxlan, node, .. }) => parts.interfaces.push(vxlan.create(node, at).await?),
        Some(Tunnel::Wireguard { node, peering }) => {
            let (interface, tunnel) = node.create(peering, at).await?;
            parts.interfaces.push(interface);
            parts.running.push(tunnel);
        }
        Some(Tunnel::Copied(kind)) => {
            let (interface, device) = Device::make(*kind, at).await?;
            parts.interfaces.push(interface);
            parts.device = Some(device);
        }
        None => {}
    }
    Ok(())
}

/// Removes one end, and what was made beside it.
pub(super) async fn remove(end: &End) -> Result<(), Kernel> {
    delete_link(&end.netns, end.spec.name.as_str(), &end.spec.alias).await?;
    if let Some(vlan) = &end.spec.vlan {
        VlanPort::release(&vlan.uplink, &end.netns, &end.spec.name).await?;
    }
    match &end.tunnel {
        Some(Tunnel::Vxlan { vxlan, node, .. }) => vxlan.release(node).await,
        _ => Ok(()),
    }
}

async fn undo(ends: &[End], parts: Parts) {
    for running in parts.running {
        running.close().await;
    }
    for (end, _) in ends.iter().zip(parts.interfaces) {
        if let Err(error) = remove(end).await {
            tracing::warn!(%error, "could not remove one end of a wire whose other end failed");
        }
    }
}

/// The interfaces that are there already with our marks, changed into what the plan says; `None` if one is missing.
pub(super) async fn adopt(plan: &Plan) -> Result<Option<Parts>, Trouble> {
    let mut others_wait = None;
    if let Some(trunk) = &plan.trunk {
        others_wait = Some(trunk::lock().await);
        trunk.make().await?;
    }
    let mut interfaces = Vec::new();
    for end in &plan.ends {
        let at = (&end.netns, &end.spec);
        let adopted = match &end.tunnel {
            Some(Tunnel::Vxlan { vxlan, node, .. }) => vxlan.adopt(node, at).await?,
            _ => Interface::adopt(at.0, at.1).await?,
        };
        match adopted {
            Some(interface) => interfaces.push(interface),
            None => return Ok(None),
        }
    }
    drop(others_wait);
    let running = run(plan, &interfaces).await?;
    let mut device = None;
    for (end, interface) in plan.ends.iter().zip(&interfaces) {
        if let Some(Tunnel::Copied(kind)) = &end.tunnel {
            device = Some(Device::attach(*kind, interface).await?);
        }
    }
    Ok(Some(Parts { interfaces, running, device }))
}

/// Has the packets of the interfaces carried again, where it is us who do so.
pub(super) async fn run(
    plan: &Plan,
    interfaces: &[Interface],
) -> Result<Vec<nsm_wireguard::Tunnel>, nsm_wireguard::Error> {
    let mut running = Vec::new();
    for (end, interface) in plan.ends.iter().zip(interfaces) {
        if let Some(Tunnel::Wireguard { node, peering }) = &end.tunnel {
            running.push(node.attach(peering, interface).await?);
        }
    }
    Ok(running)
}

/// Whether the ends that were changed got their former state back.
pub(super) async fn back(changed: &mut [Interface], before: &[InterfaceSpec]) -> bool {
    let mut all = true;
    for (interface, spec) in changed.iter_mut().zip(before) {
        if let Err(error) = interface.update(spec).await {
            tracing::warn!(%error, "could not restore one end of a wire");
            all = false;
        }
    }
    all
}

/// Whether packets to and from 127.0.0.0/8 may pass the interface (ip-sysctl, `route_localnet`).
pub(super) async fn set_route_localnet(end: &End) -> Result<()> {
    // The name has been checked: it stays one part of the path.
    let path = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", end.spec.name);
    let value = if end.route_localnet { "1" } else { "0" };
    let name = end.spec.name.clone();
    end.netns
        .run(move || std::fs::write(path, value))
        .await
        .map_err(|error| failed(format!("cannot let {name} route loopback addresses"), error))
}
