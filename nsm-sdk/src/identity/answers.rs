use std::sync::Arc;

use nsm_api::SpiffeId;
use nsm_chain::{Call, LinkInfo, Protocol, ServerLink, Token};

use super::{Audience, claims};

/// Our token in an answer, signed anew where our caller could not verify it as it stands; none: it can stay.
///
/// The next hop writes into the path the token that our call to it carried: it is signed with the certificate that our link
/// to the next hop has shown. Our caller verifies it against the one that its own link was shown. In the middle of a rotation
/// these are two.
pub(crate) fn for_caller<P: Protocol>(call: &Call<P>, token: &str) -> Option<Token> {
    let to_caller = call.fact::<LinkInfo>()?.shown.as_ref()?;
    let to_server = call.fact::<ServerLink>()?.0.shown.as_ref()?;
    if Arc::ptr_eq(to_caller, to_server) {
        return None;
    }
    let audience = match claims(token).ok()?.audience {
        Audience::None => None,
        Audience::One(audience) => SpiffeId::new(&audience).ok(),
        Audience::List(list) => list.first().and_then(|audience| SpiffeId::new(audience).ok()),
    };
    to_caller.token(audience.as_ref()).inspect_err(|error| tracing::debug!(%error, "an answer keeps its token")).ok()
}
