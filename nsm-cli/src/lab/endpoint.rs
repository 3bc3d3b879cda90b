//! Endpoints, and the network service they serve.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use nsm_api::NetworkService;
use nsm_api::connectioncontext::DnsConfig;
use nsm_api::mechanism::KERNEL;
use nsm_chain::{Call, elements};
use nsm_kernel::{Filter, Netns};
use nsm_mechanisms::{KernelAccept, Mechanisms, Workload as Interfaces};
use nsm_sdk::context::DnsConfigs;
use nsm_sdk::ipam::{Group, PointToPoint, Pool, PoolError};
use nsm_sdk::registry::stacks::RegistryClient;
use nsm_sdk::roles::{EndpointRole, Running};

use super::Lab;
use crate::failure::Failure;
use crate::passthrough::passing_on;

/// How long the registration of a network service may take.
const APPLYING: Duration = Duration::from_secs(10);

/// What an endpoint serves: network services, each with the labels that its matches select by.
pub(crate) type Serves = BTreeMap<String, BTreeMap<String, String>>;

/// An endpoint that runs.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    role: Running,
    /// Where what it forwards is filtered.
    filters: Option<Netns>,
}

impl Endpoint {
    /// Leaves in order: first its connections, so that nothing passes unfiltered.
    pub(super) async fn stop(self) -> nsm_chain::Result<()> {
        let stopped = self.role.shutdown().await;
        let unfiltered = match &self.filters {
            Some(netns) => Filter::remove(netns).await,
            None => Ok(()),
        };
        stopped?;
        unfiltered.map_err(|error| nsm_chain::Error::internal("its filter is left").because(error))
    }
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
        let netns = self.workload(name)?.netns.clone();
        let mut role = EndpointRole::new(name, self.site(name)?)
            .listen_on(self.sockets.url(name))
            .registers_at(self.node(node)?.url());
        let mut filters = None;
        role = match function {
            Function::IcmpResponder(prefixes) => {
                let interfaces = KernelAccept::new().in_netns(Interfaces::of(&netns));
                let mechanisms = Mechanisms::new().with(KERNEL, interfaces).map_err(|error| failed(&error))?;
                role.with(elements![addresses(name, prefixes)?, DnsConfigs::new(dns), mechanisms])
            }
            Function::Passthrough { labels, filter } => {
                let role = passing_on(role, &netns, labels.clone()).map_err(|error| failed(&error))?;
                if let Some(filter) = filter {
                    filter.put(&netns).await.map_err(|error| failed(&error))?;
                    filters = Some(netns.clone());
                }
                role
            }
        };
        for (service, labels) in serves {
            role = role.serves_with(service, labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
        let role = match role.serve().await {
            Ok(role) => role,
            Err(error) => {
                if let Some(netns) = &filters {
                    Filter::remove(netns).await.map_err(|error| failed(&error))?;
                }
                return Err(failed(&error));
            }
        };
        self.endpoints.push(Endpoint { name: name.to_owned(), role, filters });
        self.endpoints.last().ok_or_else(|| Failure::at(name, "it was not kept", "start it again"))
    }
}

impl Lab {
    /// Stops an endpoint: it is unregistered, and its clients look for another one.
    pub(crate) async fn stop_endpoint(&mut self, name: &str) -> Result<(), Failure> {
        let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.name == name) else { return Ok(()) };
        let stopped = self.endpoints.remove(at).stop().await;
        stopped.map_err(|error| Failure::of(name, &error))
    }
}

/// What an endpoint does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Function {
    /// It gives each connection a pair of addresses of each of these prefixes, and its kernel answers pings.
    IcmpResponder(Vec<IpNet>),
    /// Packets pass through it to the next endpoint.
    Passthrough {
        /// What it is to the rules that choose that one.
        labels: BTreeMap<String, String>,
        /// What may pass, where not all may.
        filter: Option<Filter>,
    },
}

impl Function {
    /// An endpoint with addresses, IPv4 and IPv6, that none of another number has.
    pub(crate) fn numbered(number: u8) -> Result<Self, Failure> {
        let failed = |error: ipnet::AddrParseError| Failure::of("addresses", &error);
        let prefixes = [format!("10.{number}.0.0/16"), format!("fd00:0:0:{number:x}::/64")];
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().map_err(failed));
        Ok(Self::IcmpResponder(prefixes.collect::<Result<_, _>>()?))
    }

    /// Its name in files.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::IcmpResponder(_) => "icmp-responder",
            Self::Passthrough { filter: None, .. } => "passthrough",
            Self::Passthrough { filter: Some(_), .. } => "firewall",
        }
    }
}

fn addresses(name: &str, prefixes: &[IpNet]) -> Result<Group, Failure> {
    let pools = prefixes.iter().map(|prefix| Ok(PointToPoint::new(Pool::new([*prefix])?).into()));
    let sources = pools.collect::<Result<Vec<_>, PoolError>>();
    sources.and_then(Group::new).map_err(|error| Failure::of(name, &error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_endpoint_has_addresses_to_give() {
        for number in 0..=u8::MAX {
            let function = super::Function::numbered(number).unwrap();
            let super::Function::IcmpResponder(prefixes) = function else { panic!("{function:?}") };
            super::addresses("nse", &prefixes).unwrap();
        }
    }
}
