//! A role's process, seen from outside.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{Failure, PATIENCE};

/// One process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    number: u32,
}

/// What a role has.
#[derive(Debug, Clone, Copy)]
pub struct Count {
    /// Its tasks.
    pub tasks: u64,
    /// Bytes of memory that are allocated and not freed, if its program [counts](crate::heap).
    pub heap: i64,
    /// Its connections.
    pub connections: usize,
}

impl Process {
    /// Starts this program again with these arguments, and waits until it says that it is ready.
    pub(super) async fn start(name: &str, arguments: &[OsString]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for us alone: we end the rest.
            .process_group(0)
            .spawn()?;
        let (Some(input), Some(output), Some(number)) = (child.stdin.take(), child.stdout.take(), child.id()) else {
            return Err(format!("{name} has no pipes").into());
        };
        let output = BufReader::new(output).lines();
        let mut process = Self { name: name.to_owned(), child, input, output, number };
        let said = process.says().await?;
        if said == "ready" { Ok(process) } else { Err(format!("{name} says: {said}").into()) }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Asks it for one thing, and waits for the answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn ask(&mut self, what: &str) -> Result<String, Failure> {
        self.input.write_all(format!("{what}\n").as_bytes()).await?;
        self.says().await
    }

    /// What it says it has.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn count(&mut self) -> Result<Count, Failure> {
        let said = self.ask("count").await?;
        let [tasks, heap, connections] = said.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{} says: {said}", self.name).into());
        };
        Ok(Count { tasks: tasks.parse()?, heap: heap.parse()?, connections: connections.parse()? })
    }

    async fn says(&mut self) -> Result<String, Failure> {
        let line = timeout(PATIENCE, self.output.next_line()).await;
        let line = line.map_err(|_| format!("{} says nothing", self.name))??;
        line.ok_or_else(|| format!("{} has ended", self.name).into())
    }

    /// Sends it a signal, such as SIGSTOP.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(kill(Pid::from_raw(self.number.cast_signed()), signal)?)
    }

    pub(super) async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    pub(super) async fn leave(mut self) -> Result<(), Failure> {
        self.input.write_all(b"leave\n").await?;
        let status = timeout(PATIENCE, self.child.wait()).await;
        let status = status.map_err(|_| format!("{} does not leave", self.name))??;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.name).into()) }
    }

    /// What the kernel says of its memory, in KiB: what is resident.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// When it has ended.
    pub fn descriptors(&self) -> Result<u64, Failure> {
        Ok(std::fs::read_dir(self.proc("fd"))?.count() as u64)
    }

    fn proc(&self, what: &str) -> PathBuf {
        format!("/proc/{}/{what}", self.number).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has been waited for has no number any more. A killed one ends at once: waiting is short.
        if let Some(number) = self.child.id().map(|number| Pid::from_raw(number.cast_signed())) {
            let _ended_by_itself = kill(number, Signal::SIGKILL);
            let _waited_for = waitpid(number, None);
        }
    }
}
