//! Walking a path without ever stepping off it.

use thiserror::Error;

use crate::excerpt::excerpt;
use crate::{Connection, Path, PathSegment};

/// Why a path or a connection's position in it is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// The index names no segment.
    #[error("path index {index} is past the last of {segments} segments: send the path as it was received")]
    IndexPastEnd {
        /// The index.
        index: u32,
        /// How many segments there are.
        segments: usize,
    },
    /// A segment up to the index has no id.
    #[error("path segment {index} ({name}) has no id: every hop must set the id of its segment")]
    NoId {
        /// Position of the segment.
        index: usize,
        /// Name of the segment's hop.
        name: String,
    },
    /// The connection is not positioned where its path says.
    #[error(
        "connection id {id} is not the id {segment_id} of its path segment {index}: one of them was changed on the way"
    )]
    IdMismatch {
        /// Id of the connection.
        id: String,
        /// Id of the segment at the path's index.
        segment_id: String,
        /// The path's index.
        index: u32,
    },
}

impl Path {
    /// The segment at any position, `None` when there is none.
    pub fn segment(&self, index: usize) -> Option<&PathSegment> {
        self.path_segments.get(index)
    }

    /// The segment of the hop that owns the message, `None` when the index is past the end.
    pub fn current(&self) -> Option<&PathSegment> {
        self.segment(self.position()?)
    }

    /// As [`current`](Self::current), to change it.
    pub fn current_mut(&mut self) -> Option<&mut PathSegment> {
        let position = self.position()?;
        self.path_segments.get_mut(position)
    }

    /// The segment before the current one, `None` at the first.
    pub fn prev(&self) -> Option<&PathSegment> {
        self.segment(self.position()?.checked_sub(1)?)
    }

    /// The segment after the current one, `None` at the last.
    pub fn next(&self) -> Option<&PathSegment> {
        self.segment(self.position()?.checked_add(1)?)
    }

    /// The segments from the client up to and with the current one; all when the index is past the end.
    pub fn left(&self) -> &[PathSegment] {
        let end = self.position().and_then(|at| at.checked_add(1));
        end.and_then(|end| self.path_segments.get(..end)).unwrap_or(&self.path_segments)
    }

    /// Checks that the index names a segment and that every segment up to it has an id.
    ///
    /// A path without segments and with index 0 is valid: the call has not entered a hop yet.
    /// Segments to the right of the index are not looked at: they may be left from an earlier request.
    ///
    /// # Errors
    /// [`PathError::IndexPastEnd`] or [`PathError::NoId`].
    pub fn validate(&self) -> Result<(), PathError> {
        if self.path_segments.is_empty() && self.index == 0 {
            return Ok(());
        }
        if self.current().is_none() {
            let segments = self.path_segments.len();
            return Err(PathError::IndexPastEnd { index: self.index, segments });
        }
        match self.left().iter().position(|segment| segment.id.is_empty()) {
            None => Ok(()),
            Some(index) => {
                let name = self.segment(index).map_or("", |segment| &segment.name);
                Err(PathError::NoId { index, name: excerpt(name) })
            }
        }
    }

    fn position(&self) -> Option<usize> {
        usize::try_from(self.index).ok()
    }
}

impl Connection {
    /// The path segment of the hop that owns the message.
    pub fn current_segment(&self) -> Option<&PathSegment> {
        self.path.as_ref()?.current()
    }

    /// The path segment before the current one.
    pub fn prev_segment(&self) -> Option<&PathSegment> {
        self.path.as_ref()?.prev()
    }

    /// The path segment after the current one.
    pub fn next_segment(&self) -> Option<&PathSegment> {
        self.path.as_ref()?.next()
    }

    /// Checks the path, and that the connection's id is that of its current segment.
    ///
    /// A connection without a path, or with an empty one, is valid: a client may send it.
    ///
    /// # Errors
    /// Those of [`Path::validate`], and [`PathError::IdMismatch`].
    pub fn validate_path(&self) -> Result<(), PathError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        path.validate()?;
        match path.current() {
            Some(segment) if segment.id != self.id => Err(PathError::IdMismatch {
                id: excerpt(&self.id),
                segment_id: excerpt(&segment.id),
                index: path.index,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(index: u32, ids: &[&str]) -> Path {
        let path_segments = ids.iter().map(|id| PathSegment { id: (*id).into(), ..Default::default() }).collect();
        Path { index, path_segments }
    }

    fn id(segment: Option<&PathSegment>) -> Option<&str> {
        segment.map(|segment| segment.id.as_str())
    }

    #[test]
    fn a_walk_names_the_neighbours() {
        let path = path(1, &["a", "b", "c"]);
        assert_eq!(id(path.prev()), Some("a"));
        assert_eq!(id(path.current()), Some("b"));
        assert_eq!(id(path.next()), Some("c"));
        assert_eq!(path.left().len(), 2);
    }

    #[test]
    fn the_ends_have_no_neighbour() {
        assert_eq!(path(0, &["a"]).prev(), None);
        assert_eq!(path(0, &["a"]).next(), None);
        assert_eq!(Connection::default().current_segment(), None);
    }

    #[test]
    fn an_index_past_the_end_is_an_error() {
        let error = path(2, &["a", "b"]).validate();
        assert_eq!(error, Err(PathError::IndexPastEnd { index: 2, segments: 2 }));
        assert!(path(1, &[]).validate().is_err());
        assert_eq!(path(0, &[]).validate(), Ok(()));
    }

    #[test]
    fn only_segments_up_to_the_index_need_an_id() {
        assert!(matches!(path(1, &["", "b"]).validate(), Err(PathError::NoId { index: 0, .. })));
        assert_eq!(path(0, &["a", ""]).validate(), Ok(()));
    }

    #[test]
    fn a_connection_stands_at_its_segment() {
        let at = |id: &str| Connection { id: id.into(), path: Some(path(1, &["a", "b"])), ..Default::default() };
        assert_eq!(at("b").validate_path(), Ok(()));
        assert!(matches!(at("a").validate_path(), Err(PathError::IdMismatch { .. })));
    }

    proptest! {
        #[test]
        fn no_index_panics(index in any::<u32>(), near in 0u32..6, ids in prop::collection::vec("[a-b]?", 0..5)) {
            for index in [index, near, u32::MAX] {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                let mut path = path(index, &ids);
                prop_assert_eq!(path.current().is_some(), (index as usize) < ids.len());
                prop_assert_eq!(path.prev().is_some(), index > 0 && (index as usize) <= ids.len());
                prop_assert_eq!(path.next().is_some(), (index as usize) + 1 < ids.len());
                prop_assert!(path.left().len() <= ids.len());
                let valid = path.validate().is_ok();
                prop_assert!(!valid || ids.is_empty() || path.current_mut().is_some());
            }
        }
    }
}
