//! `Debug` for messages that hold secrets.

use std::fmt;

use crate::PathSegment;

/// Prints whether there is a token, never the token.
impl fmt::Debug for PathSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_empty() { "" } else { "<token>" };
        f.debug_struct("PathSegment")
            .field("name", &self.name)
            .field("id", &self.id)
            .field("token", &format_args!("{token}"))
            .field("expires", &self.expires)
            .field("metrics", &self.metrics)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Connection, Path, PathSegment};

    #[test]
    fn debug_of_a_connection_never_prints_a_token() {
        let segment = PathSegment { name: "nsc".into(), token: "eyJhbGciOi.secret".into(), ..Default::default() };
        let connection =
            Connection { path: Some(Path { index: 0, path_segments: vec![segment] }), ..Default::default() };
        let text = format!("{connection:?}");
        assert!(text.contains("<token>") && text.contains("nsc"));
        assert!(!text.contains("secret"));
    }
}
