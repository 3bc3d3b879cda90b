//! One of several elements for each connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use nsm_chain::{Call, Element, Next, Order, Result, Slot};

/// Sends a Request through the first of its cases whose condition holds, and past all of them if none does. Either
/// way it goes on with what follows.
/// A Close takes the way of the Request.
///
/// It stands after `Begin`. Which case a connection takes is settled by its first Request that goes well: what the
/// case's element keeps for it would be stranded otherwise. A chain of several elements is a case, too.
///
/// ```
/// use nsm_sdk::context::{ExtraContext, SwitchCase};
///
/// let by_label = SwitchCase::new()
///     .case(|call| call.connection().labels.contains_key("premium"), ExtraContext::new([("queue".into(), "1".into())].into()))
///     .otherwise(ExtraContext::new([("queue".into(), "9".into())].into()));
/// ```
///
/// Reference: `common/switchcase` of the Go SDK.
#[derive(Default)]
pub struct SwitchCase {
    cases: Vec<Case>,
    taken: Slot<Option<usize>>,
}

struct Case {
    holds: Box<dyn Fn(&Call) -> bool + Send + Sync>,
    element: Box<dyn Way>,
}

impl SwitchCase {
    /// No case: everything passes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more case, looked at after those before it.
    #[must_use]
    pub fn case(mut self, holds: impl Fn(&Call) -> bool + Send + Sync + 'static, element: impl Element) -> Self {
        self.cases.push(Case { holds: Box::new(holds), element: Box::new(element) });
        self
    }

    /// What no case before this one took.
    #[must_use]
    pub fn otherwise(self, element: impl Element) -> Self {
        self.case(|_| true, element)
    }

    fn choose(&self, call: &Call) -> Option<usize> {
        match call.slot(&self.taken) {
            Some(taken) => taken,
            None => self.cases.iter().position(|case| (case.holds)(call)),
        }
    }

    fn way(&self, taken: Option<usize>) -> Option<&dyn Way> {
        Some(&*self.cases.get(taken?)?.element)
    }
}

impl Element for SwitchCase {
    async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
        let state = Arc::clone(call.state()?);
        let taken = self.choose(&call);
        let call = match self.way(taken) {
            Some(way) => way.request(call, next).await?,
            None => next.request(call).await?,
        };
        self.taken.set(&state, taken);
        Ok(call)
    }

    async fn close(&self, call: Call, next: Next<'_>) -> Result<Call> {
        match self.way(self.choose(&call)) {
            Some(way) => way.close(call, next).await,
            None => next.close(call).await,
        }
    }

    fn order(&self) -> Order {
        Order::after(&["Begin"])
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<Call>> + Send + 'a>>;

/// The two verbs of an element that a connection has, in an object-safe form.
trait Way: Send + Sync {
    fn request<'a>(&'a self, call: Call, next: Next<'a>) -> Boxed<'a>;
    fn close<'a>(&'a self, call: Call, next: Next<'a>) -> Boxed<'a>;
}

impl<E: Element> Way for E {
    fn request<'a>(&'a self, call: Call, next: Next<'a>) -> Boxed<'a> {
        Box::pin(async move { Element::request(self, call, next).await.map_err(|error| error.at_element(self.name())) })
    }

    fn close<'a>(&'a self, call: Call, next: Next<'a>) -> Boxed<'a> {
        Box::pin(async move { Element::close(self, call, next).await.map_err(|error| error.at_element(self.name())) })
    }
}

impl fmt::Debug for SwitchCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwitchCase({} cases)", self.cases.len())
    }
}

#[cfg(test)]
mod tests {
    use nsm_api::connection::Connection;

    use super::super::testing::{Hop, connection};
    use super::super::{ExtraContext, ReplaceLabels};
    use super::*;

    fn labels(key: &str, value: &str) -> std::collections::BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    fn labelled(id: &str, key: &str) -> Connection {
        Connection { labels: labels(key, ""), ..connection(id) }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_case_that_holds_is_taken_and_kept_until_the_close() {
        let has = |key: &'static str| move |call: &Call| call.connection().labels.contains_key(key);
        let hop = Hop::new(
            SwitchCase::new()
                .case(has("a"), ReplaceLabels::new(labels("case", "a")))
                .case(has("b"), ReplaceLabels::new(labels("case", "b"))),
        );
        hop.request(labelled("1", "b")).await.unwrap();
        assert_eq!(hop.requested().labels, labels("case", "b"));
        hop.request(labelled("1", "a")).await.unwrap();
        assert_eq!(hop.requested().labels, labels("case", "b"), "a connection keeps its case");
        hop.close("1").await;
        assert_eq!(hop.closed()[0].labels, labels("case", "b"));
        hop.request(labelled("1", "a")).await.unwrap();
        assert_eq!(hop.requested().labels, labels("case", "a"), "closed, it is free to take another");
        hop.request(labelled("2", "c")).await.unwrap();
        assert_eq!(hop.requested().labels, labels("c", ""), "what no case takes passes");
        hop.request(labelled("2", "a")).await.unwrap();
        assert_eq!(hop.requested().labels, labels("a", ""), "and keeps passing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_case_takes_goes_otherwise() {
        let hop = Hop::new(
            SwitchCase::new()
                .case(|_| false, ExtraContext::default())
                .otherwise(ReplaceLabels::new(labels("case", "else"))),
        );
        hop.request(connection("1")).await.unwrap();
        assert_eq!(hop.requested().labels, labels("case", "else"));
    }
}
