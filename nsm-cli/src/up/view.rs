//! What a lab looks like: of a lab that is up as it is, of a file as it will be.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nsm_api::mechanism::{KERNEL, MEMIF};
use nsm_api::{Connection, ServiceUrl};
use nsm_sdk::stacks::Session;
use serde::{Deserialize, Serialize};

use super::mesh::Mesh;

/// A lab, to be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct View {
    /// Its name.
    pub(crate) lab: String,
    pub(crate) file: PathBuf,
    /// The process that is the lab; none of a file.
    pub(crate) process: Option<u32>,
    pub(crate) nodes: Vec<Node>,
    /// Network services and what they carry.
    pub(crate) services: BTreeMap<String, String>,
    pub(crate) endpoints: Vec<Workload>,
    pub(crate) pods: Vec<Workload>,
    pub(crate) wires: Vec<Wire>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Its address in the underlay.
    pub(crate) address: Option<String>,
    /// Where its namespace can be entered.
    pub(crate) netns: Option<PathBuf>,
}

/// A pod or an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) node: String,
    /// What an endpoint is, such as `firewall`.
    #[serde(default)]
    pub(crate) kind: String,
    /// The network services of an endpoint.
    pub(crate) serves: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) netns: Option<PathBuf>,
    /// The resolv.conf of programs in it, while there is one.
    pub(crate) resolv_conf: Option<PathBuf>,
}

/// A connection, or the wish for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wire {
    pub(crate) pod: String,
    pub(crate) service: String,
    /// What its interface is called, where that is known.
    pub(crate) interface: String,
    /// Of shared memory: the socket at which a program of the pod, memif's client, finds the other side.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) addresses: Vec<String>,
    /// The endpoint that it leads to, or may lead to.
    pub(crate) endpoint: Option<String>,
    /// The endpoints that it goes on to through that one, the last one at the end.
    #[serde(default)]
    pub(crate) onward: Vec<String>,
    pub(crate) peer_interface: String,
    pub(crate) peers: Vec<String>,
    /// What carries it: `veth`, `memif`, `VXLAN`, or `planned`.
    pub(crate) kind: String,
    /// Largest packet in octets, where something limits it.
    pub(crate) mtu: Option<u32>,
    pub(crate) state: State,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Of a file: it will be asked for.
    Planned,
    Up,
    /// It is being mended.
    Down,
    /// It is asked for, so far in vain.
    Waiting(String),
}

impl View {
    /// That of a file.
    pub(crate) fn planned(lab: &str, file: PathBuf, mesh: &Mesh) -> Self {
        let nodes = mesh.nodes.iter().map(|name| Node { name: name.clone(), address: None, netns: None });
        let mut view = Self { lab: lab.to_owned(), file, nodes: nodes.collect(), ..Self::of_workloads(mesh) };
        for (pod, url) in mesh.pods.iter().flat_map(|(name, pod)| pod.wants.iter().map(move |url| (name, url))) {
            view.wires.push(Wire::planned(pod, url, mesh));
        }
        view
    }

    /// The workloads and network services of a mesh, without where they are.
    pub(super) fn of_workloads(mesh: &Mesh) -> Self {
        let endpoint = |name: &String, endpoint: &super::mesh::Endpoint| Workload {
            name: name.clone(),
            node: endpoint.node.clone(),
            kind: endpoint.function.kind().to_owned(),
            serves: endpoint.serves.keys().cloned().collect(),
            labels: endpoint.serves.values().next().cloned().unwrap_or_default(),
            netns: None,
            resolv_conf: None,
        };
        let pod = |name: &String, pod: &super::mesh::Pod| Workload {
            name: name.clone(),
            node: pod.node.clone(),
            kind: String::new(),
            serves: Vec::new(),
            labels: pod.labels.clone(),
            netns: None,
            resolv_conf: None,
        };
        let payload = |payload: &str| if payload.is_empty() { "IP" } else { payload }.to_owned();
        Self {
            lab: String::new(),
            file: PathBuf::new(),
            process: None,
            nodes: Vec::new(),
            services: mesh.services.iter().map(|(name, it)| (name.clone(), payload(&it.payload))).collect(),
            endpoints: mesh.endpoints.iter().map(|(name, it)| endpoint(name, it)).collect(),
            pods: mesh.pods.iter().map(|(name, it)| pod(name, it)).collect(),
            wires: Vec::new(),
        }
    }

    /// Where the namespace of a node, a pod or an endpoint can be entered.
    pub(crate) fn netns(&self, name: &str) -> Option<&PathBuf> {
        let workloads = self.pods.iter().chain(&self.endpoints).map(|one| (&one.name, &one.netns));
        let nodes = self.nodes.iter().map(|node| (&node.name, &node.netns));
        workloads.chain(nodes).find(|(known, _)| *known == name).and_then(|(_, netns)| netns.as_ref())
    }

    /// The resolv.conf of a pod or an endpoint.
    pub(crate) fn resolv_conf(&self, name: &str) -> Option<&PathBuf> {
        self.pods.iter().chain(&self.endpoints).find(|one| one.name == name)?.resolv_conf.as_ref()
    }

    /// All that has a namespace.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let workloads = self.pods.iter().chain(&self.endpoints).map(|one| one.name.as_str());
        workloads.chain(self.nodes.iter().map(|node| node.name.as_str()))
    }
}

impl Wire {
    /// What a file asks for.
    pub(super) fn planned(pod: &str, url: &ServiceUrl, mesh: &Mesh) -> Self {
        Self {
            pod: pod.to_owned(),
            service: url.service.clone(),
            interface: url.interface.clone().unwrap_or_default(),
            socket: None,
            addresses: Vec::new(),
            endpoint: mesh.candidates(pod, url).into_iter().next(),
            onward: Vec::new(),
            peer_interface: String::new(),
            peers: Vec::new(),
            kind: "planned".to_owned(),
            mtu: None,
            state: State::Planned,
        }
    }

    /// A connection that was made for a URL.
    pub(super) fn made(pod: &str, url: &ServiceUrl, session: &Session) -> Self {
        let interface = session.interface();
        let connection = interface.connection();
        let text = |net: ipnet::IpNet| net.to_string();
        Self {
            pod: pod.to_owned(),
            service: interface.service().to_owned(),
            interface: interface.name().or(url.interface.as_deref()).unwrap_or_default().to_owned(),
            socket: interface.socket(),
            addresses: interface.addresses().map(text).collect(),
            endpoint: Some(interface.endpoint().to_owned()).filter(|name| !name.is_empty()),
            onward: Vec::new(),
            peer_interface: peer_interface(connection),
            peers: interface.peers().map(text).collect(),
            kind: kind(connection),
            mtu: connection.context.as_ref().map(|context| context.mtu).filter(|mtu| *mtu > 0),
            state: if session.is_up() { State::Up } else { State::Down },
        }
    }
}

impl Wire {
    /// Whether it is there and leads to another node.
    pub(super) fn is_tunnel(&self) -> bool {
        self.state == State::Up && !["veth", "memif"].contains(&&*self.kind)
    }
}

/// What hops reported of their interfaces, such as `KERNEL/nsm-1`.
fn reported<'a>(connection: &'a Connection, key: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let segments = connection.path.iter().flat_map(|path| &path.path_segments);
    segments.filter_map(move |segment| segment.metrics.get(key)?.split_once('/'))
}

/// The interface at the endpoint.
fn peer_interface(connection: &Connection) -> String {
    let last = reported(connection, "server_interface").last();
    last.map(|(_, name)| name.to_owned()).unwrap_or_default()
}

/// What leads from node to node; where nothing does, what the pod has.
fn kind(connection: &Connection) -> String {
    let mut towards_endpoint = reported(connection, "client_interface");
    let tunnel = towards_endpoint.find(|(mechanism, _)| ![KERNEL, MEMIF].contains(mechanism));
    let shared = connection.mechanism.as_ref().is_some_and(|mechanism| mechanism.is(MEMIF));
    tunnel.map_or(if shared { "memif" } else { "veth" }, |(mechanism, _)| mechanism).to_owned()
}
