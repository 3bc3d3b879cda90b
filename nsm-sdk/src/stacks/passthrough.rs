use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use nsm_chain::{Begin, Chain, Node, OrderError, Service, elements};
use nsm_mechanisms::MechanismTranslation;

use super::Hop;
use crate::connect::{Connect, Links};
use crate::context;
use crate::descriptors::SendFd;
use crate::monitor::Monitor;

/// An endpoint that is a client again: traffic passes through it on its way to the next endpoint of the same service,
/// as through a firewall.
///
/// ```
/// use nsm_api::mechanism::KERNEL;
/// use nsm_chain::{Service, elements};
/// use nsm_mechanisms::{KernelAccept, KernelOffer, Mechanisms};
/// use nsm_sdk::connect::InProcess;
/// use nsm_sdk::identity::HmacTokens;
/// use nsm_sdk::stacks::{Hop, Onward, Passthrough};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tokens = HmacTokens::new(&"spiffe://example.org/firewall".parse()?);
/// let onward = Onward {
///     labels: [("app".to_owned(), "firewall".to_owned())].into(),
///     offers: elements![KernelOffer::new()],
///     manager: "unix:///var/lib/networkservicemesh/nsm.io.sock".into(),
///     links: InProcess::<Service>::default().links(),
/// };
/// let accepts = elements![Mechanisms::new().with(KERNEL, KernelAccept::new())?];
/// let firewall = Passthrough::new(&Hop::new("firewall", Arc::new(tokens)), accepts, onward)?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Passthrough {
    /// Request, Close and Monitor.
    pub chain: Chain,
    /// What is connected now.
    pub connections: Arc<Begin>,
    /// What watchers see.
    pub monitor: Arc<Monitor>,
}

/// How a [`Passthrough`] goes on.
pub struct Onward {
    /// What it is to the service's rules: those for clients with these labels choose the next endpoint.
    pub labels: BTreeMap<String, String>,
    /// What mechanism it asks for.
    pub offers: Vec<Node>,
    /// The URL of its manager.
    pub manager: Arc<str>,
    /// The way there.
    pub links: Arc<dyn Links<Service>>,
}

impl Passthrough {
    /// An endpoint that takes its callers by the elements `accepts`, which may do with them what any endpoint may, and
    /// goes on with each as its own client.
    ///
    /// It refreshes and heals nothing: its callers do, through it.
    ///
    /// # Errors
    /// When an element stands where it may not.
    pub fn new(hop: &Hop, accepts: Vec<Node>, onward: Onward) -> Result<Self, OrderError> {
        let (connections, monitor) = (Arc::default(), hop.monitor());
        let mut list = hop.head(&connections, &monitor);
        list.extend(accepts); // the caller's mechanism, and what the function does
        list.extend(elements![
            MechanismTranslation::default(), // the caller's wire is not the one that leads on
            context::Passthrough::new(onward.labels), // to the next endpoint, not to this one again
        ]);
        list.extend(onward.offers); // its own end of the wire that leads on
        list.extend(elements![
            SendFd::to(Arc::clone(&onward.manager)),       // files by descriptor, both ways
            Connect::new(onward.links).to(onward.manager), // as any client of the node
        ]);
        Ok(Self { chain: Chain::new(Arc::clone(&hop.name), list)?, connections, monitor })
    }
}

impl fmt::Debug for Onward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Onward(to {} as {:?})", self.manager, self.labels)
    }
}
