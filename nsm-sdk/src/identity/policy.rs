use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use nsm_chain::Peer;

use super::rules::{self, Decoded};
use super::{TokenVerifier, verify};

/// A stock policy, named as the reference's Rego file is.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use nsm_chain::{Tokens, time};

    use super::*;
    use crate::identity::{DevAuthority, Es256Tokens, HmacTokens, SvidSource, peer_of};

    struct Role {
        source: Arc<dyn SvidSource>,
        peer: Peer,
    }

    impl Role {
        fn new(authority: &DevAuthority, path: &str) -> Self {
            let source = authority.issue(path).unwrap();
            let peer = peer_of(source.svid().unwrap().chain()).unwrap();
            Self { source, peer }
        }

        fn token_for(&self, audience: &Self) -> String {
            let tokens = Es256Tokens::new(Arc::clone(&self.source), Duration::from_secs(600));
            tokens.token(Some(&audience.peer.id)).unwrap().text.to_string()
        }
    }

    /// A client asks a manager, the manager a forwarder.
    struct Mesh {
        client: Role,
        manager: Role,
        forwarder: Role,
    }

    fn mesh() -> Mesh {
        let authority = DevAuthority::new("example.org").unwrap();
        let role = |path| Role::new(&authority, path);
        Mesh { client: role("/client"), manager: role("/manager"), forwarder: role("/forwarder") }
    }

    fn denied(set: &PolicySet, tokens: &[&str], index: usize, peer: Option<&Peer>) -> Option<&'static str> {
        let input = PolicyInput { tokens, index, peer, owner: None, now: time::now() };
        set.check(&input).err().map(|denied| denied.policy)
    }

    #[test]
    fn a_server_accepts_an_honest_path_and_names_the_rule_that_a_forged_one_breaks() {
        let Mesh { client, manager, forwarder } = mesh();
        let first = client.token_for(&manager);
        let second = manager.token_for(&forwarder);
        let own = forwarder.token_for(&manager);
        let hmac = HmacTokens::new(&manager.peer.id).token(Some(&forwarder.peer.id)).unwrap().text.to_string();
        let set = PolicySet::server();
        let from = Some(&manager.peer);
        for (tokens, index, peer, rule) in [
            (vec![&*first, &second, &own], 2, from, None),
            (vec![&*first, &second, &own], 2, None, Some("prev_token_signed")),
            (vec![&*first, &second, &own], 2, Some(&client.peer), Some("prev_token_signed")),
            (vec![&*first, &hmac, &own], 2, from, Some("prev_token_signed")),
            (vec![&*first, &second, &own], 0, from, Some("prev_token_signed")),
            (vec![&*first, &second, &own], usize::MAX, from, Some("prev_token_signed")),
            (vec![], 0, from, Some("prev_token_signed")),
            (vec![&*first, "", &own], 2, from, Some("tokens_valid")),
            (vec!["a.b.c", &second, &own], 2, from, Some("tokens_valid")),
            // The manager's part cut out: nobody made the client's token for the forwarder.
            (vec![&*first, &own], 1, Some(&client.peer), Some("tokens_chained")),
        ] {
            assert_eq!(denied(&set, &tokens, index, peer), rule, "{index} {peer:?} {rule:?}");
        }
    }

    #[test]
    fn a_client_asks_for_the_signature_of_the_server_it_called() {
        let Mesh { client, manager, forwarder } = mesh();
        let (first, second) = (client.token_for(&manager), manager.token_for(&forwarder));
        let third = forwarder.token_for(&manager);
        let set = PolicySet::client();
        let path = [&*first, &second, &third];
        assert_eq!(denied(&set, &path, 0, Some(&manager.peer)), None);
        assert_eq!(denied(&set, &path, 1, Some(&forwarder.peer)), None);
        assert_eq!(denied(&set, &path, 0, Some(&forwarder.peer)), Some("next_token_signed"));
        assert_eq!(denied(&set, &path, 2, Some(&forwarder.peer)), Some("next_token_signed"));
        assert_eq!(denied(&set, &path, usize::MAX, Some(&forwarder.peer)), Some("next_token_signed"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_denied_wherever_it_stands() {
        let Mesh { client, manager, .. } = mesh();
        let (first, own) = (client.token_for(&manager), manager.token_for(&client));
        let set = PolicySet::server();
        assert_eq!(denied(&set, &[&first, &own], 1, Some(&client.peer)), None);
        tokio::time::advance(Duration::from_secs(601)).await;
        let own = manager.token_for(&client);
        assert_eq!(denied(&set, &[&first, &own], 1, Some(&client.peer)), Some("tokens_expired"));
    }

    /// Unsigned tokens with chosen claims, for the rules that look at claims only.
    fn claimed(claims: &str) -> String {
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_chain_rule_wants_lists_and_subjects() {
        let chained = PolicySet::of([Policy::TokensChained]);
        for (left, right, holds) in [
            (r#"{"aud":["b"]}"#, r#"{"sub":"b"}"#, true),
            (r#"{"aud":["x","b"]}"#, r#"{"sub":"b"}"#, true),
            (r#"{"aud":"b"}"#, r#"{"sub":"b"}"#, false),
            (r#"{"aud":[]}"#, r#"{"sub":"b"}"#, false),
            (r"{}", r#"{"sub":"b"}"#, false),
            (r#"{"aud":["b"]}"#, r"{}", false),
            (r#"{"aud":["b"]}"#, r#"{"sub":"c"}"#, false),
        ] {
            let tokens = [claimed(left), claimed(right)];
            let tokens = [&*tokens[0], &*tokens[1]];
            assert_eq!(denied(&chained, &tokens, 1, None).is_none(), holds, "{left} {right}");
        }
        assert_eq!(denied(&chained, &[], 0, None), None);
        assert_eq!(denied(&chained, &["garbage"], 0, None), None, "one token has no neighbour");
    }

    #[test]
    fn the_expiry_rule_wants_an_end_in_the_future() {
        let expired = PolicySet::of([Policy::TokensExpired]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(10_500);
        for (claims, alive) in [
            (r#"{"exp":11}"#, true),
            (r#"{"exp":10.6}"#, true),
            (r#"{"exp":10}"#, false),
            (r#"{"exp":0}"#, false),
            (r"{}", false),
        ] {
            let token = claimed(claims);
            let input = PolicyInput { tokens: &[&token], index: 0, peer: None, owner: None, now };
            assert_eq!(expired.check(&input).is_ok(), alive, "{claims}");
        }
    }

    #[test]
    fn a_name_belongs_to_its_first_owner() {
        let set = PolicySet::of([Policy::ClientAllowed]);
        let token = claimed(r#"{"sub":"spiffe://example.org/a"}"#);
        for (owner, tokens, allowed) in [
            (None, vec![], true),
            (None, vec![&*token], true),
            (Some("spiffe://example.org/a"), vec![&*token], true),
            (Some("spiffe://example.org/b"), vec![&*token], false),
            (Some("spiffe://example.org/a"), vec![], false),
            (Some(""), vec!["garbage"], false),
        ] {
            let input = PolicyInput { tokens: &tokens, index: 0, peer: None, owner, now: time::now() };
            assert_eq!(set.check(&input).is_ok(), allowed, "{owner:?} {tokens:?}");
        }
    }

    #[test]
    fn a_caller_watches_only_what_was_recorded_for_it() {
        use super::rules::service_connection;
        let recorded = |id: &str| id == "a";
        assert!(service_connection(["x", "a"], recorded));
        assert!(!service_connection(["x"], recorded));
        assert!(!service_connection([], recorded));
        assert!(!service_connection(["a"], |_| false));
    }

    #[test]
    fn a_denial_never_quotes_a_token() {
        let Mesh { client, manager, .. } = mesh();
        let token = client.token_for(&manager);
        let input =
            PolicyInput { tokens: &[&token], index: 1, peer: Some(&manager.peer), owner: None, now: time::now() };
        let denied = PolicySet::server().check(&input).unwrap_err();
        assert!(!format!("{denied:?} {input:?} {denied}").contains(&token[..20]));
    }

    #[test]
    fn only_the_set_that_says_so_allows_everything() {
        let input = PolicyInput { tokens: &["garbage"], index: 9, peer: None, owner: Some("x"), now: time::now() };
        assert!(PolicySet::allow_all().check(&input).is_ok());
        for set in
            [PolicySet::server(), PolicySet::client(), PolicySet::registry_server(), PolicySet::registry_client()]
        {
            assert!(set.check(&input).is_err());
            assert_eq!(set.policies().first().map(|policy| policy.name()), Some("tokens_valid"));
        }
        assert!(std::panic::catch_unwind(|| PolicySet::of([])).is_err());
    }
}
