use std::time::Duration;

use nsm_chain::{Call, Code, Element, Error, Next, Protocol, Result};

use super::Backoff;

/// Tries again until it works or the caller's time is over.
///
/// *Request and Close*: each try gets a copy of the call and at most [`Retry::each`] of time; between tries it pauses,
/// ever longer, from 200 ms to 800 ms: an outage that ends is noticed within a second. What cannot get better by asking
/// again (malformed, refused, unsupported) is returned at once. When the caller's time is over, the last failure says why
/// it never worked.
///
/// It stands first: around everything that makes one try.
#[derive(Debug, Clone)]
pub struct Retry {
    each: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { each: Duration::from_secs(15) }
    }
}

impl Retry {
    /// Gives each try this much time.
    #[must_use]
    pub fn each(mut self, timeout: Duration) -> Self {
        self.each = timeout;
        self
    }

    async fn run<P, F, Fut>(&self, call: Call<P>, one: F) -> Result<Call<P>>
    where
        P: Protocol,
        F: Fn(Call<P>) -> Fut + Send,
        Fut: Future<Output = Result<Call<P>>> + Send,
    {
        let mut pauses = Backoff::within_a_second(Duration::from_millis(200), P::key(call.body()));
        let mut last: Option<Error> = None;
        loop {
            let over = |why: Error, last: Option<Error>| match last {
                Some(error) => Error::new(why.code(), why.what().to_owned()).because(error),
                None => why,
            };
            if let Err(why) = call.patiently(pauses.wait()).await {
                return Err(over(why, last));
            }
            let mut attempt = call.clone();
            let deadline = tokio::time::Instant::now() + self.each;
            attempt.set_deadline(Some(call.deadline().map_or(deadline, |callers| callers.min(deadline))));
            match one(attempt).await {
                Ok(call) => return Ok(call),
                Err(error) if hopeless(error.code()) => return Err(error),
                Err(error) => {
                    tracing::debug!(what = P::WHAT, key = P::key(call.body()), %error, "failed, trying again");
                    // A try that was cut short by the caller's own deadline says less than the one before it.
                    let cut_short = error.code() == Code::DeadlineExceeded
                        && call.remaining().is_some_and(|remaining| remaining.is_zero());
                    if !cut_short || last.is_none() {
                        last = Some(error);
                    }
                }
            }
        }
    }
}

fn hopeless(code: Code) -> bool {
    matches!(code, Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

impl<P: Protocol> Element<P> for Retry {
    async fn request(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        self.run(call, |call| next.request(call)).await
    }

    async fn close(&self, call: Call<P>, next: Next<'_, P>) -> Result<Call<P>> {
        self.run(call, |call| next.close(call)).await
    }
}
