//! Endpoints that are clients again: traffic passes through them on its way to the next one of the same network service.

use std::collections::BTreeMap;

use nsm_api::mechanism::KERNEL;
use nsm_chain::{OrderError, elements};
use nsm_kernel::Netns;
use nsm_mechanisms::{KernelAccept, KernelOffer, KernelTransit, Mechanisms, Workload};
use nsm_sdk::roles::EndpointRole;

/// Makes this role one that passes packets on in this namespace: to the endpoint that the rules choose for clients with these labels.
pub(crate) fn passing_on(
    role: EndpointRole,
    netns: &Netns,
    labels: BTreeMap<String, String>,
) -> Result<EndpointRole, OrderError> {
    let accept = KernelAccept::new().in_netns(Workload::of(netns));
    let offer = KernelOffer::new().in_netns(Workload::of(netns));
    let accepts = elements![Mechanisms::new().with(KERNEL, accept)?, KernelTransit::of(netns)];
    Ok(role.with(accepts).passing_on(labels, elements![offer, KernelTransit::of(netns)]))
}
