use std::os::unix::process::CommandExt;

use crate::kit::{NSM, Room, TWO_NODES};

const NOBODY: u32 = 65_534;

/// The same command for an ordinary user.
pub(crate) fn ordinary(mut command: std::process::Command) -> std::process::Command {
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

#[tokio::test]
async fn an_ordinary_user_has_a_lab_in_a_user_namespace() {
    let room = Room::new(TWO_NODES);
    if let Err(error) = ordinary(room.nsm("graph", &["--help"])).stdout(std::process::Stdio::null()).status() {
        return println!("SKIPPED: an ordinary user may not start {NSM}: {error}");
    }
    let Some(lab) = room.start(ordinary(room.of_file("up", &[]))).await else { return };
    assert!(lab.story().contains("in a user namespace") && lab.story().contains("6 of 6"), "{}", lab.story());
    let exec = ["web", "--", "cat", "/proc/self/net/dev"];
    let output = ordinary(room.nsm("exec", &exec)).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("nsm-2:"), "{output:?}");
    let down = ordinary(room.of_file("down", &[])).output().unwrap();
    assert!(down.status.success(), "{down:?}; the lab said: {}", lab.story());
    lab.end_by_itself().await;
}
