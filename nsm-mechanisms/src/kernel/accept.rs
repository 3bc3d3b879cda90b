use nsm_chain::{Call, Element, Next, Result, Slot};

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

    /// With names that replay exactly.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
        self
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
            call.connection_mut().mechanism = Some(mechanism);
        }
        next.request(call).await
    }
}
