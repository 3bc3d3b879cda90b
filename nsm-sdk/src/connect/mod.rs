//! The way to the next hop.

mod downstream;
mod element;
mod grpc;
mod in_process;
mod links;
mod recent;

pub use downstream::{Downstream, News, Sink, Subscription};
pub use element::{Connect, Listens, NextHopWatch};
pub use in_process::{InProcess, Life, Network};
pub use links::Links;
