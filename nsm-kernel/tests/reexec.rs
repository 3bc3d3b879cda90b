//! A program that starts itself again in a user namespace, as `nsm quickstart` does for ordinary users.
//!
//! Without the test harness: it must happen before any thread is started.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{os::unix::process::CommandExt, process::Command};

use nsm_kernel::{Error, privileges, reexec_in_user_namespace};

const NOBODY: u32 = 65_534;

fn main() {
    let found = privileges();
    if found.in_user_namespace {
        // Started again: root here, with the same arguments.
        assert!(found.net_admin, "{:?}", found.obstacle);
        assert!(nix::unistd::geteuid().is_root());
        println!("started again with {:?}", std::env::args().skip(1).collect::<Vec<_>>());
        return;
    }
    if !std::env::args().any(|argument| argument == "the-argument") {
        return parent();
    }
    match reexec_in_user_namespace() {
        Err(error @ Error::UserNamespaceBlocked { .. }) => println!("SKIPPED: {error}"),
        other => panic!("{other:?}"),
    }
}

/// Starts this program as an unprivileged user.
fn parent() {
    let mut child = Command::new("/proc/self/exe");
    child.arg("the-argument");
    if nix::unistd::geteuid().is_root() {
        child.uid(NOBODY).gid(NOBODY);
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    let skipped = said.contains("SKIPPED");
    assert!(skipped || said.contains("started again with [\"the-argument\"]"), "{said}");
}
