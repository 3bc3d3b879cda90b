//! What must be done to make one mesh another one, and nothing beyond.

use std::collections::BTreeMap;
use std::fmt;

use super::mesh::Mesh;
use crate::failure::Failure;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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
pub(super) fn steps(from: &Mesh, to: &Mesh) -> Result<Vec<Step>, Failure> {
    if !from.nodes.is_empty() && from.nodes != to.nodes {
        let cause = format!("nodes change from {} to {}", from.nodes.join(", "), to.nodes.join(", "));
        let remedy = "nodes of a lab that is up stay as they are: take it down, and bring it up again";
        return Err(Failure::at("nodes", cause, remedy));
    }
    let services = of(Kind::Service, &from.services, &to.services);
    let endpoints = of(Kind::Endpoint, &from.endpoints, &to.endpoints);
    let pods = of(Kind::Pod, &from.pods, &to.pods);
    let pick = |steps: &[Step], what: What| steps.iter().filter(|step| step.what == what).cloned().collect::<Vec<_>>();
    Ok([
        pick(&pods, What::Removed),
        pick(&services, What::Added),
        pick(&endpoints, What::Added),
        pick(&services, What::Changed),
        pick(&endpoints, What::Changed),
        pick(&pods, What::Added),
        pick(&pods, What::Changed),
        pick(&endpoints, What::Removed),
        pick(&services, What::Removed),
    ]
    .concat())
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
        steps(from, to).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_differs_is_done() {
        let before = mesh(&[("a", "kernel://x/1"), ("b", "kernel://x/1"), ("c", "kernel://x/1")]);
        let after = mesh(&[("b", "kernel://x/1"), ("c", "kernel://y/1"), ("d", "")]);
        assert_eq!(told(&before, &after), ["removed pod a", "added pod d", "changed pod c"]);
        assert_eq!(told(&before, &before), [""; 0]);
        assert_eq!(told(&Mesh::default(), &mesh(&[("a", "")])), ["added pod a"]);
    }

    #[test]
    fn nodes_stay_as_they_are() {
        let (before, mut after) = (mesh(&[]), mesh(&[]));
        after.nodes.push("node-2".into());
        let failure = steps(&before, &after).unwrap_err();
        assert!(failure.cause.contains("node-1, node-2") && failure.remedy.contains("down"), "{failure}");
    }
}
