//! Which connections a monitor stream is about.

use crate::{Connection, MonitorScopeSelector, PathSegment};

impl MonitorScopeSelector {
    /// Whether the stream reports this connection.
    ///
    /// The connection's network service must be one of the selector's (none named: any), and the
    /// selector's segments must match a run of adjacent segments of the connection's path, in order.
    /// In a selector segment an empty name, id or token matches any.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.matches_service(&connection.network_service) && self.matches_path(connection)
    }

    fn matches_service(&self, service: &str) -> bool {
        self.network_services.is_empty() || self.network_services.iter().any(|name| name == service)
    }

    fn matches_path(&self, connection: &Connection) -> bool {
        if self.path_segments.is_empty() {
            return true;
        }
        let segments = connection.path.as_ref().map_or(&[][..], |path| &path.path_segments);
        segments
            .windows(self.path_segments.len())
            .any(|run| self.path_segments.iter().zip(run).all(|(wanted, segment)| fits(wanted, segment)))
    }
}

fn fits(wanted: &PathSegment, segment: &PathSegment) -> bool {
    let same = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
    same(&wanted.name, &segment.name) && same(&wanted.id, &segment.id) && same(&wanted.token, &segment.token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;

    fn segments(names: &[&str]) -> Vec<PathSegment> {
        names
            .iter()
            .map(|name| PathSegment {
                name: (*name).into(),
                id: if name.is_empty() { String::new() } else { format!("{name}-id") },
                ..Default::default()
            })
            .collect()
    }

    fn connection() -> Connection {
        let path_segments = segments(&["nsc", "nsmgr", "fwd", "nse"]);
        Connection {
            network_service: "ns-1".into(),
            path: Some(Path { index: 0, path_segments }),
            ..Default::default()
        }
    }

    fn by_path(names: &[&str]) -> MonitorScopeSelector {
        MonitorScopeSelector { path_segments: segments(names), ..Default::default() }
    }

    #[test]
    fn an_empty_selector_takes_everything() {
        assert!(MonitorScopeSelector::default().matches(&connection()));
        assert!(MonitorScopeSelector::default().matches(&Connection::default()));
    }

    #[test]
    fn segments_match_an_adjacent_run_in_order() {
        assert!(by_path(&["nsmgr", "fwd"]).matches(&connection()));
        assert!(!by_path(&["nsc", "fwd"]).matches(&connection()));
        assert!(!by_path(&["fwd", "nsmgr"]).matches(&connection()));
        assert!(!by_path(&["nsc", "nsmgr", "fwd", "nse", "more"]).matches(&connection()));
        assert!(!by_path(&["nsc"]).matches(&Connection::default()));
    }

    #[test]
    fn an_empty_field_is_a_wildcard() {
        assert!(by_path(&["nsmgr", "", "nse"]).matches(&connection()));
        assert!(!by_path(&["", "", "", "", ""]).matches(&connection()));
    }

    #[test]
    fn a_service_matches_by_its_whole_name() {
        let by_service = |names: &[&str]| MonitorScopeSelector {
            network_services: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        assert!(by_service(&["other", "ns-1"]).matches(&connection()));
        assert!(!by_service(&["ns"]).matches(&connection()));
    }
}
