use std::fmt;
use std::sync::Arc;

use nsm_chain::{Node, Record, Registry, Tokens};

use crate::identity::PolicySet;
use crate::registry::{AuthorizeRegistry, Owned, UpdateRegistryPath};

/// Whom a registry lets in.
#[derive(Clone)]
pub struct Admission(Option<(Arc<dyn Tokens>, PolicySet)>);

impl Admission {
    /// Those whom the stock policies for registry servers allow; this hop signs with `tokens`.
    #[must_use]
    pub fn by(tokens: Arc<dyn Tokens>) -> Self {
        Self(Some((tokens, PolicySet::registry_server())))
    }

    /// Judged by other policies.
    #[must_use]
    pub fn policies(self, policies: PolicySet) -> Self {
        Self(self.0.map(|(tokens, _)| (tokens, policies)))
    }

    /// Everybody, without a look: for chains inside one process.
    #[must_use]
    pub fn open() -> Self {
        Self(None)
    }

    /// The elements at the head of a registry's chain, where names belong to these owners already.
    pub(crate) fn elements<R: Record>(&self, owners: Vec<Owned>) -> Vec<Node<Registry<R>>> {
        let Some((tokens, policies)) = &self.0 else {
            return Vec::new();
        };
        vec![
            Node::new(UpdateRegistryPath::new(Arc::clone(tokens))), // whom the call comes from, hop by hop
            Node::new(AuthorizeRegistry::new(policies.clone()).owned_by(owners)), // judges that path before anything is touched
        ]
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((_, policies)) => write!(f, "Admission({policies:?})"),
            None => f.write_str("Admission(open)"),
        }
    }
}
