//! The two programs that a role can be of.

use std::path::{Path, PathBuf};

use nsm_tests::reference::{self, Unavailable};

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

impl Programs {
    /// Builds theirs. The error says why it cannot be had, and whether that is a failure.
    pub(crate) fn build() -> Result<Self, Unavailable> {
        let ours = std::env::current_exe().map_err(|error| Unavailable::new(error.to_string()))?;
        let theirs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-go");
        reference::build(".", &theirs)?;
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
