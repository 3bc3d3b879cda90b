//! What becomes of a connection, told as it happens: [`Change::Up`], [`Change::Changed`], [`Change::Down`],
//! [`Change::Gone`].
//!
//! A client gets these from its [`Session`](crate::stacks::Session); an endpoint puts the element [`Lifecycle`] into its
//! chain. The order of changes is always the same: first `Up`; then any number of `Changed`, and of `Down` followed by
//! `Up`; at the end `Gone`, once. There are never two `Up` without a `Down` between them. Whoever comes late begins with what
//! there is.
//!
//! ```
//! use nsm_chain::elements;
//! use nsm_sdk::lifecycle::Change;
//! use nsm_sdk::lifetime::Reason;
//! use nsm_sdk::testing::Mesh;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # const SOON: Duration = Duration::from_secs(5);
//! # let mesh = Mesh::new()?;
//! # mesh.network_service("vpn").await?;
//! # let node = mesh.node("node-1").await?;
//! # let first = node.endpoint("nse-1", "vpn", elements![]).await?;
//! # let client = node.client("nsc-1").build()?;
//! let vpn = client.connect(&"kernel://vpn/nsm-1".parse()?, "c-1", SOON).await?;
//! let mut changes = vpn.changes();
//! let Some(Change::Up(now)) = changes.next().await else { panic!("it is up") };
//! assert_eq!((now.name(), now.endpoint()), (Some("nsm-1"), "nse-1"));
//!
//! # node.endpoint("nse-2", "vpn", elements![]).await?;
//! first.kill();
//! while let Some(change) = changes.next().await {
//!     println!("{change}");
//!     if change.interface().endpoint() == "nse-2" {
//!         break;
//!     }
//! }
//!
//! vpn.close(SOON).await?;
//! assert!(matches!(changes.next().await, Some(Change::Gone { .. })));
//! assert!(changes.next().await.is_none());
//! # Ok(()) }
//! ```

mod change;
mod element;
mod interface;
mod life;
mod reader;

pub use change::{Change, Ending};
pub use element::Lifecycle;
pub use interface::{Interface, Part};
pub use reader::Changes;

pub(crate) use life::Status;
pub(crate) use reader::Reader;
