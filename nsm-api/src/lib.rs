//! The wire of Network Service Mesh: messages, and typed views over them.
//!
//! The modules [`networkservice`], [`connection`], [`connectioncontext`], [`registry`] and [`ipam`]
//! hold the messages and the gRPC clients and servers, each named as its proto package. They are
//! generated from `nsm-api/proto` and checked in. The types in most use stand at the crate's root.
//! Maps are sorted, so equal messages have equal bytes, and no `Debug` prints a token.
//!
//! Over the messages stand views that check what a peer, a user or a file says:
//!
//! | what | where |
//! |---|---|
//! | the hops of a connection | methods of [`Path`] and [`Connection`] |
//! | what a monitor stream reports | [`MonitorScopeSelector::matches`] |
//! | parameters of each mechanism | [`mechanism`] |
//! | addresses, routes, prefixes, policies | [`ip`] |
//! | which endpoint or forwarder a client gets | [`matching`], [`template`] |
//! | what a registry query finds | [`NetworkServiceQuery::finds`], [`NetworkServiceEndpointQuery::finds`] |
//! | `kernel://service@domain/interface?label=value` | [`service_url`] |
//! | `name@domain` | [`names`] |
//! | documents in the shape of Kubernetes objects | [`yaml`] |
//! | SPIFFE ids | [`spiffe`] |
#![deny(missing_docs)]

/// Includes a generated file; its lints are the generator's business.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            missing_debug_implementations,
            unreachable_pub,
            unused_qualifications,
            elided_lifetimes_in_paths,
            clippy::all,
            clippy::allow_attributes_without_reason,
            clippy::use_self,
            clippy::uninlined_format_args,
            clippy::semicolon_if_nothing_returned,
            reason = "generated code"
        )]
        pub mod $name {
            include!(concat!("generated/", stringify!($name), ".rs"));
        }
    };
}

generated!(
    /// Package `networkservice`: ask for a connection, and give it back.
    networkservice
);
generated!(
    /// Package `connection`: the connection, its path, and the events about it.
    connection
);
generated!(
    /// Package `connectioncontext`: addresses, routes, DNS and link settings of a connection.
    connectioncontext
);
generated!(
    /// Package `registry`: network services and their endpoints.
    registry
);
generated!(
    /// Package `ipam`: prefixes handed out by an address manager.
    ipam
);

mod debug;
mod decimal;
mod excerpt;
pub mod ip;
pub mod labels;
pub mod matching;
pub mod mechanism;
pub mod names;
mod path;
pub mod payload;
mod query;
mod selector;
pub mod service_url;
pub mod spiffe;
pub mod template;
pub mod yaml;

pub use connection::{
    Connection, ConnectionEvent, ConnectionEventType, Mechanism, MonitorScopeSelector, Path, PathSegment, State,
};
pub use connectioncontext::{ConnectionContext, IpContext};
pub use matching::Candidate;
pub use networkservice::NetworkServiceRequest;
pub use path::PathError;
pub use registry::{
    NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceEndpointResponse,
    NetworkServiceQuery, NetworkServiceResponse,
};
pub use service_url::ServiceUrl;
pub use spiffe::SpiffeId;
