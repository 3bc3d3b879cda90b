use std::collections::BTreeMap;

use nsm_api::labels;
use nsm_chain::{Call, Element, Next, Result};

use super::Endpoints;

/// Labels endpoints with where they run: node, pod, cluster.
///
/// *Register*: adds the labels to each service the endpoint labels, except those it sets itself.
/// *Unregister*, *Find*: pass. It stands before the store, so that rules which compare with `{{.nodeName}}`
/// see them.
#[derive(Debug, Clone, Default)]
pub struct ClientInfo(BTreeMap<String, String>);

impl ClientInfo {
    /// These labels.
    #[must_use]
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self(labels)
    }

    /// `nodeName`, `podName` and `clusterName` as the variables `NODE_NAME`, `POD_NAME` and `CLUSTER_NAME`
    /// say; what is not set or empty gives no label.
    #[must_use]
    pub fn from_env() -> Self {
        let known =
            [(labels::NODE_NAME, "NODE_NAME"), (labels::POD_NAME, "POD_NAME"), (labels::CLUSTER_NAME, "CLUSTER_NAME")];
        let read = |(label, variable): (&str, &str)| {
            let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
            Some((label.to_owned(), value))
        };
        Self(known.into_iter().filter_map(read).collect())
    }
}

impl Element<Endpoints> for ClientInfo {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        if !self.0.is_empty() && !call.body().network_service_labels.is_empty() {
            for service in call.body_mut().network_service_labels.values_mut() {
                for (label, value) in &self.0 {
                    service.labels.entry(label.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::registry::{NetworkServiceEndpoint, NetworkServiceLabels};
    use nsm_chain::{Chain, elements};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[tokio::test]
    async fn labelled_services_learn_the_node_and_keep_what_they_say_themselves() {
        let info = ClientInfo::new(labels(&[("nodeName", "node-1"), ("podName", "pod-1")]));
        let chain = Chain::new("nsmgr", elements![info]).unwrap();
        let own = NetworkServiceLabels { labels: labels(&[("podName", "mine")]) };
        let nse = NetworkServiceEndpoint {
            name: "nse".into(),
            network_service_names: vec!["a".into(), "b".into()],
            network_service_labels: [("a".to_owned(), own)].into(),
            ..Default::default()
        };
        let labelled = chain.request(Call::new(nse)).await.unwrap().into_body().network_service_labels;
        assert_eq!(labelled["a"].labels, labels(&[("nodeName", "node-1"), ("podName", "mine")]));
        assert_eq!(labelled.len(), 1);
    }
}
