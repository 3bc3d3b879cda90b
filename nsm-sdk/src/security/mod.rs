//! Who may do what.

mod authorize;

pub use authorize::{Authorize, AuthorizeServer};
