use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::kit::{NSM, Room, Run};

const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_runs_it_in_a_user_namespace() {
    let room = Room::new();
    for (arguments, hops) in [(&["--clients", "2"][..], 4), (&["--nodes", "2"], 6)] {
        let mut command = room.quickstart(arguments);
        command.arg("--json");
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                return println!("SKIPPED: an ordinary user may not start {NSM}: {error}");
            }
        };
        let Some(run) = Run::of(output) else { return };
        for client in run.assert_ok() {
            assert_eq!(client["path"].as_array().unwrap().len(), hops);
        }
    }
    room.assert_empty();
}

#[test]
fn without_privileges_and_without_user_namespaces_it_says_what_to_do() {
    // A user namespace in which neither kind of namespace may be made: its limits are its own.
    let script = "echo 0 >/proc/sys/user/max_user_namespaces && echo 0 >/proc/sys/user/max_net_namespaces && exec \"$0\" quickstart --json";
    let output = Command::new("unshare").args(["-U", "-r", "sh", "-c", script, NSM]).output();
    let output = match output {
        Ok(output) if !output.stdout.is_empty() => output,
        Ok(output) => return println!("SKIPPED: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return println!("SKIPPED: unshare(1) cannot be started: {error}"),
    };
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["error"]["hop"]), (Some(1), &"privileges".into()));
    let error = report["error"].to_string();
    assert!(error.contains("max_user_namespaces") && error.contains("as root"), "{error}");
}
