use std::fmt;
use std::time::Duration;

use nsm_chain::Result;

use super::Mesh;
use super::authority::Authority;

/// Settings of a [`Mesh`].
#[derive(Clone)]
pub struct MeshBuilder {
    tokens: Duration,
    certificates: Option<Duration>,
    durable: bool,
}

impl Default for MeshBuilder {
    fn default() -> Self {
        Self { tokens: Duration::from_secs(3600), certificates: None, durable: false }
    }
}

impl MeshBuilder {
    /// Tokens live that long (default: an hour).
    #[must_use]
    pub fn token_life(mut self, life: Duration) -> Self {
        self.tokens = life;
        self
    }

    /// Every program has a certificate of that life, gets a new one after half of it as long as the authority is there,
    /// and no token outlives it (default: certificates are for ever).
    #[must_use]
    pub fn certificate_life(mut self, life: Duration) -> Self {
        self.certificates = Some(life);
        self
    }

    /// The registry has a disk: [`Mesh::resume_registry`] finds what was registered (default: it knows nothing).
    #[must_use]
    pub fn durable_registry(mut self) -> Self {
        self.durable = true;
        self
    }

    /// The mesh: a registry, and no nodes yet.
    ///
    /// # Errors
    /// None that a released version gives.
    pub fn build(self) -> Result<Mesh> {
        Mesh::assemble(Authority::new(self.tokens, self.certificates), self.durable)
    }
}

impl fmt::Debug for MeshBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshBuilder")
            .field("tokens", &self.tokens)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}
