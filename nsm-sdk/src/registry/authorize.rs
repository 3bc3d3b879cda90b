use std::fmt;

use nsm_chain::{Call, Element, Error, Next, Order, Record, Registry, Result, time};

use super::owners::Owners;
use crate::identity::{self, PolicyInput, PolicySet};

/// Lets only those register and unregister whom the policies allow, and keeps names with whom they belong to.
///
/// *Register*: judged by the path up to this hop and by who owns the name. What succeeds makes the first
/// identity of the path the owner of a name that was free. *Unregister*: judged likewise; what succeeds frees
/// the name. *Find*: passes.
///
/// A name that expired stays with its owner, who may be cut off only for a while. So that this stays bounded,
/// the name that was neither registered nor refreshed for longest makes room when there are too many. With no
/// policies every call passes and nothing is remembered. It stands after `UpdateRegistryPath`, whose path it
/// judges, and before `Begin`, which holds up other calls for the name.
pub struct AuthorizeRegistry {
    policies: PolicySet,
    owners: Owners,
}

/// As many names as a large mesh has.
const ROOM: usize = 1 << 20;

impl AuthorizeRegistry {
    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        Self { policies, owners: Owners::with_room_for(ROOM) }
    }

    /// Remembers the owners of at most this many names (at least one; default 1 048 576).
    #[must_use]
    pub fn remembering(mut self, names: usize) -> Self {
        self.owners = Owners::with_room_for(names);
        self
    }

    /// How many names have an owner.
    #[must_use]
    pub fn owned(&self) -> usize {
        self.owners.len()
    }

    fn is_open(&self) -> bool {
        self.policies.policies().is_empty()
    }

    fn judge<R: Record>(&self, call: &Call<Registry<R>>, owner: Option<&str>) -> Result<()> {
        let path = call.extra().as_ref();
        let index = path.map_or(0, |path| path.index);
        let tokens: Vec<&str> = path
            .into_iter()
            .flat_map(|path| path.tokens.iter().take(index.saturating_add(1)))
            .map(|token| &*token.0)
            .collect();
        let peer = call.peer().map(AsRef::as_ref);
        self.policies.check(&PolicyInput { tokens: &tokens, index, peer, owner, now: time::now() }).map_err(|denied| {
            Error::denied(format!("no sufficient privileges for the {} {:?}", R::WHAT, call.body().name()))
                .with_detail(denied.to_string())
        })
    }
}

/// Who began the path, by its first token; what vouches for that token is the policies' business. Not what
/// the record's `path_ids` say: those are the caller's word.
fn initiator<R: Record>(call: &Call<Registry<R>>) -> Option<String> {
    let first = call.extra().as_ref()?.tokens.first()?;
    identity::claims(&first.0).ok()?.subject
}

impl<R: Record> Element<Registry<R>> for AuthorizeRegistry {
    async fn request(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if self.is_open() {
            return next.request(call).await;
        }
        let name = call.body().name().to_owned();
        self.judge(&call, self.owners.of(&name).as_deref())?;
        let Some(id) = initiator(&call) else {
            return next.request(call).await;
        };
        // Claimed before the rest runs: of two who ask for a free name at once, one is first.
        let (owner, was_free) = self.owners.claim(&name, &id);
        self.judge(&call, Some(&owner))?;
        match next.request(call).await {
            Ok(call) => {
                // Another call for the name may have failed meanwhile and freed what it had claimed.
                self.owners.claim(&name, &id);
                Ok(call)
            }
            Err(error) => {
                if was_free {
                    self.owners.release(&name);
                }
                Err(error)
            }
        }
    }

    async fn close(&self, call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if self.is_open() {
            return next.close(call).await;
        }
        let name = call.body().name().to_owned();
        self.judge(&call, self.owners.of(&name).as_deref())?;
        let call = next.close(call).await?;
        self.owners.release(&name);
        Ok(call)
    }

    fn order(&self) -> Order {
        Order { after: &["UpdateRegistryPath"], before: &["Begin"], last: false }
    }
}

impl fmt::Debug for AuthorizeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizeRegistry({:?}, {} owned)", self.policies.policies(), self.owned())
    }
}

#[cfg(test)]
mod tests;
