//! Who may do what.

mod authorize;
mod note_origin;

pub use authorize::{Authorize, AuthorizeServer};
pub use note_origin::NoteOrigin;
