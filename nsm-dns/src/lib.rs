#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod dns;
pub mod testing;

pub use dns::{Dns, DnsSetupError};
