//! `nsm exec`.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::mesh::did_you_mean;
use super::{DIRECTORY, which};
use crate::failure::Failure;

/// Run a command in the network namespace of a pod, an endpoint or a node of a lab that is up.
///
/// Everything but the network is that of the caller: files, processes, the user; but where endpoints name DNS servers, the
/// command reads the resolv.conf of that namespace. It takes the place of this process.
#[derive(Debug, clap::Args)]
#[command(after_long_help = format!("\
Examples:
  nsm exec web -- ping -c 3 172.16.1.0
  nsm exec node-1 -- ip -d link
  nsm exec web                                a shell

Exit codes: those of the command; 1 if it could not be started.

{DIRECTORY}"))]
pub(crate) struct Options {
    /// A pod, an endpoint or a node.
    #[arg(value_name = "WORKLOAD")]
    workload: String,

    /// The command and its arguments (default: $SHELL, or sh).
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,

    /// The name of the lab (default: the only lab that is up).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// Runs it; returns only if that fails.
pub(crate) fn main(options: &Options) -> ExitCode {
    let Err(failure) = entered(options);
    // Standard output is the command's.
    eprintln!("nsm exec {failure}");
    ExitCode::FAILURE
}

fn entered(options: &Options) -> Result<std::convert::Infallible, Failure> {
    let view = which(None, options.name.as_deref())?.view()?;
    let name = &options.workload;
    let path = view.netns(name).ok_or_else(|| {
        let names: Vec<&str> = view.names().collect();
        let cause = format!("lab {} has no {name:?}; it has {}", view.lab, names.join(", "));
        let remedy = did_you_mean(name, names).unwrap_or_else(|| "choose one of them".to_owned());
        Failure::at("lab", cause, remedy)
    })?;
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        let cause = format!("the network namespace of {name} cannot be {what}: {error}");
        Failure::at(name, cause, "run it as the user who brought the lab up")
    };
    // Of an ordinary user's lab the namespace belongs to a user namespace, and can be entered only from there.
    let process = view.process.unwrap_or_default();
    let user = File::open(format!("/proc/{process}/ns/user")).map_err(|error| failed("opened", &error))?;
    if is_another(&user) {
        setns(user, CloneFlags::CLONE_NEWUSER).map_err(|error| failed("entered", &error))?;
    }
    let netns = File::open(path).map_err(|error| failed("opened", &error))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| failed("entered", &error))?;
    if let Some(file) = view.resolv_conf(name).filter(|file| file.exists()) {
        read_its_names(file).map_err(|error| failed("given its resolv.conf", &error))?;
    }
    let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "sh".into());
    let mut words = options.command.iter().cloned();
    let program = words.next().unwrap_or_else(shell);
    let error = Command::new(&program).args(words).exec();
    Err(Failure::at(name, format!("{} cannot be started: {error}", program.display()), "give the path of a program"))
}

/// Puts this resolv.conf in the place of the machine's, for this process and what it starts, as `ip netns exec` does it.
fn read_its_names(file: &Path) -> std::io::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing of this is seen outside.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    Ok(mount(Some(file), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)?)
}

/// Whether it is a user namespace that we are not in: into our own there is no way (setns(2)).
fn is_another(user: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |facts: std::io::Result<std::fs::Metadata>| facts.map(|facts| facts.ino()).ok();
    inode(user.metadata()) != inode(std::fs::metadata("/proc/self/ns/user"))
}
