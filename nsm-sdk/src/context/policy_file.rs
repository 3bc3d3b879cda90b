//! Policy routes as a file says them, in the words of the reference's endpoint.

use nsm_api::connectioncontext::{PolicyRoute, Route};
use serde::Deserialize;

use crate::files::{FileError, yaml};

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

pub(super) fn parse(text: &str) -> Result<Vec<PolicyRoute>, FileError> {
    let shapes: Option<Vec<Shape>> = yaml(text, "a list of from, proto, dstport, srcport, routes")?;
    let policy = |(at, shape): (usize, Shape)| {
        let policy = PolicyRoute::from(shape);
        policy.validate().map_err(|error| FileError::Malformed(format!("policy {at}: {error}")))?;
        Ok(policy)
    };
    shapes.unwrap_or_default().into_iter().enumerate().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_reference_are_read() {
        let text = "- proto: 6\n  dstport: 6666\n  srcport: \"5555-5560\"\n- proto: 17\n  from: 172.16.2.201/24\n  routes:\n    \
                    - prefix: 172.16.4.0/24\n      nexthop: 172.16.2.200\n";
        let [tcp, udp] = parse(text).unwrap().try_into().unwrap();
        assert_eq!((tcp.proto.as_str(), tcp.dst_port.as_str(), tcp.src_port.as_str()), ("6", "6666", "5555-5560"));
        assert_eq!((udp.from.as_str(), udp.routes[0].next_hop.as_str()), ("172.16.2.201/24", "172.16.2.200"));
        assert!(parse("# none\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(parse("- port: 6\n").unwrap_err().to_string().contains("port"));
        assert!(parse("- proto: 6\n- from: here\n").unwrap_err().to_string().contains("policy 1"));
    }
}
