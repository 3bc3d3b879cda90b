use nsm_chain::{Call, Element, Next, NextHop, Order, Result};

use crate::Class;

/// Sends only those mechanism preferences that can reach the next hop.
///
/// *Request*: to a hop on this node go the preferences of class `LOCAL`, to any other those of class `REMOTE`; where the
/// next hop is not known, all. The caller gets all of them back, since the next Request may go elsewhere.
/// *Close* passes. It stands behind whatever chose the next hop ([`NextHop`]).
#[derive(Debug, Clone, Copy, Default)]
pub struct FilterMechanisms;

impl Element for FilterMechanisms {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let Some(class) = call.fact::<NextHop>().map(Class::of) else {
            return next.request(call).await;
        };
        let all = call.preferences().to_vec();
        call.extra_mut().retain(|mechanism| mechanism.cls == class.as_str());
        let mut call = next.request(call).await?;
        *call.extra_mut() = all;
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &[], before: &["Connect"], last: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::{Connection, Mechanism};
    use nsm_chain::{Chain, OwnedNext, elements, from_fn};
    use std::sync::{Arc, Mutex};

    async fn sent(hop: Option<&str>) -> Vec<String> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let last = from_fn(move |call: Call, next: OwnedNext| {
            *note.lock().unwrap() = call.preferences().iter().map(|m| m.r#type.clone()).collect();
            async move { next.request(call).await }
        });
        let chain = Chain::new("fwd", elements![FilterMechanisms, last]).unwrap();
        let all = vec![Mechanism::kernel(), Mechanism::vxlan(), Mechanism::memif(), Mechanism::wireguard()];
        let mut call = Call::request(Connection::default(), all.clone());
        if let Some(url) = hop {
            call.set_fact(NextHop(url.into()));
        }
        let call = chain.request(call).await.unwrap();
        assert_eq!(call.preferences(), all);
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test]
    async fn the_class_follows_from_where_the_next_hop_is() {
        assert_eq!(sent(Some("unix:///run/nse.sock")).await, ["KERNEL", "MEMIF"]);
        assert_eq!(sent(Some("inode://4/7")).await, ["KERNEL", "MEMIF"]);
        assert_eq!(sent(Some("tcp://10.0.0.1:5001")).await, ["VXLAN", "WIREGUARD"]);
        assert_eq!(sent(None).await.len(), 4);
    }
}
