use std::{os::unix::process::CommandExt, process::Command};

use nsm_kernel::{blocked, in_user_namespace};

use crate::common::{in_a_user_namespace, skipped};

const NOBODY: u32 = 65_534;

/// Runs all tests of this program once more as root of a user namespace of an unprivileged user.
#[test]
fn everything_works_in_a_user_namespace_too() {
    if in_a_user_namespace() {
        // Everything is being tested in one right now.
        return;
    }
    let mut again = Command::new("/proc/self/exe");
    // What the user asked of this run (filters, --nocapture) holds for the other as well.
    again.args(std::env::args_os().skip(1));
    if nix::unistd::geteuid().is_root() {
        again.uid(NOBODY).gid(NOBODY);
    }
    in_user_namespace(&mut again);
    match again.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let complained = String::from_utf8_lossy(&output.stderr);
            println!("in a user namespace:\n{said}\n{complained}");
            assert!(output.status.success(), "in a user namespace:\n{said}\n{complained}");
            assert!(!complained.contains("not permitted"), "no privileges there:\n{complained}");
        }
        Err(error) => skipped(&blocked(error)),
    }
}
