use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nsm_api::registry::NetworkServiceEndpoint;
use nsm_chain::{Call, Candidates, Code, Element, Error, Next, NextHop, Order, Result, Slot};
use tokio::time::Instant;

use super::share;

/// Spreads connections over the endpoints that may serve them.
///
/// *Request*: of the [`Candidates`] it starts with the one whose turn it is, as often as its route's weight says, and
/// goes on to the others, each once, until one accepts. The accepted one's name stays in the connection, so that
/// refreshes go there too. If none accepts, the error keeps each one's cause. *Close* passes.
///
/// An endpoint that did not answer is tried after all others for half a minute: it is dead, and the registry will know
/// when its registration expires. Only the one that the connection had comes later still, when another one is wanted: that
/// one is known not to do now. While there are others left none gets more than its share of the caller's time.
///
/// It stands behind `Discover`.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: AtomicU64,
    silent: Mutex<HashMap<String, Instant>>,
    had: Slot<Arc<str>>,
}

/// How long an endpoint that did not answer is tried last.
const SILENT: Duration = Duration::from_secs(30);

/// The position whose turn it is, by weights.
fn start(candidates: &Candidates, turn: u64) -> usize {
    let total: u64 = candidates.endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut left = turn % total.max(1);
    for (at, (_, weight)) in candidates.endpoints.iter().enumerate() {
        match left.checked_sub(u64::from(*weight)) {
            Some(rest) => left = rest,
            None => return at,
        }
    }
    0
}

impl RoundRobin {
    fn silent(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All candidates, in the order in which they are tried.
    fn turns<'a>(&self, candidates: &'a Candidates, had: Option<&str>) -> Vec<&'a NetworkServiceEndpoint> {
        let count = candidates.endpoints.len();
        let start = start(candidates, self.turn.fetch_add(1, Ordering::Relaxed));
        let mut turns: Vec<_> = (0..count).map(|at| &*candidates.endpoints[(start + at) % count].0).collect();
        let silent = self.silent();
        turns.sort_by_cached_key(|endpoint| {
            let is_silent = silent.get(&endpoint.name).is_some_and(|since| since.elapsed() < SILENT);
            (had == Some(&*endpoint.name), is_silent)
        });
        turns
    }

    /// Keeps in mind whether an endpoint answered.
    fn note(&self, endpoint: &str, answered: bool) {
        let mut silent = self.silent();
        if answered {
            silent.remove(endpoint);
        } else {
            silent.retain(|_, since| since.elapsed() < SILENT);
            silent.insert(endpoint.to_owned(), Instant::now());
        }
    }
}

fn choose(call: &mut Call, endpoint: &NetworkServiceEndpoint) {
    call.body_mut().network_service_endpoint_name.clone_from(&endpoint.name);
    call.set_fact(NextHop(endpoint.url.as_str().into()));
}

/// Whether an error means that the endpoint itself said nothing.
fn is_silence(error: &Error, endpoint: &str) -> bool {
    matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded) && error.hop() != Some(endpoint)
}

impl Element for RoundRobin {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let Some(candidates) = call.fact::<Candidates>().cloned() else {
            return next.request(call).await;
        };
        if call.fact::<NextHop>().is_some() {
            return next.request(call).await;
        }
        call.clear_fact::<Candidates>();
        let had = call.slot(&self.had);
        let turns = self.turns(&candidates, had.as_deref());
        let count = turns.len();
        let mut causes = Vec::new();
        for (at, endpoint) in turns.into_iter().enumerate() {
            let mut attempt = call.clone();
            choose(&mut attempt, endpoint);
            match next.request(share(attempt, count - at)).await {
                Ok(call) => {
                    self.note(&endpoint.name, true);
                    if let Ok(state) = call.state() {
                        self.had.set(state, endpoint.name.as_str().into());
                    }
                    return Ok(call);
                }
                Err(error) => {
                    tracing::debug!(endpoint = endpoint.name, %error, "this endpoint did not accept");
                    if is_silence(&error, &endpoint.name) {
                        self.note(&endpoint.name, false);
                    }
                    causes.push(error);
                }
            }
            // Whoever gave up is not asked to wait for the others.
            if call.cancellation().is_cancelled() {
                break;
            }
        }
        if causes.len() == 1
            && let Some(error) = causes.pop()
        {
            return Err(error);
        }
        let service = &candidates.service.name;
        Err(Error::all_failed(format!("none of {count} endpoints of {service} accepted"), causes))
    }

    fn order(&self) -> Order {
        Order::after(&["Discover"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::Connection;
    use nsm_api::registry::NetworkService;
    use nsm_chain::{Begin, Chain, OwnedNext, elements, from_fn};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    struct Discover(Vec<(&'static str, u32)>);

    impl Element for Discover {
        async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
            let endpoint = |(name, weight): &(&str, u32)| {
                let endpoint =
                    NetworkServiceEndpoint { name: (*name).into(), url: format!("mem://{name}"), ..Default::default() };
                (Arc::new(endpoint), *weight)
            };
            let service = Arc::new(NetworkService { name: "vpn".into(), ..Default::default() });
            call.set_fact(Candidates { service, endpoints: self.0.iter().map(endpoint).collect() });
            next.request(call).await
        }
    }

    type Asked = Arc<Mutex<Vec<String>>>;

    fn chain(all: &[(&'static str, u32)], dead: &'static [&'static str]) -> (Chain, Asked) {
        let asked = Asked::default();
        let note = Arc::clone(&asked);
        let far = from_fn(move |call: Call, next: OwnedNext| {
            let name = call.body().network_service_endpoint_name.clone();
            note.lock().unwrap().push(name.clone());
            async move {
                if dead.contains(&&*name) {
                    Err(Error::unavailable(format!("{name} is dead")))
                } else {
                    next.request(call).await
                }
            }
        });
        (Chain::new("fwd", elements![Discover(all.to_vec()), RoundRobin::default(), far]).unwrap(), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_did_not_answer_is_tried_last_for_a_while() {
        let (chain, asked) = chain(&[("a", 1), ("b", 1)], &["a"]);
        for _ in 0..10 {
            chain.request(Call::default()).await.unwrap();
        }
        let dead = || asked.lock().unwrap().iter().filter(|name| **name == "a").count();
        assert_eq!(dead(), 1);
        tokio::time::sleep(SILENT).await;
        for _ in 0..10 {
            chain.request(Call::default()).await.unwrap();
        }
        assert_eq!(dead(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_silent_is_tried_before_the_one_that_is_to_be_left() {
        let dead = Arc::new(Mutex::new("a"));
        let is_dead = Arc::clone(&dead);
        let far = from_fn(move |call: Call, next: OwnedNext| {
            let dead = call.body().network_service_endpoint_name == *is_dead.lock().unwrap();
            async move { if dead { Err(Error::unavailable("dead")) } else { next.request(call).await } }
        });
        let elements = elements![Begin::default(), Discover(vec![("a", 1), ("b", 1)]), RoundRobin::default(), far];
        let chain = Chain::new("fwd", elements).unwrap();
        let mut got = Vec::new();
        for dies in ["a", "b", "a"] {
            *dead.lock().unwrap() = dies;
            let asked = Call::new(Connection { id: "c".into(), ..Default::default() });
            got.push(chain.request(asked).await.unwrap().into_body().network_service_endpoint_name);
        }
        assert_eq!(got, ["b", "a", "b"]);
    }

    #[tokio::test]
    async fn each_candidate_is_tried_once_and_every_cause_is_kept() {
        let (chain, asked) = chain(&[("a", 1), ("b", 1), ("c", 1)], &["a", "b", "c"]);
        let error = chain.request(Call::default()).await.unwrap_err();
        assert_eq!(error.causes().len(), 3);
        let mut names = asked.lock().unwrap().clone();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn weights_share_the_connections() {
        let (chain, _) = chain(&[("a", 3), ("b", 1)], &[]);
        let mut shares = BTreeMap::new();
        for _ in 0..40 {
            let call = chain.request(Call::default()).await.unwrap();
            *shares.entry(call.body().network_service_endpoint_name.clone()).or_insert(0) += 1;
        }
        assert_eq!(shares, BTreeMap::from([("a".into(), 30), ("b".into(), 10)]));
    }
}
