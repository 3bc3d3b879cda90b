//! Network namespaces for workloads.

use nsm_kernel::{NamedNetns, Netns};

use super::Lab;
use crate::failure::Failure;

/// A workload's network namespace.
#[derive(Debug)]
pub(crate) struct Workload {
    /// The name of the client or endpoint in it.
    pub(crate) name: String,
    pub(crate) netns: Netns,
    /// Its name for `ip netns exec`, where it has one.
    pub(crate) alias: Option<NamedNetns>,
}

impl Workload {
    async fn create(name: String, named: bool) -> Result<Self, Failure> {
        // A name is a convenience: where it is taken, or may not be given, the namespace goes without.
        let alias = if named { Netns::create_named(&name).await.ok() } else { None };
        let netns = match &alias {
            Some(alias) => alias.netns().clone(),
            None => Netns::create().await.map_err(|error| Failure::of(&name, &error))?,
        };
        Ok(Self { name, netns, alias })
    }
}

impl Lab {
    /// Makes one namespace for a workload of this name, with a name for `ip netns` if wanted and possible.
    pub(crate) async fn add_workload(&mut self, name: String, named: bool) -> Result<(), Failure> {
        let workload = Workload::create(name, named).await?;
        self.inventory.watch(&workload.name, &workload.netns).await?;
        self.workloads.push(workload);
        Ok(())
    }

    /// As [`add_workload`](Self::add_workload) for many, several at once.
    pub(crate) async fn add_workloads(&mut self, names: Vec<String>, named: bool) -> Result<(), Failure> {
        use futures::StreamExt;
        let created = names.into_iter().map(|name| Workload::create(name, named));
        let mut created = futures::stream::iter(created).buffered(super::AT_ONCE);
        while let Some(workload) = created.next().await {
            let workload = workload?;
            self.inventory.watch(&workload.name, &workload.netns).await?;
            self.workloads.push(workload);
        }
        Ok(())
    }

    /// The namespace of the workload with this name.
    pub(super) fn workload(&self, name: &str) -> Result<&Workload, Failure> {
        let found = self.workloads.iter().find(|workload| workload.name == name);
        found.ok_or_else(|| Failure::at(name, "it has no network namespace", "add the workload first"))
    }
}

impl Workload {
    /// How to run a command in it from a shell.
    pub(crate) fn enter(&self) -> String {
        if self.alias.is_some() {
            return format!("ip netns exec {}", self.name);
        }
        let path = self.netns.path();
        if nsm_kernel::privileges().in_user_namespace {
            // The namespace belongs to our user namespace: only from there may it be entered.
            return format!("nsenter --preserve-credentials -t {} -U --net={}", std::process::id(), path.display());
        }
        format!("nsenter --net={}", path.display())
    }
}
