//! Identities of Network Service Mesh from a SPIFFE Workload API.
//!
//! [`WorkloadApi`] is an [`SvidSource`](nsm_sdk::identity::SvidSource) that follows an agent (SPIRE's, or any other that
//! serves the SPIFFE Workload API): servers, pooled links and tokens take over what it rotates, and nothing is dropped.
//! While there is no identity it says what it waits for. [`DevAgent`] is the other side: a small agent over a
//! [`DevAuthority`](nsm_sdk::identity::DevAuthority), for development and tests without SPIRE.
//!
//! ```
//! use std::time::Duration;
//! use nsm_sdk::identity::{DevAuthority, SvidSource};
//! use nsm_sdk::roles::Site;
//! use nsm_spiffe::{DevAgent, WorkloadApi};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("nsm-spiffe-doc-{}", std::process::id()));
//! # let socket = format!("unix://{}/agent.sock", directory.display());
//! // In development: an agent of our own. Elsewhere SPIRE's is there already.
//! let agent = DevAgent::new(DevAuthority::new("example.org")?).identity("/nsmgr").serve(&socket.parse()?).await?;
//!
//! // In the program: `WorkloadApi::from_env()?` reads SPIFFE_ENDPOINT_SOCKET.
//! let identity = WorkloadApi::connect(&socket)?;
//! identity.ready(Duration::from_secs(10)).await?;
//! assert_eq!(identity.svid()?.id().to_string(), "spiffe://example.org/nsmgr");
//! let site = Site::mtls(identity.into_source());
//! # agent.stop().await;
//! # std::fs::remove_dir_all(directory)?;
//! # Ok(()) }
//! ```
//!
//! The crate `spiffe` speaks the protocol and checks what the agent sends. Of it the stream is used, and not its `X509Source`: that
//! one waits for the first identity without a word about what it waits for, and forgets the identity when the agent
//! says that it has none for now.
#![deny(missing_docs)]

mod agent;
mod endpoint;
mod follow;
mod material;
mod proto;
mod source;
mod state;
#[cfg(test)]
mod tests;

pub use agent::{AgentError, AgentHandle, Caller, DevAgent};
pub use endpoint::{ENDPOINT_SOCKET, EndpointError};
pub use source::{Options, WorkloadApi};
pub use state::{AgentState, Obstacle};
