use nsm_chain::{Call, Element, Next, Order, Result, Why};
use nsm_mechanisms::Origin;

use crate::identity::claims;

/// Says whose connection it is, in a fact for the data plane: a client that starts over gets the interface that an earlier
/// life of it still has.
///
/// *Request*: leaves an [`Origin`]: the identity in the first token of the path, the name and the id of its first segment, and
/// how far from there this hop is. (An endpoint that passes on has two connections of one client at its forwarder.) *Close*
/// passes.
///
/// It stands behind `UpdateToken`, which completes the path (and `Authorize`, which has judged it), and before `CrossConnect`.
#[derive(Debug, Clone, Copy)]
pub struct NoteOrigin;

impl Element for NoteOrigin {
    async fn request(&self, mut call: Call, next: Next<'_>) -> Result<Call> {
        if let Some(path) = &call.connection().path
            && let Some(first) = path.segment(0)
        {
            let identity = claims(&first.token).ok().and_then(|claims| claims.subject).unwrap_or_default();
            // An identity has no space: nobody is taken for somebody else.
            let client = format!("{identity} {} {}\n{}", path.index, first.name, first.id).into();
            call.set_fact(Origin { client, starts_over: call.why() == Why::First });
        }
        next.request(call).await
    }

    fn order(&self) -> Order {
        Order { after: &["Begin", "UpdateToken"], before: &["CrossConnect"], last: false }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use nsm_api::{Connection, Mechanism, Path, PathSegment};
    use nsm_chain::{Begin, Chain, OwnedNext, Tokens, elements, from_fn};

    use super::*;
    use crate::identity::HmacTokens;
    use crate::path::{UpdatePath, UpdateToken};

    /// What is noted of Requests of this client, by this hop's position, with these ids and mechanisms.
    async fn noted(requests: &[(&str, &str, u32, Option<Mechanism>)]) -> Vec<Origin> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let look = from_fn(move |call: Call, next: OwnedNext| {
            keep.lock().unwrap().extend(call.fact::<Origin>().cloned());
            async move { next.request(call).await }
        });
        let tokens = |name: &str| HmacTokens::new(&format!("spiffe://example.org/{name}").parse().unwrap());
        let tokens_of_ours = Arc::new(tokens("fwd"));
        let list =
            elements![UpdatePath::new("fwd"), Begin::default(), UpdateToken::new(tokens_of_ours), NoteOrigin, look];
        let chain = Chain::new("fwd", list).unwrap();
        for (at, (who, id, index, mechanism)) in requests.iter().enumerate() {
            let token = tokens(who).token(None).unwrap().text.to_string();
            let first = PathSegment { name: "nsc".into(), id: (*id).into(), token, ..Default::default() };
            let hop = |n| PathSegment { name: format!("hop-{n}"), id: format!("{at}-{n}"), ..Default::default() };
            let path_segments: Vec<_> = std::iter::once(first).chain((1..*index).map(hop)).collect();
            let path = Some(Path { index: index - 1, path_segments });
            let id = format!("{at}-{}", index - 1);
            let connection = Connection { id, path, mechanism: mechanism.clone(), ..Default::default() };
            chain.request(Call::new(connection)).await.unwrap();
        }
        seen.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn a_client_is_known_by_identity_name_id_and_distance() {
        let origins = noted(&[
            ("nsc", "c", 2, None),
            ("nsc", "c", 2, None),
            ("nsc", "c", 2, Some(Mechanism::kernel())),
            ("other", "c", 2, None),
            ("nsc", "d", 2, None),
            ("nsc", "c", 4, None),
        ])
        .await;
        let same: Vec<_> = origins.iter().map(|origin| origin.client == origins[0].client).collect();
        assert_eq!(same, [true, true, true, false, false, false]);
        // Who has a mechanism has had the connection.
        let over: Vec<_> = origins.iter().map(|origin| origin.starts_over).collect();
        assert_eq!(over, [true, true, false, true, true, true]);
    }
}
