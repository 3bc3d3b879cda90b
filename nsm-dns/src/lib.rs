#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod dns;
mod local;
mod proxy;
mod resolv_conf;
pub mod testing;
mod use_dns;

pub use dns::{Dns, DnsSetupError};
pub use local::{LocalDns, ServeError};
pub use proxy::{Counted, Place, Proxy};
pub use resolv_conf::{FileError, ResolvConf};
pub use use_dns::UseDns;
