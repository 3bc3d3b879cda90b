use nsm_chain::{Call, Element, Error, EventStream, Next, Node, Record, Registry, Result, Watch};

use super::restore;

/// Sends names of other domains to the proxy, and all others on.
///
/// *Register*, *Unregister*, *Find*: a record, or a pattern, whose name or any of whose services says a domain
/// (`vpn@example.org`) goes to the proxy, others go on. Without a proxy such a name is refused. This domain's own name
/// goes all the way round as well, and comes back without it. What was registered is answered under the names it was asked
/// with, whatever the other registry calls it: it is refreshed under these.
///
/// It stands in a registry, before the store, and for endpoints after `Expire`: what is registered in other domains ends
/// here too.
#[derive(Debug)]
pub struct Interdomain<R: Record> {
    proxy: Option<Node<Registry<R>>>,
}

impl<R: Record> Interdomain<R> {
    /// Other domains are reached by whatever this element leads to; none: they are not reached.
    #[must_use]
    pub fn by(proxy: Option<Node<Registry<R>>>) -> Self {
        Self { proxy }
    }

    fn proxy(&self, record: &R) -> Result<&Node<Registry<R>>> {
        self.proxy.as_ref().ok_or_else(|| {
            let (what, name) = (R::WHAT, record.full_name());
            Error::precondition(format!("the {what} {name:?} is of another domain, and this registry has no proxy"))
                .hint("give the registry the URL of its domain's manager proxy, or correct the name")
        })
    }
}

impl<R: Record> Element<Registry<R>> for Interdomain<R> {
    async fn request(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        match call.body().domain() {
            Some(_) => {
                let asked = call.share();
                let mut call = self.proxy(call.body())?.request(call).await?;
                if (call.body().name(), call.body().services()) != (asked.name(), asked.services()) {
                    restore(call.body_mut(), &asked);
                }
                Ok(call)
            }
            None => next.request(call).await,
        }
    }

    async fn close(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        match call.body().domain() {
            Some(_) => self.proxy(call.body())?.close(call).await,
            None => next.close(call).await,
        }
    }

    async fn monitor(
        &self,
        watch: Watch<Registry<R>>,
        next: Next<'_, Registry<R>>,
    ) -> Result<EventStream<Registry<R>>> {
        match R::pattern(&watch.query).filter(|pattern| pattern.domain().is_some()) {
            Some(pattern) => self.proxy(pattern)?.monitor(watch).await,
            None => next.monitor(watch).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use nsm_chain::{Chain, Code, elements};

    use super::*;
    use crate::registry::testing::{Probe, find, named, nse, of_service, register};
    use crate::registry::{Endpoints, Memory};
    use std::sync::Arc;

    fn registry(proxy: Option<Node<Endpoints>>) -> (Chain<Endpoints>, Arc<Probe>) {
        let here = Arc::new(Probe::default());
        let chain = elements![Interdomain::by(proxy), Arc::clone(&here), Memory::default()];
        (Chain::new("registry", chain).unwrap(), here)
    }

    #[tokio::test]
    async fn names_with_a_domain_go_to_the_proxy_and_all_others_stay() {
        let there = Arc::new(Probe::default());
        let (registry, here) = registry(Some(Node::new(Arc::clone(&there))));
        register(&registry, nse("nse", &["vpn"])).await.unwrap();
        find(&registry, named("nse")).await;
        assert_eq!((here.take().join(" "), there.take().join(" ")), ("+nse ?".into(), String::new()));
        register(&registry, nse("nse@b", &["vpn"])).await.unwrap();
        register(&registry, nse("nse", &["dns", "vpn@b"])).await.unwrap();
        registry.close(Call::new(nse("nse@b", &["vpn"]))).await.unwrap();
        find(&registry, of_service("vpn@b")).await;
        assert_eq!((here.take().join(" "), there.take().join(" ")), (String::new(), "+nse@b +nse -nse@b ?".into()));
    }

    #[tokio::test]
    async fn an_answer_has_the_names_asked_with() {
        let elsewhere =
            nsm_chain::from_fn(|mut call: Call<Endpoints>, _: nsm_chain::OwnedNext<Endpoints>| async move {
                call.body_mut().rename(|name| nsm_api::names::target(name).to_owned());
                Ok(call)
            });
        let (registry, _) = registry(Some(Node::new(elsewhere)));
        for asked in [nse("nse@b", &["vpn"]), nse("nse", &["dns", "vpn@b"])] {
            assert_eq!(register(&registry, asked.clone()).await.unwrap(), asked);
        }
    }

    #[tokio::test]
    async fn without_a_proxy_other_domains_are_refused() {
        let (registry, here) = registry(None);
        let error = register(&registry, nse("nse", &["vpn@b"])).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains(r#"the endpoint "nse@b" is of another domain"#), "{error}");
        assert!(here.take().is_empty());
    }
}
