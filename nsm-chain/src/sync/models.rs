//! Shuttle in the place of tokio, with a clock, and what a model is written with.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::tokio::time::Instant;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
pub use shuttle::sync::{Mutex, MutexGuard};

/// As much of tokio as the subtle parts use.
pub mod tokio {
    pub use shuttle_tokio::{runtime, select, spawn, sync, task, task_local};

    pub mod time {
        pub use ::tokio::time::Instant;

        pub use super::super::{Elapsed, Sleep, sleep, sleep_until, timeout};
    }
}

/// Explores schedules of a model: most of them at random, some with few and rare changes of the thread that runs.
///
/// `NSM_MODEL_SCHEDULES` says how many (default 2000), `NSM_MODEL_SEED` which (default 1). A schedule that fails ends with shuttle's own
/// report; the same numbers find it again.
///
/// # Panics
/// When the model does, when somebody waits for ever, or when it does not come to an end.
pub fn explore<F: Future<Output = ()> + Send + 'static>(model: impl Fn() -> F + Send + Sync + 'static) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let schedules = number("NSM_MODEL_SCHEDULES").unwrap_or(2000_u64);
    let seed = number("NSM_MODEL_SEED").unwrap_or(1);
    let model = Arc::new(model);
    run(RandomScheduler::new_from_seed(seed, cast(schedules)), Arc::clone(&model));
    run(PctScheduler::new_from_seed(seed, 3, cast(schedules / 4)), model);
}

fn cast(schedules: u64) -> usize {
    usize::try_from(schedules).unwrap_or(usize::MAX)
}

fn run<F: Future<Output = ()> + Send + 'static>(
    scheduler: impl Scheduler + 'static,
    model: Arc<impl Fn() -> F + Send + Sync + 'static>,
) {
    let mut config = shuttle::Config::new();
    config.stack_size = 256 * 1024;
    config.max_steps = shuttle::MaxSteps::FailAfter(100_000);
    shuttle::Runner::new(scheduler, config).run(move || {
        // Tokio's own clock stands still and is moved by ours: instants are the same type everywhere.
        let clock = ::tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let clock = clock.unwrap_or_else(|error| panic!("no runtime for the clock: {error}"));
        let _entered = clock.enter();
        SLEEPERS.with(|sleepers| locked(sleepers).clear());
        drop(tokio::spawn(pass_time()));
        shuttle::future::block_on(model());
    });
}

type Sleepers = BTreeMap<(Instant, u64), Waker>;

std::thread_local! {
    /// Who waits for which instant. All threads of a model are one thread of the system.
    static SLEEPERS: Arc<StdMutex<Sleepers>> = Arc::default();
    static SOMEBODY: StdMutex<Option<Waker>> = const { StdMutex::new(None) };
}

fn locked<T>(mutex: &StdMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs several things beside each other, each in a thread of its own, to their end.
pub async fn beside<const N: usize>(work: [futures::future::BoxFuture<'static, ()>; N]) {
    for thread in work.map(tokio::spawn) {
        if let Err(error) = thread.await {
            panic!("{error}");
        }
    }
}

/// Moves the clock on to the next instant that somebody waits for, at any moment of the schedule: threads may be as slow as they like.
async fn pass_time() {
    loop {
        let next = std::future::poll_fn(|context| {
            let next = SLEEPERS.with(|sleepers| locked(sleepers).keys().next().map(|(at, _)| *at));
            if next.is_none() {
                SOMEBODY.with(|somebody| *locked(somebody) = Some(context.waker().clone()));
            }
            next.map_or(Poll::Pending, Poll::Ready)
        });
        let next = next.await;
        if ::tokio::runtime::Handle::try_current().is_err() {
            // The model is over, and its clock with it.
            return;
        }
        let ahead = next.saturating_duration_since(Instant::now());
        ::tokio::time::advance(ahead).await;
        let due: Vec<Waker> = SLEEPERS.with(|sleepers| {
            let mut sleepers = locked(sleepers);
            let later = sleepers.split_off(&(Instant::now(), u64::MAX));
            std::mem::replace(&mut *sleepers, later).into_values().collect()
        });
        due.into_iter().for_each(Waker::wake);
        tokio::task::yield_now().await;
    }
}

/// Waits until the model's clock has come there.
#[derive(Debug)]
pub struct Sleep {
    until: Instant,
    key: Option<u64>,
}

/// As tokio's.
#[must_use]
pub fn sleep_until(until: Instant) -> Sleep {
    Sleep { until, key: None }
}

/// As tokio's.
#[must_use]
pub fn sleep(time: Duration) -> Sleep {
    sleep_until(Instant::now() + time)
}

/// The time was over first.
#[derive(Debug)]
pub struct Elapsed;

/// As tokio's.
///
/// # Errors
/// [`Elapsed`].
pub async fn timeout<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    shuttle_tokio::select! {
        biased;
        done = work => Ok(done),
        () = sleep(time) => Err(Elapsed),
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.until {
            return Poll::Ready(());
        }
        SLEEPERS.with(|sleepers| {
            let mut sleepers = locked(sleepers);
            let free = sleepers.keys().map(|(_, key)| key + 1).max().unwrap_or_default();
            let key = *self.key.get_or_insert(free);
            sleepers.insert((self.until, key), context.waker().clone());
        });
        let clock = SOMEBODY.with(|somebody| locked(somebody).take());
        clock.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            SLEEPERS.with(|sleepers| locked(sleepers).remove(&(self.until, key)));
        }
    }
}
