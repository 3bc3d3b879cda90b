//! Where a client runs.

use std::collections::BTreeMap;

use nsm_api::labels;
use nsm_chain::{Call, Element, Next, Result};

/// Labels a Request with where its client runs: node, pod, cluster. A label that is there stays as it is.
/// A Close passes.
///
/// It stands in a client, and in the manager for clients that do not say it themselves, before endpoints are chosen:
/// rules of network services compare with `{{.nodeName}}`.
///
/// Reference: `common/clientinfo` of the Go SDK.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientInfo(BTreeMap<String, String>);

impl ClientInfo {
    /// These labels.
    #[must_use]
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// `nodeName`, `podName` and `clusterName`, as the variables `NODE_NAME`, `POD_NAME` and `CLUSTER_NAME` say. What is
    /// not set, empty or not Unicode gives no label.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|variable| std::env::var(variable).ok())
    }

    fn from_variables(value: impl Fn(&str) -> Option<String>) -> Self {
        let known =
            [(labels::NODE_NAME, "NODE_NAME"), (labels::POD_NAME, "POD_NAME"), (labels::CLUSTER_NAME, "CLUSTER_NAME")];
        let set = known.into_iter().filter_map(|(label, variable)| Some((label.to_owned(), value(variable)?)));
        Self(set.filter(|(_, value)| !value.is_empty()).collect())
    }
}

impl Element for ClientInfo {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let absent: Vec<_> =
            self.0.iter().filter(|(label, _)| !call.connection().labels.contains_key(*label)).collect();
        if !absent.is_empty() {
            let absent = absent.into_iter().map(|(label, value)| (label.clone(), value.clone()));
            call.connection_mut().labels.extend(absent);
        }
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Hop, connection};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_absent_labels_are_added() {
        let variables = |name: &str| match name {
            "NODE_NAME" => Some("node-1".to_owned()),
            "POD_NAME" => Some("pod-1".to_owned()),
            _ => Some(String::new()),
        };
        let hop = Hop::new(ClientInfo::from_variables(variables));
        let mut asked = connection("a");
        asked.labels = [("podName".into(), "mine".into()), ("app".into(), "web".into())].into();
        let labels = hop.request(asked).await.unwrap().labels;
        let expected = [("app", "web"), ("nodeName", "node-1"), ("podName", "mine")];
        assert_eq!(labels, expected.map(|(label, value)| (label.to_owned(), value.to_owned())).into());
    }
}
