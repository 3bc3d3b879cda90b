//! What must be done to make one mesh another one, and nothing beyond.

use std::collections::BTreeMap;
use std::fmt;

use super::mesh::Mesh;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Service,
    Endpoint,
    Pod,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Added,
    Changed,
    Removed,
}

/// One thing that is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) what: What,
    pub(super) kind: Kind,
    pub(super) name: String,
}

/// The steps from one mesh to another, in an order in which a live connection that must move finds where to go: what is
/// asked for before who asks, and what is no more needed at the end.
pub(super) fn steps(from: &Mesh, to: &Mesh) -> Vec<Step> {
    let set = |nodes: &[String]| nodes.iter().map(|node| (node.clone(), ())).collect::<BTreeMap<_, _>>();
    let nodes = of(Kind::Node, &set(&from.nodes), &set(&to.nodes));
    let services = of(Kind::Service, &from.services, &to.services);
    let endpoints = of(Kind::Endpoint, &from.endpoints, &to.endpoints);
    let pods = of(Kind::Pod, &from.pods, &to.pods);
    let pick = |steps: &[Step], what: What| steps.iter().filter(|step| step.what == what).cloned().collect::<Vec<_>>();
    [
        pick(&nodes, What::Added),
        pick(&pods, What::Removed),
        pick(&services, What::Added),
        pick(&endpoints, What::Added),
        pick(&services, What::Changed),
        pick(&endpoints, What::Changed),
        pick(&pods, What::Added),
        pick(&pods, What::Changed),
        pick(&endpoints, What::Removed),
        pick(&services, What::Removed),
        pick(&nodes, What::Removed),
    ]
    .concat()
}

fn of<T: PartialEq>(kind: Kind, from: &BTreeMap<String, T>, to: &BTreeMap<String, T>) -> Vec<Step> {
    let step = |what, name: &String| Step { what, kind, name: name.clone() };
    let gone = from.keys().filter(|name| !to.contains_key(*name)).map(|name| step(What::Removed, name));
    let there = to.iter().filter_map(|(name, it)| match from.get(name) {
        None => Some(step(What::Added, name)),
        Some(old) if old != it => Some(step(What::Changed, name)),
        Some(_) => None,
    });
    gone.chain(there).collect()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Service => "network service",
            Self::Endpoint => "endpoint",
            Self::Pod => "pod",
        })
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.what, self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::mesh::Pod;

    fn mesh(pods: &[(&str, &str)]) -> Mesh {
        let pod = |url: &str| Pod {
            node: "node-1".into(),
            labels: BTreeMap::new(),
            wants: nsm_api::ServiceUrl::parse_list(url).unwrap(),
            containers: 0,
        };
        let pods = pods.iter().map(|(name, url)| ((*name).to_owned(), pod(url))).collect();
        Mesh { nodes: vec!["node-1".into()], pods, ..Mesh::default() }
    }

    fn told(from: &Mesh, to: &Mesh) -> Vec<String> {
        steps(from, to).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_differs_is_done() {
        let before = mesh(&[("a", "kernel://x/1"), ("b", "kernel://x/1"), ("c", "kernel://x/1")]);
        let after = mesh(&[("b", "kernel://x/1"), ("c", "kernel://y/1"), ("d", "")]);
        assert_eq!(told(&before, &after), ["removed pod a", "added pod d", "changed pod c"]);
        assert_eq!(told(&before, &before), [""; 0]);
        assert_eq!(told(&Mesh::default(), &mesh(&[("a", "")])), ["added node node-1", "added pod a"]);
    }

    #[test]
    fn a_node_is_there_before_what_is_on_it_and_goes_after_it() {
        let (mut before, mut after) = (mesh(&[("a", "")]), mesh(&[("b", "")]));
        before.nodes = vec!["x".into(), "y".into()];
        after.nodes = vec!["y".into(), "z".into()];
        assert_eq!(told(&before, &after), ["added node z", "removed pod a", "added pod b", "removed node x"]);
        after.nodes = vec!["y".into(), "x".into()];
        assert_eq!(told(&before, &after), ["removed pod a", "added pod b"], "their order is no difference");
    }
}
