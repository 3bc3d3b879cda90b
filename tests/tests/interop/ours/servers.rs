//! Registry, manager, forwarder, endpoint.

use std::sync::Arc;
use std::time::Duration;

use nsm_api::NetworkServiceEndpoint;
use nsm_api::mechanism::KERNEL;
use nsm_api::registry::NetworkServiceLabels;
use nsm_chain::{Call, Element, Next, Result as ChainResult, elements};
use nsm_mechanisms::memory::Fabric;
use nsm_mechanisms::{CrossConnect, KernelAccept, Mechanisms, Underlay};
use nsm_sdk::ipam::{PointToPoint, Pool};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{EndpointRole, ForwarderRole, ManagerRole, RegistryRole, Running, Site};

use super::talk::{Command, Talk};
use super::{Failure, Settings};
use crate::language::Event;

/// How long a registration may take, tries included.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn registry(settings: &Settings, site: &Site, talk: &Talk) -> Result<(), Failure> {
    let role = RegistryRole::new(&settings.name, site.clone());
    let role = settings.listen.iter().fold(role, |role, url| role.listen_on(url)).serve().await?;
    serving(role, talk).await
}

pub(super) async fn manager(settings: &Settings, site: &Site, talk: &Talk) -> Result<(), Failure> {
    let role = ManagerRole::new(&settings.name, site.clone()).registry(&settings.upstream);
    let role = settings.listen.iter().fold(role, |role, url| role.listen_on(url)).serve().await?;
    serving(role, talk).await
}

/// A forwarder that only remembers what it would have programmed.
pub(super) async fn forwarder(settings: &Settings, site: &Site, talk: &Talk) -> Result<(), Failure> {
    let wire = CrossConnect::new(Fabric::new().forwarder(&settings.name, settings.tunnel.map(Underlay::new)));
    let wire = elements![Observe(*talk), wire];
    let role = ForwarderRole::new(&settings.name, site.clone(), &settings.upstream, wire);
    let role = settings.listen.iter().fold(role, |role, url| role.listen_on(url)).serve().await?;
    serving(role, talk).await
}

pub(super) async fn endpoint(settings: &Settings, site: &Site, talk: &Talk) -> Result<(), Failure> {
    let addresses = PointToPoint::new(Pool::new([settings.prefix.parse()?])?);
    let interfaces = Mechanisms::new().with(KERNEL, KernelAccept::new())?;
    let role = EndpointRole::new(&settings.name, site.clone());
    let role = settings
        .listen
        .iter()
        .fold(role, |role, url| role.listen_on(url))
        .registers_at(&settings.upstream)
        .serves_with(&settings.service, [("app", settings.name.as_str())])
        .with(elements![Observe(*talk), addresses, interfaces])
        .serve()
        .await?;

    // Registers the same once more, as a refresh does.
    let again = RegistryClient::builder(&settings.name).connect(site.channels(), &*settings.upstream).build()?;
    let labels = [("app".to_owned(), settings.name.clone())].into();
    let record = Arc::new(NetworkServiceEndpoint {
        name: settings.name.clone(),
        network_service_names: vec![settings.service.clone()],
        network_service_labels: [(settings.service.clone(), NetworkServiceLabels { labels })].into(),
        url: role.url(),
        ..Default::default()
    });
    talk.tell(&Event { url: role.url(), ..Event::new("ready") }.with(&*record));
    let leave = talk.obey(|command: Command| {
        let (again, record) = (again.clone(), Arc::clone(&record));
        async move {
            match &*command.verb {
                "register" => {
                    let registered = again.endpoints.request(Call::new(record).within(PATIENCE)).await?;
                    Ok(Event::new("done").with(registered.body()))
                }
                other => Err(format!("no command {other:?}").into()),
            }
        }
    });
    let leave = leave.await;
    drop(again);
    left(role, talk, leave).await
}

/// Serves until it is told to leave.
async fn serving(role: Running, talk: &Talk) -> Result<(), Failure> {
    talk.tell(&Event { url: role.url(), ..Event::new("ready") });
    let leave = talk.obey(|command| async move { Err(format!("no command {:?}", command.verb).into()) }).await;
    left(role, talk, leave).await
}

/// Shuts down in order, if told to.
async fn left(role: Running, talk: &Talk, leave: Option<String>) -> Result<(), Failure> {
    if let Some(number) = leave {
        let done = role.shutdown().await.map(|()| Event::new("done"));
        talk.answer(&number, done.map_err(Failure::from));
    }
    Ok(())
}

/// Tells what was asked for and closed.
#[derive(Debug)]
struct Observe(Talk);

impl Element for Observe {
    async fn request(&self, call: Call, next: Next<'_>) -> ChainResult<Call> {
        let call = next.request(call).await?;
        self.0.tell(&Event::new("requested").with(call.connection()));
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> ChainResult<Call> {
        self.0.tell(&Event::new("closed").with(call.connection()));
        next.close(call).await
    }
}
