use std::hash::RandomState;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime};

use nsm_chain::time;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::random::{seed_this_thread, was_asked};

/// When every simulation begins: a Friday in 2026. Nothing depends on it but that it is always the same.
const BEGINNING: Duration = Duration::from_secs(1_767_312_000);

/// How long, by the clock on the wall, the simulated clock may stand still.
const STILL: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 10_000 });

/// One run of a program on one thread: its clock, all that is random in it, and so all that happens, follow from the
/// seed. The same seed gives the same run, whatever else this process does before or beside it.
///
/// The clock stands still while anything can be done, and then jumps to the next moment at which something happens:
/// hours pass in milliseconds.
///
/// ```
/// use nsm_sim::Simulation;
/// use std::time::Duration;
///
/// let run = || Simulation::new(7).run(async {
///     tokio::time::sleep(Duration::from_secs(3600)).await;
///     (nsm_chain::time::now(), uuid::Uuid::new_v4())
/// });
/// assert_eq!(run(), run());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    seed: u64,
}

impl Simulation {
    /// The run of that seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Runs `body` to its end, on a thread of its own. Tasks that it leaves behind are dropped.
    ///
    /// # Panics
    /// As `body` does; when the clock does not move on for ten seconds and more of computing, because something is due
    /// again and again and never done, or because all wait and nobody for a time; and when there can be no thread or
    /// runtime, or the seed does not reach what is random.
    pub fn run<T: Send>(self, body: impl Future<Output = T> + Send) -> T {
        let look = Notify::new();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(format!("seed {}", self.seed));
            let (runs, ended) = channel::<()>();
            let thread = thread.spawn_scoped(scope, || {
                let _runs = runs;
                self.run_here(body, &look)
            });
            let thread = thread.unwrap_or_else(|error| panic!("no thread for a simulation: {error}"));
            // A run that gets on is over before the first look: what it does never depends on the clock on the wall.
            while ended.recv_timeout(STILL) == Err(RecvTimeoutError::Timeout) {
                look.notify_one();
            }
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn run_here<T>(self, body: impl Future<Output = T>, look: &Notify) -> T {
        seed_this_thread(self.seed);
        // The first of this thread takes keys, which the order of all maps follows from.
        let _ = RandomState::new();
        assert!(was_asked(), "random bytes do not come from the seed: something else stands for getrandom");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for a simulation: {error}"));
        runtime.block_on(async {
            time::set(SystemTime::UNIX_EPOCH + BEGINNING);
            let begun = Instant::now();
            tokio::select! {
                biased;
                done = body => done,
                now = stands_still(look) => panic!(
                    "the simulated clock stands still at {:?}: something is due again and again and never done, or all \
                     wait and nobody for a time",
                    now - begun
                ),
            }
        })
    }
}

/// Returns when the clock is at two looks what it was.
async fn stands_still(look: &Notify) -> Instant {
    let mut last = None;
    loop {
        look.notified().await;
        let now = Instant::now();
        if last.replace(now) == Some(now) {
            return now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the simulated clock stands still at 7s")]
    fn what_is_due_again_and_again_and_never_done_ends_the_run() {
        Simulation::new(1).run(async {
            tokio::spawn(async {
                tokio::time::sleep(Duration::from_secs(7)).await;
                loop {
                    tokio::time::sleep_until(Instant::now()).await;
                }
            });
            tokio::time::sleep(Duration::from_secs(8)).await;
        });
    }

    #[test]
    #[should_panic(expected = "the simulated clock stands still at 0ns")]
    fn who_waits_for_nothing_ends_the_run() {
        Simulation::new(1).run(std::future::pending::<()>());
    }
}
