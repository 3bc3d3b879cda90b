//! The chain: a named list of elements.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::FutureExt;

use crate::element::{Boxed, DynElement, Element, EventStream, Order};
use crate::sync::tokio;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tower::Verb;
use crate::{Call, Error, Next, OwnedNext, Protocol, Result, Service, Watch};

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
        Ok(Self { hop, list: elements.into() })
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

    /// The chain from its first element of that name on: for what does not come from a caller, and so is none of the
    /// business of the elements that judge callers. None, if no element is called so.
    #[must_use]
    pub fn rest_from(&self, element: &str) -> Option<OwnedNext<P>> {
        let at = self.names().position(|name| name == element)?;
        Some(Next::start(&self.list, None).skip(at).owned())
    }

    /// Runs a Request (Register) through the chain.
    ///
    /// # Errors
    /// Whatever an element reports, marked with this hop unless another hop was the one to fail.
    pub async fn request(&self, call: Call<P>) -> Result<Call<P>> {
        Next::start(&self.list, None).request(call).await.map_err(|error| error.at_hop(&self.hop))
    }

    /// Runs a Close (Unregister) through the chain.
    ///
    /// # Errors
    /// What could not be undone.
    pub async fn close(&self, call: Call<P>) -> Result<Call<P>> {
        Next::start(&self.list, None).close(call).await.map_err(|error| error.at_hop(&self.hop))
    }

    /// Runs a Monitor (Find) through the chain.
    ///
    /// # Errors
    /// When there can be no answer.
    pub async fn monitor(&self, watch: Watch<P>) -> Result<EventStream<P>> {
        Next::start(&self.list, None).monitor(watch).await.map_err(|error| error.at_hop(&self.hop))
    }
}

impl<P: Protocol> Chain<P> {
    /// Runs a call under somebody's patience. A panic in the middle of it is an error.
    ///
    /// # Errors
    /// As [`Chain::request`] and [`Chain::close`].
    pub async fn run(&self, verb: Verb<P>, patience: CancellationToken) -> Result<Call<P>> {
        let run = async {
            match verb {
                Verb::Request(call) => self.request(call.cancelled_by(patience)).await,
                Verb::Close(call) => self.close(call.cancelled_by(patience)).await,
            }
        };
        AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::internal("the chain broke off in the middle of a call").with_detail(said).at_hop(&self.hop))
        })
    }

    /// Runs a call to its end, also when the caller gives up.
    ///
    /// Dropping what this returns in the middle, as tonic does with a handler whose client is gone, does not cut the
    /// chain off in the middle of an await: the call learns of it by its [`cancellation`](Call::cancellation), and
    /// finishes or rolls back in a task among `tasks`. Every border of a chain runs its calls this way. As long as the
    /// caller waits, no task is needed.
    pub fn detached(&self, verb: Verb<P>, tasks: &TaskTracker) -> Detached<P> {
        let (patience, chain) = (CancellationToken::new(), self.clone());
        let child = patience.clone();
        let work = async move { chain.run(verb, child).await };
        Detached { work: Some(Box::pin(work)), started: false, patience, tasks: tasks.clone() }
    }
}

/// A call that runs to its end; see [`Chain::detached`].
pub struct Detached<P: Protocol = Service> {
    work: Option<Boxed<'static, Call<P>>>,
    started: bool,
    patience: CancellationToken,
    tasks: TaskTracker,
}

impl<P: Protocol> Future for Detached<P> {
    type Output = Result<Call<P>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.started = true;
        let Some(work) = &mut self.work else {
            return Poll::Ready(Err(Error::internal("the call is over already")));
        };
        let done = ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(done)
    }
}

impl<P: Protocol> Drop for Detached<P> {
    fn drop(&mut self) {
        let Some(work) = self.work.take().filter(|_| self.started) else {
            return;
        };
        self.patience.cancel();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.tasks.track_future(work));
        }
    }
}

impl<P: Protocol> fmt::Debug for Detached<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("over", &self.work.is_none()).finish_non_exhaustive()
    }
}

impl<P: Protocol> Clone for Chain<P> {
    fn clone(&self) -> Self {
        Self { hop: Arc::clone(&self.hop), list: Arc::clone(&self.list) }
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
        let Order { after, before, last } = node.0.order();
        let wrong = |rule: String| Err(OrderError { hop: Arc::clone(hop), element: names[at], rule });
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
#[cfg(not(feature = "shuttle"))]
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
                from_fn(|call, next: OwnedNext| async move {
                    // Owned: the rest of the inner and of the outer chain.
                    tokio::spawn(async move { next.request(call).await }).await.unwrap()
                })
            ],
        )
        .unwrap();
        let chain = Chain::new("outer", elements![note("a"), inner, note("c")]).unwrap();
        chain.request(Call::default()).await.unwrap();
        assert_eq!(notes.lock().unwrap().join(" "), ">a >b >c <c <b <a");
    }

    #[tokio::test]
    async fn what_comes_from_no_caller_starts_inside() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let list = elements![Fails, Note("a", Arc::clone(&notes)), Note("b", Arc::clone(&notes))];
        let chain = Chain::new("hop", list).unwrap();
        assert!(chain.rest_from("Begin").is_none());
        chain.rest_from("Note").unwrap().request(Call::default()).await.unwrap();
        assert_eq!(notes.lock().unwrap().join(" "), ">a >b <b <a");
    }

    #[tokio::test]
    async fn an_error_names_its_hop_and_the_innermost_element() {
        let chain = Chain::new("hop-1", elements![from_fn(|c, n: OwnedNext| async move { n.request(c).await }), Fails])
            .unwrap();
        let error = chain.request(Call::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "hop-1/Fails: no");
    }

    #[test]
    fn a_wrong_order_is_refused_when_the_chain_is_built() {
        let error = Chain::<Service>::new("nsc", elements![Needs, Fails]).unwrap_err();
        assert_eq!(error.to_string(), "in the chain of nsc, Needs must stand after Begin; reorder the list");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_caller_is_gone_runs_to_its_end_and_a_panic_is_an_error() {
        let ends = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&ends);
        let slow = from_fn(move |call: Call, _: OwnedNext| {
            let note = Arc::clone(&note);
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                note.lock().unwrap().push(call.cancellation().is_cancelled());
                assert!(call.cancellation().is_cancelled(), "on purpose");
                Ok(call)
            }
        });
        let chain = Chain::new("hop", elements![slow]).unwrap();
        let tasks = TaskTracker::new();
        drop(chain.detached(Verb::Request(Call::default()), &tasks));
        let given_up = chain.detached(Verb::Request(Call::default()), &tasks);
        tokio::time::timeout(std::time::Duration::from_millis(5), given_up).await.unwrap_err();
        tasks.close();
        tasks.wait().await;
        assert_eq!(*ends.lock().unwrap(), [true], "the one that had begun, and only that");
        let error = chain.detached(Verb::Request(Call::default()), &tasks).await.unwrap_err();
        assert_eq!(error.code(), crate::Code::Internal);
        assert!(error.detail().unwrap().contains("on purpose"));
    }
}
