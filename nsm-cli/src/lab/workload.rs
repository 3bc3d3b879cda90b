//! Network namespaces for workloads.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use nsm_dns::{LocalDns, Place, ResolvConf};
use nsm_kernel::{NamedNetns, Netns};

use super::{Lab, Naming};
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
    async fn create(name: String, naming: &Naming) -> Result<Self, Failure> {
        let (netns, alias) = naming.create(&name).await?;
        Ok(Self { name, netns, alias })
    }
}

impl Lab {
    /// Makes a namespace for a workload of this name, unless it has one.
    pub(crate) async fn add_workload(&mut self, name: String) -> Result<(), Failure> {
        if self.workload(&name).is_ok() {
            return Ok(());
        }
        let workload = Workload::create(name, &self.naming).await?;
        self.inventory.watch(&workload.name, &workload.netns).await?;
        self.workloads.push(workload);
        Ok(())
    }

    /// As [`add_workload`](Self::add_workload) for many, several at once.
    pub(crate) async fn add_workloads(&mut self, names: Vec<String>) -> Result<(), Failure> {
        use futures::StreamExt;
        let naming = self.naming.clone();
        let created = names.into_iter().map(|name| Workload::create(name, &naming));
        let mut created = futures::stream::iter(created).buffered(super::AT_ONCE);
        while let Some(workload) = created.next().await {
            let workload = workload?;
            self.inventory.watch(&workload.name, &workload.netns).await?;
            self.workloads.push(workload);
        }
        Ok(())
    }

    /// Lets go of a workload's namespace, and says what was left in it or still holds it.
    pub(crate) async fn remove_workload(&mut self, name: &str) -> Vec<String> {
        let Some(at) = self.workloads.iter().position(|workload| workload.name == name) else { return Vec::new() };
        let workload = self.workloads.remove(at);
        let mut left = self.inventory.left_of(name).await;
        let ended = self.inventory.forget(name);
        drop(workload);
        left.extend(ended.in_time().await);
        left
    }

    /// The namespace of the workload with this name.
    pub(super) fn workload(&self, name: &str) -> Result<&Workload, Failure> {
        let found = self.workloads.iter().find(|workload| workload.name == name);
        found.ok_or_else(|| Failure::at(name, "it has no network namespace", "add the workload first"))
    }
}

impl Lab {
    /// What resolves names for programs in a workload's namespace.
    pub(crate) fn names_for(&self, workload: &str) -> Result<LocalDns, Failure> {
        let workload = self.workload(workload)?;
        let place = Place::In(workload.netns.clone());
        Ok(LocalDns::new(place, (Ipv4Addr::LOCALHOST, DNS).into(), self.resolv_conf(workload)))
    }

    /// The resolv.conf of a workload: where its namespace has a name, the one that `ip netns exec` gives programs in it; else one
    /// of ours, beside the sockets, that whoever enters it must put in its place.
    pub(crate) fn resolv_conf(&self, workload: &Workload) -> ResolvConf {
        match workload.alias.as_ref().and_then(|alias| alias.path().file_name()?.to_str()) {
            Some(name) => ResolvConf::of_named(name),
            None => ResolvConf::at(self.directory().join(format!("{}.resolv.conf", workload.name))).inheriting(FILE),
        }
    }
}

/// The port of DNS.
const DNS: u16 = 53;
/// What programs read who are given nothing else.
const FILE: &str = "/etc/resolv.conf";

impl Workload {
    /// By which path any process of this machine enters it, while we live.
    pub(crate) fn path(&self) -> PathBuf {
        self.alias.as_ref().map_or_else(|| self.netns.path(), |alias| alias.path().to_owned())
    }

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
