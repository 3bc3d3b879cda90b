//! Roles: stacks that run, with sockets, identity and registration.
//!
//! Each role is a builder that ends in `serve()`, and what it gives is a [`Running`] role, to shut down when its time has
//! come. Any number of roles run in one process; each has its own [`Site`]: who it is and where its sockets are.

mod apply;
mod client;
mod endpoint;
mod forwarder;
mod liveness;
mod manager;
mod manager_proxy;
mod registry;
mod registry_proxy;
mod running;
mod site;

pub use apply::apply;
pub use client::client;
pub use endpoint::EndpointRole;
pub use forwarder::ForwarderRole;
pub use manager::ManagerRole;
pub use manager_proxy::ManagerProxyRole;
pub use registry::RegistryRole;
pub use registry_proxy::RegistryProxyRole;
pub use running::Running;
pub use site::{NetnsSockets, RoleError, Site};
