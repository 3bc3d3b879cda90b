use std::fmt;

use nsm_api::SpiffeId;
use nsm_chain::{Call, Element, EventStream, Next, Order, Record, Registry, RegistryPath, Result, Watch, time};

use super::Owned;
use super::journal::Ownership;
use super::owners::{Claim, Owners};
use crate::identity::{self, About, PolicyInput, PolicySet, Rule};

/// Lets only those register, unregister and find whom the policies allow, and keeps names with whom they belong to.
///
/// *Register*: judged by the path up to this hop and by who owns the name. What succeeds makes the first
/// identity of the path the owner of a name that was free. *Unregister*: judged likewise; what succeeds frees
/// the name. *Find*: it has no path; the caller's token must decode, live, and be signed with the key of the caller's
/// certificate. (The reference lets everybody find.) A watch is judged when it begins, and lives on.
///
/// A name that expired stays with its owner, who may be cut off only for a while. So that this stays bounded,
/// the name that was neither registered nor refreshed for longest makes room when there are too many. With no
/// policies every call passes and nothing is remembered. A durable store keeps the owners with the records. It stands
/// after `UpdateRegistryPath`, whose path it judges, and before `Begin`, which holds up other calls for the name.
pub struct AuthorizeRegistry {
    policies: PolicySet,
    of_finders: PolicySet,
    owners: Owners,
    shows_path_ids: bool,
}

impl AuthorizeRegistry {
    /// As many names as a large mesh has.
    pub(super) const ROOM: usize = 1 << 20;

    /// Judges by these policies.
    #[must_use]
    pub fn new(policies: PolicySet) -> Self {
        let shows_path_ids = policies.rules().iter().any(|rule| matches!(rule, Rule::Custom(_)));
        let of_finders = policies.about_the_caller();
        Self { policies, of_finders, owners: Owners::with_room_for(Self::ROOM), shows_path_ids }
    }

    /// Remembers the owners of at most this many names (at least one; default 1 048 576). It says so before
    /// [`AuthorizeRegistry::owned_by`].
    #[must_use]
    pub fn remembering(mut self, names: usize) -> Self {
        self.owners = Owners::with_room_for(names);
        self
    }

    /// These names belong to these identities already: what a durable store kept from an earlier life. The
    /// first make room first.
    #[must_use]
    pub fn owned_by(self, names: impl IntoIterator<Item = Owned>) -> Self {
        for (name, owner) in names {
            self.owners.claim(&name, &owner);
        }
        self
    }

    /// How many names have an owner.
    #[must_use]
    pub fn owned(&self) -> usize {
        self.owners.len()
    }

    fn judge<R: Record>(&self, call: &Call<Registry<R>>, owner: Option<&str>) -> Result<()> {
        let path = call.extra().as_ref();
        let index = path.map_or(0, |path| path.index);
        let name = call.body().name();
        let input = PolicyInput {
            tokens: &tokens(path, index.saturating_add(1)),
            index,
            peer: call.peer().map(AsRef::as_ref),
            owner,
            about: About::Record { name, path_ids: &|| self.owners.path_ids() },
            now: time::now(),
        };
        self.policies.admit(&input, &format_args!("the {} {name:?}", R::WHAT))
    }

    /// The caller's token alone, as if this hop were the next one of a path that it begins.
    fn judge_finder<R: Record>(&self, watch: &Watch<Registry<R>>) -> Result<()> {
        let token = watch.token.as_ref().map(|token| &*token.text).unwrap_or_default();
        let input = PolicyInput {
            tokens: &[token],
            index: 1,
            peer: watch.peer.as_deref(),
            owner: None,
            about: About::Tokens,
            now: time::now(),
        };
        self.of_finders.admit(&input, &format_args!("a look at {}s", R::WHAT))
    }
}

/// The first tokens of a path.
pub(super) fn tokens(path: Option<&RegistryPath>, most: usize) -> Vec<&str> {
    path.into_iter().flat_map(|path| path.tokens.iter().take(most)).map(|token| &*token.0).collect()
}

/// Who began the path, by its first token; what vouches for that token is the policies' business. Not what
/// the record's `path_ids` say: those are the caller's word.
pub(super) fn initiator(path: Option<&RegistryPath>) -> Option<String> {
    let subject = identity::claims(&path?.tokens.first()?.0).ok()?.subject?;
    SpiffeId::new(&subject).is_ok().then_some(subject)
}

impl<R: Record> Element<Registry<R>> for AuthorizeRegistry {
    async fn request(&self, mut call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if self.policies.is_open() {
            return next.request(call).await;
        }
        let name = call.body().name().to_owned();
        let owner = self.owners.of(&name);
        self.judge(&call, owner.as_deref())?;
        let Some(id) = initiator(call.extra().as_ref()) else {
            return next.request(call).await;
        };
        // Claimed before the rest runs: of two who ask for a free name at once, one is first.
        let Claim { owner: claimed, was_free, evicted } = self.owners.claim(&name, &id);
        if !was_free && owner.as_ref() != Some(&claimed) {
            self.judge(&call, Some(&claimed))?;
        }
        call.set_fact(Ownership::Claimed { by: claimed, was_free, evicted });
        let result = next.request(call).await;
        match &result {
            Ok(call) => {
                // Another call for the name may have failed meanwhile and freed what it had claimed.
                self.owners.claim(&name, &id);
                if self.shows_path_ids {
                    self.owners.set_path_ids(&name, call.body().path_ids());
                }
            }
            Err(_) if was_free => {
                self.owners.release(&name);
            }
            Err(_) => {}
        }
        result
    }

    async fn close(&self, mut call: Call<Registry<R>>, next: Next<'_, Registry<R>>) -> Result<Call<Registry<R>>> {
        if self.policies.is_open() {
            return next.close(call).await;
        }
        let name = call.body().name().to_owned();
        let owner = self.owners.of(&name);
        self.judge(&call, owner.as_deref())?;
        if owner.is_some() {
            call.set_fact(Ownership::Freed);
        }
        let call = next.close(call).await?;
        self.owners.release(&name);
        Ok(call)
    }

    async fn monitor(
        &self,
        watch: Watch<Registry<R>>,
        next: Next<'_, Registry<R>>,
    ) -> Result<EventStream<Registry<R>>> {
        self.judge_finder(&watch)?;
        next.monitor(watch).await
    }

    fn order(&self) -> Order {
        Order { after: &["UpdateRegistryPath"], before: &["Begin"], last: false }
    }
}

impl fmt::Debug for AuthorizeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorizeRegistry({:?}, {} owned)", self.policies, self.owned())
    }
}

#[cfg(test)]
mod tests;
