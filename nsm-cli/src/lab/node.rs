//! A node: its manager and its forwarder.

use nsm_chain::elements;
use nsm_mechanisms::{CrossConnect, Linux, Meter, Pace, Reconcile, Underlay, WithMemif};
use nsm_sdk::roles::{ForwarderRole, ManagerRole, Running, Site};

use super::Lab;
use crate::failure::Failure;

/// Where managers listen for those of other nodes.
const MANAGER_PORT: u16 = 5001;

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    /// What its roles are called behind `nsmgr-` and `forwarder-`.
    pub(crate) name: String,
    pub(crate) manager: Running,
    pub(super) forwarder: Option<Running>,
}

impl Node {
    /// Where its workloads reach its manager.
    pub(super) fn url(&self) -> String {
        self.manager.url()
    }
}

impl Lab {
    /// Starts the manager of the next node, of this name.
    pub(crate) async fn start_manager(&mut self, node: &str) -> Result<&Node, Failure> {
        let at = self.nodes.len();
        let name = format!("nsmgr-{node}");
        let place = self.place(at).cloned();
        let mut role = ManagerRole::new(&name, self.site_at(&name, place.as_ref())?).listen_on(self.sockets.url(&name));
        if let Some(registry) = &self.registry {
            role = role.registry(registry.url());
        }
        if let Some(place) = &place {
            role = role.listen_on(format!("tcp://{}:{MANAGER_PORT}", place.ip()));
        }
        let manager = role.serve().await.map_err(|error| Failure::of(&name, &error))?;
        self.nodes.push(Node { name: node.to_owned(), manager, forwarder: None });
        self.node(at)
    }

    /// Starts the Linux forwarder of the node at this position.
    pub(crate) async fn start_forwarder(&mut self, at: usize) -> Result<&Running, Failure> {
        let node = self.node(at)?;
        let name = format!("forwarder-{}", node.name);
        let place = self.place(at);
        let failed = |error: &(dyn std::error::Error + 'static)| Failure::of(&name, error);
        let linux = match place {
            Some(place) => Linux::with_underlay(&name, Underlay::new(place.ip()), place.netns.clone()),
            None => Linux::new(&name),
        };
        let data_plane = WithMemif::over(linux.map_err(|error| failed(&error))?);
        let reconcile = Reconcile::start(data_plane.clone(), Pace::default()).await;
        let wire =
            elements![self.wires.note(&name), Meter::new(data_plane.clone()), reconcile, CrossConnect::new(data_plane)];
        let site = self.site_at(&name, place)?;
        let role = ForwarderRole::new(&name, site, node.url(), wire).listen_on(self.sockets.url(&name));
        let forwarder = role.serve().await.map_err(|error| failed(&error))?;
        let node = self.nodes.get_mut(at).ok_or_else(|| Failure::at(&name, "its node has gone", "start it again"))?;
        Ok(node.forwarder.insert(forwarder))
    }

    /// Stops the roles of a node and lets go of its namespace; says what was left in it or still holds it. Of one whose roles
    /// could not be started, the last one, there is but the namespace.
    pub(crate) async fn remove_node(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        let at = self.nodes.iter().position(|node| node.name == name).unwrap_or(self.nodes.len());
        if at < self.nodes.len() {
            let Node { forwarder, manager, .. } = self.nodes.remove(at);
            for role in forwarder.into_iter().chain([manager]) {
                role.shutdown().await.map_err(|error| Failure::of(name, &error))?;
            }
        }
        let place = self.network.as_mut().and_then(|network| network.remove(at));
        let alias = (at < self.places.len()).then(|| self.places.remove(at));
        let left = self.inventory.left_of(name).await;
        let ended = self.inventory.forget(name);
        drop((place, alias));
        Ok([left, ended.in_time().await].concat())
    }

    /// The identity of a role, with its TCP sockets in its node's namespace.
    fn site_at(&self, name: &str, place: Option<&nsm_kernel::Node>) -> Result<Site, Failure> {
        let site = self.site(name)?;
        Ok(match place {
            Some(place) => site.in_netns(&place.netns),
            None => site,
        })
    }
}
