//! When a Request reached which element of which hop.
//!
//! Every chain traces each element that a Request enters, with the connection's id at that hop. Here those events are
//! kept with their times, so that the mesh is measured as it is, without anything put into its chains.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The target of the events of chains.
pub(crate) const TARGET: &str = "nsm::chain";

/// The elements at whose entry time is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// The last one of every served stack's head: the caller is known and let in.
    Arrived,
    /// A manager looks for a forwarder, or a forwarder for an endpoint.
    Looks,
    /// A forwarder has found the endpoint.
    Found,
    /// The next hop is asked.
    Leaves,
}

impl Mark {
    fn of(element: &str) -> Option<Self> {
        match element {
            "TrimPath" => Some(Self::Arrived),
            "DiscoverForwarder" | "Discover" => Some(Self::Looks),
            "RoundRobin" => Some(Self::Found),
            "Connect" => Some(Self::Leaves),
            _ => None,
        }
    }
}

type Marks = HashMap<(String, Mark), Instant>;

/// Times by connection id at a hop. Nothing is kept before [`Trail::start`] and after [`Trail::stop`].
#[derive(Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Option<Marks>>>);

impl Trail {
    /// From now on times are kept.
    pub(crate) fn start(&self) {
        *self.lock() = Some(Marks::new());
    }

    /// Hands out what was kept, and keeps nothing more.
    pub(crate) fn stop(&self) -> Times {
        Times(self.lock().take().unwrap_or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Marks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a [`Trail`] kept. Of several entries the last one counts: a Request that was tried again is measured by the
/// try that worked.
#[derive(Debug, Default)]
pub(crate) struct Times(Marks);

impl Times {
    /// When the connection with this id at its hop got there.
    pub(crate) fn at(&self, id: &str, mark: Mark) -> Option<Instant> {
        self.0.get(&(id.to_owned(), mark)).copied()
    }
}

impl<S: Subscriber> Layer<S> for Trail {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut seen = Seen::default();
        event.record(&mut seen);
        let (Some(mark), Some(key), true) = (seen.mark, seen.key, seen.request) else {
            return;
        };
        if let Some(marks) = self.lock().as_mut() {
            marks.insert((key, mark), Instant::now());
        }
    }
}

/// The fields of an event of a chain.
#[derive(Default)]
struct Seen {
    mark: Option<Mark>,
    key: Option<String>,
    request: bool,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "element" => self.mark = Mark::of(value),
            "key" => self.key = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.request = format!("{value:?}") == "request";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nsm_chain::{Call, Chain, Element, Next, Result, elements};
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::prelude::*;

    struct Connect;
    impl Element for Connect {
        async fn request(&self, call: Call, _next: Next<'_>) -> Result<Call> {
            Ok(call)
        }
    }

    #[tokio::test]
    async fn a_request_leaves_a_trail_while_it_is_followed() {
        let trail = Trail::default();
        let layer = trail.clone().with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE));
        let _guard = tracing_subscriber::registry().with(layer).set_default();
        let chain = Chain::new("hop", elements![Connect]).unwrap();
        let call = |id: &str| Call::new(nsm_api::Connection { id: id.into(), ..Default::default() });
        chain.request(call("before")).await.unwrap();
        trail.start();
        chain.request(call("asked")).await.unwrap();
        chain.close(call("closed")).await.unwrap();
        let times = trail.stop();
        chain.request(call("after")).await.unwrap();
        assert!(times.at("asked", Mark::Leaves).is_some());
        assert!(times.at("asked", Mark::Arrived).is_none());
        assert_eq!(times.0.len(), 1);
        assert!(trail.stop().0.is_empty());
    }
}
