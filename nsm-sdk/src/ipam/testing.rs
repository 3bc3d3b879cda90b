//! A hop around one element, and what the next one saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nsm_api::connection::Connection;
use nsm_api::{ConnectionContext, IpContext};
use nsm_chain::{Begin, Call, Chain, Element, Error, Next, Result, elements};

/// `Begin`, the element, and a next hop that answers or, if told so, fails.
pub(crate) struct Hop {
    chain: Chain,
    next: Arc<Answer>,
}

#[derive(Default)]
struct Answer {
    fails: AtomicBool,
    seen: Mutex<Option<IpContext>>,
}

impl Element for Answer {
    async fn request(&self, call: Call, _next: Next<'_>) -> Result<Call> {
        *self.seen.lock().unwrap() = call.connection().context.clone().and_then(|context| context.ip_context);
        if self.fails.load(Ordering::SeqCst) { Err(Error::unavailable("no")) } else { Ok(call) }
    }
}

impl Hop {
    pub(crate) fn new(element: impl Element) -> Self {
        let next = Arc::new(Answer::default());
        let chain = Chain::new("nse", elements![Begin::default(), element, Arc::clone(&next)]).unwrap();
        Self { chain, next }
    }

    /// Whether the next hop fails from now on.
    pub(crate) fn fail(&self, fails: bool) {
        self.next.fails.store(fails, Ordering::SeqCst);
    }

    /// The context that comes back, after making sure that the next hop saw the same.
    pub(crate) async fn request(&self, id: &str, context: IpContext) -> Result<IpContext> {
        let context = ConnectionContext { ip_context: Some(context), ..Default::default() };
        let connection = Connection { id: id.into(), context: Some(context), ..Default::default() };
        let call = self.chain.request(Call::new(connection)).await?;
        let answered = call.into_body().context.and_then(|context| context.ip_context);
        assert_eq!(*self.next.seen.lock().unwrap(), answered);
        Ok(answered.unwrap())
    }

    pub(crate) async fn close(&self, id: &str) {
        let call = Call::new(Connection { id: id.into(), ..Default::default() });
        self.chain.close(call).await.unwrap();
    }
}

pub(crate) fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
