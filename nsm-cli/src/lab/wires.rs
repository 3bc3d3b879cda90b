//! What forwarders programmed for a Request, and how long that took.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nsm_chain::{Call, Element, Next, Order, Result};
use nsm_mechanisms::{Programmed, Wired};

/// What one forwarder did for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WireNote {
    /// The forwarder.
    pub(crate) hop: Arc<str>,
    /// How long the kernel took.
    pub(crate) took: Duration,
    /// The tunnel it shares with the forwarder before it.
    pub(crate) tunnel: Option<String>,
}

/// Notes by the client's connection id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wires(Arc<Mutex<HashMap<String, Vec<WireNote>>>>);

impl Wires {
    /// An element that notes what the forwarder of this name programs; it stands before `CrossConnect`.
    pub(super) fn note(&self, hop: &str) -> NoteWire {
        NoteWire { hop: hop.into(), wires: self.clone() }
    }

    /// What was noted for the connection with this id at the client, the endpoint's side first.
    pub(crate) fn of(&self, id: &str) -> Vec<WireNote> {
        self.lock().get(id).cloned().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<WireNote>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what is programmed for a Request; a Close passes, and so does the note: it is history.
#[derive(Debug)]
pub(super) struct NoteWire {
    hop: Arc<str>,
    wires: Wires,
}

impl Element for NoteWire {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let call = next.request(call).await?;
        let client = call.connection().path.as_ref().and_then(|path| path.segment(0));
        // A refresh that changes nothing takes nothing.
        if let (Some(wired), Some(client)) = (call.fact::<Wired>(), client)
            && wired.programmed != Programmed::Unchanged
        {
            let note = WireNote { hop: Arc::clone(&self.hop), took: wired.took, tunnel: tunnel(&call) };
            let mut all = self.wires.lock();
            let notes = all.entry(client.id.clone()).or_default();
            notes.retain(|known| known.hop != self.hop);
            notes.push(note);
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { before: &["CrossConnect"], ..Order::ANYWHERE }
    }
}

/// The tunnel by which the caller reaches us, in words.
fn tunnel(call: &Call) -> Option<String> {
    let vxlan = call.connection().mechanism.as_ref()?.as_vxlan()?;
    let (vni, src, dst) = (vxlan.vni().ok()??, vxlan.src_ip().ok()??, vxlan.dst_ip().ok()??);
    Some(format!("VXLAN {vni}, {src} to {dst}"))
}
