use futures::future::BoxFuture;
use nsm_chain::Error;

/// Under this name in its domain a registry is found (the reference's default).
pub const REGISTRY: &str = "registry.nsm-system";
/// Under this name in its domain a manager proxy is found (the reference's default).
pub const MANAGER_PROXY: &str = "nsmgr-proxy.nsm-system";

/// Finds where a service of another domain is. The crate `nsm-dns` does it by DNS.
pub trait DomainResolver: Send + Sync + 'static {
    /// The URL (`tcp://address:port`) of `service`, such as [`REGISTRY`], in `domain`. It is asked with every call: keep
    /// answers as long as they are good, and not too many of them.
    ///
    /// # Errors
    /// [`ResolveError`].
    fn resolve<'a>(&'a self, service: &'a str, domain: &'a str) -> BoxFuture<'a, Result<String, ResolveError>>;
}

/// Why a service of another domain cannot be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No name can be made of it.
    #[error("{name:?} is not a name that DNS could know: {reason}")]
    Malformed {
        /// What was to be asked for.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such name, or no record of the kind that is needed.
    #[error("{server} has no {kind} record of {name}")]
    NotFound {
        /// What was asked for.
        name: String,
        /// The kind of record.
        kind: &'static str,
        /// Who was asked.
        server: String,
    },
    /// Nobody could be asked, or nobody answered.
    #[error("{server} gave no answer about {name}: {reason}")]
    NoAnswer {
        /// What was asked for.
        name: String,
        /// Who was asked.
        server: String,
        /// What happened.
        reason: String,
    },
}

impl ResolveError {
    /// Whether it is certain that there is no such service.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// As the error of a chain.
    pub(super) fn about(self, service: &str, domain: &str) -> Error {
        let what = format!("cannot find {service} of the domain {domain:?}");
        match &self {
            Self::Malformed { .. } => Error::invalid(what).hint("correct the part of the name behind the @"),
            Self::NotFound { .. } => Error::not_found(what)
                .hint("correct the name of the domain, or give its DNS zone an SRV record and an address of that name"),
            Self::NoAnswer { .. } => Error::unavailable(what).hint("see whether the DNS server is up and reachable"),
        }
        .because(self)
    }
}
