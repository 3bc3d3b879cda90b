//! Programs that run, and what they say.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kernel::Netns;
use tokio::time::{Instant, sleep};

/// The program under test.
pub(crate) const NSM: &str = env!("CARGO_BIN_EXE_nsm");
/// How long anything may take, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for one test: sockets, logs, files. Removed at the end.
pub(crate) struct Room(PathBuf);

impl Room {
    pub(crate) fn new() -> Self {
        Self(nix::unistd::mkdtemp("/tmp/nsmroles-XXXXXX").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The URL of a socket in it.
    pub(crate) fn socket(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.0.display())
    }

    /// `nsm <role>` with no settings but these, in this namespace or in that of the test.
    pub(crate) fn nsm(&self, role: &str, netns: Option<&Netns>, settings: &[(&str, &str)]) -> Command {
        let mut command = match netns {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.path().display())).arg(NSM);
                command
            }
            None => Command::new(NSM),
        };
        command.arg(role).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("XDG_RUNTIME_DIR", &self.0).envs(settings.iter().copied());
        command
    }

    /// Starts it under this name.
    pub(crate) fn start(&self, name: &str, mut command: Command) -> Program {
        let path = self.path(&format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        // What it says in this life.
        let from = std::fs::read_to_string(&path).unwrap().len();
        Program { name: name.to_owned(), child, log: path, from }
    }

    /// Sockets that are there.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that runs; killed when dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    from: usize,
}

impl Program {
    /// All it has said.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.get(self.from..).unwrap_or_default().to_owned()
    }

    /// Waits until it has said this.
    pub(crate) async fn says(&mut self, what: &str) -> String {
        self.says_times(what, 1).await
    }

    /// Waits until it has said this so often.
    pub(crate) async fn says_times(&mut self, what: &str, times: usize) -> String {
        let begun = Instant::now();
        loop {
            let said = self.said();
            if said.matches(what).count() >= times {
                return said;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended with {ended:?} before it said {what:?}:\n{said}", self.name);
            assert!(begun.elapsed() < PATIENCE, "{} did not say {what:?} {times} times:\n{said}", self.name);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Device and inode numbers of what it has open.
    pub(crate) fn descriptors(&self) -> Vec<(u64, u64)> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        open.filter_map(|entry| std::fs::metadata(entry.path()).ok()).map(|file| (file.dev(), file.ino())).collect()
    }

    /// How many processes it watches (pidfds, as `/proc` shows them).
    pub(crate) fn watched_processes(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("pidfd")).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its exit code, and what it has said.
    pub(crate) async fn ends(mut self) -> (Option<i32>, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code().or(status.signal().map(|signal| -signal)), self.said());
            }
            assert!(begun.elapsed() < PATIENCE, "{} does not end:\n{}", self.name, self.said());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Is told to end, and leaves nothing unsaid.
    pub(crate) async fn stop(self) {
        self.signal(Signal::SIGTERM);
        let name = self.name.clone();
        let (code, said) = self.ends().await;
        assert_eq!(code, Some(0), "{name}:\n{said}");
    }

    /// As a crash would end it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- {}\n{}", self.name, self.said());
        }
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether network namespaces may be made and entered here; if not, that is printed.
pub(crate) fn may_make_namespaces() -> bool {
    let obstacle = nsm_kernel::privileges().obstacle;
    let nsenter = Command::new("nsenter").arg("--version").output();
    if let Some(error) = &obstacle {
        println!("SKIPPED: {error}");
    } else if let Err(error) = &nsenter {
        println!("SKIPPED: nsenter(1) cannot be started: {error}");
    }
    obstacle.is_none() && nsenter.is_ok()
}

/// A file with this text.
pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
