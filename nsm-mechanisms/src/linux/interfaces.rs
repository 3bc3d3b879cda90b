//! What is asked of the kernel for the interfaces of one wire.

use nsm_chain::Result;
use nsm_kernel::{Interface, InterfaceSpec, Netns, PeerNeighbours, VethWire};

use super::error::failed;
use super::plan::{End, Plan};

/// Makes all of them, or none.
pub(super) async fn create(plan: &Plan) -> nsm_kernel::Result<Vec<Interface>> {
    let ends: Vec<(&Netns, &InterfaceSpec)> = plan.ends.iter().map(|end| (&end.netns, &end.spec)).collect();
    match (&plan.tunnel, &ends[..]) {
        (Some(tunnel), [end]) => Ok(vec![tunnel.vxlan.create(&tunnel.node, *end).await?]),
        (None, [caller, next]) => {
            // Hardware addresses are fixed, so the specs name all neighbours that are to be known.
            let pair = VethWire::create(*caller, *next, PeerNeighbours::Learned).await?;
            Ok(vec![pair.a().clone(), pair.b().clone()])
        }
        _ => Ok(Vec::new()),
    }
}

/// The interfaces that are there already with our marks, changed into what the plan says; `None` if one is missing.
pub(super) async fn adopt(plan: &Plan) -> nsm_kernel::Result<Option<Vec<Interface>>> {
    let mut interfaces = Vec::new();
    for end in &plan.ends {
        match Interface::adopt(&end.netns, &end.spec).await? {
            Some(interface) => interfaces.push(interface),
            None => return Ok(None),
        }
    }
    Ok(Some(interfaces))
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
