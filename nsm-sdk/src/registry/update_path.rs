use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use nsm_api::SpiffeId;
use nsm_chain::{Call, Element, Error, Next, Order, PathToken, Record, Registry, RegistryPath, Result, Token, Tokens};

use crate::identity;

/// Enters this hop into the path of a registration.
///
/// *Register*, *Unregister*: moves the path's index to this hop, sets the caller's token at the place before
/// it and a fresh one of our own at this one, writes both identities into the record's `path_ids`, and leaves
/// [`OwnToken`] in the call. On the way back the index is the caller's again. An empty path begins with the
/// caller; an index beyond the end of the path is refused. *Find*: passes, it has no path.
///
/// Where the caller sent no path at all there stays none, and policies that judge tokens refuse the call. It
/// stands first: authorization judges what it wrote. (The algorithm: registry.md §1.5.)
pub struct UpdateRegistryPath {
    tokens: Arc<dyn Tokens>,
}

/// When this hop's own token for a call ends: no registration outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnToken {
    /// The end of the token, or of the certificate behind it.
    pub expires: SystemTime,
}

impl UpdateRegistryPath {
    /// This hop signs with `tokens`.
    #[must_use]
    pub fn new(tokens: Arc<dyn Tokens>) -> Self {
        Self { tokens }
    }

    /// Enters this hop; tells the caller's index.
    fn enter<R: Record>(&self, call: &mut Call<Registry<R>>) -> Result<usize> {
        let own = call.own_token(&*self.tokens)?;
        call.set_fact(OwnToken { expires: own.expires });
        let Some(mut path) = call.extra_mut().take() else {
            tracing::debug!(what = R::WHAT, name = call.body().name(), "the caller sent no path");
            return Ok(0);
        };
        let callers = call.token().cloned();
        let index = advance(&mut path, callers.as_ref(), &own)?;
        let own_id = subject(&own).ok_or_else(|| {
            Error::internal("our own token names no SPIFFE ID").hint("check the identity source of this hop")
        })?;
        let ids = call.body_mut().path_ids_mut();
        ids.resize(path.tokens.len(), String::new());
        ids[index] = callers.as_ref().and_then(subject).unwrap_or_default();
        ids[path.index] = own_id;
        *call.extra_mut() = Some(path);
        Ok(index)
    }
}

/// Moves the index on; both tokens take their places. Tells the index as it was.
fn advance(path: &mut RegistryPath, callers: Option<&Token>, own: &Token) -> Result<usize> {
    if path.tokens.is_empty() {
        *path = RegistryPath { index: 0, tokens: vec![PathToken::default()] };
    }
    let length = path.tokens.len();
    let Some(before) = path.tokens.get_mut(path.index) else {
        return Err(Error::invalid(format!("the path's index {} is beyond its {length} segments", path.index))
            .hint("send the path back as the last answer had it"));
    };
    if let Some(token) = callers {
        *before = PathToken(token.text.as_ref().to_owned());
    }
    let index = path.index;
    path.index += 1;
    let own = PathToken(own.text.as_ref().to_owned());
    match path.tokens.get_mut(path.index) {
        Some(here) => *here = own,
        None => path.tokens.push(own),
    }
    Ok(index)
}

/// Whose token it is, by its own word: whoever cares has the policies check the signature.
fn subject(token: &Token) -> Option<String> {
    let subject = identity::claims(&token.text).ok()?.subject?;
    SpiffeId::new(&subject).is_ok().then_some(subject)
}

/// The answer as the caller can verify it, with the index that it gave.
fn leave<R: Record>(mut call: Call<Registry<R>>, index: usize) -> Call<Registry<R>> {
    let own = call.extra().as_ref().and_then(|path| path.tokens.get(index + 1));
    let own = own.and_then(|token| identity::for_caller(&call, &token.0));
    if let Some(path) = call.extra_mut() {
        path.index = index;
        if let (Some(own), Some(here)) = (own, path.tokens.get_mut(index + 1)) {
            *here = PathToken(own.text.as_ref().to_owned());
        }
    }
    call
}

impl<R: Record> Element<Registry<R>> for UpdateRegistryPath {
    async fn request(&self, mut call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let index = self.enter(&mut call)?;
        Ok(leave(next.request(call).await?, index))
    }

    async fn close(&self, mut call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let index = self.enter(&mut call)?;
        Ok(leave(next.close(call).await?, index))
    }

    fn order(&self) -> Order {
        Order { before: &["Begin", "AuthorizeRegistry"], ..Order::ANYWHERE }
    }
}

impl fmt::Debug for UpdateRegistryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpdateRegistryPath")
    }
}

#[cfg(test)]
mod tests;
