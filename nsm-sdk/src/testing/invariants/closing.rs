//! What a Close says.

use std::time::Duration;

use nsm_api::{Connection, Path, PathSegment};
use nsm_chain::{Call, Closed, Service};

use super::{Rule, Violation};
use crate::connect::Links;

/// How long a hop has for its answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A Close of a connection that the hop at `url` never knew says that it is unknown.
pub async fn closes_are_honest(links: &dyn Links<Service>, url: &str) -> Vec<Violation> {
    let segment =
        |name: &str| PathSegment { name: name.into(), id: format!("never-there-{name}"), ..Default::default() };
    let path = Path { index: 0, path_segments: vec![segment("nobody")] };
    let connection = Connection { id: "never-there-nobody".into(), path: Some(path), ..Default::default() };
    let closed = async {
        let link = links.link(url).await?;
        link.close(Call::new(connection).within(PATIENCE)).await
    };
    let seen = match closed.await {
        Ok(call) if call.closed() == Closed::Unknown => return Vec::new(),
        Ok(call) => format!("{:?}", call.closed()),
        Err(error) => error.to_string(),
    };
    vec![Violation::new(Rule::Closing, url, "Unknown", seen)]
}
