use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use nsm_chain::{BoxError, Error};

use super::refusals::Refusals;
use super::rules::{self, Decoded};
use super::{About, PolicyInput, TokenVerifier, verify};

/// A stock policy, named as the reference's Rego file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// A registered name belongs to the identity that registered it.
    ClientAllowed,
    /// The server's token, next in the path, is signed with the key of the certificate it showed.
    NextTokenSigned,
    /// The caller's token, previous in the path, is signed with the key of the certificate it showed.
    PrevTokenSigned,
    /// A watcher names a connection that its own identity asked for.
    ServiceConnection,
    /// The audience of each token names the subject of the next.
    TokensChained,
    /// No token has expired.
    TokensExpired,
    /// Every token decodes.
    TokensValid,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ClientAllowed,
        Self::NextTokenSigned,
        Self::PrevTokenSigned,
        Self::ServiceConnection,
        Self::TokensChained,
        Self::TokensExpired,
        Self::TokensValid,
    ];

    /// The stem of the reference's file name, such as `tokens_valid`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientAllowed => "client_allowed",
            Self::NextTokenSigned => "next_token_signed",
            Self::PrevTokenSigned => "prev_token_signed",
            Self::ServiceConnection => "service_connection",
            Self::TokensChained => "tokens_chained",
            Self::TokensExpired => "tokens_expired",
            Self::TokensValid => "tokens_valid",
        }
    }

    /// Where the reference keeps it, below `etc/nsm/opa`: the folder, such as `common`.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::ClientAllowed => "registry",
            Self::NextTokenSigned => "client",
            Self::PrevTokenSigned => "server",
            Self::ServiceConnection => "monitor",
            Self::TokensChained | Self::TokensExpired | Self::TokensValid => "common",
        }
    }
}

/// A policy that is not one of the stock ones. Crate `nsm-rego` makes them from Rego.
///
/// ```
/// use std::time::SystemTime;
/// use nsm_sdk::identity::{CustomPolicy, Policy, PolicySet, Rule};
/// use nsm_sdk::nsm_chain::BoxError;
///
/// /// No path of more than eight hops.
/// #[derive(Debug)]
/// struct Short;
///
/// impl CustomPolicy for Short {
///     fn name(&self) -> &str {
///         "short"
///     }
///     fn allows(&self, document: &serde_json::Value, _now: SystemTime) -> Result<bool, BoxError> {
///         Ok(document["path_segments"].as_array().is_some_and(|segments| segments.len() <= 8))
///     }
/// }
///
/// let set = PolicySet::of([Rule::from(Policy::TokensValid), Rule::custom(Short)]);
/// assert_eq!(format!("{set:?}"), "[tokens_valid, short]");
/// ```
pub trait CustomPolicy: Send + Sync + 'static {
    /// What a log calls it.
    fn name(&self) -> &str;

    /// Whether the call may go on. `document` is what the reference gives its policy engine for such a call; see
    /// [`About`]. It is called in the middle of a call: it must come to an end soon.
    ///
    /// # Errors
    /// When it cannot tell. The caller is answered `Internal` then, and the text goes to the log.
    fn allows(&self, document: &serde_json::Value, now: SystemTime) -> Result<bool, BoxError>;
}

/// One policy of a set.
#[derive(Clone)]
pub enum Rule {
    /// One of one's own.
    Custom(Arc<dyn CustomPolicy>),
    /// A stock one.
    Stock(Policy),
}

impl Rule {
    /// One of one's own.
    #[must_use]
    pub fn custom(policy: impl CustomPolicy) -> Self {
        Self::Custom(Arc::new(policy))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Custom(policy) => policy.name(),
            Self::Stock(policy) => policy.name(),
        }
    }
}

impl From<Policy> for Rule {
    fn from(policy: Policy) -> Self {
        Self::Stock(policy)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A policy said no, or could not tell. This text is for our own log; on the wire it is `PermissionDenied` or `Internal`
/// and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} policy {policy}: {reason}", if *.failed { "cannot evaluate" } else { "denied by" })]
pub struct Denied {
    /// The name of the policy.
    pub policy: Box<str>,
    /// What it found. Names positions and identities, never a token.
    pub reason: String,
    /// Whether it could not be evaluated, which is no fault of the caller.
    pub failed: bool,
}

/// Policies that must all agree, and the memory of tokens found good.
#[derive(Clone)]
pub struct PolicySet {
    rules: Arc<[Rule]>,
    verifier: Arc<TokenVerifier>,
    refusals: Arc<Refusals>,
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
        Self { rules: Arc::new([]), verifier: Arc::default(), refusals: Arc::default() }
    }

    /// A set of one's own.
    ///
    /// # Panics
    /// If it is empty: that would allow everything; say [`PolicySet::allow_all`] if that is meant.
    #[must_use]
    pub fn of(rules: impl IntoIterator<Item = impl Into<Rule>>) -> Self {
        let rules: Arc<[Rule]> = rules.into_iter().map(Into::into).collect();
        assert!(!rules.is_empty(), "an empty policy set allows everything; use PolicySet::allow_all");
        Self { rules, ..Self::allow_all() }
    }

    /// The policies in it, in the order they are asked.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether every call passes.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules about a caller's own token, for what has no path: those of this set, and all there are if the set has
    /// policies of one's own, which could not judge it.
    pub(crate) fn about_the_caller(&self) -> Self {
        let all = self.rules.iter().any(|rule| matches!(rule, Rule::Custom(_)));
        let about =
            |rule: &Policy| all || self.rules.iter().any(|mine| matches!(mine, Rule::Stock(mine) if mine == rule));
        let rules = [Policy::TokensValid, Policy::TokensExpired, Policy::PrevTokenSigned];
        let rules = rules.into_iter().filter(about).map(Rule::from).collect();
        Self { rules, verifier: Arc::clone(&self.verifier), refusals: Arc::clone(&self.refusals) }
    }

    /// Asks each policy in turn.
    ///
    /// # Errors
    /// The first that denies.
    pub fn check(&self, input: &PolicyInput<'_>) -> Result<(), Denied> {
        if self.is_open() {
            return Ok(());
        }
        let tokens: Decoded = input.tokens.iter().map(|token| verify::claims(token)).collect();
        let document = OnceCell::new();
        let refused = |rule: &Rule, reason, failed| Denied { policy: rule.name().into(), reason, failed };
        self.rules.iter().try_for_each(|rule| match rule {
            Rule::Stock(policy) => self.ask(*policy, input, &tokens).map_err(|reason| refused(rule, reason, false)),
            Rule::Custom(policy) => match policy.allows(document.get_or_init(|| input.document(&tokens)), input.now) {
                Ok(true) => Ok(()),
                Ok(false) => Err(refused(rule, "it does not hold".to_owned(), false)),
                Err(error) => Err(refused(rule, error.to_string(), true)),
            },
        })
    }

    /// Asks each policy, and says no as callers and operators are told: the caller without a reason, the log with it.
    ///
    /// # Errors
    /// `PermissionDenied`, or `Internal` if a policy could not be evaluated.
    pub(crate) fn admit(&self, input: &PolicyInput<'_>, what: &dyn fmt::Display) -> Result<(), Error> {
        self.check(input).map_err(|denied| {
            self.refusals.log(&denied, input.peer, what);
            let error = if denied.failed {
                Error::internal("a policy cannot be evaluated")
            } else {
                Error::denied(format!("no sufficient privileges for {what}"))
            };
            error.with_detail(denied.to_string()).hint("the log of this hop names the policy")
        })
    }

    fn ask(&self, policy: Policy, input: &PolicyInput<'_>, tokens: &Decoded) -> Result<(), String> {
        let certificate = input.peer.map(|peer| &peer.certificate);
        let signed = |index| rules::signed_by_peer(input.tokens, index, certificate, &self.verifier);
        match policy {
            Policy::ClientAllowed => {
                let subject = rules::subject(tokens);
                if rules::client_allowed(input.owner, subject) {
                    Ok(())
                } else {
                    Err(format!("the name belongs to {:?}, not to {:?}", input.owner, subject))
                }
            }
            Policy::NextTokenSigned => signed(input.index.checked_add(1)),
            Policy::PrevTokenSigned => signed(input.index.checked_sub(1)),
            Policy::ServiceConnection => match input.about {
                About::Watch { selected, recorded, .. } => {
                    if rules::service_connection(selected.iter().copied(), recorded) {
                        Ok(())
                    } else {
                        Err("the selector names no connection of the watcher's own identity".to_owned())
                    }
                }
                _ => Err("this policy judges watchers of connections only".to_owned()),
            },
            Policy::TokensChained => rules::tokens_chained(tokens),
            Policy::TokensExpired => rules::tokens_expired(tokens, input.now),
            Policy::TokensValid => rules::tokens_valid(tokens),
        }
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use nsm_chain::{Peer, Tokens, time};

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

    fn denied(set: &PolicySet, tokens: &[&str], index: usize, peer: Option<&Peer>) -> Option<String> {
        let input = PolicyInput { tokens, index, peer, owner: None, about: About::Tokens, now: time::now() };
        set.check(&input).err().map(|denied| denied.policy.into())
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
            assert_eq!(denied(&set, &tokens, index, peer).as_deref(), rule, "{index} {peer:?} {rule:?}");
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
        assert_eq!(denied(&set, &path, 0, Some(&forwarder.peer)), Some("next_token_signed".into()));
        assert_eq!(denied(&set, &path, 2, Some(&forwarder.peer)), Some("next_token_signed".into()));
        assert_eq!(denied(&set, &path, usize::MAX, Some(&forwarder.peer)), Some("next_token_signed".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_token_is_denied_wherever_it_stands() {
        let Mesh { client, manager, .. } = mesh();
        let (first, own) = (client.token_for(&manager), manager.token_for(&client));
        let set = PolicySet::server();
        assert_eq!(denied(&set, &[&first, &own], 1, Some(&client.peer)), None);
        tokio::time::advance(Duration::from_secs(601)).await;
        let own = manager.token_for(&client);
        assert_eq!(denied(&set, &[&first, &own], 1, Some(&client.peer)), Some("tokens_expired".into()));
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
            let input = PolicyInput { tokens: &[&token], index: 0, peer: None, owner: None, about: About::Tokens, now };
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
            let input =
                PolicyInput { tokens: &tokens, index: 0, peer: None, owner, about: About::Tokens, now: time::now() };
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
        let input = PolicyInput {
            tokens: &[&token],
            index: 1,
            peer: Some(&manager.peer),
            owner: None,
            about: About::Tokens,
            now: time::now(),
        };
        let denied = PolicySet::server().check(&input).unwrap_err();
        assert!(!format!("{denied:?} {input:?} {denied}").contains(&token[..20]));
    }

    #[test]
    fn only_the_set_that_says_so_allows_everything() {
        let input = PolicyInput {
            tokens: &["garbage"],
            index: 9,
            peer: None,
            owner: Some("x"),
            about: About::Tokens,
            now: time::now(),
        };
        assert!(PolicySet::allow_all().check(&input).is_ok());
        for set in
            [PolicySet::server(), PolicySet::client(), PolicySet::registry_server(), PolicySet::registry_client()]
        {
            assert!(set.check(&input).is_err());
            assert_eq!(set.rules().first().map(Rule::name), Some("tokens_valid"));
        }
        assert!(std::panic::catch_unwind(|| PolicySet::of(Vec::<Rule>::new())).is_err());
    }

    /// Denies, and counts how often it is asked; keeps the document it was shown.
    struct Shown {
        answer: Result<bool, &'static str>,
        documents: Mutex<Vec<usize>>,
    }

    impl CustomPolicy for Arc<Shown> {
        fn name(&self) -> &str {
            "mine"
        }
        fn allows(&self, document: &serde_json::Value, _now: SystemTime) -> Result<bool, BoxError> {
            self.documents.lock().unwrap().push(std::ptr::from_ref(document).addr());
            self.answer.map_err(BoxError::from)
        }
    }

    #[test]
    fn a_policy_of_ones_own_is_asked_in_its_turn_and_the_document_is_made_once() {
        let shown = |answer| Arc::new(Shown { answer, documents: Mutex::default() });
        let (yes, no, broken) = (shown(Ok(true)), shown(Ok(false)), shown(Err("boom")));
        let made = std::cell::Cell::new(0);
        let path_ids = || {
            made.set(made.get() + 1);
            std::collections::BTreeMap::new()
        };
        let about = About::Record { name: "nse", path_ids: &path_ids };
        let input = PolicyInput { tokens: &[], index: 0, peer: None, owner: None, about, now: time::now() };
        let check = |rules: Vec<Rule>| PolicySet::of(rules).check(&input);
        let mine = |policy: &Arc<Shown>| Rule::custom(Arc::clone(policy));
        assert_eq!(check(vec![Policy::TokensValid.into()]), Ok(()));
        assert_eq!(made.get(), 0, "only for policies of one's own");
        let denied =
            check(vec![mine(&yes), Policy::TokensValid.into(), mine(&yes), mine(&no), mine(&yes)]).unwrap_err();
        assert_eq!((denied.to_string(), denied.failed), ("denied by policy mine: it does not hold".into(), false));
        let documents = yes.documents.lock().unwrap().clone();
        assert!(documents.len() == 2 && documents[0] == documents[1] && made.get() == 1);
        let failed = check(vec![mine(&broken)]).unwrap_err();
        assert_eq!((failed.to_string(), failed.failed), ("cannot evaluate policy mine: boom".into(), true));
        assert!(!check(vec![Policy::PrevTokenSigned.into(), mine(&broken)]).unwrap_err().failed);
    }

    #[test]
    fn what_has_no_path_is_judged_by_the_rules_about_the_callers_token() {
        let names = |set: PolicySet| format!("{:?}", set.about_the_caller());
        assert_eq!(names(PolicySet::registry_server()), "[tokens_valid, tokens_expired, prev_token_signed]");
        assert_eq!(names(PolicySet::of([Policy::TokensExpired, Policy::ClientAllowed])), "[tokens_expired]");
        let mine = Rule::custom(Arc::new(Shown { answer: Ok(true), documents: Mutex::default() }));
        assert_eq!(names(PolicySet::of([mine])), "[tokens_valid, tokens_expired, prev_token_signed]");
        assert!(PolicySet::allow_all().about_the_caller().is_open());
    }
}
