//! One event at a time for each connection, and a way for elements to start events of their own.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::call::{Closed, Facts};
use crate::next::WeakNext;
use crate::sync::tokio::sync::{Mutex, OwnedMutexGuard};
use crate::sync::{Mutex as StdMutex, MutexGuard, tokio};
use crate::{Call, Element, Error, Next, Peer, Protocol, Result, Service, State, Token, Why};

/// How long an event of our own may take where the first Request came without a deadline.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a healing waits for a refresh that is under way: one that gets on is done by then.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Lets one event at a time happen to each connection, first come first served, and keeps what was established.
///
/// *Request*: the connection's state ([`State`]) is made at the first one. If that fails, or its caller is gone by the
/// time it succeeds, everything is given back. A later one that fails leaves what was established as it is. One that
/// asks every hop to reselect closes the established connection further on first, in half of its time; if it then fails,
/// only an initiator still wants the connection.
/// *Close*: ends the patience of a Request of our own that is under way, closes the last established connection,
/// whatever the caller's copy says, and drops the state even if something further on could not be undone; one that an
/// element of this hop refuses ([`Error::changing_nothing`]) changes nothing. Of an unknown connection it says
/// [`Closed::Unknown`].
///
/// With the chain itself everything kept here goes, as if the process had ended: nothing is closed, no timer is left.
///
/// Elements behind it find a [`Handle`] in the call, by which they start a Request or a Close later: refresh, heal,
/// expiry. It stands right after whatever settles the connection's id.
pub struct Begin<P: Protocol = Service> {
    table: Arc<Table<P>>,
    merges: bool,
    reselect: Option<Arc<Reselect<P>>>,
}

type Reselect<P> = dyn Fn(&mut <P as Protocol>::Body) + Send + Sync;
type Table<P> = StdMutex<HashMap<Arc<str>, Arc<Entry<P>>>>;

struct Entry<P: Protocol> {
    key: Arc<str>,
    table: Weak<Table<P>>,
    reselect: Option<Arc<Reselect<P>>>,
    life: Arc<Mutex<Life<P>>>,
    /// The patience of the Request of our own that is under way.
    own: StdMutex<CancellationToken>,
}

struct Life<P: Protocol> {
    state: Arc<State>,
    established: Option<Established<P>>,
    /// Closed further on, but still wanted: a reselect whose Request failed.
    torn: bool,
    /// Out of the table: whoever waited for it starts over.
    gone: bool,
}

/// What the last good Request left: enough to ask again, or to close.
struct Established<P: Protocol> {
    body: Arc<P::Body>,
    /// What the application got last, where that matters: since then the body may have changed by events of our own.
    told: Option<Arc<P::Body>>,
    extra: P::Extra,
    peer: Option<Arc<Peer>>,
    token: Option<Token>,
    timeout: Duration,
    next: WeakNext<P>,
}

impl<P: Protocol> Default for Begin<P> {
    fn default() -> Self {
        Self { table: Arc::default(), merges: false, reselect: None }
    }
}

impl<P: Protocol> Begin<P> {
    /// The form for an initiator: a Request for an established connection starts from what was established and takes
    /// from the caller only what [`Protocol::merge`] lets him change; and [`Why::Reselect`] works.
    #[must_use]
    pub fn initiator() -> Self {
        Self { table: Arc::default(), merges: true, reselect: Some(Arc::new(P::reselect)) }
    }

    /// What a reselect changes in the body before asking afresh, instead of [`Protocol::reselect`].
    #[must_use]
    pub fn reselecting_by(mut self, change: impl Fn(&mut P::Body) + Send + Sync + 'static) -> Self {
        self.reselect = Some(Arc::new(change));
        self
    }

    /// Handles of all that is known now, to close what a stack owns at its end, or to take a census.
    #[must_use]
    pub fn handles(&self) -> Vec<Handle<P>> {
        lock(&self.table)
            .values()
            .map(|entry| Handle { entry: Arc::downgrade(entry), key: Arc::clone(&entry.key) })
            .collect()
    }

    fn entry(&self, key: &str) -> Arc<Entry<P>> {
        let mut table = lock(&self.table);
        if let Some(entry) = table.get(key) {
            return Arc::clone(entry);
        }
        let key: Arc<str> = key.into();
        let entry = Arc::new(Entry {
            key: Arc::clone(&key),
            table: Arc::downgrade(&self.table),
            reselect: self.reselect.clone(),
            life: Arc::new(Mutex::new(Life { state: Arc::default(), established: None, torn: false, gone: false })),
            own: StdMutex::default(),
        });
        table.insert(key, Arc::clone(&entry));
        entry
    }
}

fn lock<P: Protocol>(table: &Table<P>) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Entry<P>>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Protocol> Entry<P> {
    fn handle(self: &Arc<Self>) -> Handle<P> {
        Handle { entry: Arc::downgrade(self), key: Arc::clone(&self.key) }
    }

    /// Forgets this connection. Called with its life locked, by the one who ends it.
    fn forget(&self, life: &mut Life<P>) {
        life.gone = true;
        life.established = None;
        life.state.clear();
        if let Some(table) = self.table.upgrade() {
            let mut table = lock(&table);
            if table.get(&self.key).is_some_and(|entry| std::ptr::eq(&raw const **entry, self)) {
                table.remove(&self.key);
            }
        }
    }

    /// One Request through the rest of the chain, with everything that must hold afterwards.
    async fn run(self: &Arc<Self>, life: &mut Life<P>, mut call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        let first = life.established.is_none();
        call.attach(Arc::clone(&life.state), self.handle(), first);
        let timeout = match &life.established {
            Some(established) => established.timeout,
            None => call.remaining().unwrap_or(DEFAULT_TIMEOUT),
        };
        match HELD.scope(self.address(), next.request(call)).await {
            Ok(call) if first && call.cancellation().is_cancelled() => {
                let error = Error::cancelled("the caller gave up before the connection was there");
                let error = next.undo(call, error).await;
                self.forget(life);
                Err(error)
            }
            Ok(mut call) => {
                // Others keep shares of the body: it is copied only if something must change.
                if !P::is_settled(call.body(), &self.key) {
                    P::settle(call.body_mut(), &self.key);
                }
                life.torn = false;
                let told = match &life.established {
                    Some(established) if call.is_own() => established.told.clone(),
                    _ => self.reselect.is_some().then(|| call.share()),
                };
                life.established = Some(Established {
                    body: call.share(),
                    told,
                    extra: if self.reselect.is_some() { call.extra().clone() } else { P::keep(call.extra()) },
                    peer: call.peer().cloned(),
                    token: call.token().cloned(),
                    timeout,
                    next: next.weak(),
                });
                Ok(call)
            }
            Err(error) => {
                // What was closed to be made afresh, and was not, is nothing; whether it is wanted, its initiator knows.
                if first || (life.torn && self.reselect.is_none()) {
                    self.forget(life);
                }
                Err(error)
            }
        }
    }

    /// Closes what is established through the rest of the chain. The state stays until the caller drops it.
    async fn undo(self: &Arc<Self>, life: &Life<P>, asked: Option<Call<P>>, next: Next<'_, P>) -> Result<Call<P>> {
        let Some(established) = &life.established else {
            return Ok(asked.unwrap_or_else(|| Call::new(P::Body::default())));
        };
        let mut call = match asked {
            Some(mut call) => {
                call.set_body(Arc::clone(&established.body));
                call
            }
            None => established.call(),
        };
        call.attach(Arc::clone(&life.state), self.handle(), false);
        HELD.scope(self.address(), next.close(call)).await
    }

    fn own(&self) -> MutexGuard<'_, CancellationToken> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> usize {
        (&raw const *self).addr()
    }

    /// Lets go of everything further on, with the facts that come with it, and starts with fresh state. It takes half of
    /// the time there is at most: one who does not hear the Close may be why everything is chosen afresh. Who does not hear
    /// it lets go when the tokens on the path end.
    async fn tear(self: &Arc<Self>, life: &mut Life<P>, facts: Facts, remaining: Option<Duration>, next: Next<'_, P>) {
        if !std::mem::replace(&mut life.torn, true)
            && let Some(mut call) = life.established.as_ref().map(Established::call)
        {
            if let Some(remaining) = remaining {
                call = call.within(remaining / 2);
            }
            call.set_why(Why::Reselect);
            call.set_facts(facts);
            if let Err(error) = self.undo(life, Some(call), next).await {
                tracing::debug!(what = P::WHAT, key = &*self.key, %error, "close before reselect");
            }
        }
        life.state.clear();
        life.state = Arc::default();
    }
}

/// An entry in the hands of one who may lock it. Takes it out of the table if it is left empty, however that came: a
/// caller who is gone while he waits for his turn, a future that is dropped, an element that panics. All who lock hold
/// it so: the last of them leaves something, or sweeps.
struct Swept<P: Protocol>(Arc<Entry<P>>);

impl<P: Protocol> Deref for Swept<P> {
    type Target = Arc<Entry<P>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<P: Protocol> Drop for Swept<P> {
    fn drop(&mut self) {
        if let Ok(mut life) = self.0.life.try_lock()
            && life.established.is_none()
            && !life.gone
        {
            self.0.forget(&mut life);
        }
    }
}

impl<P: Protocol> Established<P> {
    /// The same again, as an event of our own.
    fn call(&self) -> Call<P> {
        let mut call = Call::new(Arc::clone(&self.body))
            .from_peer(self.peer.clone(), self.token.clone())
            .within(self.timeout)
            .started_here();
        *call.extra_mut() = self.extra.clone();
        call
    }
}

impl<P: Protocol> Element<P> for Begin<P> {
    async fn request(&self, mut call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        // Inside another chain that has begun already, that one's Begin owns the connection.
        if call.handle().is_some() {
            return next.request(call).await;
        }
        let key = P::key(call.body()).to_owned();
        if key.is_empty() {
            return Err(
                Error::invalid(format!("the {} has no id", P::WHAT)).hint("set one; it names the state kept for it")
            );
        }
        loop {
            // Before the lock: dropped after it is released.
            let entry = Swept(self.entry(&key));
            let mut life = call.patiently(entry.life.lock()).await?;
            if life.gone {
                continue;
            }
            call.set_why(P::why(life.established.as_ref().map(|known| &*known.body), call.body()));
            if P::reselects(call.body()) && life.established.is_some() {
                entry.tear(&mut life, Facts::new(), call.remaining(), next).await;
            } else if self.merges
                && let Some(established) = &life.established
            {
                let told = established.told.as_ref().unwrap_or(&established.body);
                let merged = P::merge(&established.body, told, call.body());
                call.set_body(merged);
            }
            return entry.run(&mut life, call, next).await;
        }
    }

    async fn close(&self, mut call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        if call.handle().is_some() {
            return next.close(call).await;
        }
        let known = lock(&self.table).get(P::key(call.body())).map(Arc::clone).map(Swept);
        if let Some(entry) = known {
            entry.own().cancel();
            let mut life = call.patiently(entry.life.lock()).await?;
            if life.established.is_some() {
                let asked = call.share();
                let result = entry.undo(&life, Some(call), next).await;
                if result.as_ref().err().is_none_or(|error| !error.changed_nothing()) {
                    entry.forget(&mut life);
                }
                return result.map(|mut call| {
                    call.set_body(asked);
                    call
                });
            }
        }
        if P::UNKNOWN_CLOSE_TRAVELS {
            return next.close(call).await;
        }
        call.set_closed(Closed::Unknown);
        Ok(call)
    }
}

impl<P: Protocol> fmt::Debug for Begin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Begin({} known)", lock(&self.table).len())
    }
}

tokio::task_local! {
    /// The entry whose event this task is running, so that waiting for it from inside is an error and not a hang.
    static HELD: usize;
}

/// By this an element starts a Request or a Close of its own, from the place in the chain where [`Begin`] stands.
///
/// It does not keep the connection alive. Events queue behind whatever is happening to the connection.
pub struct Handle<P: Protocol = Service> {
    entry: Weak<Entry<P>>,
    key: Arc<str>,
}

impl<P: Protocol> Handle<P> {
    /// Under which key (connection id, record name) the hop keeps it.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Whether both are handles of one life of a connection: what was closed and is asked for again has another.
    #[must_use]
    pub fn is_of_one_life(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.entry, &other.entry)
    }

    /// Asks again for what is established. `None`: it is not there (any more), nothing was done.
    ///
    /// What heals does not wait for long for a refresh that is under way: that ends after a moment.
    ///
    /// With [`Why::Reselect`] at an initiator, everything is closed first and chosen afresh; elsewhere that works as
    /// [`Why::Heal`]. If a reselect fails the connection is still wanted: call again.
    ///
    /// # Errors
    /// Whatever fails further on; and at once, if this is called from inside an event of the same connection.
    pub async fn request(&self, why: Why) -> Result<Option<Call<P>>> {
        self.request_with(why, |_| {}).await
    }

    /// The same, with the call as `change` makes it: another endpoint than before, less time, a fact that says more (to
    /// the Close before a reselect too). What is established meanwhile stays as it is if this fails.
    ///
    /// # Errors
    /// As [`Handle::request`].
    pub async fn request_with(&self, why: Why, change: impl FnOnce(&mut Call<P>) + Send) -> Result<Option<Call<P>>> {
        let turn = self.lock();
        let locked = match why {
            Why::Heal | Why::Reselect => self.soon(turn).await?,
            Why::First | Why::Refresh => turn.await?,
        };
        let Some((entry, mut life)) = locked else {
            return Ok(None);
        };
        let Some(established) = &life.established else {
            return Ok(None);
        };
        let Some(next) = established.next.upgrade() else {
            return Ok(None);
        };
        let patience = CancellationToken::new();
        *entry.own() = patience.clone();
        let mut call = established.call().cancelled_by(patience);
        call.set_why(why);
        change(&mut call);
        if why == Why::Reselect
            && let Some(reselect) = &entry.reselect
        {
            entry.tear(&mut life, call.facts().clone(), call.remaining(), next.next()).await;
            reselect(call.body_mut());
        }
        entry.run(&mut life, call, next.next()).await.map(Some)
    }

    /// Closes it and drops its state.
    ///
    /// # Errors
    /// What could not be undone further on; the state is dropped all the same.
    pub async fn close(&self) -> Result<Closed> {
        self.close_if(|_| true).await
    }

    /// Closes it if that still holds of what is established when its turn has come: what was decided a moment ago may
    /// have been overtaken by a Request.
    ///
    /// # Errors
    /// As [`Handle::close`].
    pub async fn close_if(&self, still: impl FnOnce(&P::Body) -> bool + Send) -> Result<Closed> {
        let Some((entry, mut life)) = self.lock().await? else {
            return Ok(Closed::Unknown);
        };
        let Some(established) = &life.established else {
            return Ok(Closed::Unknown);
        };
        let Some(next) = established.next.upgrade().filter(|_| still(&established.body)) else {
            return Ok(Closed::Unknown);
        };
        let result = entry.undo(&life, None, next.next()).await;
        entry.forget(&mut life);
        result.map(|call| call.closed())
    }

    /// The established body, if nothing is happening to it right now.
    #[must_use]
    pub fn peek(&self) -> Option<Arc<P::Body>> {
        let entry = Swept(self.entry.upgrade()?);
        let life = entry.life.try_lock().ok()?;
        life.established.as_ref().map(|established| Arc::clone(&established.body))
    }

    /// Waits for its turn, and after a moment ends the patience of a Request of our own that is under way, such as a refresh
    /// that nobody answers.
    async fn soon<T>(&self, turn: impl Future<Output = T> + Send) -> T {
        let mut turn = std::pin::pin!(turn);
        tokio::select! {
            biased;
            turn = &mut turn => return turn,
            () = tokio::time::sleep(A_MOMENT) => {}
        }
        if let Some(entry) = self.entry.upgrade() {
            entry.own().cancel();
        }
        turn.await
    }

    /// The entry, locked: nothing else happens to it meanwhile.
    async fn lock(&self) -> Result<Option<(Swept<P>, OwnedMutexGuard<Life<P>>)>> {
        let Some(entry) = self.entry.upgrade().map(Swept) else {
            return Ok(None);
        };
        if HELD.try_with(|held| *held == entry.address()).unwrap_or(false) {
            return Err(Error::internal("an event cannot wait for another event of the same connection")
                .hint("spawn a task that starts it"));
        }
        let life = Arc::clone(&entry.life).lock_owned().await;
        Ok(Some((entry, life)))
    }
}

impl<P: Protocol> Clone for Handle<P> {
    fn clone(&self) -> Self {
        Self { entry: Weak::clone(&self.entry), key: Arc::clone(&self.key) }
    }
}

impl<P: Protocol> fmt::Debug for Handle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.key)
    }
}

#[cfg(test)]
#[cfg(not(feature = "shuttle"))]
mod tests;

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod models;
