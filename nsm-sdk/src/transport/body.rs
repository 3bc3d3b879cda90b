use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// The body of a call. Of a unary call the message is held, so that the call can be sent again where the peer says that it has
/// not touched it.
#[derive(Debug)]
pub(super) struct CallBody {
    /// What has been read of the body already.
    read: VecDeque<Result<Frame<Bytes>, Status>>,
    /// What has not; none: `read` is all of it.
    rest: Option<Body>,
}

impl CallBody {
    /// Reads ahead what is there at once, two frames at most: a unary call has a single one.
    pub(super) fn new(mut body: Body) -> Self {
        let mut read = VecDeque::new();
        while read.len() < 2 {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).now_or_never() {
                Some(Some(frame)) => read.push_back(frame),
                Some(None) => return Self { read, rest: None },
                None => break,
            }
        }
        Self { read, rest: Some(body) }
    }

    /// The same message for another try, if this is the body of a unary call.
    pub(super) fn again(&self) -> Option<Self> {
        match (&self.rest, self.read.front(), self.read.len()) {
            (None, Some(Ok(frame)), 1) => {
                let message = frame.data_ref()?.clone();
                Some(Self { read: VecDeque::from([Ok(Frame::data(message))]), rest: None })
            }
            _ => None,
        }
    }
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(frame));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of a body, as text.
    async fn text(mut body: CallBody) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            all.push(String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap());
        }
        all
    }

    /// A body that is ready, or not, frame by frame.
    struct Frames(VecDeque<Option<&'static str>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(Some(text)) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        }
    }

    fn body(frames: &[Option<&'static str>]) -> CallBody {
        CallBody::new(Body::new(Frames(frames.iter().copied().collect())))
    }

    #[tokio::test]
    async fn a_single_message_can_be_sent_again_and_again() {
        let once = body(&[Some("a")]);
        let twice = once.again().unwrap();
        let thrice = twice.again().unwrap();
        for body in [once, twice, thrice] {
            assert_eq!(text(body).await, ["a"]);
        }
    }

    #[tokio::test]
    async fn a_stream_passes_whole_and_once() {
        for frames in [
            &[][..],
            &[None],
            &[Some("a"), None],
            &[None, Some("a")],
            &[Some("a"), Some("b")],
            &[Some("a"), None, Some("b"), Some("c")],
            &[Some("a"), Some("b"), Some("c"), Some("d")],
        ] {
            let body = body(frames);
            assert!(body.again().is_none(), "{frames:?}");
            let wanted: Vec<_> = frames.iter().copied().flatten().collect();
            assert_eq!(text(body).await, wanted, "{frames:?}");
        }
    }
}
