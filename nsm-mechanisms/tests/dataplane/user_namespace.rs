use std::os::unix::process::CommandExt;
use std::process::Command;

use nsm_kernel::{blocked, in_user_namespace, privileges};

const NOBODY: u32 = 65_534;

/// Runs all tests of this program once more as root of a user namespace of an unprivileged user.
#[test]
fn everything_works_in_a_user_namespace_too() {
    let here = privileges();
    if here.in_user_namespace {
        // Everything is being tested in one right now.
        return;
    }
    let mut again = Command::new("/proc/self/exe");
    again.args(std::env::args_os().skip(1));
    if here.net_admin {
        again.uid(NOBODY).gid(NOBODY);
    }
    in_user_namespace(&mut again);
    match again.output() {
        Ok(output) => {
            let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "in a user namespace:\n{said}\n{complained}");
            assert!(!complained.contains("skipped"), "no privileges there:\n{complained}");
        }
        Err(error) => eprintln!("skipped: {}", blocked(error)),
    }
}
