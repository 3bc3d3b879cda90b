//! Endpoints, and the network service they serve.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use nsm_api::NetworkService;
use nsm_api::mechanism::KERNEL;
use nsm_chain::{Call, elements};
use nsm_mechanisms::{KernelAccept, Mechanisms, Workload as Interfaces};
use nsm_sdk::ipam::{Group, PointToPoint, Pool};
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
    /// Registers network services through the manager of the first node.
    pub(crate) async fn apply(&mut self, services: Vec<NetworkService>) -> Result<(), Failure> {
        let channels = self.site("operator")?.channels();
        let registry = RegistryClient::builder("operator").connect(channels, self.node(0)?.url()).build();
        let registry = registry.map_err(|error| Failure::of("operator", &error))?;
        let applied = self.applied.insert(registry);
        for service in services {
            let registered = applied.services.request(Call::new(service).within(APPLYING)).await;
            registered.map_err(|error| Failure::of("registry", &error))?;
        }
        Ok(())
    }

    /// Starts an endpoint of the node at this position, in the namespace of the workload of its name. `number` chooses
    /// its addresses.
    pub(crate) async fn start_endpoint(
        &mut self,
        name: &str,
        number: u8,
        node: usize,
        serves: &Serves,
    ) -> Result<&Endpoint, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(name, error);
        let interfaces = KernelAccept::new().in_netns(Interfaces::of(&self.workload(name)?.netns));
        let mechanisms = Mechanisms::new().with(KERNEL, interfaces).map_err(|error| failed(&error))?;
        let mut role = EndpointRole::new(name, self.site(name)?)
            .listen_on(self.sockets.url(name))
            .registers_at(self.node(node)?.url())
            .with(elements![addresses(number)?, mechanisms]);
        for (service, labels) in serves {
            role = role.serves_with(service, labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
        let role = role.serve().await.map_err(|error| failed(&error))?;
        self.endpoints.push(Endpoint { name: name.to_owned(), role });
        self.endpoints.last().ok_or_else(|| Failure::at(name, "it was not kept", "start it again"))
    }
}

/// A pair of IPv4 and a pair of IPv6 addresses for each connection, of prefixes that no other endpoint gives of.
fn addresses(number: u8) -> Result<Group, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of("addresses", error);
    let pool = |prefix: String| {
        let prefix: IpNet = prefix.parse().map_err(|error: ipnet::AddrParseError| failed(&error))?;
        Pool::new([prefix]).map_err(|error| failed(&error))
    };
    let v4 = PointToPoint::new(pool(format!("10.{number}.0.0/16"))?);
    let v6 = PointToPoint::new(pool(format!("fd00:0:0:{number:x}::/64"))?);
    Group::new([v4.into(), v6.into()]).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_endpoint_has_addresses_to_give() {
        for number in 0..=u8::MAX {
            super::addresses(number).unwrap();
        }
    }
}
