//! Routes for some of the traffic.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use nsm_api::IpContext;
use nsm_api::connectioncontext::PolicyRoute;
use nsm_chain::{Call, Element, Error, Next, Order, Result, Slot};

use super::{ip_context, policy_file};
use crate::files::WatchedFile;

/// Sets a Request's policy routes, and gives the client the source addresses that they name.
/// A Close passes.
///
/// It stands in an endpoint, after `Begin` and after whatever gives addresses (which may take out what it does not
/// know), before whatever puts them onto an interface.
///
/// The policies are asked for at every Request. Source addresses that this element added for earlier policies go;
/// after a restart of this process those are the ones that the Request's own policies name.
///
/// Reference: `connectioncontext/ipcontext/policyroute` of the Go SDK.
pub struct PolicyRoutes {
    policies: Policies,
    added: Slot<Vec<IpNet>>,
}

enum Policies {
    Said(Box<dyn Fn() -> Vec<PolicyRoute> + Send + Sync>),
    File(WatchedFile<Vec<PolicyRoute>>),
}

impl PolicyRoutes {
    /// These policies.
    #[must_use]
    pub fn new(policies: Vec<PolicyRoute>) -> Self {
        Self::from_fn(move || policies.clone())
    }

    /// Whatever policies hold when a Request comes.
    #[must_use]
    pub fn from_fn(policies: impl Fn() -> Vec<PolicyRoute> + Send + Sync + 'static) -> Self {
        Self { policies: Policies::Said(Box::new(policies)), added: Slot::new() }
    }

    /// The policies of a file: YAML, a list of `from`, `proto`, `dstport`, `srcport`, `routes` with `prefix` and
    /// `nexthop`. It counts as it is ([`WatchedFile`]); one that is not there has none. While it was never good Requests
    /// are refused.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { policies: Policies::File(WatchedFile::new(path, policy_file::parse)), added: Slot::new() }
    }

    async fn policies(&self) -> Result<Vec<PolicyRoute>> {
        match &self.policies {
            Policies::Said(policies) => Ok(policies()),
            Policies::File(file) => match file.current().await {
                Ok(policies) => Ok(Vec::clone(&policies)),
                Err(error) => Err(Error::precondition(format!("the policy routes of {}", file.path().display()))
                    .because(error)
                    .hint("make it YAML such as `[{proto: 6, dstport: 80}]`, or remove it")),
            },
        }
    }
}

impl Element for PolicyRoutes {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let policies = self.policies().await?;
        let sources = sources(&policies)?;
        let context = ip_context(call.connection_mut());
        let earlier = self.added.cloned(&state).unwrap_or_else(|| brought(context));
        context.src_ip_addrs.retain(|text| !text.parse().is_ok_and(|net| earlier.contains(&net)));
        let mut added = Vec::new();
        for source in sources {
            if !context.src_nets().any(|net| net == source) {
                context.src_ip_addrs.push(source.to_string());
                added.push(source);
            }
        }
        context.policies = policies;
        let call = next.request(call).await?;
        self.added.set(&state, added);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

/// The source addresses that policies name.
fn sources(policies: &[PolicyRoute]) -> Result<Vec<IpNet>> {
    let source = |(index, policy): (usize, &PolicyRoute)| {
        policy.validate().and_then(|()| policy.source()).map_err(|error| {
            Error::precondition(format!("policy route {index} of this endpoint"))
                .because(error)
                .hint("correct the endpoint's policies")
        })
    };
    let sources: Vec<Option<IpNet>> = policies.iter().enumerate().map(source).collect::<Result<_>>()?;
    Ok(sources.into_iter().flatten().collect())
}

fn brought(context: &IpContext) -> Vec<IpNet> {
    context.policies.iter().filter_map(|policy| policy.source().ok().flatten()).collect()
}

impl fmt::Debug for PolicyRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyRoutes")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use nsm_chain::Code;

    use super::super::testing::{Hop, connection, ip, texts};
    use super::*;
    use crate::files::testing::Scratch;

    fn from(source: &str) -> PolicyRoute {
        PolicyRoute { from: source.into(), proto: "6".into(), dst_port: "80".into(), ..Default::default() }
    }

    type Policies = Arc<Mutex<Vec<PolicyRoute>>>;

    fn hop(policies: &Policies) -> Hop {
        let policies = Arc::clone(policies);
        Hop::new(PolicyRoutes::from_fn(move || policies.lock().unwrap().clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn sources_come_and_go_with_the_policies_that_name_them() {
        let policies = Policies::new(Mutex::new(vec![from("172.16.2.201/24"), from(""), from("10.0.0.1/32")]));
        let hop = hop(&policies);
        let mut asked = connection("a");
        ip_context(&mut asked).src_ip_addrs = texts(&["10.0.0.1/32"]);
        let answered = hop.request(asked).await.unwrap();
        assert_eq!(ip(&answered).src_ip_addrs, ["10.0.0.1/32", "172.16.2.201/24"]);
        assert_eq!(ip(&answered).policies.len(), 3);
        assert_eq!(hop.request(answered.clone()).await.unwrap(), answered, "a refresh changes nothing");
        *policies.lock().unwrap() = vec![from("172.16.2.7")];
        let answered = hop.request(answered).await.unwrap();
        assert_eq!(ip(&answered).src_ip_addrs, ["10.0.0.1/32", "172.16.2.7/32"], "what it had not added stays");
        assert_eq!(ip(&answered).policies, [from("172.16.2.7")]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restart_earlier_sources_go_by_the_policies_brought() {
        let policies = Policies::new(Mutex::new(vec![from("172.16.2.201/24")]));
        let answered = hop(&policies).request(connection("a")).await.unwrap();
        *policies.lock().unwrap() = Vec::new();
        let answered = ip(&hop(&policies).request(answered).await.unwrap());
        assert_eq!((answered.src_ip_addrs.len(), answered.policies.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_cannot_be_read_is_named() {
        let hop = Hop::new(PolicyRoutes::new(vec![from(""), from("here")]));
        let error = hop.request(connection("a")).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(
            error.to_string().starts_with(r#"hop/PolicyRoutes: policy route 1 of this endpoint: from is "here""#),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_counts_as_it_is_and_a_broken_one_not() {
        let scratch = Scratch::holding("- proto: [");
        let hop = Hop::new(PolicyRoutes::file(scratch.file()));
        let error = hop.request(connection("a")).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        for (text, count) in [("- proto: 6\n", 1), ("- proto: [\n", 1), ("[]", 0)] {
            scratch.write(text);
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            assert_eq!(ip(&hop.request(connection("a")).await.unwrap()).policies.len(), count, "{text:?}");
        }
        scratch.remove();
    }
}
