use std::sync::Arc;

use nsm_api::Mechanism;
use nsm_chain::{Call, Element, Next, Order, Result, Slot};

use super::PacketProcessor;
use super::attached::{Attached, Target};
use crate::Workload;

/// Offers shared memory, and has a [`PacketProcessor`] handle the packets of connections that take it.
///
/// *Request*: every MEMIF preference gets this workload's network namespace, for endpoints that listen at a name there;
/// without a MEMIF preference one is added. When the answer chose MEMIF, the endpoint's socket is connected to, as memif's
/// client, in IP or Ethernet mode as the payload says; only then the Request has succeeded. A refresh that changes nothing
/// leaves it alone; another endpoint is connected to in place of the former. *Close*: the interface is closed.
///
/// It stands in a client's chain, behind whatever adds preferences and before what sends descriptors.
///
/// ```
/// use std::sync::Arc;
/// use nsm_api::Connection;
/// use nsm_memif::Memif;
/// use nsm_mechanisms::MemifOffer;
///
/// let offer = MemifOffer::new(|mut memif: Memif, connection: Arc<Connection>| async move {
///     println!("{} is up, with {:?}", connection.id, memif.peer());
///     while memif.ready().await.is_ok() {
///         let _closed = memif.recv_burst(64, |packet| println!("{} octets", packet.len()));
///     }
/// });
/// ```
#[derive(Debug)]
pub struct MemifOffer<P> {
    processor: Arc<P>,
    workload: Workload,
    attached: Slot<Arc<Attached>>,
}

impl<P: PacketProcessor> MemifOffer<P> {
    /// For this process.
    pub fn new(processor: P) -> Self {
        Self { processor: Arc::new(processor), workload: Workload::own(), attached: Slot::new() }
    }

    /// Connects to what the answer names, unless that is so already; lets go of what it no longer names.
    async fn attach(&self, call: &Call) -> Result<()> {
        let (state, connection) = (call.state()?, call.connection());
        let chosen = connection.mechanism.as_ref().filter(|mechanism| mechanism.as_memif().is_some());
        let Some(mechanism) = chosen else {
            self.attached.take(state);
            return Ok(());
        };
        let target = Target::of(mechanism, &connection.payload)?;
        if self.attached.cloned(state).is_some_and(|attached| attached.is_to(&target)) {
            return Ok(());
        }
        let attaching = Attached::new(target, Arc::clone(&self.processor), connection.clone());
        let attached = call.patiently(attaching).await??;
        self.attached.set(state, Arc::new(attached));
        Ok(())
    }
}

impl<P: PacketProcessor> Element for MemifOffer<P> {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let first = call.is_first();
        let preferences = call.extra_mut();
        if !preferences.iter().any(|mechanism| mechanism.as_memif().is_some()) {
            preferences.push(Mechanism::memif());
        }
        for mechanism in preferences {
            name(mechanism, &self.workload);
        }
        // What was chosen names the endpoint's file, by a path of this life or an earlier one; the answer names it again.
        if let Some(mut mechanism) = call.connection().mechanism.clone() {
            name(&mut mechanism, &self.workload);
            call.connection_mut().mechanism = Some(mechanism);
        }
        let call = next.request(call).await?;
        match self.attach(&call).await {
            Ok(()) => Ok(call),
            Err(error) if first => Err(next.undo(call, error).await),
            Err(error) => Err(error),
        }
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if let Ok(state) = call.state() {
            self.attached.take(state);
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order { after: &[], before: &["SendFd", "Connect"], last: false }
    }
}

/// Names our network namespace in a MEMIF mechanism.
fn name(mechanism: &mut Mechanism, workload: &Workload) {
    let socket = mechanism.as_memif().map(|memif| memif.socket_file().unwrap_or_default().to_owned());
    if let (Some(socket), Some(mut memif)) = (socket, mechanism.as_memif_mut()) {
        memif.set_abstract_socket(workload.url(), &socket);
    }
}
