use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_chain::{Call, Element, Error, Next, Result, Slot};

use super::tags::{Tag, Tags};
use super::workload::{Workload, fixed, generated, refused};
use crate::Random;

/// Completes a KERNEL mechanism with an interface of this endpoint.
///
/// *Request*: the mechanism gets the endpoint's network namespace and, if it names none, an interface name: the fixed
/// one, or one generated from the service's name that stays the same as long as the connection lives, also if a
/// forwarder that lost its memory asks without a name. *Close* passes: who made the interface removes it.
///
/// It stands in [`Mechanisms`](crate::Mechanisms).
#[derive(Debug, Default)]
pub struct KernelAccept {
    workload: Workload,
    name: Option<String>,
    generated: Slot<String>,
    /// Where all connections share the interface.
    tags: Option<Tags>,
    tag: Slot<Arc<Tag>>,
    random: Random,
}

impl KernelAccept {
    /// For the namespace of this process, with generated names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For another namespace.
    #[must_use]
    pub fn in_netns(mut self, workload: Workload) -> Self {
        self.workload = workload;
        self
    }

    /// With a fixed interface name, cut to fifteen octets: for an endpoint with one connection.
    ///
    /// # Errors
    /// When the kernel would refuse it.
    pub fn named(mut self, name: &str) -> Result<Self> {
        self.name = Some(fixed(name)?);
        Ok(self)
    }

    /// With one interface for all connections, of this name, cut to fifteen octets. Each connection is in a VLAN of its own there, 1 to
    /// 4094, the lowest free one, which the mechanism's parameter `vlan` tells: frames that the endpoint gets have its tag, and go
    /// back with it. For an endpoint that works on frames; the kernel gives it no addresses there.
    ///
    /// # Errors
    /// When the kernel would refuse the name.
    pub fn trunk(self, name: &str) -> Result<Self> {
        Ok(Self { tags: Some(Tags::default()), ..self.named(name)? })
    }

    /// With names that replay exactly.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
        self
    }
}

impl KernelAccept {
    /// Puts the connection into its VLAN, if there is one interface for all.
    fn tag(&self, call: &Call, mechanism: &mut Mechanism) -> Result<()> {
        let (Some(tags), Some(kernel)) = (&self.tags, mechanism.as_kernel()) else { return Ok(()) };
        if !kernel.supports_vlan() {
            return Err(Error::unsupported(
                "this endpoint has one interface for all clients, and the forwarder no VLANs for it",
            )
            .hint("let a forwarder serve it that offers supportsVlan"));
        }
        let tag = match call.slot(&self.tag) {
            Some(tag) => tag,
            None => {
                let tag = Arc::new(tags.take(kernel.vlan().map_err(refused)?)?);
                self.tag.set(call.state()?, Arc::clone(&tag));
                tag
            }
        };
        let set = mechanism.as_kernel_mut().map(|mut kernel| kernel.set_vlan(tag.number).map(drop));
        set.unwrap_or(Ok(())).map_err(refused)
    }
}

impl Element for KernelAccept {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        if let Some(mut mechanism) = call.connection().mechanism.clone() {
            let fallback = || {
                self.name
                    .clone()
                    .or_else(|| call.slot(&self.generated))
                    .unwrap_or_else(|| generated(&call.connection().network_service, &self.random))
            };
            self.workload.fill(&mut mechanism, fallback).map_err(refused)?;
            if let (Ok(state), Some(name)) =
                (call.state(), mechanism.parameter(nsm_api::mechanism::keys::INTERFACE_NAME))
            {
                self.generated.set(state, name.to_owned());
            }
            self.tag(&call, &mut mechanism)?;
            call.connection_mut().mechanism = Some(mechanism);
        }
        next.request(call).await
    }
}
