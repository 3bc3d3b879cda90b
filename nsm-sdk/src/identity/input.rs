use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nsm_api::SpiffeId;
use nsm_api::connection::PathSegment;
use nsm_chain::Peer;
use serde_json::{Map, Value, json};

use super::rules::{self, Decoded};

/// What the policies judge. Rules that need what is not there deny.
#[derive(Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The tokens of the path: a server gives its left side (up to and with `index`), a client the whole.
    pub tokens: &'a [&'a str],
    /// This hop's place in the path.
    pub index: usize,
    /// The other end of the link.
    pub peer: Option<&'a Peer>,
    /// The first path id recorded for the name in question (registry only; none: the name is free).
    pub owner: Option<&'a str>,
    /// What the tokens are shown for.
    pub about: About<'a>,
    /// The time to judge expiry by.
    pub now: SystemTime,
}

/// What is asked for, as far as policies may see it. It settles the document that a [`CustomPolicy`](super::CustomPolicy)
/// is given; each has `auth_info.certificate` as well, the other end's certificate as PEM, empty if it showed none.
#[derive(Clone, Copy, Default)]
pub enum About<'a> {
    /// Nothing but the tokens: `path_segments` with a `token` each, `index`.
    #[default]
    Tokens,
    /// A connection: its path as JSON, with `index` (left out at 0), `path_segments`, and in these `name`, `id`,
    /// `token`, `expires`, `metrics`, each left out where it is empty.
    Connection(&'a [PathSegment]),
    /// A record of the registry: `resource_name`, `resource_id` (the subject of the first token, empty if it is no
    /// SPIFFE ID), `resource_path_ids_map`, `path_segments` with a `token` each, `index`.
    Record {
        /// Its name.
        name: &'a str,
        /// The path ids of every registered name. Asked for only if a policy of one's own is in the set.
        path_ids: &'a dyn Fn() -> BTreeMap<String, Vec<String>>,
    },
    /// A watch of connections: `service_spiffe_id`, `selector_connection_ids`, `spiffe_id_connection_map`.
    Watch {
        /// The ids in the selector's segments.
        selected: &'a [&'a str],
        /// Whether a connection of this id was asked for by the watcher's identity.
        recorded: &'a dyn Fn(&str) -> bool,
        /// The ids of connections by the identity that asked for them. Asked for only if a policy of one's own is in
        /// the set.
        all: &'a dyn Fn() -> BTreeMap<String, Vec<String>>,
    },
}

impl PolicyInput<'_> {
    /// What the reference gives its policy engine for such a call (field names, and which are left out where empty:
    /// the JSON that Go makes of the same structures).
    pub(super) fn document(&self, decoded: &Decoded) -> Value {
        let tokens = || self.tokens.iter().map(|token| json!({ "token": token })).collect::<Vec<_>>();
        let mut document = match self.about {
            About::Tokens => json!({ "path_segments": tokens(), "index": self.index }),
            About::Connection(segments) => {
                let mut path = Map::new();
                let index = (self.index != 0).then(|| self.index.into());
                put(&mut path, "index", index);
                let segments: Vec<Value> = segments.iter().map(segment).collect();
                put(&mut path, "path_segments", (!segments.is_empty()).then(|| segments.into()));
                Value::Object(path)
            }
            About::Record { name, path_ids } => {
                let id = rules::subject(decoded).filter(|subject| SpiffeId::new(subject).is_ok());
                json!({
                    "resource_id": id.unwrap_or_default(),
                    "resource_name": name,
                    "resource_path_ids_map": path_ids(),
                    "path_segments": tokens(),
                    "index": self.index,
                })
            }
            About::Watch { selected, all, .. } => json!({
                "service_spiffe_id": self.peer.map(|peer| peer.id.as_str()).unwrap_or_default(),
                "selector_connection_ids": selected,
                "spiffe_id_connection_map": all(),
            }),
        };
        let certificate = self.peer.map(|peer| pem(&peer.certificate)).unwrap_or_default();
        document["auth_info"] = json!({ "certificate": certificate });
        document
    }
}

fn segment(segment: &PathSegment) -> Value {
    let mut map = Map::new();
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    put(&mut map, "name", text(&segment.name));
    put(&mut map, "id", text(&segment.id));
    put(&mut map, "token", text(&segment.token));
    let expires = segment.expires.as_ref().map(|time| {
        let mut parts = Map::new();
        put(&mut parts, "seconds", (time.seconds != 0).then(|| time.seconds.into()));
        put(&mut parts, "nanos", (time.nanos != 0).then(|| time.nanos.into()));
        Value::Object(parts)
    });
    put(&mut map, "expires", expires);
    put(&mut map, "metrics", (!segment.metrics.is_empty()).then(|| json!(segment.metrics)));
    Value::Object(map)
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

/// A certificate as PEM (RFC 7468).
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

impl fmt::Debug for PolicyInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyInput")
            .field("tokens", &self.tokens.len())
            .field("index", &self.index)
            .field("peer", &self.peer)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens => f.write_str("tokens"),
            Self::Connection(segments) => write!(f, "a connection of {} segments", segments.len()),
            Self::Record { name, .. } => write!(f, "the record {name:?}"),
            Self::Watch { selected, .. } => write!(f, "a watch of {selected:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn input<'a>(about: About<'a>, tokens: &'a [&'a str], index: usize) -> Value {
        let input = PolicyInput { tokens, index, peer: None, owner: None, about, now: UNIX_EPOCH };
        input.document(&Vec::new())
    }

    #[test]
    fn a_connection_is_its_path_without_what_is_empty() {
        let first = PathSegment { name: "nsc".into(), id: "1".into(), token: "t".into(), ..Default::default() };
        let mut second = PathSegment { id: "2".into(), ..Default::default() };
        second.expires = Some((UNIX_EPOCH + Duration::from_secs(7)).into());
        second.metrics.insert("load".into(), "3".into());
        let none = json!({ "certificate": "" });
        let segments = [first, second];
        assert_eq!(
            input(About::Connection(&segments), &[], 1),
            json!({
                "index": 1,
                "path_segments": [
                    { "name": "nsc", "id": "1", "token": "t" },
                    { "id": "2", "expires": { "seconds": 7 }, "metrics": { "load": "3" } },
                ],
                "auth_info": none,
            })
        );
        assert_eq!(input(About::Connection(&[]), &[], 0), json!({ "auth_info": none }));
    }

    #[test]
    fn a_record_is_seen_among_all_names() {
        let path_ids = || BTreeMap::from([("nse-1".to_owned(), vec!["spiffe://a/b".to_owned()])]);
        assert_eq!(
            input(About::Record { name: "nse-2", path_ids: &path_ids }, &["x", ""], 0),
            json!({
                "resource_id": "",
                "resource_name": "nse-2",
                "resource_path_ids_map": { "nse-1": ["spiffe://a/b"] },
                "path_segments": [{ "token": "x" }, { "token": "" }],
                "index": 0,
                "auth_info": { "certificate": "" },
            })
        );
    }

    #[test]
    fn pem_breaks_lines_at_64() {
        assert_eq!(pem(&[0; 49]).lines().map(str::len).collect::<Vec<_>>(), [27, 64, 4, 25]);
        assert_eq!(pem(&[]).lines().count(), 2);
    }
}
