use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use nsm_chain::Peer;

use super::rules::{self, Decoded};
use super::{TokenVerifier, verify};

/// A stock policy, named as the reference's Rego file is (registry.md §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// A registered name belongs to the identity that registered it.
    ClientAllowed,
    /// The server's token, next in the path, is signed with the key of the certificate it showed.
    NextTokenSigned,
    /// The caller's token, previous in the path, is signed with the key of the certificate it showed.
    PrevTokenSigned,
    /// The audience of each token names the subject of the next.
    TokensChained,
    /// No token has expired.
    TokensExpired,
    /// Every token decodes.
    TokensValid,
}

impl Policy {
    /// The stem of the reference's file name, such as `tokens_valid`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientAllowed => "client_allowed",
            Self::NextTokenSigned => "next_token_signed",
            Self::PrevTokenSigned => "prev_token_signed",
            Self::TokensChained => "tokens_chained",
            Self::TokensExpired => "tokens_expired",
            Self::TokensValid => "tokens_valid",
        }
    }
}

/// What the policies judge. Rules that need what is not there deny.
#[derive(Clone, Copy)]
pub struct PolicyInput<'a> {
    /// The tokens of the path: a server gives its left side (up to and with `index`), a client the whole.
    pub tokens: &'a [&'a str],
    /// This hop's place in the path.
    pub index: usize,
    /// The other end of the link.
    pub peer: Option<&'a Peer>,
    /// The first path id recorded for the name in question (registry only; none: the name is free).
    pub owner: Option<&'a str>,
    /// The time to judge expiry by.
    pub now: SystemTime,
}

impl fmt::Debug for PolicyInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyInput")
            .field("tokens", &self.tokens.len())
            .field("index", &self.index)
            .field("peer", &self.peer)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// A policy said no. This text is for our own log; on the wire it is `PermissionDenied` and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("denied by policy {policy}: {reason}")]
pub struct Denied {
    /// [`Policy::name`] of the one that denied.
    pub policy: &'static str,
    /// What it found. Names positions and identities, never a token.
    pub reason: String,
}

/// Policies that must all agree, and the memory of tokens found good.
#[derive(Debug, Clone)]
pub struct PolicySet {
    policies: Arc<[Policy]>,
    verifier: Arc<TokenVerifier>,
}

impl PolicySet {
    /// For a server of the network service API.
    #[must_use]
    pub fn server() -> Self {
        Self::of([Policy::TokensValid, Policy::TokensExpired, Policy::TokensChained, Policy::PrevTokenSigned])
    }

    /// For a client of the network service API.
    #[must_use]
    pub fn client() -> Self {
        Self::of([Policy::TokensValid, Policy::TokensExpired, Policy::TokensChained, Policy::NextTokenSigned])
    }

    /// For a server of the registry API.
    #[must_use]
    pub fn registry_server() -> Self {
        Self::of([
            Policy::TokensValid,
            Policy::TokensExpired,
            Policy::TokensChained,
            Policy::ClientAllowed,
            Policy::PrevTokenSigned,
        ])
    }

    /// For a client of the registry API.
    #[must_use]
    pub fn registry_client() -> Self {
        Self::of([
            Policy::TokensValid,
            Policy::TokensExpired,
            Policy::TokensChained,
            Policy::ClientAllowed,
            Policy::NextTokenSigned,
        ])
    }

    /// No policies: every call passes. For links without identity, and only on purpose.
    #[must_use]
    pub fn allow_all() -> Self {
        Self { policies: Arc::new([]), verifier: Arc::default() }
    }

    /// A set of one's own.
    ///
    /// # Panics
    /// If it is empty: that would allow everything; say [`PolicySet::allow_all`] if that is meant.
    #[must_use]
    pub fn of(policies: impl IntoIterator<Item = Policy>) -> Self {
        let policies: Arc<[Policy]> = policies.into_iter().collect();
        assert!(!policies.is_empty(), "an empty policy set allows everything; use PolicySet::allow_all");
        Self { policies, verifier: Arc::default() }
    }

    /// The policies in it, in the order they are asked.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// Asks each policy in turn.
    ///
    /// # Errors
    /// The first that denies.
    pub fn check(&self, input: &PolicyInput<'_>) -> Result<(), Denied> {
        let tokens: Decoded = if self.policies.is_empty() {
            return Ok(());
        } else {
            input.tokens.iter().map(|token| verify::claims(token)).collect()
        };
        self.policies.iter().try_for_each(|&policy| {
            self.ask(policy, input, &tokens).map_err(|reason| Denied { policy: policy.name(), reason })
        })
    }

    fn ask(&self, policy: Policy, input: &PolicyInput<'_>, tokens: &Decoded) -> Result<(), String> {
        let certificate = input.peer.map(|peer| &peer.certificate);
        let signed = |index| rules::signed_by_peer(input.tokens, index, certificate, &self.verifier);
        match policy {
            Policy::ClientAllowed => {
                let first = tokens.first().and_then(|token| token.as_ref().ok());
                let subject = first.and_then(|claims| claims.subject.as_deref());
                if rules::client_allowed(input.owner, subject) {
                    Ok(())
                } else {
                    Err(format!("the name belongs to {:?}, not to {:?}", input.owner, subject))
                }
            }
            Policy::NextTokenSigned => signed(input.index.checked_add(1)),
            Policy::PrevTokenSigned => signed(input.index.checked_sub(1)),
            Policy::TokensChained => rules::tokens_chained(tokens),
            Policy::TokensExpired => rules::tokens_expired(tokens, input.now),
            Policy::TokensValid => rules::tokens_valid(tokens),
        }
    }
}
