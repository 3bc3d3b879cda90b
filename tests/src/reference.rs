//! The programs of the Go module in `tests/interop`, and the rule for machines that have no Go.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set (to anything but nothing) where a machine without Go must not pass.
const REQUIRED: &str = "NSM_INTEROP_REQUIRED";

/// The reference cannot be run here.
#[derive(Debug)]
pub struct Unavailable {
    /// Why.
    pub reason: String,
    /// Whether that is a failure (`NSM_INTEROP_REQUIRED` is set), or a test is to be skipped.
    pub required: bool,
}

impl Unavailable {
    /// For this reason.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        let required = std::env::var_os(REQUIRED).is_some_and(|value| !value.is_empty());
        Self { reason: reason.into(), required }
    }
}

/// Builds a package of the module into `program`. Go is found on the `PATH` or in `/usr/local/go`.
///
/// # Errors
/// [`Unavailable`], when there is no Go, or the package does not build.
pub fn build(package: &str, program: &Path) -> Result<(), Unavailable> {
    let go = go().ok_or_else(|| Unavailable::new("there is no Go toolchain on the PATH or in /usr/local/go"))?;
    let built = Command::new(&go)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop"))
        .args(["build", "-trimpath", "-o"])
        .arg(program)
        .arg(package)
        .output()
        .map_err(|error| Unavailable::new(format!("{} does not run: {error}", go.display())))?;
    if built.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&built.stderr);
    let why = why.trim().lines().last().unwrap_or("go says nothing");
    Err(Unavailable::new(format!("the reference does not build: {why}")))
}

fn go() -> Option<PathBuf> {
    let runs = |go: &Path| Command::new(go).arg("version").output().is_ok_and(|output| output.status.success());
    [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")].into_iter().find(|go| runs(go))
}
