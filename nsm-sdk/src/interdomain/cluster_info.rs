use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nsm_chain::{Call, Element, Error, Next, Result};

use crate::files::{WatchedFile, texts};
use crate::registry::Endpoints;

/// Labels what leaves the cluster, and what comes in, with the cluster's labels.
///
/// *Request*: sets them on the connection. *Register*: sets them on each service the endpoint labels. Both in place of
/// what was there. *Close*, *Unregister*, *Find* pass.
///
/// The labels are those of a YAML file, one value for each, which counts as it is ([`WatchedFile`]); one that is not
/// there says none. It stands in a manager proxy, before what asks the next hop.
#[derive(Debug, Clone)]
pub struct ClusterInfo(Arc<WatchedFile<BTreeMap<String, String>>>);

impl ClusterInfo {
    /// Where the reference's manager proxy looks for it.
    pub const DEFAULT_PATH: &str = "/etc/clusterinfo/config.yaml";

    /// The labels of this file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(WatchedFile::new(path, texts)))
    }

    async fn labels(&self) -> Result<Arc<BTreeMap<String, String>>> {
        self.0.current().await.map_err(|error| {
            Error::precondition(format!("the cluster's labels in {}", self.0.path().display()))
                .because(error)
                .hint("make it YAML such as `clusterName: one`, or remove it")
        })
    }
}

fn set(labels: &mut BTreeMap<String, String>, cluster: &BTreeMap<String, String>) {
    labels.extend(cluster.iter().map(|(key, value)| (key.clone(), value.clone())));
}

impl Element for ClusterInfo {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let cluster = self.labels().await?;
        if !cluster.is_empty() {
            set(&mut call.body_mut().labels, &cluster);
        }
        next.request(call).await
    }
}

impl Element<Endpoints> for ClusterInfo {
    async fn request(&self, mut call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        let cluster = self.labels().await?;
        if !cluster.is_empty() && !call.body().network_service_labels.is_empty() {
            for service in call.body_mut().network_service_labels.values_mut() {
                set(&mut service.labels, &cluster);
            }
        }
        next.request(call).await
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::Connection;
    use nsm_chain::{Chain, Node, elements};

    use super::*;
    use crate::files::testing::Scratch;
    use crate::registry::testing::{nse, register};

    #[tokio::test(start_paused = true)]
    async fn connections_and_endpoints_learn_the_cluster() {
        let scratch = Scratch::holding("clusterName: one\ncity: delft\n");
        let info = ClusterInfo::new(scratch.file());
        let connections = Chain::<nsm_chain::Service>::new("proxy", elements![info.clone()]).unwrap();
        let asked = Connection { labels: [("clusterName".into(), "none".into())].into(), ..Default::default() };
        let answered = connections.request(Call::new(asked)).await.unwrap().into_body();
        let cluster: BTreeMap<String, String> =
            [("clusterName".into(), "one".into()), ("city".into(), "delft".into())].into();
        assert_eq!(answered.labels, cluster);

        let endpoints = Chain::<Endpoints>::new("proxy", vec![Node::new(info)]).unwrap();
        let mut labelled = nse("nse", &["a", "b"]);
        labelled.network_service_labels.insert("a".into(), Default::default());
        let registered = register(&endpoints, labelled).await.unwrap();
        assert_eq!(registered.network_service_labels["a"].labels, cluster);
        assert_eq!(registered.network_service_labels.len(), 1);
    }
}
