//! Policy routes of a file.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use nsm_api::connectioncontext::{PolicyRoute, Route};
use serde::Deserialize;
use tokio::time::Instant;

/// How old what is known of the file may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The policies of a file, read again when it changed. While it cannot be understood, the last good ones stay.
#[derive(Debug)]
pub(super) struct PolicyFile {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    policies: Vec<PolicyRoute>,
    stamp: Option<(SystemTime, u64)>,
    looked: Option<Instant>,
}

impl PolicyFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), known: Mutex::default() }
    }

    /// What holds now. A file that is not there holds none.
    pub(super) fn policies(&self) -> Vec<PolicyRoute> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            known.looked = Some(Instant::now());
            self.look(&mut known);
        }
        known.policies.clone()
    }

    fn look(&self, known: &mut Known) {
        let stamp = std::fs::metadata(&self.path).and_then(|found| Ok((found.modified()?, found.len()))).ok();
        if stamp == known.stamp {
            return;
        }
        known.stamp = stamp;
        let path = self.path.display();
        let read = || parse(&std::fs::read_to_string(&self.path).map_err(|error| error.to_string())?);
        match stamp.map(|_| read()) {
            None => known.policies.clear(),
            Some(Ok(policies)) => {
                tracing::info!(%path, policies = policies.len(), "policy routes");
                known.policies = policies;
            }
            Some(Err(error)) => tracing::warn!(%path, error, "keeping the last good policy routes"),
        }
    }
}

/// One policy, in the words of the reference's file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    #[serde(default)]
    from: Text,
    #[serde(default)]
    proto: Text,
    #[serde(default)]
    dstport: Text,
    #[serde(default)]
    srcport: Text,
    #[serde(default)]
    routes: Vec<RouteShape>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteShape {
    prefix: String,
    #[serde(default)]
    nexthop: String,
}

/// Numbers may be written with or without quotes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Number(u32),
    Text(String),
}

impl Default for Text {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Number(number) => number.to_string(),
            Text::Text(text) => text,
        }
    }
}

impl From<Shape> for PolicyRoute {
    fn from(shape: Shape) -> Self {
        let route = |route: RouteShape| Route { prefix: route.prefix, next_hop: route.nexthop };
        Self {
            from: shape.from.into(),
            proto: shape.proto.into(),
            dst_port: shape.dstport.into(),
            src_port: shape.srcport.into(),
            routes: shape.routes.into_iter().map(route).collect(),
        }
    }
}

fn parse(text: &str) -> Result<Vec<PolicyRoute>, String> {
    let shapes: Option<Vec<Shape>> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let policy = |(at, shape): (usize, Shape)| {
        let policy = PolicyRoute::from(shape);
        policy.validate().map_err(|error| format!("policy {at}: {error}"))?;
        Ok(policy)
    };
    shapes.unwrap_or_default().into_iter().enumerate().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_reference_are_read() {
        let text = "- proto: 6\n  dstport: 6666\n  srcport: \"5555-5560\"\n- proto: 17\n  from: 172.16.2.201/24\n  routes:\n  \
                    - prefix: 172.16.4.0/24\n      nexthop: 172.16.2.200\n";
        let [tcp, udp] = parse(&text.replace("  - prefix", "    - prefix")).unwrap().try_into().unwrap();
        assert_eq!((tcp.proto.as_str(), tcp.dst_port.as_str(), tcp.src_port.as_str()), ("6", "6666", "5555-5560"));
        assert_eq!((udp.from.as_str(), udp.routes[0].next_hop.as_str()), ("172.16.2.201/24", "172.16.2.200"));
        assert!(parse("# none\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(parse("- port: 6\n").unwrap_err().contains("port"));
        assert!(parse("- proto: 6\n- from: here\n").unwrap_err().contains("policy 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_counts_within_a_second_and_a_broken_one_not() {
        let folder = nix::unistd::mkdtemp("/tmp/nsm-policies-XXXXXX").unwrap();
        let path = folder.join("config.yaml");
        let file = PolicyFile::new(&path);
        assert!(file.policies().is_empty(), "no file, no policies");
        for (text, count) in [("- proto: 6\n", 0), ("- proto: 6\n", 1), ("- proto: [\n", 1), ("", 0)] {
            std::fs::write(&path, text).unwrap();
            if count > 0 || text.is_empty() {
                tokio::time::advance(LOOK_EVERY).await;
            }
            assert_eq!(file.policies().len(), count, "{text:?}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
