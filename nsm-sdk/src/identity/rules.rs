//! The stock rules, each as a function of what it looks at. A rule that lacks what it needs says no.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Audience, Claims, TokenRejected, TokenVerifier};

/// Claims of each path token in order, or why it is no token.
pub(super) type Decoded = Vec<Result<Claims, TokenRejected>>;

/// Whose path it is: the subject of its first token. What vouches for that is the other rules' business.
pub(super) fn subject(tokens: &Decoded) -> Option<&str> {
    tokens.first()?.as_ref().ok()?.subject.as_deref()
}

/// Every token decodes.
pub(super) fn tokens_valid(tokens: &Decoded) -> Result<(), String> {
    match tokens.iter().enumerate().find_map(|(index, token)| Some((index, token.as_ref().err()?))) {
        Some((index, error)) => Err(format!("token {index}: {error}")),
        None => Ok(()),
    }
}

/// Every token names an end, and it is later than now.
pub(super) fn tokens_expired(tokens: &Decoded, now: SystemTime) -> Result<(), String> {
    let alive = |token: &Result<Claims, _>| token.as_ref().is_ok_and(|claims: &Claims| claims.is_alive(now));
    match tokens.iter().position(|token| !alive(token)) {
        Some(index) => Err(format!("token {index} has expired or names no end")),
        None => Ok(()),
    }
}

/// Each token but the last names the subject of the next one in its audience, which must be a list.
pub(super) fn tokens_chained(tokens: &Decoded) -> Result<(), String> {
    let broken = tokens.windows(2).position(|pair| match pair {
        [Ok(Claims { audience: Audience::List(audience), .. }), Ok(Claims { subject: Some(next), .. })] => {
            !audience.contains(next)
        }
        _ => true,
    });
    match broken {
        Some(index) => Err(format!("the audience of token {index} does not name the subject of token {}", index + 1)),
        None => Ok(()),
    }
}

/// There is a token at `index`, signed with the key of the peer's certificate.
pub(super) fn signed_by_peer(
    tokens: &[&str],
    index: Option<usize>,
    certificate: Option<&Arc<[u8]>>,
    verifier: &TokenVerifier,
) -> Result<(), String> {
    let Some((index, token)) = index.and_then(|index| Some((index, *tokens.get(index)?))) else {
        return Err("the path has no token of the peer".to_owned());
    };
    let certificate = certificate.ok_or("the peer showed no certificate")?;
    match verifier.verify_signature(token, certificate) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("token {index}: {error}")),
    }
}

/// A registered name belongs to whom registered it first: `owner` is the first path id recorded for the name (none: the
/// name is free), `subject` the `sub` of the first path token.
#[must_use]
pub fn client_allowed(owner: Option<&str>, subject: Option<&str>) -> bool {
    match (owner, subject) {
        (None, _) => true,
        (Some(owner), Some(subject)) => owner == subject,
        (Some(_), None) => false,
    }
}

/// A caller may watch a connection if the selector names at least one segment id that was recorded for the caller.
pub fn service_connection<'a>(selector: impl IntoIterator<Item = &'a str>, recorded: impl Fn(&str) -> bool) -> bool {
    selector.into_iter().any(recorded)
}
