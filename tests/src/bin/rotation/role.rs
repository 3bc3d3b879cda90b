//! One role, as a process.

use std::path::Path;

use nsm_api::mechanism::KERNEL;
use nsm_chain::elements;
use nsm_mechanisms::memory::Fabric;
use nsm_mechanisms::{CrossConnect, KernelAccept, Mechanisms};
use nsm_sdk::roles::{EndpointRole, ForwarderRole, ManagerRole, RegistryRole, Site};
use nsm_spiffe::WorkloadApi;
use tokio::io::AsyncReadExt;

use crate::{Failure, PATIENCE};

/// The service that the endpoint serves.
pub(crate) const SERVICE: &str = "vpn";

pub(crate) fn url(directory: &Path, name: &str) -> String {
    format!("unix://{}", directory.join(format!("{name}.sock")).display())
}

/// Serves until standard input ends.
pub(crate) async fn run(name: &str, directory: &Path) -> Result<(), Failure> {
    let identity = WorkloadApi::from_env()?;
    identity.ready(PATIENCE).await?;
    let site = Site::mtls(identity.into_source());
    let url = |name| url(directory, name);
    let running = match name {
        "registry" => RegistryRole::new(name, site).listen_on(url(name)).serve().await?,
        "nsmgr" => ManagerRole::new(name, site).listen_on(url(name)).registry(url("registry")).serve().await?,
        "forwarder" => {
            let wire = elements![CrossConnect::new(Fabric::new().forwarder(name, None))];
            ForwarderRole::new(name, site, url("nsmgr"), wire).listen_on(url(name)).serve().await?
        }
        "endpoint" => {
            let kernel = Mechanisms::new().with(KERNEL, KernelAccept::new())?;
            let endpoint = EndpointRole::new(name, site).listen_on(url(name)).serves(SERVICE);
            endpoint.registers_at(url("nsmgr")).with(elements![kernel]).serve().await?
        }
        other => return Err(format!("there is no role {other}").into()),
    };
    std::fs::write(directory.join(format!("{name}.ready")), "")?;
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await?;
    running.shutdown().await?;
    Ok(())
}
