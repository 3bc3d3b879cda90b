//! What is asked of the kernel for the interfaces of one wire.

use nsm_chain::Result;
use nsm_kernel::{Interface, InterfaceSpec, Netns, PeerNeighbours, VethWire};

use super::error::{Trouble, failed};
use super::plan::{End, Plan, Tunnel};

/// What a wire consists of.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) interfaces: Vec<Interface>,
    /// Who carries its packets, if the kernel does not.
    pub(super) running: Option<nsm_wireguard::Tunnel>,
}

/// Makes all of them, or none.
pub(super) async fn create(plan: &Plan) -> Result<Parts, Trouble> {
    let ends: Vec<(&Netns, &InterfaceSpec)> = plan.ends.iter().map(|end| (&end.netns, &end.spec)).collect();
    match (&plan.tunnel, &ends[..]) {
        (Some(Tunnel::Vxlan { vxlan, node, .. }), [end]) => {
            Ok(Parts { interfaces: vec![vxlan.create(node, *end).await?], running: None })
        }
        (Some(Tunnel::Wireguard { node, peering }), [end]) => {
            let (interface, tunnel) = node.create(peering, *end).await?;
            Ok(Parts { interfaces: vec![interface], running: Some(tunnel) })
        }
        (None, [caller, next]) => {
            // Hardware addresses are fixed, so the specs name all neighbours that are to be known.
            let pair = VethWire::create(*caller, *next, PeerNeighbours::Learned).await?;
            Ok(Parts { interfaces: vec![pair.a().clone(), pair.b().clone()], running: None })
        }
        _ => Ok(Parts::default()),
    }
}

/// The interfaces that are there already with our marks, changed into what the plan says; `None` if one is missing.
pub(super) async fn adopt(plan: &Plan) -> Result<Option<Parts>, Trouble> {
    let mut interfaces = Vec::new();
    for end in &plan.ends {
        match Interface::adopt(&end.netns, &end.spec).await? {
            Some(interface) => interfaces.push(interface),
            None => return Ok(None),
        }
    }
    let running = run(plan, &interfaces).await?;
    Ok(Some(Parts { interfaces, running }))
}

/// Has the packets of an interface carried again, if it is us who do so.
pub(super) async fn run(
    plan: &Plan,
    interfaces: &[Interface],
) -> Result<Option<nsm_wireguard::Tunnel>, nsm_wireguard::Error> {
    match (&plan.tunnel, interfaces) {
        (Some(Tunnel::Wireguard { node, peering }), [interface]) => Ok(Some(node.attach(peering, interface).await?)),
        _ => Ok(None),
    }
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
