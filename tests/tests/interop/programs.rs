//! The two programs that a role can be of.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whose role it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Theirs,
    Ours,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    theirs: PathBuf,
    ours: PathBuf,
}

/// Set (to anything but nothing) where a machine without Go must not pass.
const REQUIRED: &str = "NSM_INTEROP_REQUIRED";

impl Programs {
    /// Builds theirs. The error says why it cannot be had, and whether that is a failure.
    pub(crate) fn build() -> Result<Self, Unavailable> {
        let required = std::env::var_os(REQUIRED).is_some_and(|value| !value.is_empty());
        let unavailable = |reason| Unavailable { reason, required };
        let ours = std::env::current_exe().map_err(|error| unavailable(error.to_string()))?;
        let theirs = theirs().map_err(unavailable)?;
        Ok(Self { theirs, ours })
    }

    /// A role, to add arguments to.
    pub(crate) fn role(&self, side: Side, role: &str) -> tokio::process::Command {
        let mut command = match side {
            Side::Theirs => tokio::process::Command::new(&self.theirs),
            Side::Ours => {
                let mut command = tokio::process::Command::new(&self.ours);
                command.arg(crate::ours::COMMAND);
                command
            }
        };
        command.arg(role);
        command
    }
}

/// The reference cannot be run here.
#[derive(Debug)]
pub(crate) struct Unavailable {
    pub(crate) reason: String,
    pub(crate) required: bool,
}

fn theirs() -> Result<PathBuf, String> {
    let go = go().ok_or("there is no Go toolchain on the PATH or in /usr/local/go")?;
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-go");
    let built = Command::new(&go)
        .current_dir(&module)
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .output()
        .map_err(|error| format!("{} does not run: {error}", go.display()))?;
    if built.status.success() {
        return Ok(program);
    }
    let why = String::from_utf8_lossy(&built.stderr);
    Err(format!("the reference does not build: {}", why.trim().lines().last().unwrap_or("go says nothing")))
}

fn go() -> Option<PathBuf> {
    let runs = |go: &Path| Command::new(go).arg("version").output().is_ok_and(|output| output.status.success());
    [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")].into_iter().find(|go| runs(go))
}
