//! Who is told what of the connections at this hop.

mod board;
mod element;
mod watcher;

pub use element::{Herald, Monitor};
