use std::fmt;
use std::sync::Arc;

use nsm_api::connection::{Connection, PathSegment};
use nsm_chain::{Call, Element, Error, Next, Order, Result, Token, Tokens};

use crate::identity;

/// Writes the caller's token and this hop's own into the path.
///
/// *Request and Close*: the token that came with the call goes into the segment before ours, a token of ours, made for
/// the caller, into our own; each with its expiry. What stands to the right is not touched. *On return* our own is signed anew
/// if our identity was rotated meanwhile.
///
/// It stands behind `Begin`, so that a Close of our own (at expiry, say) carries tokens too: ours fresh, the caller's
/// as it was last sent.
#[derive(Clone)]
pub struct UpdateToken {
    tokens: Arc<dyn Tokens>,
}

impl UpdateToken {
    /// Signs with these tokens.
    #[must_use]
    pub fn new(tokens: Arc<dyn Tokens>) -> Self {
        Self { tokens }
    }

    fn write(&self, call: &mut Call) -> Result<()> {
        let own = call.own_token(&*self.tokens)?;
        let callers = call.token().cloned();
        let Connection { path: Some(path), .. } = call.body_mut() else {
            return Err(Error::invalid("the connection has no path"));
        };
        let index = path.index as usize;
        match (callers, index.checked_sub(1).and_then(|before| path.path_segments.get_mut(before))) {
            (Some(token), Some(segment)) => fill(segment, &token),
            (None, Some(_)) => tracing::debug!("the caller sent no token"),
            (_, None) => {}
        }
        let Some(segment) = path.path_segments.get_mut(index) else {
            return Err(Error::invalid(format!("the path's index {index} is past its end")));
        };
        fill(segment, &own);
        Ok(())
    }
}

/// The answer as the caller can verify it.
fn answer(mut call: Call) -> Call {
    let here = call.body().path.as_ref().and_then(|path| path.path_segments.get(path.index as usize));
    let Some(token) = here.and_then(|segment| identity::for_caller(&call, &segment.token)) else {
        return call;
    };
    if let Some(path) = &mut call.body_mut().path
        && let Some(segment) = path.path_segments.get_mut(path.index as usize)
    {
        segment.token = (*token.text).to_owned();
    }
    call
}

fn fill(segment: &mut PathSegment, token: &Token) {
    if segment.token != *token.text {
        segment.token = (*token.text).to_owned();
    }
    segment.expires = Some(token.expires.into());
}

impl Element for UpdateToken {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        self.write(&mut call)?;
        Ok(answer(next.request(call).await?))
    }

    /// A Close goes on even where no token can be made: what is gone here must be told further on, and the next hop
    /// judges what it gets.
    async fn close(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        if let Err(error) = self.write(&mut call) {
            tracing::warn!(%error, "closing without a fresh token");
        }
        next.close(call).await
    }

    fn order(&self) -> Order {
        Order::after(&["UpdatePath", "Begin"])
    }
}

impl fmt::Debug for UpdateToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpdateToken")
    }
}
