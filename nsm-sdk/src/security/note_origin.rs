use nsm_chain::{Call, Element, Next, Order, Result, Why};
use nsm_mechanisms::Origin;

use crate::identity::claims;

/// Says whose connection it is, in a fact for the data plane: a client that starts over gets the interface that an earlier
/// life of it still has.
///
/// *Request*: leaves an [`Origin`]: the identity in the first token of the path, and the name and the id of its first segment.
/// *Close* passes.
///
/// It stands behind `UpdateToken`, which completes the path (and `Authorize`, which has judged it), and before `CrossConnect`.
#[derive(Debug, Clone, Copy)]
pub struct NoteOrigin;

impl Element for NoteOrigin {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        if let Some(first) = call.connection().path.as_ref().and_then(|path| path.segment(0)) {
            let identity = claims(&first.token).ok().and_then(|claims| claims.subject).unwrap_or_default();
            // An identity has no space: nobody is taken for somebody else.
            let client = format!("{identity} {}\n{}", first.name, first.id).into();
            call.set_fact(Origin { client, starts_over: call.why() == Why::First });
        }
        next.request(call).await
    }

    fn order(&self) -> Order {
        Order { after: &["Begin", "UpdateToken"], before: &["CrossConnect"], last: false }
    }
}
