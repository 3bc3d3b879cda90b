//! The task that follows an agent: connects, listens, and says what stands in the way.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use nsm_chain::time;
use nsm_sdk::identity::IdentityError;
use nsm_sdk::lifetime::Backoff;
use spiffe::{WorkloadApiClient, WorkloadApiError, X509Context};
use tokio::time::{Instant, sleep_until, timeout};

use crate::material;
use crate::source::{Options, Shared};
use crate::state::Obstacle;

pub(crate) async fn follow(shared: Arc<Shared>) {
    let mut report = Report { shared: &shared, said: Instant::now() };
    let Options { first_pause, longest_pause, .. } = shared.options;
    let fresh = || Backoff::of(first_pause, longest_pause, &shared.state.borrow().endpoint);
    let mut pauses = fresh();
    loop {
        pauses.wait().await;
        let (heard, obstacle) = listen(&shared, &mut report).await;
        report.obstacle(obstacle);
        if heard {
            pauses = fresh();
            // An agent that answers and breaks off each time is not to be asked without a pause.
            pauses.pause();
        }
    }
}

/// Follows one stream to its end. Tells whether the agent had anything to say on it, and why it ended.
async fn listen(shared: &Shared, report: &mut Report<'_>) -> (bool, Obstacle) {
    let patience = shared.options.patience;
    let client = match timeout(patience, WorkloadApiClient::connect(shared.endpoint.clone())).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return (false, obstacle(&error)),
        Err(_) => return (false, Obstacle::Silent),
    };
    let opened = {
        let mut opening = pin!(client.stream_x509_contexts());
        match timeout(patience, &mut opening).await {
            Ok(opened) => opened,
            Err(_) => {
                report.obstacle(Obstacle::Silent);
                opening.await
            }
        }
    };
    match opened {
        Ok(stream) => take(shared, report, stream).await,
        Err(error) => (false, obstacle(&error)),
    }
}

async fn take(
    shared: &Shared,
    report: &mut Report<'_>,
    stream: impl Stream<Item = Result<X509Context, WorkloadApiError>>,
) -> (bool, Obstacle) {
    let mut stream = pin!(stream);
    let mut heard = false;
    let mut due = Instant::now() + shared.options.patience;
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = sleep_until(due) => {
                if heard {
                    // The agent is late. On a stream that is dead without our knowing it we would wait for ever.
                    return (heard, Obstacle::NotRenewed);
                }
                report.obstacle(Obstacle::Silent);
                due = time::instant(time::now() + FOREVER);
                continue;
            }
        };
        match message {
            Some(Ok(context)) => {
                heard = true;
                match material::read(&context, shared.options.hint.as_deref()) {
                    Ok((svid, bundles)) => {
                        shared.set(svid, bundles);
                        report.following();
                    }
                    Err(error) => report.obstacle(Obstacle::Unusable(error)),
                }
            }
            // The stream goes on after a message that does not parse: asking again would bring the same one.
            Some(Err(error)) if !is_end(&error) => {
                heard = true;
                report.obstacle(Obstacle::Unusable(IdentityError::Malformed { reason: error.to_string() }));
            }
            Some(Err(error)) => return (heard, obstacle(&error)),
            None => return (heard, Obstacle::Lost),
        }
        due = renewal_due(shared);
    }
}

/// When a new certificate should have come: agents renew at half of the lifetime, we ask again shortly before its end.
fn renewal_due(shared: &Shared) -> Instant {
    let left = shared.latest().map_or(FOREVER, |svid| time::until(svid.not_after()));
    Instant::now() + left.mul_f64(0.9).max(LEAST_DUE)
}

/// Whether it is the stream that failed, and not a message on it.
fn is_end(error: &WorkloadApiError) -> bool {
    matches!(
        error,
        WorkloadApiError::Transport(_) | WorkloadApiError::NoIdentityIssued | WorkloadApiError::PermissionDenied(_)
    )
}

fn obstacle(error: &WorkloadApiError) -> Obstacle {
    match error {
        WorkloadApiError::NoIdentityIssued => Obstacle::NoIdentity { said: error.to_string() },
        WorkloadApiError::PermissionDenied(said) => Obstacle::NoIdentity { said: said.clone() },
        _ => match io_kind(error) {
            Some(io::ErrorKind::NotFound) => Obstacle::NoSuchFile,
            Some(io::ErrorKind::ConnectionRefused) => Obstacle::Refused,
            Some(io::ErrorKind::PermissionDenied) => Obstacle::AccessDenied,
            Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
                Obstacle::Lost
            }
            _ => Obstacle::Failed { reason: innermost(error) },
        },
    }
}

/// An error and what is behind it, one after the other.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    causes(error).find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// The layers around it say "transport error" and the like.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// Keeps the state, and logs it: once at each change, and again from time to time.
struct Report<'a> {
    shared: &'a Shared,
    said: Instant,
}

impl Report<'_> {
    fn following(&mut self) {
        if self.set(None) {
            tracing::info!("{}", *self.shared.state.borrow());
        }
    }

    fn obstacle(&mut self, obstacle: Obstacle) {
        let changed = self.set(Some(obstacle));
        if changed || self.said.elapsed() >= self.shared.options.remind_every {
            self.said = Instant::now();
            let state = self.shared.state.borrow();
            match self.shared.latest() {
                Some(svid) => tracing::warn!(certificate_ends_in = ?time::until(svid.not_after()), "{}", *state),
                None => tracing::warn!("no identity yet: {}", *state),
            }
        }
    }

    fn set(&self, obstacle: Option<Obstacle>) -> bool {
        self.shared.state.send_if_modified(|state| {
            let changed = state.obstacle != obstacle;
            state.obstacle = obstacle;
            changed
        })
    }
}

const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// An agent that does not renew is not asked more often than this.
const LEAST_DUE: Duration = Duration::from_secs(2);
