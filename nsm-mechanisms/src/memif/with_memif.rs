use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nsm_api::mechanism::{MEMIF, NOOP};
use nsm_api::{Connection, Mechanism};
use nsm_chain::{Error, Result};

use crate::{Census, Class, Dataplane, Mended, Metered, Programmed, Reach, Reconciled, Traffic, Wire};

/// A data plane that also joins MEMIF to MEMIF, and NOOP to NOOP, on one node; everything else it leaves to the one it is made of.
///
/// It only tells the caller where the endpoint listens: the two talk to each other directly, and no packet is copied on the
/// way. So nothing of such a wire is in the kernel or in this process, and it outlives the forwarder. MEMIF at one side only
/// is for the other data plane: [`Linux`](crate::Linux) copies the packets. One that does not
/// ([`joins`](Dataplane::joins)) has it refused, with the list of what could be offered. Of NOOP nobody is told anything: the
/// two ends have addresses from the connection, and packets find their way without the mesh.
#[derive(Debug, Clone)]
pub struct WithMemif<D> {
    other: D,
    /// Wires of MEMIF and of NOOP by connection.
    wires: Arc<Mutex<HashMap<Arc<str>, Wire>>>,
}

impl<D: Dataplane> WithMemif<D> {
    /// Over this data plane.
    #[must_use]
    pub fn over(other: D) -> Self {
        Self { other, wires: Arc::default() }
    }

    /// The data plane for everything else.
    #[must_use]
    pub fn other(&self) -> &D {
        &self.other
    }

    /// How many wires there are that the two ends have between them.
    #[must_use]
    pub fn wires(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Arc<str>, Wire>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Dataplane> Dataplane for WithMemif<D> {
    /// `None` for MEMIF and NOOP.
    type Lease = Option<D::Lease>;

    fn accepts(&self, payload: &str) -> Vec<&'static str> {
        let mut accepts = self.other.accepts(payload);
        accepts.extend([MEMIF, NOOP]);
        accepts
    }

    fn offers(&self, id: &str, class: Class, payload: &str) -> Vec<Mechanism> {
        let mut offers = self.other.offers(id, class, payload);
        if class == Class::Local {
            offers.extend([Mechanism::memif(), Mechanism::noop()]);
        }
        offers
    }

    fn accept(&self, id: &str, mechanism: &mut Mechanism, held: Option<&Self::Lease>) -> Result<Self::Lease> {
        if mechanism.is(NOOP) {
            return Ok(None);
        }
        match mechanism.as_memif() {
            Some(memif) => {
                let file = memif.file();
                file.map_err(|error| Error::invalid("the MEMIF mechanism cannot be used").because(error))?;
                Ok(None)
            }
            None => self.other.accept(id, mechanism, held.and_then(Option::as_ref)).map(Some),
        }
    }

    fn joins(&self, caller: &Mechanism, next: &Mechanism) -> bool {
        by_themselves(caller, next) || (!caller.is(NOOP) && !next.is(NOOP) && self.other.joins(caller, next))
    }

    fn complete(&self, connection: &Connection, caller: &mut Mechanism, next: &mut Mechanism) -> Result<()> {
        if caller.is(MEMIF) && next.is(MEMIF) {
            caller.parameters.clone_from(&next.parameters);
            return Ok(());
        }
        self.other.complete(connection, caller, next)
    }

    async fn connect(&self, wire: &Wire) -> Result<Programmed> {
        if !by_themselves(&wire.caller, &wire.next) {
            if !self.joins(&wire.caller, &wire.next) {
                return Err(Error::unsupported(format!(
                    "no wire leads from {} to {}",
                    wire.caller.r#type, wire.next.r#type
                )));
            }
            let programmed = self.other.connect(wire).await?;
            self.table().remove(&wire.id);
            return Ok(programmed);
        }
        if wire.next.as_memif().is_some_and(|memif| !matches!(memif.file(), Ok(Some(_)))) {
            return Err(Error::invalid("the next hop's MEMIF mechanism names no socket")
                .hint("its endpoint needs a MemifAccept in its Mechanisms"));
        }
        let is_new = !self.table().contains_key(&wire.id);
        if is_new {
            // It may have been of another mechanism.
            self.other.disconnect(&wire.id).await?;
        }
        Ok(match self.table().insert(Arc::clone(&wire.id), wire.clone()) {
            Some(before) if before.next == wire.next => Programmed::Unchanged,
            Some(_) => Programmed::Moved,
            None => Programmed::Made,
        })
    }

    async fn disconnect(&self, id: &str) -> Result<()> {
        self.table().remove(id);
        self.other.disconnect(id).await
    }
}

/// Whether the two ends have it between them, and there is nothing for a forwarder to make.
fn by_themselves(caller: &Mechanism, next: &Mechanism) -> bool {
    [MEMIF, NOOP].iter().any(|kind| caller.is(kind) && next.is(kind))
}

/// Nothing of such a wire can be damaged from outside but its ends, which notice it themselves.
impl<D: Reconciled> Reconciled for WithMemif<D> {
    type Stray = D::Stray;

    async fn census(&self, reach: Reach) -> Census<D::Stray> {
        self.other.census(reach).await
    }

    async fn remove(&self, stray: &D::Stray) -> Result<bool> {
        self.other.remove(stray).await
    }

    async fn mend(&self, id: &str) -> Result<Mended> {
        if self.table().contains_key(id) {
            return Ok(Mended::Whole);
        }
        self.other.mend(id).await
    }

    async fn disturbed(&self) -> Vec<Arc<str>> {
        self.other.disturbed().await
    }
}

/// Packets of a MEMIF wire pass nobody who could count them.
impl<D: Metered> Metered for WithMemif<D> {
    async fn traffic(&self, id: &str) -> Option<Traffic> {
        self.other.traffic(id).await
    }

    async fn all_traffic(&self) -> HashMap<Arc<str>, Traffic> {
        self.other.all_traffic().await
    }

    fn strange(&self) -> BTreeMap<&'static str, u64> {
        self.other.strange()
    }
}
