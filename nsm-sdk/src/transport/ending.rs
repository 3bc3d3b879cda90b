use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use super::server::Phase;

/// A response body that a stopping server ends with `Unavailable` as soon as it has nothing more to say at once.
///
/// A unary answer is ready when its body begins, so only streams are ended: a watch that waits for the next event.
pub(super) struct Ending {
    body: Body,
    phase: watch::Receiver<Phase>,
    stopping: Option<BoxFuture<'static, ()>>,
    ended: bool,
}

impl Ending {
    pub(super) fn new(body: Body, phase: watch::Receiver<Phase>) -> Self {
        Self { body, phase, stopping: None, ended: false }
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let this = &mut *self;
        let stopping = this.stopping.get_or_insert_with(|| {
            let mut phase = this.phase.clone();
            // An error means that the server is gone altogether.
            async move { drop(phase.wait_for(|phase| phase.is_stopping()).await) }.boxed()
        });
        if stopping.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.ended = true;
        let mut trailers = HeaderMap::new();
        let status = Status::unavailable("the server is shutting down");
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").field("ended", &self.ended).finish_non_exhaustive()
    }
}
