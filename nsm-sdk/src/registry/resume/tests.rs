use futures::FutureExt;
use nsm_chain::{Call, Chain, Code, elements};
use tokio::sync::Semaphore;

use super::*;
use crate::connect::{Connect, InProcess};
use crate::registry::testing::{Nse, Probe, named, nse, of_service, register, seconds, text, unread, watch};
use crate::registry::{Endpoints, Memory};

struct Mesh {
    hops: InProcess<Endpoints>,
    probe: Arc<Probe>,
    client: Chain<Endpoints>,
}

fn mesh() -> Mesh {
    let (hops, probe) = (InProcess::default(), Arc::new(Probe::default()));
    let connect = Connect::new(hops.links()).to("mem://registry");
    let client = Chain::new("nsmgr", elements![ResumeWatch, Arc::clone(&probe), connect]).unwrap();
    Mesh { hops, probe, client }
}

impl Mesh {
    /// A registry in place of the one before, with these records.
    async fn serve(&self, records: impl IntoIterator<Item = Nse>) -> Chain<Endpoints> {
        let registry = Chain::new("registry", elements![Memory::default()]).unwrap();
        for record in records {
            register(&registry, record).await.unwrap();
        }
        self.hops.serve("mem://registry", registry.clone());
        registry
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_reader_gets_the_differences() {
    let mesh = mesh();
    mesh.serve([nse("kept", &["vpn"]), nse("changed", &["vpn"]), nse("vanished", &["vpn"])]).await;
    let mut events = watch(&mesh.client, of_service("vpn")).await;
    assert_eq!(unread(&mut events), ["changed", "kept", "vanished"]);
    let fresh = mesh.serve([nse("kept", &["vpn"]), nse("changed", &["vpn", "more"]), nse("new", &["vpn"])]).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(text(&events.next().await.unwrap().unwrap()));
    }
    assert_eq!(told, ["-vanished", "changed", "new"]);
    // From here on everything is told, also what changes nothing.
    assert_eq!(unread(&mut events), [""; 0]);
    register(&fresh, nse("kept", &["vpn"])).await.unwrap();
    assert_eq!(unread(&mut events), ["kept"]);
    fresh.close(Call::new(nse("new", &[]))).await.unwrap();
    assert_eq!(unread(&mut events), ["-new"]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_few_tries_and_ends_when_the_registry_is_back() {
    let mesh = mesh();
    mesh.serve([nse("nse-1", &[])]).await;
    let mut events = watch(&mesh.client, named("")).await;
    assert_eq!(unread(&mut events), ["nse-1"]);
    mesh.hops.stop("mem://registry");
    mesh.probe.take();
    let waiting = tokio::time::timeout(seconds(60), events.next()).await;
    assert!(waiting.is_err());
    let tries = mesh.probe.take().len();
    assert!((60..180).contains(&tries), "{tries}");
    mesh.serve([nse("nse-2", &[])]).await;
    let mut told =
        [events.next().await.unwrap().unwrap(), events.next().await.unwrap().unwrap()].map(|change| text(&change));
    told.sort();
    assert_eq!(told, ["-nse-1", "nse-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_ends_each_watch_at_once_is_not_asked_in_a_hot_loop() {
    struct Curt(Memory<Nse>);
    impl Element<Endpoints> for Curt {
        async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
            if watch.query.watch { Ok(stream::empty().boxed()) } else { self.0.monitor(watch, next).await }
        }
    }
    let probe = Arc::new(Probe::default());
    let chain = Chain::new("nsmgr", elements![ResumeWatch, Arc::clone(&probe), Curt(Memory::default())]).unwrap();
    let mut events = watch(&chain, named("")).await;
    assert!(tokio::time::timeout(seconds(60), events.next()).await.is_err());
    let asked = probe.take().len();
    assert!((100..400).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn that_the_first_opening_fails_is_told() {
    let query = Nse::query(named(""), true);
    let error = mesh().client.monitor(Watch::new(query)).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_says_nothing_before_the_first_record_counts_as_open() {
    struct Silent(Memory<Nse>);
    impl Element<Endpoints> for Silent {
        async fn request(&self, call: Call<Endpoints>, next: Next<'_, Endpoints>) -> Result<Call<Endpoints>> {
            self.0.request(call, next).await
        }
        async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
            let mut events = self.0.monitor(watch, next).await?.peekable();
            std::pin::Pin::new(&mut events).peek().await;
            Ok(events.boxed())
        }
    }
    let chain = Chain::new("nsmgr", elements![ResumeWatch, Silent(Memory::default())]).unwrap();
    let mut events = watch(&chain, named("")).await;
    register(&chain, nse("nse-1", &[])).await.unwrap();
    assert_eq!(text(&events.next().await.unwrap().unwrap()), "nse-1");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_drops_its_watch_leaves_nothing() {
    let memory = Arc::new(Memory::default());
    let chain: Chain<Endpoints> = Chain::new("nsmgr", elements![ResumeWatch, Arc::clone(&memory)]).unwrap();
    let events = watch(&chain, named("")).await;
    assert_eq!(memory.watchers(), 1);
    drop(events);
    assert_eq!(memory.watchers(), 0);
}

/// Holds up what watches deliver, and Finds, until these are closed.
struct Late {
    watches: Arc<Semaphore>,
    finds: Arc<Semaphore>,
}

impl Element<Endpoints> for Late {
    async fn monitor(&self, watch: Watch<Endpoints>, next: Next<'_, Endpoints>) -> Result<EventStream<Endpoints>> {
        if !watch.query.watch {
            self.finds.acquire().await.unwrap_err();
            return next.monitor(watch).await;
        }
        let (events, held) = (next.monitor(watch).await?, Arc::clone(&self.watches));
        Ok(async move { held.acquire().await.unwrap_err() }.map(|_| events).flatten_stream().boxed())
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_reader_was_told_of_and_the_watch_never_mentions_is_gone() {
    let mesh = mesh();
    mesh.serve([]).await;
    let mut events = watch(&mesh.client, of_service("vpn")).await;
    let late = Arc::new(Late { watches: Arc::new(Semaphore::new(0)), finds: Arc::new(Semaphore::new(0)) });
    let registry = Chain::new("registry", elements![Arc::clone(&late), Memory::default()]).unwrap();
    mesh.hops.serve("mem://registry", registry.clone());
    // The watch is open, the Find behind it under way.
    assert!(tokio::time::timeout(seconds(1), events.next()).await.is_err());
    register(&registry, nse("brief", &["vpn"])).await.unwrap();
    late.finds.close();
    assert_eq!(text(&events.next().await.unwrap().unwrap()), "brief");
    registry.close(Call::new(nse("brief", &[]))).await.unwrap();
    late.watches.close();
    assert_eq!(text(&events.next().await.unwrap().unwrap()), "-brief");
}
