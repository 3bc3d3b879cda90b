use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt;
use nsm_api::Connection;
use nsm_api::matching::Labels;
use nsm_api::registry::NetworkService;
use nsm_chain::{Call, Element, Error, Handle, Next, Order, Result, Slot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::lifetime::Backoff;
use crate::monitor::Herald;
use crate::registry::Finder;

/// Moves a connection whose network service no longer lets its client have its endpoint.
///
/// *Request*: on success the connection is listed under its service. While connections of a service are listed one watch
/// follows that service in the registry; when it changes, those whose endpoint no longer fits are reported as DOWN, by
/// the [`Herald`] that `Monitor` leaves. Their initiators ask again, are refused with `FailedPrecondition` if they want the
/// same endpoint, and ask for any other: the old one is let go when the new one has accepted. What is still there after
/// some seconds is closed. One that comes to be healed in place after a restart is refused in the same way. *Close*: the
/// listing goes with the connection's state.
///
/// It stands in a manager, behind `ClientInfo`, whose labels it matches by, and behind `Monitor`.
pub struct NetworkServiceWatch {
    finder: Arc<Finder>,
    watched: Arc<Mutex<HashMap<String, Weak<Watched>>>>,
    listed: Slot<Listing>,
}

struct Watched {
    finder: Arc<Finder>,
    service: String,
    members: Mutex<HashMap<Arc<str>, Member>>,
    /// Ends the task that follows, with this list.
    _following: DropGuard,
}

#[derive(Clone)]
struct Member {
    handle: Handle,
    herald: Option<Herald>,
    labels: Labels,
    endpoint: String,
    /// It has been told to move.
    told: bool,
}

/// How long a client has to move by itself.
const NOTICE: Duration = Duration::from_secs(5);

/// A connection's place in the list of its service; the watch ends with the last one.
struct Listing {
    watched: Arc<Watched>,
    key: Arc<str>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.watched.members().remove(&self.key);
    }
}

impl Watched {
    fn members(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves whom the service, as it is now, no longer lets have its endpoint.
    async fn check(self: &Arc<Self>, service: &NetworkService) {
        let members: Vec<Member> = self.members().values().cloned().collect();
        for member in members {
            if !fits(&self.finder, service, &member.labels, &member.endpoint).await {
                self.give_notice(&member);
            }
        }
    }

    /// Tells a client to move, and closes what has not moved in time.
    fn give_notice(self: &Arc<Self>, member: &Member) {
        let key = Arc::clone(member.handle.key());
        match self.members().get_mut(&key) {
            Some(now) if now.endpoint == member.endpoint && !now.told => now.told = true,
            // It has moved, or knows.
            _ => return,
        }
        tracing::info!(connection = &*key, endpoint = member.endpoint, "the network service moved it elsewhere");
        let Member { handle, herald, endpoint, .. } = member.clone();
        if let Some(herald) = &herald {
            herald.down();
        }
        let list = Arc::downgrade(self);
        tokio::spawn(async move {
            if herald.is_some() {
                tokio::time::sleep(NOTICE).await;
            }
            let told = || {
                let list = list.upgrade()?;
                let members = list.members();
                members.get(handle.key()).map(|member| member.told)
            };
            let still = |connection: &Connection| {
                connection.network_service_endpoint_name == endpoint && told().unwrap_or_default()
            };
            if let Err(error) = handle.close_if(still).await {
                tracing::warn!(connection = &**handle.key(), %error, "not all of it could be closed");
            }
        });
    }
}

/// Whether a client with these labels may have this endpoint. An endpoint the registry does not know may still serve
/// well: its absence is others' business.
async fn fits(finder: &Finder, service: &NetworkService, labels: &Labels, endpoint: &str) -> bool {
    match finder.endpoint(endpoint).await {
        Ok(endpoint) => !service.candidates(labels, [endpoint]).is_empty(),
        Err(_) => true,
    }
}

async fn follow(watched: Weak<Watched>, over: CancellationToken) {
    over.run_until_cancelled(follow_on(watched)).await;
}

fn fresh_pauses(service: &str) -> Backoff {
    Backoff::within_a_second(Duration::from_millis(100), service)
}

async fn follow_on(watched: Weak<Watched>) {
    let mut pauses: Option<Backoff> = None;
    loop {
        let Some(now) = watched.upgrade() else { return };
        let pauses = pauses.get_or_insert_with(|| fresh_pauses(&now.service));
        let changes = now.finder.watch_service(&now.service).await;
        drop(now);
        if let Ok(mut changes) = changes {
            while let Some(Ok(change)) = changes.next().await {
                let Some(now) = watched.upgrade() else { return };
                *pauses = fresh_pauses(&now.service);
                if !change.deleted {
                    now.check(&change.record).await;
                }
            }
        }
        pauses.wait().await;
    }
}

impl NetworkServiceWatch {
    /// Follows services here.
    #[must_use]
    pub fn new(finder: Arc<Finder>) -> Self {
        Self { finder, watched: Arc::default(), listed: Slot::new() }
    }

    fn watched(&self, service: &str) -> Arc<Watched> {
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(service).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, watched| watched.strong_count() > 0);
        let over = CancellationToken::new();
        let watched = Arc::new(Watched {
            finder: Arc::clone(&self.finder),
            service: service.to_owned(),
            members: Mutex::default(),
            _following: over.clone().drop_guard(),
        });
        all.insert(service.to_owned(), Arc::downgrade(&watched));
        tokio::spawn(follow(Arc::downgrade(&watched), over));
        watched
    }
}

impl NetworkServiceWatch {
    /// Whether this connection has been told to move.
    fn has_told(&self, call: &Call) -> bool {
        let told =
            |listing: &mut Listing| listing.watched.members().get(&listing.key).is_some_and(|member| member.told);
        call.state().is_ok_and(|state| self.listed.with(state, |listing| listing.is_some_and(told)))
    }

    /// Whether the service, as the registry has it now, lets the client have that endpoint. A registry that cannot be
    /// asked forbids nothing.
    async fn allows(&self, connection: &Connection, labels: &Labels) -> bool {
        match self.finder.service(&connection.network_service, "").await {
            Ok(service) => fits(&self.finder, &service, labels, &connection.network_service_endpoint_name).await,
            Err(_) => true,
        }
    }
}

impl Element for NetworkServiceWatch {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let labels = call.body().labels.clone();
        let asked = call.body();
        // A client may ask for an endpoint by name; one that had it already is held to the rules.
        let named = !asked.network_service_endpoint_name.is_empty();
        let had = asked.mechanism.is_some() && named;
        let doubtful = call.is_first() || self.has_told(&call);
        if had && doubtful && !call.patiently(self.allows(asked, &labels)).await? {
            let (service, endpoint) = (&asked.network_service, &asked.network_service_endpoint_name);
            return Err(Error::precondition(format!("{service} no longer lets this client have {endpoint}"))
                .hint("ask without an endpoint's name: another one fits"));
        }
        let herald = call.fact::<Herald>().cloned();
        let call = next.request(call).await?;
        let state = call.state()?;
        let Some(handle) = call.handle().cloned() else {
            return Ok(call);
        };
        let connection = call.body();
        let (watched, key) = (self.watched(&connection.network_service), Arc::clone(handle.key()));
        let endpoint = connection.network_service_endpoint_name.clone();
        let member = Member { handle, herald, labels, endpoint, told: false };
        watched.members().insert(Arc::clone(&key), member.clone());
        let known =
            self.listed.with(state, |listing| listing.is_some_and(|listing| Arc::ptr_eq(&listing.watched, &watched)));
        if !known {
            self.listed.set(state, Listing { watched: Arc::clone(&watched), key });
            // It may have changed after the endpoint was chosen, and before the list was watched for it.
            if !named && !self.allows(connection, &member.labels).await {
                watched.give_notice(&member);
            }
        }
        Ok(call)
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

impl fmt::Debug for NetworkServiceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkServiceWatch")
    }
}
