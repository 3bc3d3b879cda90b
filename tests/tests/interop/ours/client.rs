//! The client: of the manager's connections, and of its registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use nsm_api::connection::{MonitorScopeSelector, PathSegment};
use nsm_api::networkservice::NetworkServiceRequest;
use nsm_api::registry::NetworkServiceEndpoint;
use nsm_api::{Connection, ConnectionContext, Mechanism, NetworkService};
use nsm_chain::{Call, Chain, Element, Next, Result as ChainResult, Watch, elements};
use nsm_mechanisms::KernelOffer;
use nsm_sdk::connect::Connect;
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::Site;
use nsm_sdk::stacks::Client;

use super::talk::{Command, Talk};
use super::{Failure, Settings};
use crate::language::Event;

/// How long a command may take, tries included.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client, and what it has got by id, as it was returned last.
#[derive(Debug)]
struct Workload {
    talk: Talk,
    client: Client,
    monitor: Chain,
    registry: RegistryClient,
    got: Mutex<BTreeMap<String, Connection>>,
}

pub(super) async fn run(settings: &Settings, site: &Site, talk: &Talk) -> Result<(), Failure> {
    let manager = settings.upstream.as_str();
    let client = nsm_sdk::roles::client(&settings.name, site, manager);
    let workload = Arc::new(Workload {
        talk: *talk,
        client: client.with(elements![KernelOffer::new(), Observe(*talk)]).build()?,
        monitor: Chain::new("watcher", elements![Connect::new(site.channels()).to(manager)])?,
        registry: RegistryClient::builder(&settings.name).connect(site.channels(), manager).build()?,
        got: Mutex::default(),
    });
    talk.tell(&Event::new("ready"));
    let leave = talk.obey(|command| {
        let workload = Arc::clone(&workload);
        async move { workload.does(command).await }
    });
    if let Some(number) = leave.await {
        talk.answer(&number, Ok(Event::new("done")));
    }
    Ok(())
}

impl Workload {
    async fn does(&self, command: Command) -> Result<Event, Failure> {
        match &*command.verb {
            "request" => self.request(command.argument(0)?, command.argument(1)?).await,
            "refresh" => self.ask(self.last(command.argument(0)?)?).await,
            "close" => {
                self.client.close(self.last(command.argument(0)?)?, PATIENCE).await?;
                Ok(Event::new("done"))
            }
            "monitor" => self.watch_connection(&command).await,
            "register-service" => self.register_service(command.argument(0)?).await,
            "find-service" => {
                let found = self.registry.finder().service(command.argument(0)?, "").await?;
                Ok(Event::new("done").with(&*found))
            }
            "find-endpoints" => {
                let found = self.registry.finder().endpoints_of(command.argument(0)?).await?;
                Ok(found.iter().fold(Event::new("done"), |event, endpoint| event.with(&**endpoint)))
            }
            "watch-endpoints" => self.watch_endpoints(&command).await,
            other => Err(format!("no command {other:?}").into()),
        }
    }

    async fn request(&self, id: &str, service: &str) -> Result<Event, Failure> {
        let connection = Connection {
            id: id.to_owned(),
            network_service: service.to_owned(),
            labels: [("app".to_owned(), "interop".to_owned())].into(),
            context: Some(ConnectionContext::default()),
            ..Default::default()
        };
        self.ask(connection).await
    }

    async fn ask(&self, connection: Connection) -> Result<Event, Failure> {
        let mut mechanism = Mechanism::kernel();
        mechanism.set_parameter("name", "nsm-1");
        let request = NetworkServiceRequest { connection: Some(connection), mechanism_preferences: vec![mechanism] };
        let got = self.client.request(request, PATIENCE).await?;
        let event = Event::new("done").with(&got);
        self.got.lock().unwrap_or_else(PoisonError::into_inner).insert(got.id.clone(), got);
        Ok(event)
    }

    fn last(&self, id: &str) -> Result<Connection, Failure> {
        let got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        got.get(id).cloned().ok_or_else(|| format!("no connection {id:?}").into())
    }

    /// What the manager tells about a connection, until it ends.
    async fn watch_connection(&self, command: &Command) -> Result<Event, Failure> {
        let segment = PathSegment {
            id: command.argument(0)?.to_owned(),
            name: command.argument(1)?.to_owned(),
            ..Default::default()
        };
        let selector = MonitorScopeSelector { path_segments: vec![segment], ..Default::default() };
        let mut events = self.monitor.monitor(Watch::new(selector)).await?;
        while let Some(event) = events.next().await {
            self.talk.tell(&Event::new("seen").to(&command.number).with(&*event?));
        }
        Ok(Event::new("done"))
    }

    async fn register_service(&self, name: &str) -> Result<Event, Failure> {
        let service = NetworkService { name: name.to_owned(), ..Default::default() };
        let registered = self.registry.services.request(Call::new(service).within(PATIENCE)).await?;
        Ok(Event::new("done").with(registered.body()))
    }

    /// Changes of the endpoints of a service, for ever.
    async fn watch_endpoints(&self, command: &Command) -> Result<Event, Failure> {
        let pattern = NetworkServiceEndpoint {
            network_service_names: vec![command.argument(0)?.to_owned()],
            ..Default::default()
        };
        let mut changes = self.registry.finder().watch_endpoints(pattern).await?;
        while let Some(change) = changes.next().await {
            let change = change?;
            let seen = Event { deleted: change.deleted, ..Event::new("seen") };
            self.talk.tell(&seen.to(&command.number).with(&*change.record));
        }
        Ok(Event::new("done"))
    }
}

/// Tells what the client has got: by a command, by refresh or by heal.
#[derive(Debug)]
struct Observe(Talk);

impl Element for Observe {
    async fn request(&self, call: Call, next: Next<'_>) -> ChainResult<Call> {
        let call = next.request(call).await?;
        self.0.tell(&Event::new("connected").with(call.connection()));
        Ok(call)
    }
}
