//! Who a role is: by the Workload API, by a development authority on disk, or nobody.

use std::sync::Arc;
use std::time::Duration;

use nsm_api::SpiffeId;
use nsm_sdk::identity::{DevAuthority, HmacTokens, Policies};
use nsm_sdk::roles::Site;
use nsm_sdk::transport::Transport;
use nsm_spiffe::WorkloadApi;

use super::common::Identity;
use crate::failure::Failure;

/// The trust domain of development authorities.
pub(super) const DEVELOPMENT: &str = "development.nsm";

/// How long one wait for an identity is; the source logs what it waits for.
const A_WHILE: Duration = Duration::from_secs(60);

/// The identity that the settings name, for the role of this name, which judges by these policies. Waits for it as long
/// as it takes.
pub(super) async fn site(identity: &Identity, name: &str, policies: Policies) -> Result<Site, Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(name, error);
    let lifetime = identity.max_token_lifetime.0;
    match (&*identity.spiffe_endpoint_socket, &*identity.authority) {
        _ if identity.insecure.0 => {
            // Without identities there is nothing to judge by.
            tracing::warn!("no identity and no encryption: everybody who reaches a socket of this role is let in");
            let id = SpiffeId::new(&format!("spiffe://insecure/{name}")).map_err(|error| failed(&error))?;
            Ok(Site::over(Transport::insecure(Arc::new(HmacTokens::with_lifetime(&id, lifetime)))))
        }
        (_, Some(directory)) => {
            let authority = DevAuthority::open_or_create(directory, DEVELOPMENT).map_err(|error| failed(&error))?;
            let source = authority.issue(&format!("/{name}")).map_err(|error| failed(&error))?;
            Ok(Site::over(Transport::mtls(source, lifetime)).with_policies(policies))
        }
        (Some(socket), None) => {
            let agent = WorkloadApi::connect(socket).map_err(|error| failed(&error))?;
            while let Err(error) = agent.ready(A_WHILE).await {
                tracing::debug!(%error, "still without an identity");
            }
            Ok(Site::over(Transport::mtls(agent.into_source(), lifetime)).with_policies(policies))
        }
        (None, None) => Err(Failure::at(
            name,
            "it has no identity",
            "set SPIFFE_ENDPOINT_SOCKET to the socket of a SPIFFE agent; or --authority DIR for development; or --insecure \
             for a mesh without identity",
        )),
    }
}
