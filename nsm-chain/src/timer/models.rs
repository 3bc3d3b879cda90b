use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::sync::models::{beside, explore};
use crate::sync::tokio;

/// What a timer is to do.
#[derive(Clone, Default)]
struct Shot {
    fired: Arc<Notify>,
    dropped: Arc<AtomicBool>,
}

impl Shot {
    fn arm(&self, timers: &Timers, at: Instant) -> Timer {
        let shot = self.clone();
        timers.at(at, move || {
            assert!(Instant::now() >= at, "fired before its time");
            assert!(!shot.dropped.load(Ordering::SeqCst), "fired after it was dropped");
            shot.fired.notify_one();
        })
    }

    /// Drops it. What was dropped before its time must not fire; at its time it may just have begun in another thread.
    fn cancel(&self, timer: Timer) {
        let at = timer.key.0;
        drop(timer);
        self.dropped.store(Instant::now() < at, Ordering::SeqCst);
    }
}

fn after(ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ms)
}

/// Arms one, and waits for it, while another one that would be first or last is armed and dropped.
fn one_beside_a_dropped_one(timers: Timers, kept: u64, dropped: u64) -> futures::future::BoxFuture<'static, ()> {
    async move {
        let (stays, goes) = (Shot::default(), Shot::default());
        let gone = goes.arm(&timers, after(dropped));
        let armed = stays.arm(&timers, after(kept));
        tokio::task::yield_now().await;
        goes.cancel(gone);
        stays.fired.notified().await;
        drop(armed);
    }
    .boxed()
}

#[test]
fn an_armed_timer_fires_and_a_dropped_one_does_not() {
    explore(|| async {
        let timers = Timers::default();
        beside([
            one_beside_a_dropped_one(timers.clone(), 20, 10),
            one_beside_a_dropped_one(timers.clone(), 10, 30),
            one_beside_a_dropped_one(timers.clone(), 1, 10),
        ])
        .await;
        assert_eq!(timers.armed(), 0);
    });
}

#[test]
fn a_job_that_drops_another_timer_of_its_instant_is_obeyed() {
    explore(|| async {
        let timers = Timers::default();
        let at = after(10);
        let (first, second) = (Arc::new(Notify::new()), Shot::default());
        let victim: Arc<Mutex<Option<Timer>>> = Arc::default();
        let _first = timers.at(at, {
            let (second, victim, first) = (second.clone(), Arc::clone(&victim), Arc::clone(&first));
            move || {
                // It may be armed too late for this.
                if let Some(timer) = victim.lock().unwrap().take() {
                    drop(timer);
                    second.dropped.store(true, Ordering::SeqCst);
                }
                first.notify_one();
            }
        });
        *victim.lock().unwrap() = Some(second.arm(&timers, at));
        first.notified().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
}

#[test]
fn with_no_timer_no_task_is_left() {
    explore(|| async {
        let timers = Timers::default();
        beside([1, 2].map(|ms| {
            let timers = timers.clone();
            async move { drop(timers.at(after(ms), || ())) }.boxed()
        }))
        .await;
        let queue = Arc::downgrade(&timers.0);
        drop(timers);
        // Its task ends by itself; one that stays makes this go on for ever, which is noticed.
        while queue.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    });
}
