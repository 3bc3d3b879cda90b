//! What an earlier life of this client left at its manager.

use std::time::Duration;

use futures::StreamExt;
use nsm_api::Connection;
use nsm_api::connection::{MonitorScopeSelector, PathSegment, State};
use nsm_api::mechanism::MEMIF;
use nsm_chain::{Protocol, Service, Watch};
use nsm_sdk::stacks::Client;

/// The connection of that id, as the manager knows it, if it is there and of the wanted mechanism.
pub(super) async fn find(client: &Client, id: &str, mechanism: &str, within: Duration) -> Option<Connection> {
    let segment = PathSegment { id: id.to_owned(), ..Default::default() };
    let query = MonitorScopeSelector { path_segments: vec![segment], ..Default::default() };
    let looking = async {
        let mut events = client.chain().monitor(Watch::new(query)).await?;
        // The first event tells all there is.
        events.next().await.transpose()
    };
    match tokio::time::timeout(within, looking).await {
        Ok(Ok(Some(event))) => {
            event.connections.values().find(|connection| is_it(connection, id, mechanism)).map(|found| ours(found, id))
        }
        Ok(Ok(None)) => None,
        Ok(Err(error)) => {
            tracing::debug!(connection = id, %error, "cannot look for an earlier life");
            None
        }
        Err(_) => {
            tracing::debug!(connection = id, "no answer about an earlier life");
            None
        }
    }
}

/// Seen from the hop after us.
fn is_it(connection: &Connection, id: &str, mechanism: &str) -> bool {
    let path = connection.path.as_ref();
    path.is_some_and(|path| path.index == 1 && path.segment(0).is_some_and(|first| first.id == id))
        && connection.mechanism.as_ref().is_some_and(|chosen| chosen.is(mechanism))
}

/// The same, seen from us.
fn ours(connection: &Connection, id: &str) -> Connection {
    let mut connection = connection.clone();
    id.clone_into(&mut connection.id);
    // The manager's way to a memif's socket is none for us; the answer names it again.
    if let Some(mechanism) = connection.mechanism.as_mut().filter(|mechanism| mechanism.is(MEMIF)) {
        mechanism.parameters.clear();
    }
    if let Some(path) = &mut connection.path {
        path.index = 0;
    }
    connection
}

/// Whether the manager knows it as broken.
pub(super) fn is_down(connection: &Connection) -> bool {
    connection.state() == State::Down
}

/// Asks for a fresh choice at every hop.
pub(super) fn reselect(connection: &mut Connection) {
    Service::reselect(connection);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_api::{Mechanism, Path};

    fn at_manager(index: u32) -> Connection {
        let segment = |name: &str, id: &str| PathSegment { name: name.into(), id: id.into(), ..Default::default() };
        Connection {
            id: "m".into(),
            mechanism: Some(Mechanism::kernel()),
            path: Some(Path { index, path_segments: vec![segment("nsc", "nsc-0"), segment("nsmgr", "m")] }),
            ..Default::default()
        }
    }

    #[test]
    fn only_our_own_connection_of_the_wanted_mechanism_is_continued() {
        assert!(is_it(&at_manager(1), "nsc-0", "KERNEL"));
        assert!(!is_it(&at_manager(1), "nsc-1", "KERNEL"));
        assert!(!is_it(&at_manager(1), "nsc-0", "MEMIF"));
        assert!(!is_it(&at_manager(0), "nsc-0", "KERNEL"));
        assert!(!is_it(&Connection::default(), "nsc-0", "KERNEL"));
        let ours = ours(&at_manager(1), "nsc-0");
        assert_eq!((ours.id.as_str(), ours.path.unwrap().index), ("nsc-0", 0));
    }

    #[test]
    fn the_managers_way_to_shared_memory_is_not_taken_for_ours() {
        let mut mechanism = Mechanism::memif();
        mechanism.set_parameter("inodeURL", "file:///proc/self/fd/7");
        let known = Connection { mechanism: Some(mechanism), ..at_manager(1) };
        assert_eq!(ours(&known, "nsc-0").mechanism, Some(Mechanism::memif()));
    }
}
