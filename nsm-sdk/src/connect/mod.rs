//! The way to the next hop.

mod downstream;
mod element;
mod links;

pub use downstream::{Downstream, News, Sink, Subscription};
pub use element::Connect;
pub use links::Links;
