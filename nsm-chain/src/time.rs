//! Wall-clock time that follows tokio's clock.
//!
//! Tokens and registrations expire at wall-clock times, timers run on tokio's clock. Reading both through one source
//! keeps them together when a test pauses or advances the clock.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// One moment on both clocks.
type Start = (SystemTime, Instant);

static START: LazyLock<Start> = LazyLock::new(|| {
    #[allow(clippy::disallowed_types, reason = "the one place where both clocks are read side by side")]
    let instant = Instant::from_std(std::time::Instant::now());
    (SystemTime::now(), instant)
});

thread_local! {
    /// What this thread was told the time is, instead.
    static TOLD: Cell<Option<Start>> = const { Cell::new(None) };
}

/// Sets the wall clock of this thread to `wall`, from now on: a simulation that runs on one thread sees the same times
/// whenever it is run. Other threads are not concerned.
pub fn set(wall: SystemTime) {
    TOLD.set(Some((wall, Instant::now())));
}

/// The wall-clock time now, as tokio's clock has it: a paused clock stands still here too.
#[must_use]
pub fn now() -> SystemTime {
    at(Instant::now())
}

/// The wall-clock time of an instant.
#[must_use]
pub fn at(instant: Instant) -> SystemTime {
    let (wall, start) = TOLD.get().unwrap_or_else(|| *START);
    match instant.checked_duration_since(start) {
        Some(since) => wall.checked_add(since).unwrap_or(wall),
        None => wall.checked_sub(start.saturating_duration_since(instant)).unwrap_or(wall),
    }
}

/// How long from now until a wall-clock time; zero if it is past.
#[must_use]
pub fn until(time: SystemTime) -> Duration {
    time.duration_since(now()).unwrap_or_default()
}

/// The instant of a wall-clock time; now, if it is past, and never further away than a century.
#[must_use]
pub fn instant(time: SystemTime) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + until(time).min(CENTURY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_clock_advances_with_a_paused_clock() {
        let before = now();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(now().duration_since(before).unwrap(), Duration::from_secs(60));
        assert_eq!(until(before), Duration::ZERO);
        assert_eq!(instant(now() + Duration::from_secs(5)), Instant::now() + Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_may_live_at_another_time() {
        let before = now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        set(wall);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(now(), wall + Duration::from_secs(60));
        let elsewhere = std::thread::spawn(now).join().unwrap();
        assert!(elsewhere >= before, "another thread's clock is the machine's");
    }
}
