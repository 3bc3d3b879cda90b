//! What a role judges by.

use nsm_sdk::identity::{Policies, PolicySet};

use super::common::{ClientPolicies, ServerPolicies};
use crate::failure::Failure;

/// The stock policies, with those of the registry that the settings choose. Everything is read and checked before a role
/// starts.
pub(super) fn chosen(server: Option<&ServerPolicies>, client: Option<&ClientPolicies>) -> Result<Policies, Failure> {
    let mut policies = Policies::stock();
    if let Some(server) = server {
        policies.registry_server = load("NSM_REGISTRY_SERVER_POLICIES", &server.registry_server_policies)?;
    }
    if let Some(client) = client {
        policies.registry_client = load("NSM_REGISTRY_CLIENT_POLICIES", &client.registry_client_policies)?;
    }
    Ok(policies)
}

fn load(setting: &str, masks: &[String]) -> Result<PolicySet, Failure> {
    nsm_rego::load(masks).map_err(|error| Failure::of(setting, &error))
}
