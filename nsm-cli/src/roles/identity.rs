//! Who a role is: by the Workload API, by a development authority on disk, or nobody.

use std::sync::Arc;

use nsm_api::SpiffeId;
use nsm_sdk::identity::HmacTokens;
use nsm_sdk::roles::Site;
use nsm_sdk::transport::Transport;

use super::common::Common;
use crate::failure::Failure;

/// The identity that the settings name, for the role of this name.
pub(super) fn site(common: &Common, name: &str) -> Result<Site, Failure> {
    let lifetime = common.max_token_lifetime.0;
    if common.insecure.0 {
        tracing::warn!("no identity and no encryption: everybody who reaches a socket of this role is let in");
        let id = SpiffeId::new(&format!("spiffe://insecure/{name}")).map_err(|error| Failure::of(name, &error))?;
        return Ok(Site::over(Transport::insecure(Arc::new(HmacTokens::with_lifetime(&id, lifetime)))));
    }
    Err(Failure::at(
        name,
        "it has no identity",
        "set SPIFFE_ENDPOINT_SOCKET to the socket of a SPIFFE agent; or --authority DIR for development; or --insecure for \
         a mesh without identity",
    ))
}
