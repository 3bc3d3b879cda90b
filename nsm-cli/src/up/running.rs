//! A lab that is up, and how it becomes what a file says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nsm_chain::{Node, elements};
use nsm_dns::UseDns;
use nsm_sdk::context::ExcludedPrefixes;
use nsm_sdk::lifetime::UpstreamRefresh;
use tokio::time::Instant;

use super::diff::{self, Kind, Step, What};
use super::keeper::Keeper;
use super::mesh::{Mesh, Pod};
use super::view::{self, View};
use crate::failure::Failure;
use crate::lab::{Lab, Left};
use crate::story::{Story, plural};

/// How often it is looked whether connections are there.
const LOOKING: Duration = Duration::from_millis(10);

/// What is up.
pub(super) struct Running {
    lab: Lab,
    /// What of the file is there. A step that failed is not in it, so that it is tried again with the next change.
    mesh: Mesh,
    /// Connections by pod.
    kept: BTreeMap<String, Vec<Keeper>>,
    /// How many connections were asked for: their ids are never the same.
    asked: usize,
}

impl Running {
    /// Nothing yet.
    pub(super) fn new(lab: Lab) -> Self {
        Self { lab, mesh: Mesh::default(), kept: BTreeMap::new(), asked: 0 }
    }

    /// What is there.
    pub(super) fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Starts the nodes, each with a manager and a forwarder.
    pub(super) async fn start_nodes(&mut self, nodes: &[String], story: &Story) -> Result<(), Failure> {
        let begun = story.begin();
        self.lab.lay_network(nodes).await?;
        self.lab.start_registry().await?;
        let what =
            format!("{}, each a network namespace, joined by an underlay; a registry", plural(nodes.len(), "node"));
        story.done(begun, "underlay", &what);
        for name in nodes {
            let begun = story.begin();
            let what = self.start_node(name).await?;
            story.done(begun, "node", &format!("{name}{what}"));
        }
        Ok(())
    }

    /// Starts the roles of a node whose namespace is there.
    async fn start_node(&mut self, name: &str) -> Result<String, Failure> {
        let at = self.mesh.nodes.len();
        self.lab.start_manager(name).await?;
        self.lab.start_forwarder(at).await?;
        self.mesh.nodes.push(name.to_owned());
        let address = self.lab.place(at).map(|place| place.ip().to_string()).unwrap_or_default();
        Ok(format!(" at {address}, with a manager and a forwarder"))
    }

    async fn node(&mut self, step: &Step) -> Result<String, Failure> {
        let name = &step.name;
        if step.what == What::Added {
            let started = match self.lab.add_place(name).await {
                Ok(()) => self.start_node(name).await,
                Err(failure) => Err(failure),
            };
            if started.is_err() {
                let left = self.lab.remove_node(name).await?;
                tracing::debug!(name, ?left, "a node that could not be started is gone again");
            }
            return started;
        }
        self.mesh.nodes.retain(|node| node != name);
        gone(name, &self.lab.remove_node(name).await?)
    }

    /// Makes it what the file says. What is the same is not touched.
    pub(super) async fn become_like(&mut self, wanted: &Mesh, story: &Story) -> Result<Vec<Step>, Failure> {
        let steps = diff::steps(&self.mesh, wanted);
        for step in &steps {
            let begun = story.begin();
            let done = match step.kind {
                Kind::Node => self.node(step).await,
                Kind::Service => self.service(step, wanted).await,
                Kind::Endpoint => self.endpoint(step, wanted).await,
                Kind::Pod => self.pod(step, wanted).await,
            }?;
            story.done(begun, &step.what.to_string(), &format!("{} {}{done}", step.kind, step.name));
        }
        Ok(steps)
    }

    async fn service(&mut self, step: &Step, wanted: &Mesh) -> Result<String, Failure> {
        match wanted.services.get(&step.name) {
            Some(service) => {
                self.lab.apply(vec![service.clone()]).await?;
                self.mesh.services.insert(step.name.clone(), service.clone());
            }
            None => {
                if let Some(service) = self.mesh.services.remove(&step.name) {
                    self.lab.withdraw(service).await?;
                }
            }
        }
        Ok(String::new())
    }

    async fn endpoint(&mut self, step: &Step, wanted: &Mesh) -> Result<String, Failure> {
        let name = &step.name;
        if step.what != What::Added {
            self.mesh.endpoints.remove(name);
            self.lab.stop_endpoint(name).await?;
        }
        let Some(endpoint) = wanted.endpoints.get(name) else {
            return self.emptied(name).await;
        };
        let at = self.mesh.position(&endpoint.node);
        self.lab.add_workload(name.clone()).await?;
        self.lab.start_endpoint(name, &endpoint.function, at, &endpoint.serves, endpoint.dns.clone()).await?;
        self.mesh.endpoints.insert(name.clone(), endpoint.clone());
        let services: Vec<&str> = endpoint.serves.keys().map(String::as_str).collect();
        Ok(format!(" on {}, serves {}", endpoint.node, services.join(", ")))
    }

    async fn pod(&mut self, step: &Step, wanted: &Mesh) -> Result<String, Failure> {
        let name = &step.name;
        let before = self.mesh.pods.get(name).cloned();
        let Some(pod) = wanted.pods.get(name) else {
            self.forget(name, |_| true).await?;
            self.mesh.pods.remove(name);
            self.lab.remove_client(name).await?;
            return self.emptied(name).await;
        };
        // A connection stays if it is asked for in the same words from the same place.
        let same = |url: &_| before.as_ref().is_some_and(|old| old.labels_for(name, url) == pod.labels_for(name, url));
        self.forget(name, |kept| !(pod.wants.contains(&kept.url) && same(&kept.url))).await?;
        let moved = before.as_ref().is_some_and(|old| old.node != pod.node);
        if moved {
            self.lab.remove_client(name).await?;
        }
        self.lab.add_workload(name.clone()).await?;
        if self.lab.client(name).is_none() {
            let mut own = elements![UpstreamRefresh::default(), ExcludedPrefixes::new()];
            own.push(Node::new(UseDns::new(self.lab.names_for(name)?)));
            self.lab.add_client_with(name, self.mesh.position(&pod.node), own)?;
        }
        let asked = self.ask(name, pod)?;
        self.mesh.pods.insert(name.clone(), pod.clone());
        let kept = pod.wants.len() - asked;
        let kept = if before.is_some() { format!(", {} untouched", plural(kept, "connection")) } else { String::new() };
        let unrun =
            if pod.containers == 0 { String::new() } else { format!("; no container runs here: nsm exec {name}") };
        Ok(format!(" on {}, asks for {}{kept}{unrun}", pod.node, plural(asked, "connection")))
    }

    /// Asks for what a pod wants and has not. How much that is.
    fn ask(&mut self, name: &str, pod: &Pod) -> Result<usize, Failure> {
        let client = self.lab.client(name).ok_or_else(|| Failure::at(name, "it has no client", "add the pod first"))?;
        let kept = self.kept.entry(name.to_owned()).or_default();
        let missing: Vec<_> = pod.wants.iter().filter(|url| !kept.iter().any(|keeper| keeper.url == **url)).collect();
        for url in &missing {
            self.asked += 1;
            let id = format!("{name}-{}", self.asked);
            kept.push(Keeper::start(client.stack(), id, url, pod.labels_for(name, url)));
        }
        Ok(missing.len())
    }

    /// Closes those connections of a pod that are wanted no more.
    async fn forget(&mut self, name: &str, unwanted: impl Fn(&Keeper) -> bool) -> Result<(), Failure> {
        let (gone, stay) = self.kept.remove(name).unwrap_or_default().into_iter().partition(unwanted);
        self.kept.insert(name.to_owned(), stay);
        let gone: Vec<Keeper> = gone;
        for keeper in gone {
            keeper.close().await?;
        }
        Ok(())
    }

    /// The namespace of a workload ends.
    async fn emptied(&mut self, name: &str) -> Result<String, Failure> {
        self.kept.remove(name);
        gone(name, &self.lab.remove_workload(name).await)
    }

    /// Waits until all connections are up, or the time is over. Those that are not, with the reason.
    pub(super) async fn settled(&self, within: Duration) -> Vec<(String, Option<Failure>)> {
        let until = Instant::now() + within;
        loop {
            let missing: Vec<&Keeper> = self.kept.values().flatten().filter(|keeper| !keeper.is_up()).collect();
            if missing.is_empty() || Instant::now() >= until {
                return missing.iter().map(|keeper| (keeper.url.to_string(), keeper.failure())).collect();
            }
            tokio::time::sleep(LOOKING).await;
        }
    }

    /// How it looks now, but for its name.
    pub(super) fn view(&self) -> View {
        let mut view = View::of_workloads(&self.mesh);
        view.process = Some(std::process::id());
        for (at, name) in self.mesh.nodes.iter().enumerate() {
            let place = self.lab.place(at);
            let (address, netns) = (place.map(|place| place.ip().to_string()), self.lab.place_path(at));
            view.nodes.push(view::Node { name: name.clone(), address, netns });
        }
        for workload in view.pods.iter_mut().chain(&mut view.endpoints) {
            let Some(made) = self.lab.workloads.iter().find(|it| it.name == workload.name) else { continue };
            workload.netns = Some(made.path());
            workload.resolv_conf = Some(self.lab.resolv_conf(made).path().to_owned());
        }
        for (name, keepers) in &self.kept {
            let wires = keepers.iter().map(|keeper| keeper.view(name, &self.mesh));
            view.wires.extend(wires);
        }
        view
    }

    /// Takes everything down. Sockets of strangers are open, and not ours to close.
    pub(super) async fn take_down(self, strangers: BTreeSet<String>) -> Left {
        let Self { mut lab, kept, .. } = self;
        // Who still asks, asks no more; the clients close what they have.
        drop(kept);
        lab.excuse(strangers);
        lab.take_down().await
    }
}

/// Something has been let go of, and this is left of it.
fn gone(name: &str, left: &[String]) -> Result<String, Failure> {
    if left.is_empty() {
        return Ok(", nothing left of it".to_owned());
    }
    Err(Failure::at(name, format!("it is gone, but this is left: {}", left.join("; ")), "take the lab down"))
}
