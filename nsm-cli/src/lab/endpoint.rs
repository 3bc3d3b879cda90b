//! Endpoints, and the network service they serve.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use nsm_api::NetworkService;
use nsm_api::connectioncontext::DnsConfig;
use nsm_api::mechanism::KERNEL;
use nsm_chain::{Call, elements};
use nsm_mechanisms::{KernelAccept, Mechanisms, Workload as Interfaces};
use nsm_sdk::context::DnsConfigs;
use nsm_sdk::ipam::{Group, PointToPoint, Pool, PoolError};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{EndpointRole, Running};

use super::Lab;
use crate::failure::Failure;

/// How long the registration of a network service may take.
const APPLYING: Duration = Duration::from_secs(10);

/// What an endpoint serves: network services, each with the labels that its matches select by.
pub(crate) type Serves = BTreeMap<String, BTreeMap<String, String>>;

/// An endpoint that runs.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(super) role: Running,
}

impl Lab {
    /// Registers network services, or changes them.
    pub(crate) async fn apply(&mut self, services: Vec<NetworkService>) -> Result<(), Failure> {
        let applied = self.operator()?;
        for service in services {
            let registered = applied.services.request(Call::new(service).within(APPLYING)).await;
            registered.map_err(|error| Failure::of("registry", &error))?;
        }
        Ok(())
    }

    /// Unregisters a network service.
    pub(crate) async fn withdraw(&mut self, service: NetworkService) -> Result<(), Failure> {
        let closed = self.operator()?.services.close(Call::new(service).within(APPLYING)).await;
        closed.map(drop).map_err(|error| Failure::of("registry", &error))
    }

    /// Who registers network services.
    fn operator(&mut self) -> Result<&RegistryClient, Failure> {
        if self.applied.is_none() {
            let channels = self.site("operator")?.channels();
            // Not through a manager: a node may go.
            let started = || Failure::at("operator", "there is no registry", "start it first");
            let url = self.registry.as_ref().ok_or_else(started)?.url();
            let registry = RegistryClient::builder("operator").connect(channels, url).build();
            self.applied = Some(registry.map_err(|error| Failure::of("operator", &error))?);
        }
        self.applied.as_ref().ok_or_else(|| Failure::at("operator", "it was not kept", "start it again"))
    }

    /// Starts an endpoint of the node at this position, in the namespace of the workload of its name.
    pub(crate) async fn start_endpoint(
        &mut self,
        name: &str,
        function: &Function,
        node: usize,
        serves: &Serves,
        dns: Vec<DnsConfig>,
    ) -> Result<&Endpoint, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(name, error);
        let interfaces = KernelAccept::new().in_netns(Interfaces::of(&self.workload(name)?.netns));
        let mechanisms = Mechanisms::new().with(KERNEL, interfaces).map_err(|error| failed(&error))?;
        let mut role = EndpointRole::new(name, self.site(name)?)
            .listen_on(self.sockets.url(name))
            .registers_at(self.node(node)?.url())
            .with(elements![function.addresses(name)?, DnsConfigs::new(dns), mechanisms]);
        for (service, labels) in serves {
            role = role.serves_with(service, labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
        let role = role.serve().await.map_err(|error| failed(&error))?;
        self.endpoints.push(Endpoint { name: name.to_owned(), role });
        self.endpoints.last().ok_or_else(|| Failure::at(name, "it was not kept", "start it again"))
    }
}

impl Lab {
    /// Stops an endpoint: it is unregistered, and its clients look for another one.
    pub(crate) async fn stop_endpoint(&mut self, name: &str) -> Result<(), Failure> {
        let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.name == name) else { return Ok(()) };
        let stopped = self.endpoints.remove(at).role.shutdown().await;
        stopped.map_err(|error| Failure::of(name, &error))
    }
}

/// What an endpoint does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Function {
    /// It gives each connection a pair of addresses of each of these prefixes, and its kernel answers pings.
    IcmpResponder(Vec<IpNet>),
}

impl Function {
    /// An endpoint with addresses, IPv4 and IPv6, that none of another number has.
    pub(crate) fn numbered(number: u8) -> Result<Self, Failure> {
        let failed = |error: ipnet::AddrParseError| Failure::of("addresses", &error);
        let prefixes = [format!("10.{number}.0.0/16"), format!("fd00:0:0:{number:x}::/64")];
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().map_err(failed));
        Ok(Self::IcmpResponder(prefixes.collect::<Result<_, _>>()?))
    }

    fn addresses(&self, name: &str) -> Result<Group, Failure> {
        let Self::IcmpResponder(prefixes) = self;
        let pools = prefixes.iter().map(|prefix| Ok(PointToPoint::new(Pool::new([*prefix])?).into()));
        let sources = pools.collect::<Result<Vec<_>, PoolError>>();
        sources.and_then(Group::new).map_err(|error| Failure::of(name, &error))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_endpoint_has_addresses_to_give() {
        for number in 0..=u8::MAX {
            super::Function::numbered(number).unwrap().addresses("nse").unwrap();
        }
    }
}
