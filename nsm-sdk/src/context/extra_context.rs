//! Fixed entries of the extra context.

use std::collections::BTreeMap;

use nsm_chain::{Call, Element, Next, Result};

use super::context;

/// Sets fixed entries of a Request's extra context; other entries stay.
/// A Close passes.
///
/// It stands in an endpoint, anywhere before whatever reads them.
///
/// Reference: `common/setextracontext` of the Go SDK.
#[derive(Debug, Clone, Default)]
pub struct ExtraContext(BTreeMap<String, String>);

impl ExtraContext {
    /// These entries.
    #[must_use]
    pub fn new(entries: BTreeMap<String, String>) -> Self {
        Self(entries)
    }
}

impl Element for ExtraContext {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let entries = self.0.iter().map(|(key, value)| (key.clone(), value.clone()));
        context(call.connection_mut()).extra_context.extend(entries);
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Hop, connection};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fixed_entries_win_and_others_stay() {
        let entries = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let hop = Hop::new(ExtraContext::new(entries(&[("a", "mine"), ("b", "mine")])));
        let mut asked = connection("a");
        context(&mut asked).extra_context = entries(&[("a", "theirs"), ("c", "theirs")]);
        let answered = hop.request(asked).await.unwrap();
        assert_eq!(answered.context.unwrap().extra_context, entries(&[("a", "mine"), ("b", "mine"), ("c", "theirs")]));
    }
}
