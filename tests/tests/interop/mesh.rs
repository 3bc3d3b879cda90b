//! One mesh of processes: who is whose, and over what.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::language::Event;
use crate::programs::{Programs, Side};
use crate::role::{Outcome, Role};

/// The roles, in the order of a mix's letters.
pub(crate) const ROLES: [&str; 5] = ["registry", "manager", "forwarder", "endpoint", "client"];

/// Whose each role is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix(pub(crate) [Side; 5]);

impl Mix {
    /// All of them: first all theirs, last all ours.
    pub(crate) fn all() -> Vec<Self> {
        let side = |bits: usize, at: usize| if bits >> (4 - at) & 1 == 0 { Side::Theirs } else { Side::Ours };
        (0..32).map(|bits| Self(std::array::from_fn(|at| side(bits, at)))).collect()
    }

    fn side(self, role: &str) -> Side {
        let at = ROLES.iter().position(|one| *one == role);
        at.and_then(|at| self.0.get(at)).copied().unwrap_or(Side::Ours)
    }
}

impl fmt::Display for Mix {
    /// `ttoto`: registry and manager theirs, forwarder ours, and so on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|side| f.write_str(if *side == Side::Theirs { "t" } else { "o" }))
    }
}

/// How the roles of a mesh talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Over unix sockets, without TLS; sockets and namespaces of others are passed by descriptor.
    Unix,
}

impl Link {
    pub(crate) const ALL: [Self; 1] = [Self::Unix];
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unix => "unix",
        })
    }
}

/// The service that endpoints serve.
pub(crate) const SERVICE: &str = "interop";

/// A mesh of one node.
#[derive(Debug)]
pub(crate) struct Mesh {
    mix: Mix,
    programs: Programs,
    /// Sockets and logs; removed with the mesh, unless kept.
    directory: PathBuf,
    roles: Vec<(String, Role)>,
}

impl Mesh {
    /// One without roles. `number` tells it from others that run at the same time.
    pub(crate) fn new(programs: &Programs, mix: Mix, number: usize) -> io::Result<Self> {
        let id = std::process::id();
        let directory = std::env::temp_dir().join(format!("nsm-interop-{id}-{number}"));
        fs::create_dir(&directory)?;
        Ok(Self { mix, programs: programs.clone(), directory, roles: Vec::new() })
    }

    /// The directory with the logs, which is not removed then.
    pub(crate) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.directory)
    }

    fn url(&self, name: &str) -> String {
        format!("unix://{}/{name}.sock", self.directory.display())
    }

    /// Starts a role, or starts it again. It is ready then.
    pub(crate) async fn start(&mut self, role: &str, name: &str) -> Outcome<Arc<Event>> {
        let mut command = self.programs.role(self.mix.side(role), role);
        command.args(["--name", name, "--listen", &self.url(name)]);
        match role {
            "registry" => {}
            "manager" => _ = command.args(["--upstream", &self.url("registry")]),
            _ => _ = command.args(["--upstream", &self.url("manager")]),
        }
        if role == "endpoint" {
            let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            command.args(["--service", SERVICE, "--prefix", &format!("172.16.{number}.0/24")]);
        }
        // Expiry headers with another offset than ours.
        command.env("TZ", "Asia/Kolkata");
        let log = self.directory.join(format!("{name}.log"));
        let (running, ready) = Role::start(command, name, &log).await?;
        self.roles.push((name.to_owned(), running));
        Ok(ready)
    }

    /// The role of this name.
    pub(crate) fn role(&self, name: &str) -> Outcome<&Role> {
        let found = self.roles.iter().find(|(of, _)| of == name);
        found.map(|(_, role)| role).ok_or_else(|| format!("{name} does not run"))
    }

    /// Kills the role of this name, as a crash would.
    pub(crate) async fn kill(&mut self, name: &str) -> Outcome {
        let at = self.roles.iter().position(|(of, _)| of == name).ok_or_else(|| format!("{name} does not run"))?;
        self.roles.swap_remove(at).1.kill().await;
        Ok(())
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.roles.clear();
        if self.directory != Path::new("") {
            // Left behind it is only a few files in the directory for such.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
