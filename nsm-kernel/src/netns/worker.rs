//! The threads on which all kernel work is done.
//!
//! A thread has to be *in* a namespace to make a socket or write a sysctl there. The runtime's threads are never
//! moved: a few threads of our own enter, work and return home. One handover costs some microseconds where a
//! thread made for the purpose costs fifty. Kernel work is synchronous and takes the kernel's one RTNL lock
//! anyway, so more threads than processors gain nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
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
        Ok(Self {
            at: home.id(),
            home,
        })
    }

    /// Moves this thread into `netns` until the job ends or enters another one.
    pub(crate) fn enter(&mut self, netns: &Netns) -> Result<()> {
        if self.at != netns.id() {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(|e| {
                Error::os(format!("enter network namespace {}", netns.id()), e.into())
            })?;
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

type Job = Box<dyn FnOnce(&mut Here) + Send>;

struct Pool {
    jobs: Mutex<Sender<Job>>,
    /// Bounds the jobs that wait, so that the queue is bounded too.
    places: Arc<Semaphore>,
}

const WAITING_JOBS: usize = 1024;

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let (jobs, queue) = channel::<Job>();
    let queue = Arc::new(Mutex::new(queue));
    let threads = std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(2, 8);
    for n in 0..threads {
        let queue = Arc::clone(&queue);
        let name = format!("nsm-kernel-{n}");
        // If not even one thread can be had, every job is answered with Error::Abandoned.
        if let Err(error) = std::thread::Builder::new()
            .name(name)
            .spawn(move || serve(&queue))
        {
            tracing::error!(%error, "cannot start a thread for kernel work");
        }
    }
    Pool {
        jobs: Mutex::new(jobs),
        places: Arc::new(Semaphore::new(WAITING_JOBS)),
    }
});

fn serve(queue: &Mutex<Receiver<Job>>) {
    let Ok(mut here) = Here::at_home() else {
        tracing::error!("cannot open this process's own network namespace: is /proc mounted?");
        return;
    };
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panicking job drops its reply channel: its caller gets Error::Abandoned, the thread lives on.
        let _panicked = catch_unwind(AssertUnwindSafe(|| job(&mut here)));
        // An idle thread must not keep a workload's namespace alive.
        if let Err(error) = here.go_home() {
            tracing::error!(%error, "a thread for kernel work cannot return home and ends");
            return;
        }
    }
}

fn submit(job: Job) -> Result<()> {
    POOL.jobs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(job)
        .map_err(|_| abandoned("no thread for kernel work is running"))
}

fn abandoned(reason: &str) -> Error {
    Error::Abandoned {
        reason: reason.to_owned(),
    }
}

/// Does `job` on a worker thread. Once begun it runs to its end, even if nobody waits any more.
pub(crate) async fn work<T, F>(job: F) -> Result<T>
where
    F: FnOnce(&mut Here) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    work_or_undo(job, |_, unwanted| drop(unwanted)).await
}

/// As [`work`]; if the caller has gone when the job is done, its result is handed to `undo`.
pub(crate) async fn work_or_undo<T, F, U>(job: F, undo: U) -> Result<T>
where
    F: FnOnce(&mut Here) -> Result<T> + Send + 'static,
    U: FnOnce(&mut Here, T) + Send + 'static,
    T: Send + 'static,
{
    let place = Arc::clone(&POOL.places)
        .acquire_owned()
        .await
        .map_err(|_| abandoned("the queue for kernel work is closed"))?;
    let (answer, reply) = oneshot::channel();
    submit(Box::new(move |here| {
        let _place = place;
        if answer.is_closed() {
            return;
        }
        if let Err(Ok(unwanted)) = answer.send(job(here)) {
            undo(here, unwanted);
        }
    }))?;
    reply
        .await
        .unwrap_or_else(|_| Err(abandoned("the job panicked")))
}

/// As [`work`], for threads outside a runtime.
pub(crate) fn work_blocking<T, F>(job: F) -> Result<T>
where
    F: FnOnce(&mut Here) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let (answer, reply) = std::sync::mpsc::sync_channel(1);
    submit(Box::new(move |here| {
        // The caller is blocked in recv() below, so somebody is there to take it.
        let _received = answer.send(job(here));
    }))?;
    reply
        .recv()
        .unwrap_or_else(|_| Err(abandoned("the job panicked")))
}

#[cfg(test)]
mod tests {
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
            move |_| {
                gate.recv().ok();
                Ok("made")
            },
            move |_, made| undone.send(made).unwrap(),
        ));
        // The first poll submits the job; giving up comes while it works.
        tokio::select! { biased;
            _ = &mut job => unreachable!("the gate is closed"),
            () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
        }
        drop(job);
        go.send(()).unwrap();
        assert_eq!(seen.recv().unwrap(), "made");
    }
}
