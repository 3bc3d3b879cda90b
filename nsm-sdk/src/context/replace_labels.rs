//! Other labels for the way on.

use std::collections::BTreeMap;

use nsm_chain::{Call, Element, Next, Result};

/// Sends a Request on with fixed labels instead of the caller's, and answers with the caller's.
/// To a Close it does the same.
///
/// It stands in an endpoint that is a client again, before endpoints are chosen: by its labels the next Request finds
/// another endpoint of the same service. See [`Passthrough`](super::Passthrough).
///
/// Reference: `passthrough/replacelabels` of the Go SDK.
#[derive(Debug, Clone, Default)]
pub struct ReplaceLabels(BTreeMap<String, String>);

impl ReplaceLabels {
    /// These labels.
    #[must_use]
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// Puts the fixed labels in, and hands back the caller's.
    pub(super) fn replace(&self, call: &mut Call) -> BTreeMap<String, String> {
        std::mem::replace(&mut call.connection_mut().labels, self.0.clone())
    }
}

impl Element for ReplaceLabels {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let callers = self.replace(&mut call);
        let mut call = next.request(call).await?;
        call.connection_mut().labels = callers;
        Ok(call)
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let callers = self.replace(&mut call);
        let mut call = next.close(call).await?;
        call.connection_mut().labels = callers;
        Ok(call)
    }
}
