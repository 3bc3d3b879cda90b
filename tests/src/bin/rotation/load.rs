//! Clients that keep everybody busy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use nsm_api::{
    Connection, Mechanism, MonitorScopeSelector, NetworkService, NetworkServiceEndpoint, NetworkServiceRequest,
};
use nsm_chain::{Call, Error, Node, Watch, elements};
use nsm_sdk::registry::Finder;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{Site, client};
use nsm_sdk::stacks::Client;
use nsm_spiffe::WorkloadApi;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agents::{self, CLIENT};
use crate::role::{SERVICE, url};
use crate::tally::{Counted, Tally};
use crate::{Failure, PATIENCE};

pub(crate) struct Load {
    tally: Tally,
    client: Arc<Client>,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

/// How many connections stand from the beginning to the end, refreshed by the client itself.
const LONG_LIVED: usize = 20;
/// How many callers ask, ask again and close, one after the other.
const CALLERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);

impl Load {
    pub(crate) async fn start(directory: &Path) -> Result<Self, Failure> {
        let identity = WorkloadApi::connect(&agents::endpoint(directory, CLIENT))?;
        identity.ready(PATIENCE).await?;
        let site = Site::mtls(identity.into_source());
        let (tally, stopping, mut tasks) = (Tally::default(), CancellationToken::new(), JoinSet::new());

        let registry = RegistryClient::builder(CLIENT).connect(site.channels(), url(directory, "registry")).build()?;
        let service = NetworkService { name: SERVICE.into(), payload: "IP".into(), ..Default::default() };
        registry.services.request(Call::new(service).within(PATIENCE)).await?;

        let counted = Counted { tally: tally.clone(), request: "request", close: "close" };
        let client = Arc::new(client(CLIENT, &site, &url(directory, "nsmgr")).with(elements![counted]).build()?);
        for number in 0..LONG_LIVED {
            let id = format!("long-{number}");
            client.request(asked(&id, &id), PATIENCE).await?;
        }
        for caller in 0..CALLERS {
            tasks.spawn(come_and_go(caller, Arc::clone(&client), stopping.clone()));
        }
        tasks.spawn(monitor(Arc::clone(&client), tally.clone(), stopping.clone()));

        for place in ["nsmgr", "registry"] {
            let counted = || Counted { tally: tally.clone(), request: "register", close: "unregister" };
            let registry = RegistryClient::builder(CLIENT)
                .before_endpoints(Node::new(counted()))
                .connect(site.channels(), url(directory, place))
                .build()?;
            tasks.spawn(find(registry.finder(), tally.clone(), stopping.clone()));
            tasks.spawn(watch(registry.finder(), tally.clone(), stopping.clone()));
            tasks.spawn(register(registry, format!("transient-{place}"), stopping.clone()));
        }
        Ok(Self { tally, client, stopping, tasks })
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Ends all callers, closes what still stands, and tells what there was.
    pub(crate) async fn finish(mut self) -> Tally {
        self.stopping.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            let failure = ended.err().map(|error| error.to_string());
            self.tally.count_with("caller", failure);
        }
        self.tally.count("shutdown", &self.client.shutdown(PATIENCE).await);
        self.tally
    }
}

/// A connection of that id, with an interface that no other of this process has.
fn asked(id: &str, interface: &str) -> NetworkServiceRequest {
    let mut kernel = Mechanism::kernel();
    kernel.set_parameter("name", interface);
    kernel.set_parameter("inodeURL", "file:///proc/self/ns/net");
    NetworkServiceRequest {
        connection: Some(Connection { id: id.into(), network_service: SERVICE.into(), ..Default::default() }),
        mechanism_preferences: vec![kernel],
    }
}

/// Asks for a connection, asks again for it, and closes it. Each try counts by itself; what fails for good shows there.
async fn come_and_go(caller: usize, client: Arc<Client>, stopping: CancellationToken) {
    let mut number = 0_u64;
    while !stopping.is_cancelled() {
        number += 1;
        let wanted = asked(&format!("short-{caller}-{number}"), &format!("short-{caller}"));
        if let Ok(connection) = client.request(wanted, PATIENCE).await {
            let again = NetworkServiceRequest { connection: Some(connection.clone()), ..Default::default() };
            let connection = client.request(again, PATIENCE).await.unwrap_or(connection);
            drop(client.close(connection, PATIENCE).await);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One stream of events from the beginning to the end; it may not break off.
async fn monitor(client: Arc<Client>, tally: Tally, stopping: CancellationToken) {
    let events = client.chain().monitor(Watch::new(MonitorScopeSelector::default())).await;
    tally.count("monitor", &events);
    let Ok(mut events) = events else { return };
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            event = events.next() => match event {
                Some(Ok(_)) => tally.count_with("event", None),
                Some(Err(error)) => return tally.count_with("event", Some(error.to_string())),
                None => return tally.count_with("event", Some("the stream ended".to_owned())),
            },
        }
    }
}

async fn find(finder: Finder, tally: Tally, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let found = finder.endpoints_of(SERVICE).await;
        let found = found.and_then(|all| if all.is_empty() { Err(Error::not_found("no endpoint")) } else { Ok(()) });
        tally.count("find", &found);
        tokio::time::sleep(PAUSE).await;
    }
}

/// A Find that watches, from the beginning to the end.
async fn watch(finder: Finder, tally: Tally, stopping: CancellationToken) {
    let pattern = NetworkServiceEndpoint { network_service_names: vec![SERVICE.into()], ..Default::default() };
    let records = finder.watch_endpoints(pattern).await;
    tally.count("watch", &records);
    let Ok(mut records) = records else { return };
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            record = records.next() => match record {
                Some(Ok(_)) => {}
                Some(Err(error)) => return tally.count_with("watch", Some(error.to_string())),
                None => return tally.count_with("watch", Some("the stream ended".to_owned())),
            },
        }
    }
}

async fn register(registry: RegistryClient, name: String, stopping: CancellationToken) {
    while !stopping.is_cancelled() {
        let record = NetworkServiceEndpoint {
            name: name.clone(),
            network_service_names: vec!["nothing".into()],
            url: "tcp://127.0.0.1:1".into(),
            ..Default::default()
        };
        if let Ok(registered) = registry.endpoints.request(Call::new(record).within(PATIENCE)).await {
            drop(registry.endpoints.close(Call::new(registered.into_body()).within(PATIENCE)).await);
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
}
