//! The chain: elements, calls, per-connection state, and adapters to tower and tonic.
#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod begin;
mod call;
mod chain;
mod descriptors;
mod element;
mod error;
mod fact;
pub mod grpc;
mod next;
mod peer;
mod protocol;
mod slot;
#[doc(hidden)]
pub mod sync;
pub mod time;
mod timer;
pub mod tower;

pub use begin::{Begin, Handle};
pub use call::{Call, Closed, Why};
pub use chain::{Chain, Detached, Node, OrderError};
pub use descriptors::{Congested, Descriptors, FileId, SendBeside};
pub use element::{Element, EventStream, FromFn, Order, Watch, from_fn};
pub use error::{Code, Error, Result};
pub use fact::{Candidates, NextHop};
pub use next::{Next, OwnedNext, WeakNext};
pub use peer::{LinkInfo, PathToken, Peer, ServerLink, Token, TokenError, Tokens};
pub use protocol::{Change, Protocol, Record, Registry, RegistryPath, Service};
pub use slot::{Slot, State};
pub use timer::{Timer, Timers};

/// Any error, as tower passes it.
pub use ::tower::BoxError;
