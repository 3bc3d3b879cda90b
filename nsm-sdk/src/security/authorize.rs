use nsm_api::SpiffeId;
use nsm_api::connection::PathSegment;
use nsm_chain::{Call, Element, Error, Next, Order, Peer, Result, ServerLink, Slot, time};

use crate::identity::{About, PolicyInput, PolicySet};

/// Refuses callers whose path of tokens does not hold.
///
/// *Request and Close*: the policies judge the left part of the path, up to this hop's own segment, against the
/// caller's certificate. What comes without an identity, in process or on a link without TLS, is not judged: there is
/// nothing to judge it by. A Close of our own is not judged either: the caller's token may have expired, and that is
/// why it closes. Nor is a Close by the identity whose Request was accepted last: its link has just proved who it is, and
/// the tokens left of it, which it cannot renew, may have expired since.
///
/// It stands behind `UpdateToken`, which completes the path it reads.
#[derive(Debug)]
pub struct Authorize {
    policies: PolicySet,
    /// Whose Request was accepted last.
    accepted: Slot<SpiffeId>,
}

impl Authorize {
    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self { policies, accepted: Slot::new() }
    }

    /// Whether the caller is the one whom this connection belongs to.
    fn is_owner(&self, call: &Call) -> bool {
        call.peer().is_some_and(|peer| call.slot(&self.accepted).as_ref() == Some(&peer.id))
    }

    fn check(&self, call: &Call) -> Result<()> {
        let Some(peer) = call.peer() else {
            return Ok(());
        };
        let Some(path) = &call.body().path else {
            return Err(Error::invalid("the connection has no path"));
        };
        judge(&self.policies, path.left(), path.index, peer, &call.body().network_service)
    }
}

fn judge(policies: &PolicySet, segments: &[PathSegment], index: u32, peer: &Peer, service: &str) -> Result<()> {
    let tokens: Vec<&str> = segments.iter().map(|segment| segment.token.as_str()).collect();
    let about = About::Connection(segments);
    let input =
        PolicyInput { tokens: &tokens, index: index as usize, peer: Some(peer), owner: None, about, now: time::now() };
    policies.admit(&input, &format_args!("a connection to {service:?}"))
}

impl Element for Authorize {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        self.check(&call)?;
        let call = next.request(call).await?;
        if let (Some(peer), Ok(state)) = (call.peer(), call.state()) {
            self.accepted.set(state, peer.id.clone());
        }
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        if !call.is_own() && !self.is_owner(&call) {
            self.check(&call).map_err(Error::changing_nothing)?;
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["UpdateToken"])
    }
}

/// Refuses servers whose path of tokens does not hold.
///
/// *Request*: the policies judge the whole path that came back against the server's certificate; a server that was
/// never good is sent a Close. *Close* passes: letting go needs no permission.
///
/// It stands just before `Connect`.
#[derive(Debug)]
pub struct AuthorizeServer {
    policies: PolicySet,
    accepted: Slot<()>,
}

impl AuthorizeServer {
    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self { policies, accepted: Slot::new() }
    }
}

impl Element for AuthorizeServer {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let call = next.request(call).await?;
        let Some(peer) = call.fact::<ServerLink>().and_then(|server| server.0.peer.as_ref()) else {
            return Ok(call);
        };
        let (segments, index) =
            call.body().path.as_ref().map_or((&[][..], 0), |path| (path.path_segments.as_slice(), path.index));
        let judged = judge(&self.policies, segments, index, peer, &call.body().network_service);
        let state = call.state()?.clone();
        match judged {
            Ok(()) => {
                self.accepted.set(&state, ());
                Ok(call)
            }
            Err(error) if self.accepted.cloned(&state).is_some() => Err(error),
            Err(error) => Err(next.undo(call, error).await),
        }
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use nsm_api::connection::{Connection, Path};
    use nsm_chain::{Begin, Chain, Closed, Code, Tokens, elements};

    use super::*;
    use crate::identity::{HmacTokens, Policy, Rule};
    use crate::path::{UpdatePath, UpdateToken};

    fn id(name: &str) -> SpiffeId {
        format!("spiffe://example.org/{name}").parse().unwrap()
    }

    fn tokens(name: &str, life: u64) -> Arc<HmacTokens> {
        Arc::new(HmacTokens::with_lifetime(&id(name), Duration::from_secs(life)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_crosses_an_expired_token_if_it_comes_from_whom_the_connection_belongs_to() {
        let policies = PolicySet::of([Rule::from(Policy::TokensExpired)]);
        let list = elements![
            UpdatePath::new("nse"),
            Begin::default(),
            UpdateToken::new(tokens("nse", 3600)),
            Authorize::new(policies),
        ];
        let chain = Chain::new("nse", list).unwrap();
        let clients = tokens("nsc", 10).token(None).unwrap();
        let segment = |name: &str, token: &str| PathSegment {
            name: name.into(),
            id: name.into(),
            token: token.into(),
            ..Default::default()
        };
        let path_segments = vec![segment("nsc", &clients.text), segment("nsmgr", ""), segment("nse", "")];
        let connection =
            Connection { id: "nsmgr".into(), path: Some(Path { index: 1, path_segments }), ..Default::default() };
        let call = |peer: &str| {
            let who =
                Peer { id: id(peer), certificate: Arc::from([]), not_after: time::now() + Duration::from_secs(3600) };
            Call::new(connection.clone()).from_peer(Some(Arc::new(who)), tokens(peer, 3600).token(None).ok())
        };
        chain.request(call("nsmgr")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(chain.request(call("nsmgr")).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(chain.close(call("stranger")).await.unwrap_err().code(), Code::PermissionDenied);
        // It was refused, and closed nothing.
        assert_eq!(chain.close(call("nsmgr")).await.unwrap().closed(), Closed::Done);
        assert_eq!(chain.close(call("nsmgr")).await.unwrap().closed(), Closed::Unknown);
    }
}
