//! Who this workload is, whom it trusts, and the tokens and rules that follow from it.
//!
//! An [`SvidSource`] holds the workload's X.509-SVID and the trust bundles and changes under way: servers, pooled links
//! and tokens follow it. [`DevAuthority`] is the source for quick starts and tests, made inside the process. No gRPC here.

mod answers;
mod authority;
mod certificate;
mod claims;
mod error;
mod hmac;
mod input;
mod jwt;
mod policies;
mod policy;
mod recent;
mod refusals;
mod rules;
mod svid;
mod tls;
mod tokens;
mod verifier;
mod verify;

pub(crate) use answers::for_caller;
pub use authority::DevAuthority;
pub use certificate::peer_of;
pub use claims::{Audience, Claims};
pub use error::IdentityError;
pub use hmac::HmacTokens;
pub use input::{About, PolicyInput};
pub use policies::Policies;
pub use policy::{CustomPolicy, Denied, Policy, PolicySet, Rule};
pub use rules::{client_allowed, service_connection};
pub use svid::{Bundles, FixedSvid, Svid, SvidSource};
pub use tls::{TlsConfigs, TlsGeneration};
pub use tokens::Es256Tokens;
pub use verify::{TokenRejected, TokenVerifier, claims};
