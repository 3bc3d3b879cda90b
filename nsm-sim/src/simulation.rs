use std::hash::RandomState;
use std::panic::resume_unwind;
use std::time::{Duration, SystemTime};

use nsm_chain::time;

use crate::random::{seed_this_thread, was_asked};

/// When every simulation begins: a Friday in 2026. Nothing depends on it but that it is always the same.
const BEGINNING: Duration = Duration::from_secs(1_767_312_000);

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
    /// As `body` does; and when there can be no thread or runtime, or the seed does not reach what is random.
    pub fn run<T: Send>(self, body: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(format!("seed {}", self.seed));
            let thread = thread.spawn_scoped(scope, || self.run_here(body));
            let thread = thread.unwrap_or_else(|error| panic!("no thread for a simulation: {error}"));
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn run_here<T>(self, body: impl Future<Output = T>) -> T {
        seed_this_thread(self.seed);
        // The first of this thread takes keys, which the order of all maps follows from.
        let _ = RandomState::new();
        assert!(was_asked(), "random bytes do not come from the seed: something else stands for getrandom");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap_or_else(|error| panic!("no runtime for a simulation: {error}"));
        runtime.block_on(async {
            time::set(SystemTime::UNIX_EPOCH + BEGINNING);
            body.await
        })
    }
}
