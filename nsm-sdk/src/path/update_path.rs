use std::sync::Arc;

use nsm_api::connection::{Connection, Path, PathSegment};
use nsm_chain::{Call, Element, Error, Next, Result};

/// Left in a call whose path did not lead to this hop before: what stands right of its segment, if anything does, was
/// another hop's path.
#[derive(Debug, Clone, Copy)]
pub struct NewSegment;

/// Moves a Request onto this hop's path segment, and back to the caller's on return.
///
/// *Request and Close*: an empty path gets its first segment; a path that stands on this hop's segment already stays;
/// any other moves one segment on, which is made, or taken over with a new id if it carried another hop's name. The
/// connection's id becomes that segment's id, under which everything at this hop is kept. *On return* the caller finds
/// its own index and id again.
///
/// It stands first in every chain: all after it rely on the id. (Path semantics of the Network Service API,
/// `connection.proto`.)
#[derive(Debug, Clone)]
pub struct UpdatePath {
    name: Arc<str>,
}

impl UpdatePath {
    /// For a hop of that name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into() }
    }

    /// Moves the connection onto our segment and says which index its caller had, and whether the segment is new.
    fn step(&self, connection: &mut Connection) -> Result<(u32, bool)> {
        let Connection { id, path, .. } = connection;
        let path = path.get_or_insert_default();
        if path.path_segments.is_empty() {
            if id.is_empty() {
                *id = new_id();
            }
            *path = Path { index: 0, path_segments: vec![segment(&self.name, id.clone())] };
            return Ok((0, false));
        }
        let count = path.path_segments.len();
        let caller = path.index;
        let index = caller as usize;
        let Some(current) = path.path_segments.get(index) else {
            return Err(Error::invalid(format!("the path's index {index} is past its {count} segments"))
                .hint("send index as the position of your own segment"));
        };
        if current.name == *self.name {
            id.clone_from(&current.id);
            return Ok((caller, false));
        }
        if current.id != *id {
            return Err(Error::invalid(format!(
                "the connection's id {id:?} is not that of its current path segment, {:?}",
                current.id
            ))
            .hint("send the connection as it came back last"));
        }
        let mut is_new = false;
        match path.path_segments.get_mut(index + 1) {
            Some(next) if next.name == *self.name && !next.id.is_empty() => {}
            // What stood there belonged to another hop: with its name goes everything that hop wrote.
            Some(next) => {
                is_new = next.name != *self.name;
                *next = segment(&self.name, new_id());
            }
            None => {
                is_new = true;
                path.path_segments.push(segment(&self.name, new_id()));
            }
        }
        path.index = caller + 1;
        id.clone_from(&path.path_segments[index + 1].id);
        Ok((caller, is_new))
    }
}

/// Puts the connection back onto its caller's segment.
fn back(connection: &mut Connection, caller: u32) -> Result<()> {
    let Connection { id, path, .. } = connection;
    let Some(path) = path else {
        return Err(Error::invalid("the answer has no path"));
    };
    let Some(segment) = path.path_segments.get(caller as usize) else {
        return Err(Error::invalid(format!("the answer's path has no segment {caller}")));
    };
    id.clone_from(&segment.id);
    path.index = caller;
    Ok(())
}

fn segment(name: &str, id: String) -> PathSegment {
    PathSegment { name: name.to_owned(), id, ..Default::default() }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Element for UpdatePath {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let (caller, is_new) = self.step(call.body_mut())?;
        if is_new {
            call.set_fact(NewSegment);
        }
        let mut call = next.request(call).await?;
        match back(call.body_mut(), caller) {
            Ok(()) => Ok(call),
            Err(error) => Err(next.undo(call, error).await),
        }
    }

    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        let (caller, _) = self.step(call.body_mut())?;
        let mut call = next.close(call).await?;
        back(call.body_mut(), caller)?;
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_chain::{Chain, elements, from_fn};
    use proptest::prelude::*;
    use std::sync::Mutex;

    fn path(index: u32, segments: &[(&str, &str)]) -> Option<Path> {
        let path_segments = segments.iter().map(|(name, id)| segment(name, (*id).to_owned())).collect();
        Some(Path { index, path_segments })
    }

    async fn pass(name: &'static str, connection: Connection) -> (Connection, Result<Connection>) {
        let seen = Arc::new(Mutex::new(Connection::default()));
        let keep = Arc::clone(&seen);
        let look = from_fn(move |call: Call, next: nsm_chain::OwnedNext| {
            *keep.lock().unwrap() = call.body().clone();
            async move { next.request(call).await }
        });
        let chain = Chain::new(name, elements![UpdatePath::new(name), look]).unwrap();
        let result = chain.request(Call::new(connection)).await.map(Call::into_body);
        let inside = seen.lock().unwrap().clone();
        (inside, result)
    }

    #[tokio::test]
    async fn an_empty_path_gets_its_first_segment_and_an_id() {
        let (inside, outside) = pass("nsc", Connection::default()).await;
        assert!(!inside.id.is_empty());
        assert_eq!(inside.path.as_ref().unwrap().path_segments[0].name, "nsc");
        assert_eq!(outside.unwrap().id, inside.id);
    }

    #[tokio::test]
    async fn the_next_hop_gets_its_own_segment_and_the_caller_its_own_id_back() {
        let asked = Connection { id: "a".into(), path: path(0, &[("nsc", "a")]), ..Default::default() };
        let (inside, outside) = pass("nsmgr", asked).await;
        assert_eq!(inside.path.as_ref().unwrap().index, 1);
        assert_ne!(inside.id, "a");
        let outside = outside.unwrap();
        assert_eq!((outside.id.as_str(), outside.path.as_ref().unwrap().index), ("a", 0));
        assert_eq!(outside.path.unwrap().path_segments[1].id, inside.id);
    }

    #[tokio::test]
    async fn a_known_segment_keeps_its_id_and_a_foreign_one_is_taken_over() {
        let asked = |name| Connection {
            id: "a".into(),
            path: path(0, &[("nsc", "a"), (name, "b"), ("x", "c")]),
            ..Default::default()
        };
        assert_eq!(pass("nsmgr", asked("nsmgr")).await.0.id, "b");
        let (inside, outside) = pass("nsmgr", asked("old")).await;
        assert_ne!(inside.id, "b");
        assert_eq!(outside.unwrap().path.unwrap().path_segments.len(), 3);
    }

    #[tokio::test]
    async fn a_path_that_contradicts_itself_is_refused() {
        let wrong_id = Connection { id: "z".into(), path: path(0, &[("nsc", "a")]), ..Default::default() };
        let past_end = Connection { id: "a".into(), path: path(7, &[("nsc", "a")]), ..Default::default() };
        for asked in [wrong_id, past_end] {
            let error = pass("nsmgr", asked).await.1.unwrap_err();
            assert_eq!(error.code(), nsm_chain::Code::InvalidArgument);
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(index in any::<u32>(), ids in proptest::collection::vec("[ab]{0,1}", 0..5), id in "[ab]{0,1}") {
            let segments: Vec<_> = ids.iter().map(|id| (id.as_str(), id.as_str())).collect();
            let mut connection = Connection { id, path: path(index, &segments), ..Default::default() };
            if let Ok((caller, _)) = UpdatePath::new("b").step(&mut connection) {
                let now = connection.path.clone().unwrap();
                prop_assert_eq!(&now.path_segments[now.index as usize].id, &connection.id);
                back(&mut connection, caller).unwrap();
            }
        }
    }
}
