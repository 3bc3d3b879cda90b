//! Wall-clock time that follows tokio's clock.
//!
//! Tokens and registrations expire at wall-clock times, timers run on tokio's clock. Reading both through one source
//! keeps them together when a test pauses or advances the clock.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

static START: LazyLock<(SystemTime, Instant)> = LazyLock::new(|| {
    #[allow(clippy::disallowed_types, reason = "the one place where both clocks are read side by side")]
    let instant = Instant::from_std(std::time::Instant::now());
    (SystemTime::now(), instant)
});

/// The wall-clock time now, as tokio's clock has it: a paused clock stands still here too.
#[must_use]
pub fn now() -> SystemTime {
    at(Instant::now())
}

/// The wall-clock time of an instant.
#[must_use]
pub fn at(instant: Instant) -> SystemTime {
    let (wall, start) = *START;
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
}
