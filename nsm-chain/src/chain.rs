//! The chain: a named list of elements.

use std::fmt;
use std::sync::Arc;

use crate::element::{DynElement, Element, EventStream, Order};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tower::Verb;
use crate::{Call, Error, Next, Protocol, Result, Service, Watch};

/// One place in a list of elements; see [`elements!`](crate::elements).
pub struct Node<P: Protocol = Service>(pub(crate) Arc<dyn DynElement<P>>);

impl<P: Protocol> Node<P> {
    /// Takes an element into a list.
    pub fn new(element: impl Element<P>) -> Self {
        Self(Arc::new(element))
    }

    /// Lets this one element answer a Request, with nothing behind it.
    ///
    /// # Errors
    /// Whatever it reports.
    pub async fn request(&self, call: Call<P>) -> Result<Call<P>> {
        self.0.request(call, Next::start(&nothing(), None)).await
    }

    /// Lets this one element answer a Close, with nothing behind it.
    ///
    /// # Errors
    /// Whatever it reports.
    pub async fn close(&self, call: Call<P>) -> Result<Call<P>> {
        self.0.close(call, Next::start(&nothing(), None)).await
    }

    /// Lets this one element answer a Monitor, with nothing behind it.
    ///
    /// # Errors
    /// Whatever it reports.
    pub async fn monitor(&self, watch: Watch<P>) -> Result<EventStream<P>> {
        self.0.monitor(watch, Next::start(&nothing(), None)).await
    }
}

fn nothing<P: Protocol>() -> Arc<[Node<P>]> {
    Arc::new([])
}

impl<P: Protocol> Clone for Node<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Protocol> fmt::Debug for Node<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// A list of elements, in order: `elements![UpdatePath::new("nsc"), Begin::default(), connect]`.
#[macro_export]
macro_rules! elements {
    ($($element:expr),* $(,)?) => { vec![$($crate::Node::new($element)),*] };
}

/// A named list of elements that requests, closes and monitors run through.
///
/// A chain is itself an element: put into another one it goes on where the outer one does.
pub struct Chain<P: Protocol = Service> {
    hop: Arc<str>,
    list: Arc<[Node<P>]>,
}

impl<P: Protocol> Chain<P> {
    /// A chain of a hop, whose elements must stand in an order they all accept.
    ///
    /// # Errors
    /// [`OrderError`], naming both elements, when one stands where it may not.
    pub fn new(hop: impl Into<Arc<str>>, elements: Vec<Node<P>>) -> Result<Self, OrderError> {
        let hop = hop.into();
        check(&hop, &elements)?;
        Ok(Self {
            hop,
            list: elements.into(),
        })
    }

    /// The hop's name: what errors from here are marked with.
    #[must_use]
    pub fn hop(&self) -> &Arc<str> {
        &self.hop
    }

    /// The elements' names in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.list.iter().map(|node| node.0.name())
    }

    /// Runs a Request (Register) through the chain.
    ///
    /// # Errors
    /// Whatever an element reports, marked with this hop unless another hop was the one to fail.
    pub async fn request(&self, call: Call<P>) -> Result<Call<P>> {
        Next::start(&self.list, None)
            .request(call)
            .await
            .map_err(|error| error.at_hop(&self.hop))
    }

    /// Runs a Close (Unregister) through the chain.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn close(&self, call: Call<P>) -> Result<Call<P>> {
        Next::start(&self.list, None)
            .close(call)
            .await
            .map_err(|error| error.at_hop(&self.hop))
    }

    /// Runs a Monitor (Find) through the chain.
    ///
    /// # Errors
    /// When there can be no answer.
    pub async fn monitor(&self, watch: Watch<P>) -> Result<EventStream<P>> {
        Next::start(&self.list, None)
            .monitor(watch)
            .await
            .map_err(|error| error.at_hop(&self.hop))
    }
}

impl<P: Protocol> Chain<P> {
    /// Runs a call in a task of its own, which outlives a caller who gives up.
    ///
    /// Dropping the returned future, as tonic does with a handler whose client is gone, does not cut the chain off in
    /// the middle of an await: the call learns of it by its [`cancellation`](Call::cancellation), and finishes or
    /// rolls back. Every border of a chain runs its calls this way.
    ///
    /// # Errors
    /// What the chain reports; [`Error::internal`] if an element panicked.
    pub async fn detached(&self, verb: Verb<P>, tasks: &TaskTracker) -> Result<Call<P>> {
        let patience = CancellationToken::new();
        let chain = self.clone();
        let child = patience.clone();
        let task = tasks.spawn(async move {
            match verb {
                Verb::Request(call) => chain.request(call.cancelled_by(child)).await,
                Verb::Close(call) => chain.close(call.cancelled_by(child)).await,
            }
        });
        let gone = patience.drop_guard();
        let result = task.await.unwrap_or_else(|error| {
            Err(
                Error::internal("the chain broke off in the middle of a call")
                    .because(error)
                    .at_hop(&self.hop),
            )
        });
        drop(gone.disarm());
        result
    }
}

impl<P: Protocol> Clone for Chain<P> {
    fn clone(&self) -> Self {
        Self {
            hop: Arc::clone(&self.hop),
            list: Arc::clone(&self.list),
        }
    }
}

impl<P: Protocol> fmt::Debug for Chain<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.hop)?;
        f.debug_list().entries(self.list.iter()).finish()
    }
}

impl<P: Protocol> Element<P> for Chain<P> {
    async fn request(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        Next::start(&self.list, Some(&next)).request(call).await
    }

    async fn close(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        Next::start(&self.list, Some(&next)).close(call).await
    }

    async fn monitor(&self, watch: Watch<P>, next: Next<'_, P>) -> Result<EventStream<P>> {
        Next::start(&self.list, Some(&next)).monitor(watch).await
    }
}

/// Two elements stand in an order that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in the chain of {hop}, {element} {rule}; reorder the list")]
pub struct OrderError {
    hop: Arc<str>,
    element: &'static str,
    rule: String,
}

fn check<P: Protocol>(hop: &Arc<str>, elements: &[Node<P>]) -> Result<(), OrderError> {
    let names: Vec<_> = elements.iter().map(|node| node.0.name()).collect();
    for (at, node) in elements.iter().enumerate() {
        let Order {
            after,
            before,
            last,
        } = node.0.order();
        let wrong = |rule: String| {
            Err(OrderError {
                hop: Arc::clone(hop),
                element: names[at],
                rule,
            })
        };
        if let Some(missing) = after.iter().find(|name| !names[..at].contains(name)) {
            return wrong(format!("must stand after {missing}"));
        }
        if let Some(early) = before.iter().find(|name| names[..at].contains(name)) {
            return wrong(format!("must stand before {early}"));
        }
        if last && at + 1 < elements.len() {
            return wrong(format!("must stand last, but {} follows", names[at + 1]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::from_fn;
    use std::sync::Mutex;

    #[derive(Clone)]
    struct Note(&'static str, Arc<Mutex<Vec<String>>>);

    impl Element for Note {
        async fn request(&self, call: Call, next: Next<'_>) -> Result<Call> {
            self.1.lock().unwrap().push(format!(">{}", self.0));
            let result = next.request(call).await;
            self.1.lock().unwrap().push(format!("<{}", self.0));
            result
        }
    }

    struct Needs;
    impl Element for Needs {
        fn order(&self) -> Order {
            Order::after(&["Begin"])
        }
    }

    struct Fails;
    impl Element for Fails {
        async fn request(&self, _call: Call, _next: Next<'_>) -> Result<Call> {
            Err(Error::invalid("no"))
        }
    }

    #[tokio::test]
    async fn a_nested_chain_goes_on_where_the_outer_one_does() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let note = |name| Note(name, Arc::clone(&notes));
        let inner = Chain::new(
            "inner",
            elements![
                note("b"),
                from_fn(|call, next: crate::OwnedNext| async move {
                    // Owned: the rest of the inner and of the outer chain.
                    tokio::spawn(async move { next.request(call).await })
                        .await
                        .unwrap()
                })
            ],
        )
        .unwrap();
        let chain = Chain::new("outer", elements![note("a"), inner, note("c")]).unwrap();
        chain.request(Call::default()).await.unwrap();
        assert_eq!(notes.lock().unwrap().join(" "), ">a >b >c <c <b <a");
    }

    #[tokio::test]
    async fn an_error_names_its_hop_and_the_innermost_element() {
        let chain = Chain::new(
            "hop-1",
            elements![
                from_fn(|c, n: crate::OwnedNext| async move { n.request(c).await }),
                Fails
            ],
        )
        .unwrap();
        let error = chain.request(Call::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "hop-1/Fails: no");
    }

    #[test]
    fn a_wrong_order_is_refused_when_the_chain_is_built() {
        let error = Chain::<Service>::new("nsc", elements![Needs, Fails]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "in the chain of nsc, Needs must stand after Begin; reorder the list"
        );
    }
}
