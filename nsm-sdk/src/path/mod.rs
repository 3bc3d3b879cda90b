//! Where a connection has been: path segments, their ids and tokens.

mod trim_path;
mod update_path;
mod update_token;

pub use trim_path::{Continued, TrimPath};
pub use update_path::{NewSegment, UpdatePath};
pub use update_token::UpdateToken;
