//! The threads on which all kernel work is done.
//!
//! A thread has to be *in* a namespace to make a socket or write a sysctl there. The runtime's threads are never
//! moved: threads of our own enter, work and return home. One handover costs some 8 µs where a thread made for
//! the purpose costs 50. Two lanes: quick work takes the processor and the kernel's one RTNL lock, so more
//! threads than processors gain nothing; removing a link waits some 20 ms for an RCU grace period without
//! either, and many can wait together (64 links: 1.3 s on 2 threads, 42 ms on 64).

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use tokio::sync::{Semaphore, oneshot};

use super::{Netns, NetnsId};
use crate::{Error, Result};

/// The worker thread a job runs on, and where it stands.
pub(crate) struct Here {
    home: Netns,
    at: NetnsId,
}

impl Here {
    fn at_home() -> Result<Self> {
        let home = Netns::current()?;
        Ok(Self { at: home.id(), home })
    }

    /// Moves this thread into `netns` until the job ends or enters another one.
    pub(crate) fn enter(&mut self, netns: &Netns) -> Result<()> {
        if self.at != netns.id() {
            setns(netns, CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::os(format!("enter network namespace {}", netns.id()), e.into()))?;
            self.at = netns.id();
        }
        Ok(())
    }

    /// Runs `f`, which moves this thread by itself, and returns to where the thread stood.
    pub(crate) fn detour<T>(&mut self, f: impl FnOnce() -> Result<T>) -> Result<T> {
        self.go_home()?;
        let result = f();
        // Whatever f did, the thread's place is unknown until it is home again.
        self.at = NetnsId { dev: 0, ino: 0 };
        self.go_home()?;
        result
    }

    fn go_home(&mut self) -> Result<()> {
        let home = self.home.clone();
        self.enter(&home)
    }
}

/// Which threads do a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Work of microseconds.
    Quick,
    /// Work that mostly waits: removing links, making namespaces.
    Slow,
}

type Job = Box<dyn FnOnce(&mut Here) + Send>;

struct Pool {
    state: Mutex<State>,
    submitted: Condvar,
    most_threads: usize,
    /// Bounds the jobs that wait, so that the queue is bounded too.
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

const WAITING_JOBS: usize = 1024;
const IDLE: Duration = Duration::from_secs(10);

static QUICK: LazyLock<Pool> =
    LazyLock::new(|| Pool::new(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)));
static SLOW: LazyLock<Pool> = LazyLock::new(|| Pool::new(64));

impl Lane {
    fn pool(self) -> &'static Pool {
        match self {
            Self::Quick => &QUICK,
            Self::Slow => &SLOW,
        }
    }
}

impl Pool {
    fn new(most_threads: usize) -> Self {
        let places = Arc::new(Semaphore::new(WAITING_JOBS));
        Self { state: Mutex::default(), submitted: Condvar::new(), most_threads, places }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, with one more thread if all are busy and there may be more.
    fn submit(&'static self, job: Job) {
        let mut state = self.state();
        state.queue.push_back(job);
        if state.idle >= state.queue.len() || state.threads >= self.most_threads {
            self.submitted.notify_one();
            return;
        }
        let thread = std::thread::Builder::new().name("nsm-kernel".to_owned());
        match thread.spawn(move || self.serve()) {
            Ok(_detached) => state.threads += 1,
            Err(error) => {
                tracing::error!(%error, "cannot start a thread for kernel work");
                if state.threads == 0 {
                    // Nobody would take them; dropped, they answer Error::Abandoned.
                    state.queue.clear();
                }
            }
        }
    }

    fn serve(&self) {
        let mut here = match Here::at_home() {
            Ok(here) => here,
            Err(error) => return self.thread_failed(&error),
        };
        while let Some(job) = self.next_job() {
            // A panicking job drops its reply channel: its caller gets Error::Abandoned.
            let _panicked = catch_unwind(AssertUnwindSafe(|| job(&mut here)));
            // An idle thread must not keep a workload's namespace alive.
            if let Err(error) = here.go_home() {
                return self.thread_failed(&error);
            }
        }
    }

    /// Waits for a job; `None` after a time without any: then the thread is no longer counted.
    fn next_job(&self) -> Option<Job> {
        let mut state = self.state();
        state.idle += 1;
        let (mut state, _timeout) = self
            .submitted
            .wait_timeout_while(state, IDLE, |state| state.queue.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        let job = state.queue.pop_front();
        if job.is_none() {
            state.threads -= 1;
        }
        job
    }

    fn thread_failed(&self, error: &Error) {
        tracing::error!(%error, "a thread for kernel work ends");
        let mut state = self.state();
        state.threads -= 1;
        if state.threads == 0 {
            // Nobody would take them; dropped, they answer Error::Abandoned.
            state.queue.clear();
        }
    }
}

fn abandoned(reason: &str) -> Error {
    Error::Abandoned { reason: reason.to_owned() }
}

/// Does `job` on a worker thread. Once begun it runs to its end, even if nobody waits any more.
pub(crate) async fn work<T, F>(lane: Lane, job: F) -> Result<T>
where
    F: FnOnce(&mut Here) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    work_or_undo(lane, job, |_, unwanted| drop(unwanted)).await
}

/// As [`work`]; if the caller has gone when the job is done, its result is handed to `undo`.
pub(crate) async fn work_or_undo<T, F, U>(lane: Lane, job: F, undo: U) -> Result<T>
where
    F: FnOnce(&mut Here) -> Result<T> + Send + 'static,
    U: FnOnce(&mut Here, T) + Send + 'static,
    T: Send + 'static,
{
    let pool = lane.pool();
    let place =
        Arc::clone(&pool.places).acquire_owned().await.map_err(|_| abandoned("the queue for kernel work is closed"))?;
    let (answer, reply) = oneshot::channel();
    pool.submit(Box::new(move |here| {
        let _place = place;
        if answer.is_closed() {
            return;
        }
        if let Err(Ok(unwanted)) = answer.send(job(here)) {
            undo(here, unwanted);
        }
    }));
    reply.await.unwrap_or_else(|_| Err(abandoned("its thread failed")))
}

/// As [`work`], for threads outside a runtime.
pub(crate) fn work_blocking<T, F>(job: F) -> Result<T>
where
    F: FnOnce(&mut Here) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let (answer, reply) = std::sync::mpsc::sync_channel(1);
    Lane::Quick.pool().submit(Box::new(move |here| {
        // The caller is blocked in recv() below, so somebody is there to take it.
        let _received = answer.send(job(here));
    }));
    reply.recv().unwrap_or_else(|_| Err(abandoned("its thread failed")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_panicking_job_is_an_error_and_its_thread_lives_on() {
        for _ in 0..64 {
            let error = work_blocking(|_| -> Result<()> { panic!("on purpose") }).unwrap_err();
            assert!(matches!(error, Error::Abandoned { .. }));
        }
        assert_eq!(work_blocking(|_| Ok(7)).unwrap(), 7);
    }

    #[tokio::test]
    async fn what_a_lost_caller_asked_for_is_undone() {
        let (go, gate) = channel::<()>();
        let (undone, seen) = channel();
        let mut job = Box::pin(work_or_undo(
            Lane::Quick,
            move |_| {
                gate.recv().ok();
                Ok("made")
            },
            move |_, made| undone.send(made).unwrap(),
        ));
        // The first poll submits the job; giving up comes while it works.
        tokio::select! { biased;
            _ = &mut job => unreachable!("the gate is closed"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        drop(job);
        go.send(()).unwrap();
        assert_eq!(seen.recv().unwrap(), "made");
    }
}
