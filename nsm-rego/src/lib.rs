#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod builtins;
mod error;
mod functions;
mod masks;
mod policy;

pub use error::PolicyError;
pub use masks::{ALLOW_ALL, Masks, load};
pub use policy::RegoPolicy;
