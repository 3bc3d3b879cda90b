//! What the tests of this module share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use nsm_api::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_chain::{
    Call, Chain, Change, Element, Error, EventStream, Next, Protocol, Record, Registry, Result, Token, Tokens, Watch,
    time,
};
use tokio::sync::Notify;

use super::{Endpoints, Entry, Journal, Kept, Then};
use crate::identity::HmacTokens;

pub(crate) type Nse = NetworkServiceEndpoint;

pub(crate) fn nse(name: &str, services: &[&str]) -> Nse {
    Nse {
        name: name.into(),
        network_service_names: services.iter().map(|service| (*service).into()).collect(),
        url: format!("unix:///{name}"),
        ..Default::default()
    }
}

pub(crate) fn service(name: &str) -> NetworkService {
    NetworkService { name: name.into(), ..Default::default() }
}

/// A pattern of a name, or of everything.
pub(crate) fn named(name: &str) -> Nse {
    Nse { name: name.into(), ..Default::default() }
}

pub(crate) fn of_service(service: &str) -> Nse {
    Nse { network_service_names: vec![service.into()], ..Default::default() }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A token of nobody that ends so long from now.
pub(crate) fn token(left: Duration) -> Token {
    Token { text: "".into(), expires: time::now() + left }
}

pub(crate) async fn register<R: Record>(chain: &Chain<Registry<R>>, record: R) -> Result<R> {
    chain.request(Call::new(record)).await.map(Call::into_body)
}

pub(crate) async fn find(chain: &Chain<Endpoints>, pattern: Nse) -> Vec<Arc<Nse>> {
    let found = chain.monitor(looking(Nse::query(pattern, false))).await.unwrap();
    found.map(|change| change.unwrap().record).collect().await
}

pub(crate) async fn names(chain: &Chain<Endpoints>, pattern: Nse) -> Vec<String> {
    find(chain, pattern).await.iter().map(|nse| nse.name.clone()).collect()
}

pub(crate) async fn watch(chain: &Chain<Endpoints>, pattern: Nse) -> EventStream<Endpoints> {
    chain.monitor(looking(Nse::query(pattern, true))).await.unwrap()
}

/// A look by somebody with a token, for registries that want one.
fn looking<R: Record>(query: R::Query) -> Watch<Registry<R>> {
    let token = HmacTokens::new(&"spiffe://mesh/looker".parse().unwrap()).token(None).unwrap();
    Watch { token: Some(token), ..Watch::new(query) }
}

/// What a watcher has to read right now: `name`, or `-name` where it is gone.
pub(crate) fn unread(events: &mut EventStream<Endpoints>) -> Vec<String> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).map(|event| text(&event.unwrap())).collect()
}

pub(crate) fn text(change: &Change<Nse>) -> String {
    format!("{}{}", if change.deleted { "-" } else { "" }, change.record.name)
}

/// Lets everything that is under way come to rest, without time passing.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Notes what passes, and fails or holds up what it is told to.
#[derive(Default)]
pub(crate) struct Probe {
    notes: Mutex<Vec<String>>,
    failures: AtomicUsize,
    held: Mutex<Option<Arc<Notify>>>,
}

impl Probe {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }

    /// The next so many Registers and Unregisters fail.
    pub(crate) fn fail(&self, times: usize) {
        self.failures.store(times, Ordering::SeqCst);
    }

    /// Registers wait until the returned is notified.
    pub(crate) fn hold(&self) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        *self.held.lock().unwrap() = Some(Arc::clone(&notify));
        notify
    }

    pub(crate) fn release(&self) {
        *self.held.lock().unwrap() = None;
    }

    fn note(&self, verb: char, key: &str) {
        self.notes.lock().unwrap().push(format!("{verb}{key}"));
    }

    fn outcome(&self) -> Result<()> {
        let take = |left: usize| left.checked_sub(1);
        match self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Err(Error::unavailable("the test says so")),
            Err(_) => Ok(()),
        }
    }
}

impl<P: Protocol> Element<P> for Probe {
    async fn request(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        self.note('+', P::key(call.body()));
        self.outcome()?;
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.notified().await;
        }
        next.request(call).await
    }

    async fn close(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        self.note('-', P::key(call.body()));
        self.outcome()?;
        next.close(call).await
    }

    async fn monitor(&self, watch: Watch<P>, next: Next<'_, P>) -> Result<EventStream<P>> {
        self.note('?', "");
        next.monitor(watch).await
    }
}

/// Hands calls to another hop, as a copy.
pub(crate) struct Hand<P: Protocol>(pub(crate) Chain<P>);

impl<P: Protocol> Element<P> for Hand<P> {
    async fn request(&self, mut call: Call<P>, _: Next<'_, P>) -> Result<Call<P>> {
        let there = self.0.request(Call::new(call.share())).await?;
        call.set_body(there.share());
        Ok(call)
    }

    async fn close(&self, call: Call<P>, _: Next<'_, P>) -> Result<Call<P>> {
        self.0.close(Call::new(call.share())).await?;
        Ok(call)
    }

    async fn monitor(&self, watch: Watch<P>, _: Next<'_, P>) -> Result<EventStream<P>> {
        self.0.monitor(watch).await
    }
}

/// A journal in memory, which refuses when told so.
#[derive(Debug)]
pub(super) struct Notebook<R> {
    records: Mutex<BTreeMap<String, Arc<R>>>,
    owners: Mutex<BTreeMap<String, String>>,
    refuses: AtomicBool,
    pub(super) entries: AtomicUsize,
}

impl<R> Default for Notebook<R> {
    fn default() -> Self {
        Self {
            records: Mutex::default(),
            owners: Mutex::default(),
            refuses: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
        }
    }
}

impl<R: Record> Notebook<R> {
    pub(super) fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.records.lock().unwrap().keys().cloned().collect()
    }

    /// `name: owner`, of all.
    pub(super) fn owners(&self) -> Vec<String> {
        self.owners.lock().unwrap().iter().map(|(name, owner)| format!("{name}: {owner}")).collect()
    }
}

impl<R: Record> Journal<R> for Notebook<R> {
    fn load(&self) -> BoxFuture<'_, Result<Kept<R>>> {
        let owners = self.owners.lock().unwrap();
        let owners = owners.iter().map(|(name, owner)| (name.as_str().into(), owner.as_str().into())).collect();
        let records = self.records.lock().unwrap().values().cloned().collect();
        std::future::ready(Ok(Kept { records, owners })).boxed()
    }

    fn append(&self, entry: Entry<R>, then: Then) -> BoxFuture<'_, Result<()>> {
        if self.refuses.load(Ordering::SeqCst) {
            return std::future::ready(Err(Error::exhausted("no space"))).boxed();
        }
        self.entries.fetch_add(1, Ordering::SeqCst);
        let (mut records, mut owners) = (self.records.lock().unwrap(), self.owners.lock().unwrap());
        match entry.record {
            Some(record) => drop(records.insert(entry.name.to_string(), record)),
            None => drop(records.remove(&*entry.name)),
        }
        for (name, owner) in entry.owners {
            match owner {
                Some(owner) => drop(owners.insert(name.to_string(), owner.to_string())),
                None => drop(owners.remove(&*name)),
            }
        }
        then();
        std::future::ready(Ok(())).boxed()
    }
}
