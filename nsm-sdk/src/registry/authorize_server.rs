use std::fmt;

use nsm_chain::{Call, Element, Next, Order, Record, Registry, Result, ServerLink, time};

use super::authorize::{initiator, tokens};
use super::owners::Owners;
use crate::identity::{About, PolicyInput, PolicySet};

/// Refuses registries whose path of tokens does not hold.
///
/// *Register*: the policies judge the whole path that came back against the server's certificate. If the name was never
/// registered through here before, what the server made is undone by an Unregister; else only the error is reported. A
/// server without identity, in process or on a link without TLS, is not judged. One that sent no path back is: there is
/// no token of its then, and the stock policies deny, as those of the reference's clients do. *Unregister* passes:
/// letting go needs no permission. *Find* passes: it has no path.
///
/// It stands just before `Connect`.
pub struct AuthorizeRegistryServer {
    policies: PolicySet,
    accepted: Owners,
}

/// As many names as one program registers, or one manager for its node.
const ROOM: usize = 1 << 16;

impl AuthorizeRegistryServer {
    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self { policies, accepted: Owners::with_room_for(ROOM) }
    }

    fn judge<R: Record>(&self, call: &Call<Registry<R>>, owner: Option<&str>) -> Result<()> {
        let Some(peer) = call.fact::<ServerLink>().and_then(|server| server.0.peer.as_deref()) else {
            return Ok(());
        };
        let path = call.extra().as_ref();
        let name = call.body().name();
        let input = PolicyInput {
            tokens: &tokens(path, usize::MAX),
            index: path.map_or(0, |path| path.index),
            peer: Some(peer),
            owner,
            about: About::Record { name, path_ids: &|| self.accepted.path_ids() },
            now: time::now(),
        };
        self.policies.admit(&input, &format_args!("the registry of the {} {name:?}", R::WHAT))
    }
}

impl<R: Record> Element<Registry<R>> for AuthorizeRegistryServer {
    async fn request(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let call = next.request(call).await?;
        if self.policies.is_open() {
            return Ok(call);
        }
        // Its name as the registry settled it.
        let name = call.body().name().to_owned();
        let owner = self.accepted.of(&name);
        match self.judge(&call, owner.as_deref()) {
            Ok(()) => {
                if let Some(id) = initiator(call.extra().as_ref()) {
                    self.accepted.claim(&name, &id);
                    self.accepted.set_path_ids(&name, call.body().path_ids());
                }
                Ok(call)
            }
            Err(error) if owner.is_some() => Err(error),
            Err(error) => Err(next.undo(call, error).await),
        }
    }

    async fn close(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        let name = call.body().name().to_owned();
        let result = next.close(call).await;
        self.accepted.release(&name);
        result
    }

    fn order(&self) -> Order {
        Order { before: &["Connect"], ..Order::ANYWHERE }
    }
}

impl fmt::Debug for AuthorizeRegistryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizeRegistryServer({:?})", self.policies)
    }
}
