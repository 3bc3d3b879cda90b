use nsm_api::Mechanism;
use nsm_chain::{Call, Element, Next, Order, Result, Slot};

use super::workload::{Workload, fixed, generated, refused};
use crate::Random;
use crate::metrics::{self, CLIENT_INTERFACE};

/// Offers kernel interfaces of this workload.
///
/// *Request*: every KERNEL preference gets the workload's network namespace and, if it names none, an interface name:
/// the fixed one, or one generated from the service's name that stays the same as long as the connection lives. Without
/// a KERNEL preference one is added. The interface is told in this hop's path segment (metric `client_interface`).
/// *Close* passes: who made the interface removes it.
///
/// It stands in a client's chain, behind whatever adds preferences and before what sends descriptors.
#[derive(Debug, Default)]
pub struct KernelOffer {
    workload: Workload,
    name: Option<String>,
    generated: Slot<String>,
    random: Random,
}

impl KernelOffer {
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

    /// With a fixed interface name, cut to fifteen octets.
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

    fn name(&self, call: &Call) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let kept = call.slot(&self.generated);
        kept.unwrap_or_else(|| generated(&call.connection().network_service, &self.random))
    }
}

impl Element for KernelOffer {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let name = self.name(&call);
        if let Ok(state) = call.state() {
            self.generated.set(state, name.clone());
        }
        let preferences = call.extra_mut();
        if !preferences.iter().any(|mechanism| mechanism.as_kernel().is_some()) {
            preferences.push(Mechanism::kernel());
        }
        for mechanism in preferences {
            self.workload.fill(mechanism, || name.clone()).map_err(refused)?;
        }
        // One chosen in an earlier life of this process names a namespace by a path of that life.
        if let Some(mechanism) = &call.connection().mechanism
            && mechanism.as_kernel().is_some()
        {
            let mut mechanism = mechanism.clone();
            self.workload.fill(&mut mechanism, || name).map_err(refused)?;
            call.connection_mut().mechanism = Some(mechanism);
        }
        let mut call = next.request(call).await?;
        if let Some(mechanism) = call.connection().mechanism.clone() {
            metrics::record(call.connection_mut(), CLIENT_INTERFACE, &mechanism);
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &[], before: &["SendFd", "Connect"], last: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::{Connection, Path, PathSegment};
    use nsm_chain::{Begin, Chain, Code, OwnedNext, elements, from_fn};
    use nsm_kernel::Netns;

    fn chain(offer: KernelOffer) -> Chain {
        // The other side takes the first preference.
        let takes = from_fn(|mut call: Call, next: OwnedNext| {
            if call.connection().mechanism.is_none() {
                call.connection_mut().mechanism = call.preferences().first().cloned();
            }
            async move { next.request(call).await }
        });
        Chain::new("nsc", elements![Begin::default(), offer, takes]).unwrap()
    }

    fn asked(preferences: Vec<Mechanism>) -> Call {
        let segment = PathSegment { name: "nsc".into(), id: "1".into(), ..Default::default() };
        let connection = Connection {
            id: "1".into(),
            network_service: "network-service".into(),
            path: Some(Path { index: 0, path_segments: vec![segment] }),
            ..Default::default()
        };
        Call::request(connection, preferences)
    }

    fn name(mechanism: &Mechanism) -> &str {
        mechanism.parameter("name").unwrap()
    }

    #[tokio::test]
    async fn a_preference_is_added_where_none_is_kernel() {
        let call = chain(KernelOffer::new()).request(asked(vec![Mechanism::memif()])).await.unwrap();
        let [memif, kernel] = call.preferences() else { panic!("{:?}", call.preferences()) };
        assert!(memif.parameters.is_empty());
        assert_eq!(kernel.cls, "LOCAL");
        assert_eq!(kernel.parameter("inodeURL"), Some(&*format!("file:///proc/{}/ns/net", std::process::id())));
        assert!(name(kernel).starts_with("network-se-") && name(kernel).len() == 15, "{kernel:?}");
    }

    #[tokio::test]
    async fn a_given_name_stays_and_a_fixed_one_fills_the_gap() {
        let mut given = Mechanism::kernel();
        given.as_kernel_mut().unwrap().set_interface_name("nsm-1").unwrap();
        let offer = KernelOffer::new().named("a-name-that-is-too-long").unwrap();
        let call = chain(offer).request(asked(vec![given, Mechanism::kernel()])).await.unwrap();
        let names: Vec<_> = call.preferences().iter().map(name).collect();
        assert_eq!(names, ["nsm-1", "a-name-that-is-"]);
        assert!(call.preferences().iter().all(|m| m.parameter("inodeURL").is_some()));
        let segment = call.connection().current_segment().unwrap();
        assert_eq!(segment.metrics["client_interface"], "KERNEL/nsm-1");
    }

    #[tokio::test]
    async fn a_generated_name_stays_as_long_as_the_connection() {
        let chain = chain(KernelOffer::new());
        let first = chain.request(asked(vec![])).await.unwrap();
        // Asked again with nothing but the id, as an application may.
        let again = chain.request(asked(vec![])).await.unwrap();
        assert_eq!(name(&first.preferences()[0]), name(&again.preferences()[0]));
        chain.close(asked(vec![])).await.unwrap();
        let other = chain.request(asked(vec![])).await.unwrap();
        assert_ne!(name(&first.preferences()[0]), name(&other.preferences()[0]));
    }

    #[tokio::test]
    async fn a_name_the_kernel_would_refuse_never_leaves() {
        let mut wrong = Mechanism::kernel();
        wrong.set_parameter("name", "sixteen-octets-1");
        let error = chain(KernelOffer::new()).request(asked(vec![wrong])).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("sixteen-octets-1"), "{error}");
    }

    #[tokio::test]
    async fn another_namespace_is_named_by_our_descriptor() {
        let netns = Netns::current().unwrap();
        let offer = KernelOffer::new().in_netns(Workload::of(&netns));
        let call = chain(offer).request(asked(vec![])).await.unwrap();
        let url = call.preferences()[0].parameter("inodeURL").unwrap();
        assert_eq!(Netns::open(url.strip_prefix("file://").unwrap()).unwrap(), netns);
    }
}
