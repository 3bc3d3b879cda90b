use std::sync::Arc;

use nsm_chain::{Call, Element, Error, EventStream, Next, Order, Result, Watch};

use super::Endpoints;

/// Lets a manager that keeps its endpoints itself be asked as if they were registered elsewhere under its URL.
///
/// *Register*: an endpoint without a URL is refused. *Unregister*: passes. *Find*: a pattern with the manager's URL, or
/// a part of it, asks for the endpoints behind this manager; that is all there are, under their own URLs.
///
/// It stands in the place of [`LocalBypass`](super::LocalBypass), right before the store.
#[derive(Debug, Clone)]
pub struct OneNode {
    url: Arc<str>,
}

impl OneNode {
    /// For the manager that others reach under `url`.
    #[must_use]
    pub fn new(url: impl Into<Arc<str>>) -> Self {
        Self { url: url.into() }
    }
}

impl Element<Endpoints> for OneNode {
    async fn request(&self, call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
        if call.body().url.is_empty() {
            return Err(without_url(&call.body().name));
        }
        next.request(call).await
    }

    async fn monitor(&self, mut watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        if let Some(pattern) = &mut watch.query.network_service_endpoint
            && self.url.contains(&pattern.url)
        {
            pattern.url.clear();
        }
        next.monitor(watch).await
    }

    fn order(&self) -> Order {
        Order::ANYWHERE
    }
}

pub(super) fn without_url(name: &str) -> Error {
    Error::invalid(format!("the endpoint {name:?} has no URL")).hint("set the URL it listens on")
}

#[cfg(test)]
mod tests {
    use nsm_chain::{Chain, Code, elements};

    use super::*;
    use crate::registry::Memory;
    use crate::registry::testing::{Nse, names, nse, register};

    #[tokio::test]
    async fn the_managers_url_stands_for_all_that_is_behind_it() {
        let chain = Chain::new("nsmgr", elements![OneNode::new("tcp://10.0.0.1:5001"), Memory::default()]).unwrap();
        register(&chain, nse("nse-1", &[])).await.unwrap();
        let by_url = |url: &str| Nse { url: url.into(), ..Default::default() };
        for (url, found) in [("tcp://10.0.0.1:5001", 1), ("10.0.0.1", 1), ("unix:///nse", 1), ("tcp://10.0.0.2", 0)] {
            assert_eq!(names(&chain, by_url(url)).await.len(), found, "{url}");
        }
        let nowhere = Nse { name: "nse-2".into(), ..Default::default() };
        assert_eq!(register(&chain, nowhere).await.unwrap_err().code(), Code::InvalidArgument);
    }
}
