use super::PolicySet;

/// What a program judges by: a set of policies for each thing that is judged.
#[derive(Debug, Clone)]
pub struct Policies {
    /// Who may ask for connections.
    pub server: PolicySet,
    /// Whose answer to a request for a connection is believed.
    pub client: PolicySet,
    /// Who may register, unregister and find.
    pub registry_server: PolicySet,
    /// Whose answer to a registration is believed.
    pub registry_client: PolicySet,
    /// Who may watch connections. Without policies everybody may, and is told of his own.
    pub monitor: PolicySet,
}

impl Policies {
    /// The stock policies. Watchers are told of their own, which needs none.
    #[must_use]
    pub fn stock() -> Self {
        Self {
            server: PolicySet::server(),
            client: PolicySet::client(),
            registry_server: PolicySet::registry_server(),
            registry_client: PolicySet::registry_client(),
            monitor: PolicySet::allow_all(),
        }
    }

    /// None: for links without identity, where there is nothing to judge by.
    #[must_use]
    pub fn allow_all() -> Self {
        Self {
            server: PolicySet::allow_all(),
            client: PolicySet::allow_all(),
            registry_server: PolicySet::allow_all(),
            registry_client: PolicySet::allow_all(),
            monitor: PolicySet::allow_all(),
        }
    }
}
