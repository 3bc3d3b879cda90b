//! Who keeps a network namespace alive, and when nobody does any more.
//!
//! A namespace lives as long as a process is in it, a name is mounted on it, or somebody holds a descriptor of it. We
//! hold descriptors ourselves, so that it ends the kernel cannot tell us. So one process that keeps it is watched by a
//! descriptor of the process (`pidfd_open(2)`), all mounted names by the mount table (`/proc/self/mountinfo`), both of
//! which wake us; nothing is asked again and again. When the last process in a namespace has ended and no name is left,
//! descriptors of other processes are looked for (a supervisor's, say). Those that only name it (`O_PATH`) do not count:
//! so it is passed on from hop to hop, by managers that would keep it until a token ends.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{Interest, unix::AsyncFd};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::{
    Error, NetnsId, Result,
    netns::{Lane, processes, work},
    wakes::watched,
};

/// Watches whether namespaces still belong to anybody but us.
///
/// A namespace in which no process and on which no name was ever seen is not judged: somebody may hold it in a way that
/// cannot be seen from here.
#[derive(Debug)]
pub struct Holders {
    /// Readable when a watched process has ended.
    ended: AsyncFd<Ended>,
    /// The mount table. Not in the epoll set of the processes: asking whether that is readable would take the news away.
    mounts: AsyncFd<File>,
    watched: Mutex<HashMap<NetnsId, Holder>>,
    /// To be looked at first.
    added: Mutex<HashSet<NetnsId>>,
    something_added: Notify,
    /// When all processes were looked at last.
    looked: Mutex<Option<Instant>>,
    mounts_changed: AtomicBool,
}

#[derive(Debug)]
struct Ended(Epoll);

impl AsFd for Ended {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl AsRawFd for Ended {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// What keeps a namespace.
#[derive(Debug)]
enum Holder {
    /// A name of it is mounted.
    Name,
    /// A process is in it. Its descriptor leaves the epoll set when it is closed.
    Process { pid: u64, _fd: OwnedFd },
}

const WAKES: usize = 64;
const TOGETHER: Duration = Duration::from_millis(100);

impl Holders {
    /// Begins to watch; nothing yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::Kernel`] without `/proc`, or out of descriptors.
    pub fn new() -> Result<Self> {
        let failed = |e: io::Error| Error::os("watch processes and mounts", e);
        let ended = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| failed(e.into()))?;
        let mounts = File::open("/proc/self/mountinfo").map_err(failed)?;
        Ok(Self {
            ended: watched(Ended(ended), Interest::READABLE).map_err(failed)?,
            mounts: watched(mounts, Interest::PRIORITY).map_err(failed)?,
            watched: Mutex::default(),
            added: Mutex::default(),
            something_added: Notify::new(),
            looked: Mutex::default(),
            mounts_changed: AtomicBool::new(false),
        })
    }

    /// Watches this namespace from now on.
    pub fn add(&self, netns: NetnsId) {
        if !lock(&self.watched).contains_key(&netns) && lock(&self.added).insert(netns) {
            self.something_added.notify_one();
        }
    }

    /// Watches no longer what is not to be kept.
    pub fn retain(&self, keep: impl Fn(NetnsId) -> bool) {
        lock(&self.added).retain(|id| keep(*id));
        lock(&self.watched).retain(|id, _| keep(*id));
    }

    /// How many namespaces are watched.
    pub fn watched(&self) -> usize {
        lock(&self.watched).len()
    }

    /// Waits until namespaces belong to nobody any more, and says which; each once. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// [`Error::Kernel`] if they can be watched no longer.
    pub async fn next(&self) -> Result<Vec<NetnsId>> {
        let failed = |e: io::Error| Error::os("wait for processes and mounts", e);
        loop {
            let mut doubtful: HashSet<NetnsId> = lock(&self.added).clone();
            let ended = self.ended().map_err(failed)?;
            let mounts = self.mounts_changed.load(Ordering::Acquire);
            doubtful.extend(lock(&self.watched).iter().filter_map(|(id, holder)| match holder {
                Holder::Name => mounts.then_some(*id),
                Holder::Process { pid, .. } => ended.contains(pid).then_some(*id),
            }));
            if !doubtful.is_empty() {
                // Somebody has seen these.
                let left = lock(&self.watched).keys().filter(|id| doubtful.contains(id)).copied().collect();
                *lock(&self.looked) = Some(Instant::now());
                let asked = doubtful.clone();
                let found = work(Lane::Slow, move |_| Ok(holders_of(&asked, &left))).await?;
                self.mounts_changed.fetch_and(!mounts, Ordering::AcqRel);
                let gone = self.settle(&doubtful, found).map_err(failed)?;
                if !gone.is_empty() {
                    return Ok(gone);
                }
                continue;
            }
            self.mounts_changed.fetch_and(!mounts, Ordering::AcqRel);
            tokio::select! {
                // The first at once, for its workload may end in a moment; where many come, one look at all processes
                // serves all that came meanwhile.
                () = self.something_added.notified() => {
                    let next = lock(&self.looked).map_or_else(Instant::now, |at| at + TOGETHER);
                    sleep_until(next).await;
                }
                ready = self.ended.readable() => ready.map_err(failed)?.clear_ready(),
                ready = self.mounts.ready(Interest::PRIORITY) => {
                    ready.map_err(failed)?.clear_ready();
                    self.mounts_changed.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Numbers of the watched processes that have ended: reported again until they are no longer watched.
    fn ended(&self) -> io::Result<HashSet<u64>> {
        let mut events = [EpollEvent::empty(); WAKES];
        let count = self.ended.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
        Ok(events.iter().take(count).map(EpollEvent::data).collect())
    }

    /// Takes note of who holds what was doubtful; says what nobody holds any more.
    fn settle(&self, doubtful: &HashSet<NetnsId>, found: HashMap<NetnsId, Holder>) -> io::Result<Vec<NetnsId>> {
        let mut found = found;
        let mut gone = Vec::new();
        let (mut added, mut watched) = (lock(&self.added), lock(&self.watched));
        for id in doubtful {
            added.remove(id);
            let Some(holder) = found.remove(id) else {
                // One in which nobody was ever seen is not judged.
                gone.extend(watched.remove(id).map(|_| *id));
                continue;
            };
            if let Holder::Process { pid, _fd: fd } = &holder {
                self.ended.get_ref().0.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, *pid))?;
            }
            watched.insert(*id, holder);
        }
        Ok(gone)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who holds these namespaces, as far as can be seen. A name rather than a process: it costs no descriptor. Descriptors
/// of other processes are looked for where the last holder has just left.
fn holders_of(wanted: &HashSet<NetnsId>, left: &HashSet<NetnsId>) -> HashMap<NetnsId, Holder> {
    let names = mounted();
    let mut found: HashMap<_, _> =
        wanted.iter().filter(|id| names.contains(&id.ino)).map(|id| (*id, Holder::Name)).collect();
    keepers(wanted, &mut found, |pid| NetnsId::of_process(pid).into_iter().collect());
    keepers(left, &mut found, descriptors_of);
    found
}

/// Adds those processes that keep, by this account, what nobody is known to keep.
fn keepers(wanted: &HashSet<NetnsId>, found: &mut HashMap<NetnsId, Holder>, kept: impl Fn(i32) -> HashSet<NetnsId>) {
    if wanted.iter().all(|id| found.contains_key(id)) {
        return;
    }
    for pid in processes() {
        for id in kept(pid) {
            if !wanted.contains(&id) || found.contains_key(&id) {
                continue;
            }
            let opened = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // The number may have gone to another process in between.
            if let Some(fd) = opened.filter(|_| kept(pid).contains(&id)) {
                found.insert(id, Holder::Process { pid: u64::from(pid.unsigned_abs()), _fd: fd });
            }
        }
    }
}

/// What another process holds by descriptors that do more than name it.
fn descriptors_of(pid: i32) -> HashSet<NetnsId> {
    if pid.unsigned_abs() == std::process::id() {
        return HashSet::new();
    }
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let held = entries.filter_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        if !link.to_str()?.starts_with("net:[") {
            return None;
        }
        let id = NetnsId::at(entry.path())?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_str()?)).ok()?;
        (!only_names(&info)).then_some(id)
    });
    held.collect()
}

/// `flags: 012100000` (proc_pid_fdinfo(5)): in octal, as open(2) was given them.
fn only_names(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & libc::O_PATH != 0)
}

/// Inode numbers of the network namespaces that have a name in our mount namespace.
fn mounted() -> HashSet<u64> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(name_of).collect()
}

/// `36 35 0:4 net:[4026532281] /run/netns/blue rw - nsfs nsfs rw` (proc_pid_mountinfo(5)).
fn name_of(line: &str) -> Option<u64> {
    line.split(' ').nth(3)?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_only_names_is_known_by_its_flags() {
        assert!(only_names("pos:\t0\nflags:\t012000000\nmnt_id:\t4\n"));
        assert!(!only_names("pos:\t0\nflags:\t02100000\nmnt_id:\t4\n"));
        assert!(!only_names("") && !only_names("flags:\tx"));
    }

    #[test]
    fn names_are_found_in_the_mount_table() {
        assert_eq!(
            name_of("36 35 0:4 net:[4026532281] /run/netns/blue rw shared:5 - nsfs nsfs rw"),
            Some(4_026_532_281)
        );
        for other in
            ["36 35 0:4 mnt:[4026532281] /x rw - nsfs nsfs rw", "24 1 8:1 / / rw - ext4 /dev/sda rw", "", "a b c net:["]
        {
            assert_eq!(name_of(other), None, "{other}");
        }
    }
}
