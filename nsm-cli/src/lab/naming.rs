//! Names for namespaces, by which people find them.

use nsm_kernel::{NamedNetns, Netns};

use crate::failure::Failure;

/// Which names the namespaces of a lab get under `/run/netns`.
#[derive(Debug, Clone)]
pub(crate) enum Naming {
    /// None.
    Nameless,
    /// The name of the workload, where nobody has it: a convenience.
    Plain,
    /// The name of the workload behind a prefix, with a mark in the namespace by which it is known as ours even when this
    /// process was killed.
    Marked { prefix: String, mark: String },
}

impl Naming {
    /// Gives a namespace its name. In a user namespace there are no names: it ends with its processes.
    pub(super) async fn named(&self, name: &str, netns: &Netns) -> Result<Option<NamedNetns>, Failure> {
        let Self::Marked { prefix, mark } = self else { return Ok(None) };
        if nsm_kernel::privileges().in_user_namespace {
            return Ok(None);
        }
        let full = format!("{prefix}{name}");
        match netns.named(&full, mark).await {
            Ok(named) => Ok(Some(named)),
            Err(error) if error.errno() == Some(nix::libc::EEXIST) => {
                let cause = format!("there is a network namespace {full} already, and it is not of this lab");
                Err(Failure::at(
                    name,
                    cause,
                    format!("remove it (ip netns delete {full}), or give the lab another --name"),
                ))
            }
            Err(error) => Err(Failure::of(name, &error)),
        }
    }

    /// Makes a namespace for a workload.
    pub(super) async fn create(&self, name: &str) -> Result<(Netns, Option<NamedNetns>), Failure> {
        // A plain name is a convenience: where it is taken, or may not be given, the namespace goes without.
        if matches!(self, Self::Plain)
            && let Ok(alias) = Netns::create_named(name).await
        {
            return Ok((alias.netns().clone(), Some(alias)));
        }
        let netns = Netns::create().await.map_err(|error| Failure::of(name, &error))?;
        let alias = self.named(name, &netns).await?;
        Ok((netns, alias))
    }
}
