use nsm_api::NetworkService;
use nsm_chain::Call;

use super::endpoint::REGISTERING;
use super::{RoleError, Site};

/// Registers a network service, or changes it, at the manager or registry with this URL.
///
/// It stays registered: a network service does not expire. Read one from YAML with [`nsm_api::yaml::parse`].
///
/// ```no_run
/// # async fn example(site: nsm_sdk::roles::Site) -> Result<(), Box<dyn std::error::Error>> {
/// use nsm_sdk::nsm_api::{NetworkService, payload};
///
/// let vpn = NetworkService { name: "vpn".into(), payload: payload::IP.into(), ..Default::default() };
/// nsm_sdk::roles::apply(&site, "unix:///run/nsm/nsmgr.sock", vpn).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// What the manager or registry reports, after it was asked for half a minute.
pub async fn apply(site: &Site, url: &str, service: NetworkService) -> Result<(), RoleError> {
    let client = site.registry_client("apply", site.channels(), url).build()?;
    client.services.request(Call::new(service).within(REGISTERING)).await.map_err(RoleError::Register)?;
    Ok(())
}
